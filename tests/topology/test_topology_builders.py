"""Closed forms of sizes, numbering and wiring, and the contract for every builder."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import TopologyError
from distsim.registry import names
from distsim.topology.check import check_topology
from distsim.topology.graph import Topology
from distsim.topology.spec import build

#: a second global hop is never taken, though it can save local ones (see the builder)
COSTS = {"dragonfly": {"global": 3}}

SIZES = {
    # spec: hosts, switches, cables
    "ring:hosts=1": (1, 0, 0),
    "ring:hosts=2": (2, 0, 1),
    "ring:hosts=9": (9, 0, 9),
    "fully_connected:hosts=7": (7, 0, 21),
    "switch:hosts=1": (1, 0, 0),
    "switch:hosts=6": (6, 1, 6),
    "fat_tree:k=2": (2, 5, 6),
    "fat_tree:k=4": (16, 20, 48),
    "fat_tree:k=8": (128, 80, 384),
    "fat_tree:k=8,pods=3": (48, 40, 144),
    "fat_tree:k=4,oversubscription=3": (48, 20, 80),
    "fat_tree:k=8,tiers=2": (32, 12, 64),
    "fat_tree:k=8,tiers=2,pods=3,hosts_per_leaf=5": (15, 7, 27),
    "torus:dims=4x4x4": (64, 0, 192),
    "torus:dims=2x3": (6, 0, 9),
    "torus:dims=2x2x2": (8, 0, 12),
    "torus:dims=1x5x1": (5, 0, 5),
    "torus:dims=3x3x3x3": (81, 0, 324),
    "dragonfly:p=2,a=4,h=2": (72, 36, 72 + 9 * 6 + 36),
    "dragonfly:p=2,a=4,h=2,groups=3": (24, 12, 24 + 3 * 6 + 3 * 4),
    "dragonfly:p=1,a=1,h=3": (4, 4, 4 + 6),
    "dragonfly:p=3,a=2,h=1,groups=1": (6, 2, 6 + 1),
    "rail_optimized:nodes=4": (32, 4 + 8 + 4, 64 + 32),
    "rail_optimized:nodes=5,gpus_per_node=3,spines=2": (15, 5 + 3 + 2, 30 + 6),
    "rail_optimized:nodes=5,gpus_per_node=3,spines=0,cross_rail=pxn": (15, 8, 30),
    "rail_optimized:nodes=4,gpus_per_node=1": (4, 4 + 1 + 4, 8 + 4),
    "nd:dims=ring4+switch3+fully_connected3": (36, 12, 36 + 36 + 36),
    "nd:dims=switch4+switch4": (16, 8, 32),
    "nd:dims=ring2+ring3+switch1": (6, 0, 9),
}


@pytest.mark.parametrize("spec", SIZES)
def test_sizes(spec: str) -> None:
    topology = build(spec)
    assert (topology.hosts, topology.nodes - topology.hosts, topology.links // 2) == SIZES[spec]


@pytest.mark.parametrize("spec", [*SIZES, *names("topology"), "torus:dims=16x8x8", "fat_tree:k=16", "dragonfly:p=4"])
def test_contract(spec: str) -> None:
    topology = build(spec)
    check_topology(topology, domain_cost=COSTS.get(topology.name))


@st.composite
def specs(draw: st.DrawFn) -> str:
    """Any small network of any builder."""
    small = st.integers(1, 5)
    kind = draw(st.sampled_from(["nd", "torus", "fat_tree", "dragonfly", "rail_optimized"]))
    if kind == "nd":
        dims = draw(st.lists(st.tuples(st.sampled_from(["ring", "switch", "fully_connected"]), small), min_size=1, max_size=3))
        return "nd:dims=" + "+".join(f"{name}{size}" for name, size in dims)
    if kind == "torus":
        return "torus:dims=" + "x".join(map(str, draw(st.lists(small, min_size=1, max_size=4))))
    if kind == "fat_tree":
        k = 2 * draw(st.integers(1, 3))
        tiers, pods, per_leaf = draw(st.integers(2, 3)), draw(st.integers(1, k)), draw(small)
        return f"fat_tree:k={k},tiers={tiers},pods={pods},hosts_per_leaf={per_leaf}"
    if kind == "dragonfly":
        p, a, h = draw(small), draw(small), draw(small)
        return f"dragonfly:p={p},a={a},h={h},groups={draw(st.integers(1, min(7, a * h + 1)))}"
    pxn = draw(st.booleans())
    spines = draw(st.integers(0 if pxn else 1, 4))
    return (
        f"rail_optimized:nodes={draw(small)},gpus_per_node={draw(small)},spines={spines},cross_rail={'pxn' if pxn else 'spine'}"
    )


@settings(max_examples=120, deadline=None)
@given(spec=specs())
def test_contract_of_any_small_network(spec: str) -> None:
    topology = build(spec)
    check_topology(topology, domain_cost=COSTS.get(topology.name))


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4), data=st.data())
def test_dimension_0_varies_fastest(sizes: list[int], data: st.DataObject) -> None:
    kinds = [data.draw(st.sampled_from(["ring", "switch", "fully_connected"])) for _ in sizes]
    topology = build("nd:dims=" + "+".join(f"{kind}{size}" for kind, size in zip(kinds, sizes, strict=True)))
    assert [d.size for d in topology.dimensions] == sizes
    src, dst = (np.array([data.draw(st.integers(0, topology.hosts - 1))], np.int32) for _ in range(2))
    steps = []
    for kind, here, there, size in zip(
        kinds, np.unravel_index(src, sizes[::-1])[::-1], np.unravel_index(dst, sizes[::-1])[::-1], sizes, strict=True
    ):
        apart = int(abs(here[0] - there[0]))
        steps.append({"ring": min(apart, size - apart), "switch": 2 * (apart > 0), "fully_connected": int(apart > 0)}[kind])
    assert topology.hops(src, dst)[0] == sum(steps)


def nodes_of(topology: Topology, start: int, end: int) -> list[str]:
    """Names of the nodes that a route visits."""
    links = topology.paths(np.array([start], np.int32), np.array([end], np.int32))[1]
    return [topology.node_names[start], *(topology.node_names[node] for node in topology.link_dst[links])]


def test_ring_ties_go_clockwise() -> None:
    ring = build("ring:hosts=6")
    assert nodes_of(ring, 4, 1) == ["gpu4", "gpu5", "gpu0", "gpu1"]
    assert nodes_of(ring, 1, 5) == ["gpu1", "gpu0", "gpu5"]


def test_torus_goes_dimension_by_dimension() -> None:
    torus = build("torus:dims=4x4")
    assert nodes_of(torus, 0, 11) == ["gpu0", "gpu3", "gpu7", "gpu11"]


def test_fat_tree_up_ports_are_chosen_by_the_destination() -> None:
    tree = build("fat_tree:k=8")
    # 124 mod 4 = 0, 124 div 4 mod 4 = 3; the same spine whoever sends (SimGrid reference ft8_perm_dmodk)
    assert nodes_of(tree, 0, 124) == ["gpu0", "leaf0", "agg0.0", "core3", "agg7.0", "leaf31", "gpu124"]
    assert nodes_of(tree, 77, 124)[3] == "core3"
    assert nodes_of(tree, 4, 9) == ["gpu4", "leaf1", "agg0.1", "leaf2", "gpu9"]


@pytest.mark.parametrize("spec", ["fat_tree:k=4", "fat_tree:k=8", "fat_tree:tiers=2,k=8"])
def test_shift_permutations_meet_no_contention_on_a_fat_tree(spec: str) -> None:
    tree = build(spec)
    hosts = np.arange(tree.hosts, dtype=np.int32)
    for shift in range(1, tree.hosts):
        links = tree.paths(hosts, (hosts + shift) % tree.hosts)[1]
        assert np.bincount(links).max() == 1


def test_oversubscription_by_hosts_or_by_slower_uplinks() -> None:
    by_hosts = build("fat_tree:k=8,oversubscription=4")
    assert by_hosts.hosts == 4 * 128
    by_speed = build("fat_tree:k=8,oversubscription=4,hosts_per_leaf=4")
    assert by_speed.hosts == 128
    assert set(by_speed.link_bandwidth[by_speed.link_domain > 0]) == {12.5e9}
    derived = build("fat_tree:k=8,uplink_bandwidth=12.5GB/s")
    assert "oversubscription=4" in derived.spec


def test_dragonfly_takes_at_most_one_global_hop_and_the_right_gate() -> None:
    fly = build("dragonfly:p=2,a=4,h=2")
    # as in SimGrid reference dragonfly_9x4x2_perm
    assert nodes_of(fly, 0, 45) == ["gpu0", "router0.0", "router5.0", "router5.2", "gpu45"]
    assert nodes_of(fly, 2, 71) == ["gpu2", "router0.1", "router0.3", "router8.0", "router8.3", "gpu71"]
    everyone = np.arange(72, dtype=np.int32)
    offsets, links = fly.paths(np.repeat(everyone, 72), np.tile(everyone, 72))
    globals_before = np.concatenate([[0], np.cumsum(fly.link_domain[links] == fly.domains.index("global"))])
    assert np.diff(globals_before[offsets]).max() == 1


def test_dragonfly_with_few_groups_shares_its_parallel_cables() -> None:
    fly = build("dragonfly:p=2,a=4,h=2,groups=2")
    everyone = np.arange(8, dtype=np.int32)
    links = fly.paths(np.repeat(everyone, 8), np.tile(everyone + 8, 8))[1]
    use = np.bincount(links, minlength=fly.links)[fly.link_domain == fly.domains.index("global")]
    assert use[0::2].min() > 0
    assert use[1::2].max() == 0


def test_rails() -> None:
    rails = build("rail_optimized:nodes=4")
    assert nodes_of(rails, 0, 3) == ["gpu0", "nvswitch0", "gpu3"]
    assert nodes_of(rails, 1, 17) == ["gpu1", "rail1", "gpu17"]
    assert nodes_of(rails, 1, 18) == ["gpu1", "rail1", "spine2", "rail2", "gpu18"]
    pxn = build("rail_optimized:nodes=4,cross_rail=pxn,spines=0")
    assert nodes_of(pxn, 1, 18) == ["gpu1", "nvswitch0", "gpu2", "rail2", "gpu18"]
    assert nodes_of(pxn, 1, 17) == ["gpu1", "rail1", "gpu17"]


def test_bandwidths_per_dimension() -> None:
    network = build("nd:dims=ring4+switch8,bandwidth=300GBps+50GBps,latency=100ns+1us")
    assert set(network.link_bandwidth[network.link_domain == 0]) == {300e9}
    assert set(network.link_bandwidth[network.link_domain == 1]) == {50e9}
    assert set(network.link_latency[network.link_domain == 1]) == {1_000_000}
    assert [d.kind for d in network.dimensions] == ["ring", "switch"]


@pytest.mark.parametrize("name", ["ring", "switch", "fully_connected", "torus", "nd"])
def test_compositions_carry_their_dimensions(name: str) -> None:
    assert build(name, 8).dimensions


def test_the_contract_check_finds_a_wrong_router() -> None:
    import dataclasses

    good, other = build("ring:hosts=6"), build("ring:hosts=8")
    with pytest.raises(TopologyError, match=r"ends at|torn|costs"):
        check_topology(dataclasses.replace(good, router=other.router))
    with pytest.raises(TopologyError, match="not positive"):
        check_topology(dataclasses.replace(good, link_bandwidth=good.link_bandwidth * 0))
    with pytest.raises(TopologyError, match=r"no cable|itself"):
        check_topology(dataclasses.replace(good, link_dst=np.roll(good.link_dst, 2)))


@pytest.mark.parametrize("spec", [*names("topology"), "two_racks.yaml"])
def test_topologies_can_be_sent_to_other_processes(spec: str) -> None:
    import pickle

    topology = build(spec, 16)
    again = pickle.loads(pickle.dumps(topology))
    src, dst = np.arange(8, dtype=np.int32), np.arange(15, 7, -1, dtype=np.int32)
    assert np.array_equal(again.paths(src, dst)[1], topology.paths(src, dst)[1])
