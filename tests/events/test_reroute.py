"""Routes around what is dead."""

import numpy as np
import pytest
from events_network import link, route, spine_of, with_links
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import PartitionError
from distsim.topology.reroute import altered
from distsim.topology.spec import build


def test_only_routes_over_the_dead_link_change(diamond):
    dead = spine_of(diamond, 0, 2)
    changed = with_links(diamond, {dead: 0}, avoid=(dead,))
    src, dst = (column.ravel().astype(np.int32) for column in np.meshgrid(np.arange(4), np.arange(4), indexing="ij"))
    for one, other in zip(src.tolist(), dst.tolist(), strict=True):
        before, after = route(diamond, one, other), route(changed, one, other)
        cable = {dead.replace("-", "->"), "->".join(reversed(dead.split("-")))}
        if cable & set(before):
            assert len(after) == 4
            assert not cable & set(after)
        else:
            assert after == before


def test_a_cut_pair_is_named_in_the_words_of_the_caller(diamond):
    cables = {"leaf0-spine0": 0.0, "leaf0-spine1": 0.0}
    avoid = np.zeros(diamond.links, bool)
    for cable in cables:
        avoid[[link(diamond, cable.replace("-", "->")), link(diamond, "->".join(reversed(cable.split("-"))))]] = True
    cut = altered(
        diamond, np.where(avoid, 0, diamond.link_bandwidth), diamond.link_latency, avoid,
        who=lambda hosts: f"R{hosts}", why="at noon",
    )  # fmt: skip
    assert route(cut, 0, 1) == route(diamond, 0, 1)
    with pytest.raises(PartitionError, match=r"at noon: R\[1\] cannot reach R\[3\] .*: R\[0, 1\] .* cut off from R\[2, 3\]"):
        route(cut, 1, 3)
    assert PartitionError.exit_code == 1


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_paths_around_random_failures_are_paths(data):
    topology = build(data.draw(st.sampled_from(["torus:dims=3x3", "fat_tree:k=4", "dragonfly:p=1,a=2,h=1,groups=3"])))
    dead = data.draw(st.sets(st.integers(0, topology.links // 2 - 1), max_size=4))
    avoid = np.isin(np.arange(topology.links) // 2, sorted(dead))
    changed = altered(topology, np.where(avoid, 0, topology.link_bandwidth), topology.link_latency, avoid)
    for src in range(topology.hosts):
        for dst in range(0, topology.hosts, 3):
            try:
                _, ids = changed.paths(np.array([src], np.int32), np.array([dst], np.int32))
            except PartitionError:
                assert dst not in _reached(topology, avoid, src)  # a search of its own says so, too
                continue
            assert not avoid[ids].any()
            nodes = [src, *topology.link_dst[ids].tolist()]
            assert nodes[-1] == dst
            assert topology.link_src[ids].tolist() == nodes[:-1]


def _reached(topology, avoid, src):
    """Nodes that a host reaches over links that live; hosts carry nothing for others unless cables join hosts."""
    direct = bool(((topology.link_src < topology.hosts) & (topology.link_dst < topology.hosts)).any())
    seen, todo = {src}, [src]
    while todo:
        node = todo.pop()
        if node < topology.hosts and node != src and not direct:
            continue
        for number in np.flatnonzero((topology.link_src == node) & ~avoid).tolist():
            other = int(topology.link_dst[number])
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return seen


def test_hosts_carry_others_only_where_they_did_before():
    ring = build("ring:hosts=4")
    dead = np.isin(np.arange(ring.links), [0, 1])
    changed = altered(ring, np.where(dead, 0, ring.link_bandwidth), ring.link_latency, dead)
    one, other = int(ring.link_src[0]), int(ring.link_dst[0])
    assert len(changed.paths(np.array([one], np.int32), np.array([other], np.int32))[1]) == 3
