"""Routing policies: every route is one, lanes are what they promise, and traffic is spread as the policy says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import ConfigError, TopologyError, UnknownNameError
from distsim.registry import names
from distsim.topology.equal_cost import EqualCost
from distsim.topology.graph import Topology
from distsim.topology.routed import routed
from distsim.topology.spec import build

GRAPHS = [
    "ring:hosts=6", "torus:dims=4x3", "fat_tree:k=4", "fat_tree:tiers=2,k=8,oversubscription=2", "rail_optimized:nodes=3",
    "rail_optimized:nodes=3,spines=0,cross_rail=pxn", "dragonfly:p=2", "switch:hosts=5", "nd:dims=ring3+switch4",
]  # fmt: skip
POLICIES = [
    "static", "shortest", "shortest:ties=lowest", "ecmp", "ecmp:per=qp,qps=3", "spray", "spray:paths=3", "adaptive",
    "adaptive:paths=2,detours=2", "valiant", "valiant:paths=3,seed=4",
]  # fmt: skip


def all_pairs(topology: Topology) -> tuple[np.ndarray, np.ndarray]:
    everyone = np.arange(topology.hosts, dtype=np.int32)
    return np.repeat(everyone, topology.hosts), np.tile(everyone, topology.hosts)


def routes(topology: Topology, src: np.ndarray, dst: np.ndarray, lane: int = 0) -> list[list[int]]:
    offsets, links = topology.paths(src, dst, np.full(len(src), lane, np.int32))
    return [links[offsets[row] : offsets[row + 1]].tolist() for row in range(len(src))]


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_lane_of_every_pair_is_a_route(graph: str, policy: str) -> None:
    plain = build(graph)
    topology = routed(policy, plain)
    src, dst = all_pairs(topology)
    lanes = topology.lanes(src, dst)
    assert ((lanes >= 1) & (lanes <= topology.ways)).all()
    shortest = EqualCost(plain).hashed(src, dst, np.zeros(len(src), np.uint64))
    for lane in range(topology.ways):
        for row, route in enumerate(routes(topology, src, dst, lane)):
            if src[row] == dst[row]:
                assert route == []
                continue
            assert [src[row], *topology.link_dst[route]] == [*topology.link_src[route], dst[row]]
            assert len(set(route)) == len(route), "no link is crossed twice"
            if policy.split(":")[0] in ("shortest", "ecmp", "spray"):
                assert len(route) == shortest[0][row + 1] - shortest[0][row]


def test_all_names_are_tried_here() -> None:
    assert set(names("routing")) == {policy.split(":")[0] for policy in POLICIES} | {"table"}


@pytest.mark.parametrize("policy", POLICIES)
def test_routes_do_not_depend_on_what_is_asked_together(policy: str) -> None:
    topology = routed(policy, build("torus:dims=4x3"))
    src, dst = all_pairs(topology)
    together = routes(topology, src, dst, topology.ways - 1)
    for row in range(0, len(src), 7):
        assert routes(topology, src[row : row + 1], dst[row : row + 1], topology.ways - 1) == [together[row]]


@pytest.mark.parametrize("graph", GRAPHS)
def test_numbers_name_every_shortest_route_once(graph: str) -> None:
    topology = build(graph)
    every = EqualCost(topology)
    src, dst = all_pairs(topology)
    count = every.count(src, dst)
    row = np.repeat(np.arange(len(src)), count)
    number = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    offsets, links = every.numbered(src[row], dst[row], number)
    seen = {(int(row[at]), tuple(links[offsets[at] : offsets[at + 1]].tolist())) for at in range(len(row))}
    assert len(seen) == len(row)


@pytest.mark.parametrize(("graph", "pair", "expected"), [
    ("fat_tree:k=4", (0, 15), 4), ("fat_tree:k=4", (0, 2), 2), ("fat_tree:k=4", (0, 1), 1), ("fat_tree:k=8", (0, 127), 16),
    ("torus:dims=5x5", (0, 12), 6), ("torus:dims=4x4", (0, 10), 24), ("ring:hosts=6", (0, 3), 2),
    ("rail_optimized:nodes=4", (0, 8), 1),
])  # fmt: skip
def test_shortest_routes_are_counted(graph: str, pair: tuple[int, int], expected: int) -> None:
    """By hand: trees offer (k/2)^2 cores or k/2 aggregation switches, tori the orders of steps (2 + 2: 4!/2!2!), times the
    ways round where both are as short."""
    assert EqualCost(build(graph)).count(*(np.array([host], np.int32) for host in pair)).tolist() == [expected]


def test_lane_0_of_a_spray_is_d_mod_k() -> None:
    for graph in ("fat_tree:k=4", "fat_tree:k=8", "fat_tree:tiers=2,k=8"):
        plain = build(graph)
        src, dst = all_pairs(plain)
        assert routes(routed("spray", plain), src, dst) == routes(plain, src, dst)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), paths=st.sampled_from([4, 16, 64]))
def test_spray_uses_up_links_evenly(seed: int, paths: int) -> None:
    """Any permutation loads no link of a full-bisection tree by more than a host's rate, if all paths are used; every lane of
    a pair is another route, and they leave the leaf evenly."""
    topology = routed(f"spray:paths={paths}", build("fat_tree:k=8"))
    src = np.arange(topology.hosts, dtype=np.int32)
    dst = np.random.default_rng(seed).permutation(topology.hosts).astype(np.int32)
    lanes = topology.lanes(src, dst)
    load = np.zeros(topology.links)
    for lane in range(topology.ways):
        for row, route in enumerate(routes(topology, src, dst, lane)):
            if lane < lanes[row]:
                load[route] += 1 / lanes[row]
    if paths >= 16:
        assert load.max() <= 1 + 1e-9
    leaf_up = (topology.link_src >= 128) & (topology.link_src < 160) & (topology.link_dst >= 160)
    assert load[leaf_up].max() <= 1 + 1e-9


def test_ecmp_is_deterministic_and_changes_with_its_seed() -> None:
    plain = build("fat_tree:k=8")
    src, dst = all_pairs(plain)
    one, again, other = (routes(routed(f"ecmp:seed={seed}", plain), src, dst) for seed in (1, 1, 2))
    assert one == again
    far = [row for row in range(len(src)) if len(one[row]) == 6]
    share = np.mean([one[row] == other[row] for row in far])
    assert 0.03 < share < 0.1  # 1 of 16


def test_ecmp_hashes_evenly_and_queue_pairs_apart() -> None:
    plain = build("fat_tree:k=8")
    src, dst = all_pairs(plain)
    load = np.bincount(routed("ecmp:seed=5", plain).paths(src, dst)[1], minlength=plain.links)
    spine = load[plain.link_domain == plain.domains.index("spine")]
    assert spine.std() == pytest.approx((16 * 112 * 15 / 256) ** 0.5, rel=0.25)  # 1,792 pairs, each on one of 16 links
    topology = routed("ecmp:per=qp", plain)
    lanes = [routes(topology, src, dst, lane) for lane in range(4)]
    far = [row for row in range(len(src)) if len(lanes[0][row]) == 6]
    distinct = np.mean([len({tuple(lane[row]) for lane in lanes}) for row in far])
    assert distinct == pytest.approx(16 * (1 - (15 / 16) ** 4), abs=0.05)  # four balls in sixteen urns


def test_valiant_relieves_the_worst_pattern_of_a_dragonfly() -> None:
    """All of group g send to group g + 1: minimal routes share one global cable, random third groups use all."""
    plain = build("dragonfly:p=2,a=4,h=2")
    src = np.arange(plain.hosts, dtype=np.int32)
    dst = ((src + 8) % plain.hosts).astype(np.int32)
    cables = plain.link_domain == plain.domains.index("global")
    worst = [np.bincount(routed(policy, plain).paths(src, dst)[1], minlength=plain.links)[cables].max()
             for policy in ("static", "valiant")]  # fmt: skip
    assert worst[0] == 8
    assert worst[1] < 8


def test_tables(tmp_path) -> None:
    plain = build("fat_tree:k=4")
    csv, yaml = tmp_path / "routes.csv", tmp_path / "routes.yaml"
    csv.write_text("src,dst,via\ngpu0,gpu15,leaf0 agg0.1 core3 agg3.1 leaf7\ngpu0,gpu15,leaf0 agg0.0 core0 agg3.0 leaf7\n")
    yaml.write_text("- {src: gpu0, dst: gpu1, via: [leaf0]}\n")
    topology = routed(f"table:file={csv}", plain)
    one, other, same = (np.array(hosts, np.int32) for hosts in ([0, 3, 15], [15, 9, 0], [0, 3, 15]))
    assert topology.ways == 2
    assert topology.lanes(one, other).tolist() == [2, 1, 1]
    assert [topology.node_names[topology.link_dst[link]] for link in routes(topology, one, other)[0]] == [
        "leaf0", "agg0.1", "core3", "agg3.1", "leaf7", "gpu15",
    ]  # fmt: skip
    assert topology.node_names[topology.link_dst[routes(topology, one, other, 1)[0][2]]] == "core0"
    assert routes(topology, one, other)[1:] == routes(plain, one, other)[1:]
    assert routes(topology, same, same) == [[], [], []]
    strict = routed(f"table:file={yaml},others=refuse", plain)
    assert len(routes(strict, one[:1], np.array([1], np.int32))[0]) == 2
    with pytest.raises(TopologyError, match="no route for 1 of 1 pairs: gpu0 -> gpu15"):
        strict.paths(one[:1], other[:1])


@pytest.mark.parametrize(("name", "text", "complaint"), [
    ("a.csv", "src,dst,via\ngpu0,gpu9,leaf0\n", "no link leads from leaf0 to gpu9"),
    ("a.csv", "src,dst,via\ngpu0,gpu99,leaf0\n", "unknown node 'gpu99'"),
    ("a.csv", "src,dst,via\ngpu0,leaf0,\n", "leaf0 is no host"),
    ("a.csv", "src,dst,via\ngpu0,gpu1,leaf0 gpu0 leaf0\n", "meets a node twice"),
    ("a.csv", "from,to\na,b\n", "the columns are from, to"),
    ("a.yaml", "gpu0: gpu1\n", "holds no list"),
    ("a.yaml", "- {src: gpu0}\n", "is no route"),
    ("a.yaml", "- [\n", "is not YAML"),
])  # fmt: skip
def test_bad_tables_are_refused(tmp_path, name: str, text: str, complaint: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        routed(f"table:file={tmp_path / name}", build("fat_tree:k=4"))


@pytest.mark.parametrize(("spec", "error", "complaint"), [
    ("sprai", UnknownNameError, "spray"),
    ("spray:path=3", ConfigError, "unknown key 'path'"),
    ("spray:paths=0", ConfigError, "paths=0"),
    ("spray:packet=0", ConfigError, "packet"),
    ("ecmp:qps=3", ConfigError, "per=qp"),
    ("ecmp:per=packet", ConfigError, "per=packet"),
    ("table", ConfigError, "file"),
    ("table:file=/nowhere.csv", ConfigError, "cannot read the routing table"),
    ("static:x=1", ConfigError, "unknown key"),
])  # fmt: skip
def test_bad_policies_are_refused(spec: str, error: type, complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        routed(spec, build("fat_tree:k=4"))


def test_lanes_that_are_not_there_are_refused() -> None:
    topology = routed("spray:paths=2", build("fat_tree:k=4"))
    with pytest.raises(TopologyError, match="there is no lane 2"):
        topology.paths(np.array([0], np.int32), np.array([9], np.int32), np.array([2], np.int32))


def test_who_is_cut_off_is_named() -> None:
    import dataclasses

    plain = build("switch:hosts=3")
    keep = slice(0, 4)
    cut = dataclasses.replace(
        plain, link_src=plain.link_src[keep], link_dst=plain.link_dst[keep], link_bandwidth=plain.link_bandwidth[keep],
        link_latency=plain.link_latency[keep], link_domain=plain.link_domain[keep],
    )  # fmt: skip
    with pytest.raises(TopologyError, match="no path for 1 of 2 pairs: gpu0 -> gpu2"):
        routed("ecmp", cut).paths(np.array([0, 0], np.int32), np.array([1, 2], np.int32))
