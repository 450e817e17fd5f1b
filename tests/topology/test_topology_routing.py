"""The generic shortest-path router, against structured ones and by itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import TopologyError
from distsim.topology.graph import Topology
from distsim.topology.routing import ShortestPath, components, pack, ragged
from distsim.topology.spec import build


def generic(topology: Topology, ties: str = "lowest", host_forwarding: bool = True) -> ShortestPath:
    return ShortestPath(
        topology.node_names,
        topology.hosts,
        topology.link_src,
        topology.link_dst,
        ties=ties,  # type: ignore[arg-type]
        host_forwarding=host_forwarding,
    )


def all_pairs(topology: Topology) -> tuple[np.ndarray, np.ndarray]:
    everyone = np.arange(topology.hosts, dtype=np.int32)
    return np.repeat(everyone, topology.hosts), np.tile(everyone, topology.hosts)


@pytest.mark.parametrize(
    "spec",
    ["ring:hosts=9", "torus:dims=4x3x2", "fat_tree:k=4", "fat_tree:tiers=2,k=8", "rail_optimized:nodes=3", "switch:hosts=5"],
)
@pytest.mark.parametrize("ties", ["lowest", "spread"])
def test_agrees_with_structured_routers_on_lengths(spec: str, ties: str) -> None:
    topology = build(spec)
    src, dst = all_pairs(topology)
    router = generic(topology, ties)
    offsets, links = router(src, dst)
    assert np.array_equal(np.diff(offsets), topology.hops(src, dst))
    assert np.array_equal(router.hops(src, dst), topology.hops(src, dst))
    for row in range(len(src)):
        route = links[offsets[row] : offsets[row + 1]]
        stops = [src[row], *topology.link_dst[route]]
        assert topology.link_src[route].tolist() == stops[:-1]
        assert stops[-1] == dst[row]


def test_lowest_takes_the_lowest_link_and_spread_uses_them_all() -> None:
    tree = build("fat_tree:tiers=2,k=8")
    src, dst = all_pairs(tree)
    spine = tree.link_domain == tree.domains.index("spine")
    lowest = np.bincount(generic(tree, "lowest")(src, dst)[1], minlength=tree.links)[spine]
    spread = np.bincount(generic(tree, "spread")(src, dst)[1], minlength=tree.links)[spine]
    assert (lowest > 0).sum() == 2 * 8  # the first spine only: up and down of eight leaves
    assert (spread > 0).mean() > 0.8


def test_hosts_that_do_not_forward_cut_a_ring() -> None:
    ring = build("ring:hosts=5")
    router = generic(ring, host_forwarding=False)
    assert router.hops(np.array([0], np.int32), np.array([1], np.int32)).tolist() == [1]
    with pytest.raises(TopologyError, match="gpu0 -> gpu2"):
        router(np.array([0], np.int32), np.array([2], np.int32))


def test_unreachable_pairs_are_named() -> None:
    two = ShortestPath(("a", "b", "c"), 3, np.array([0, 1], np.int32), np.array([1, 0], np.int32))
    with pytest.raises(TopologyError, match=r"no path for 1 of 2 pairs: a -> c"):
        two(np.array([0, 0], np.int32), np.array([1, 2], np.int32))


@settings(max_examples=40, deadline=None)
@given(nodes=st.integers(2, 12), data=st.data())
def test_random_graphs_get_shortest_connected_routes(nodes: int, data: st.DataObject) -> None:
    import networkx

    tree = [(data.draw(st.integers(0, node - 1)), node) for node in range(1, nodes)]
    more = data.draw(st.lists(st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1)), max_size=8))
    cables = tree + [pair for pair in more if pair[0] != pair[1]]
    src = np.array([end for pair in cables for end in pair], np.int32)
    dst = np.array([end for pair in cables for end in pair[::-1]], np.int32)
    router = ShortestPath(
        [str(node) for node in range(nodes)], nodes, src, dst, ties=data.draw(st.sampled_from(["lowest", "spread"]))
    )
    want = dict(networkx.all_pairs_shortest_path_length(networkx.Graph(cables)))
    one = np.repeat(np.arange(nodes, dtype=np.int32), nodes)
    other = np.tile(np.arange(nodes, dtype=np.int32), nodes)
    offsets, links = router(one, other)
    for row in range(len(one)):
        route = links[offsets[row] : offsets[row + 1]]
        stops = [one[row], *dst[route]]
        assert len(route) == want[one[row]][other[row]]
        assert src[route].tolist() == stops[:-1]
        assert stops[-1] == other[row]


def test_batches_do_not_change_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    from distsim.topology import routing

    topology = build("torus:dims=4x4")
    src, dst = all_pairs(topology)
    whole = generic(topology)(src, dst)
    monkeypatch.setattr(routing, "_BATCH_CELLS", 40)
    monkeypatch.setattr(routing, "_KEPT_CELLS", 100)
    for a, b in zip(whole, generic(topology)(src, dst), strict=True):
        assert np.array_equal(a, b)


def test_helpers() -> None:
    offsets, links = pack([np.array([4, -1]), np.array([5, 7])])
    assert offsets.tolist() == [0, 2, 3]
    assert links.tolist() == [4, 5, 7]
    row, step = ragged(np.array([2, 0, 1]))
    assert row.tolist() == [0, 0, 2]
    assert step.tolist() == [0, 1, 0]
    assert components(5, np.array([0, 3]), np.array([1, 4])).tolist() == [0, 0, 2, 3, 3]


def test_no_pairs_no_paths() -> None:
    nobody = np.array([], np.int32)
    for spec in ("ring", "fat_tree", "dragonfly", "rail_optimized"):
        offsets, links = build(spec, 8).paths(nobody, nobody)
        assert offsets.tolist() == [0]
        assert len(links) == 0


@pytest.mark.parametrize("wrong", [-1, 8, 36])
def test_a_number_that_is_no_host_is_refused(wrong: int) -> None:
    ring = build("fat_tree:k=4,pods=2")
    with pytest.raises(TopologyError, match=f"no host {wrong}"):
        ring.paths(np.array([0]), np.array([wrong]))
    with pytest.raises(TopologyError, match=f"no host {wrong}"):
        ring.hops(np.array([wrong]), np.array([0]))
