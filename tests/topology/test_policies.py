"""Routing policies: every route is one, lanes are what they promise, and traffic is spread as the policy says."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import ConfigError, TopologyError, UnknownNameError
from distsim.network.model import NEVER
from distsim.network.spec import build_network
from distsim.network.transfers import single
from distsim.registry import names
from distsim.topology.equal_cost import EqualCost
from distsim.topology.graph import Topology
from distsim.topology.presets import PRESETS
from distsim.topology.routed import routed
from distsim.topology.routing import ShortestPath, ragged
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


PXN = "rail_optimized:nodes=4,gpus_per_node=4,spines=2,cross_rail=pxn"
DOMAIN_RULES = [*GRAPHS, PXN, "dragonfly:p=2,a=4,h=2,groups=3", "dragonfly_plus:k=4", "torus:dims=8x4,cube=4",
                "rail_optimized:nodes=4,gpus_per_node=2,planes=2", "fully_connected:hosts=5"]  # fmt: skip


def scale_up(topology: Topology) -> np.ndarray:
    return np.array([name.startswith("nvlink") for name in topology.domains])[topology.link_domain]


def shape(topology: Topology, route: list[int]) -> tuple[int, ...]:
    """Links of every domain; where routes are as good as they are short, links."""
    if topology.dimensions:
        return (len(route),)
    return tuple(np.bincount(topology.link_domain[route], minlength=len(topology.domains)).tolist())


def check_routes(plain: Topology, policy: str, src: np.ndarray, dst: np.ndarray) -> None:
    """Every lane of every pair keeps the rules of the topology's own router."""
    topology, inside = routed(policy, plain), scale_up(plain)
    lanes, own = topology.lanes(src, dst), routes(plain, src, dst)
    assert ((lanes >= 1) & (lanes <= topology.ways)).all()
    valiant = policy.startswith("valiant") or "detours" in policy
    forwards = bool(plain.dimensions)
    for lane in sorted({0, 1, 2, 7, topology.ways - 1} & set(range(topology.ways))):
        for row, route in enumerate(routes(topology, src, dst, lane)):
            if src[row] == dst[row]:
                assert route == []
                continue
            stops = [src[row], *topology.link_dst[route].tolist()]
            assert stops[:-1] == topology.link_src[route].tolist()
            assert stops[-1] == dst[row]
            assert len(set(route)) == len(route), "no link is crossed twice"
            if inside[own[row]].all():
                assert route == own[row]
                assert lanes[row] == 1
                continue
            # NVLink is crossed where the topology's own route does, before the fabric, and nowhere else
            assert [link for link in route if inside[link]] == [link for link in own[row] if inside[link]]
            assert inside[route].tolist() == sorted(inside[route].tolist(), reverse=True)
            if not forwards:  # a third host is passed by PXN only
                passed = [stop for stop in stops[1:-1] if stop < plain.hosts]
                assert passed == [stop for stop in plain.link_dst[own[row]][:-1].tolist() if stop < plain.hosts]
            if not valiant:
                assert shape(plain, route) == shape(plain, own[row])
                assert len(set(stops)) == len(stops), "no node is passed twice"


@pytest.mark.parametrize("graph", DOMAIN_RULES)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_lane_of_every_pair_is_a_route(graph: str, policy: str) -> None:
    plain = build(graph)
    src, dst = all_pairs(plain)
    some = np.random.default_rng(2).permutation(len(src))[:300]
    check_routes(plain, policy, src[some], dst[some])


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("policy", POLICIES)
def test_presets_keep_their_rules_under_every_policy(preset: str, policy: str) -> None:
    """Machines at their default sizes, cores and global cables included; some pairs of each."""
    plain = preset_of(preset)
    random = np.random.default_rng(4)
    src, dst = random.integers(0, plain.hosts, (2, 24)).astype(np.int32)
    near = np.arange(8, dtype=np.int32)
    check_routes(plain, policy, np.concatenate([src, near]), np.concatenate([dst, near[::-1]]))


@functools.cache
def preset_of(name: str) -> Topology:
    # NOTE: tori of 4,096 chips are searched from every destination; cubes meet in smaller ones as well
    return build(name, 64 if name.startswith("tpu") else None)


def every_route(topology: Topology, own: list[int], start: int, end: int) -> set[tuple[int, ...]]:
    """All routes as good as ``own``, by plain search: its NVLinks first, then as many links of each domain over the fabric."""
    inside, found, hosts = scale_up(topology), set(), topology.hosts
    lead = [link for link in own if inside[link]]
    if len(lead) == len(own):
        return {tuple(own)}
    start = int(topology.link_dst[lead[-1]]) if lead else start
    middle = own[len(lead) :]
    wanted, through = shape(topology, middle), (topology.link_dst[middle][:-1] < hosts).any()
    out = {node: np.flatnonzero((topology.link_src == node) & ~inside).tolist() for node in range(topology.nodes)}

    def search(node: int, taken: list[int]) -> None:
        have = shape(topology, taken)
        if node == end:
            if have == wanted:
                found.add((*lead, *taken))
            return
        if any(one > most for one, most in zip(have, wanted, strict=True)) or (node < hosts and taken and not through):
            return
        for link in out[node]:
            search(int(topology.link_dst[link]), [*taken, link])

    search(start, [])
    return found


@pytest.mark.parametrize("graph", DOMAIN_RULES)
def test_numbers_name_every_route_of_the_same_shape_once(graph: str) -> None:
    topology = build(graph)
    every = EqualCost(topology)
    src, dst = all_pairs(topology)
    some = np.random.default_rng(1).permutation(np.flatnonzero(src != dst))[:24]
    src, dst = src[some], dst[some]
    count = every.count(src, dst)
    row = np.repeat(np.arange(len(src)), count)
    number = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    listed = routes_of(every.numbered(src[row], dst[row], number))
    for pair, own in enumerate(routes(topology, src, dst)):
        mine = [tuple(route) for route, at in zip(listed, row.tolist(), strict=True) if at == pair]
        assert len(set(mine)) == len(mine)
        assert set(mine) == every_route(topology, own, int(src[pair]), int(dst[pair]))


def routes_of(paths: tuple[np.ndarray, np.ndarray]) -> list[list[int]]:
    offsets, links = paths
    return [links[offsets[row] : offsets[row + 1]].tolist() for row in range(len(offsets) - 1)]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_any_graph_from_a_file_is_walked_as_its_router_walks_it(tmp_path_factory, seed: int) -> None:
    """Random graphs with two ports per host, NVLink pairs and parallel cables: routes of as many hops as the router's own,
    each once, found by plain search."""
    random = np.random.default_rng(seed)
    hosts, leaves, spines = 2 * int(random.integers(2, 4)), int(random.integers(2, 4)), int(random.integers(1, 3))
    links = [f'  - {{from: "gpu[{2 * node}-{2 * node + 1}]", to: "nvs[{node}]", type: nvlink, pairs: all}}'
             for node in range(hosts // 2)]  # fmt: skip
    for gpu in range(hosts):
        for plane, leaf in zip("ab", random.permutation(leaves)[:2].tolist(), strict=True):
            links.append(f"  - {{from: gpu{gpu}, to: leaf{leaf}, type: port{plane}}}")
    links.append(f'  - {{from: "leaf[*]", to: "spine[*]", type: up, pairs: all, count: {random.integers(1, 3)}}}')
    kinds = "".join(f"  {name}: {{bandwidth: 100Gbps, latency: 500ns}}\n" for name in ("nvlink", "porta", "portb", "up"))
    file = tmp_path_factory.mktemp("graph") / "graph.yaml"
    file.write_text(
        f"hosts: {hosts}\nswitches: {{nvs: {hosts // 2}, leaf: {leaves}, spine: {spines}}}\n"
        f"link_types:\n{kinds}links:\n" + "\n".join(links) + "\nhost_forwarding: false\n"
    )
    topology = build(str(file))
    src, dst = all_pairs(topology)
    other = src // 2 != dst // 2
    src, dst = src[other], dst[other]
    inside, every = scale_up(topology), EqualCost(topology)
    count = every.count(src, dst)
    sprayed = routed("spray:paths=64", topology)
    for row, own in enumerate(routes(topology, src, dst)):
        expected = {route for route in fewest_hops(topology, inside, int(src[row]), int(dst[row]), len(own))}
        assert count[row] == len(expected)
        lanes = range(int(count[row]))
        mine = {tuple(routes(sprayed, src[row : row + 1], dst[row : row + 1], lane)[0]) for lane in lanes}
        assert mine == expected


def fewest_hops(topology: Topology, inside: np.ndarray, start: int, end: int, hops: int) -> list[tuple[int, ...]]:
    """All ways of so many links over the fabric and no third host."""
    ways: list[tuple[int, ...]] = [()]
    for _ in range(hops):
        ways = [
            (*way, int(link))
            for way in ways
            for here in [int(topology.link_dst[way[-1]]) if way else start]
            if here >= topology.hosts or not way
            for link in np.flatnonzero((topology.link_src == here) & ~inside)
        ]
    return [way for way in ways if topology.link_dst[way[-1]] == end]


def test_all_names_are_tried_here() -> None:
    assert set(names("routing")) == {policy.split(":")[0] for policy in POLICIES} | {"table"}


@pytest.mark.parametrize("policy", POLICIES)
def test_routes_do_not_depend_on_what_is_asked_together(policy: str) -> None:
    topology = routed(policy, build("torus:dims=4x3"))
    src, dst = all_pairs(topology)
    together = routes(topology, src, dst, topology.ways - 1)
    for row in range(0, len(src), 7):
        assert routes(topology, src[row : row + 1], dst[row : row + 1], topology.ways - 1) == [together[row]]


@pytest.mark.parametrize(("graph", "pair", "expected"), [
    ("fat_tree:k=4", (0, 15), 4), ("fat_tree:k=4", (0, 2), 2), ("fat_tree:k=4", (0, 1), 1), ("fat_tree:k=8", (0, 127), 16),
    ("torus:dims=5x5", (0, 12), 6), ("torus:dims=4x4", (0, 10), 24), ("ring:hosts=6", (0, 3), 2),
    ("rail_optimized:nodes=4", (0, 8), 1), ("rail_optimized:nodes=4", (0, 1), 1), ("rail_optimized:nodes=4", (0, 9), 4),
    (PXN, (0, 5), 1), ("alibaba_hpn", (0, 8), 2), ("alibaba_hpn", (0, 1024), 120), ("h100_superpod", (0, 256), 64),
    ("dragonfly:p=2,a=4,h=2,groups=3", (0, 8), 2), ("switch:hosts=5", (0, 3), 1),
])  # fmt: skip
def test_shortest_routes_are_counted(graph: str, pair: tuple[int, int], expected: int) -> None:
    """By hand: trees offer (k/2)^2 cores or k/2 aggregation switches, tori the orders of steps (2 + 2: 4!/2!2!), times the
    ways round where both are as short."""
    assert EqualCost(build(graph)).count(*(np.array([host], np.int32) for host in pair)).tolist() == [expected]


@pytest.mark.parametrize("graph", [*DOMAIN_RULES, "fat_tree:k=8", "fat_tree:tiers=2,k=8"])
def test_sprays_begin_with_the_topologys_own_route(graph: str) -> None:
    plain = build(graph)
    src, dst = all_pairs(plain)
    sprayed = routed("spray:paths=5", plain)
    assert routes(sprayed, src, dst) == routes(plain, src, dst)
    # asked together with others, a pair's lane 0 is numbered and walked, and comes out the same
    both = sprayed.paths(np.repeat(src, 2), np.repeat(dst, 2), np.tile(np.array([0, 1], np.int32), len(src)))
    assert routes_of(both)[::2] == routes(plain, src, dst)


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
    plain = build("switch:hosts=3")
    keep = slice(0, 4)
    router = ShortestPath(plain.node_names, 3, plain.link_src[keep], plain.link_dst[keep])
    cut = dataclasses.replace(
        plain, link_src=plain.link_src[keep], link_dst=plain.link_dst[keep], link_bandwidth=plain.link_bandwidth[keep],
        link_latency=plain.link_latency[keep], link_domain=plain.link_domain[keep], router=router,
    )  # fmt: skip
    for policy in POLICIES:
        with pytest.raises(TopologyError, match="no path for 1 of 2 pairs: gpu0 -> gpu2"):
            routed(policy, cut).paths(np.array([0, 0], np.int32), np.array([1, 2], np.int32))


def test_a_route_that_is_longer_than_needed_stays_alone() -> None:
    """A router of one's own that goes round: no other route has its shape without meeting a node twice."""
    plain = build("ring:hosts=5")

    def clockwise(src: np.ndarray, dst: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        steps = (dst.astype(np.int64) - src) % 5
        row, step = ragged(steps)
        return np.concatenate(([0], np.cumsum(steps))), (2 * ((src[row] + step) % 5)).astype(np.int32)

    odd = dataclasses.replace(plain, router=clockwise)
    src, dst = all_pairs(odd)
    for policy in ("ecmp", "spray", "shortest", "adaptive"):
        assert routes(routed(policy, odd), src, dst) == routes(odd, src, dst)


def test_servers_of_simai_keep_to_nvlink(simai_reference) -> None:
    """GPUs of a server that share an access switch have a way of two hops over it, too: it is none for them."""
    plain = build(f"simai:{simai_reference / 'DCN+DualToR_128g_8gps_200Gbps_H100'}")
    one, other, far = (np.array([host], np.int32) for host in (0, 1, 9))
    for policy in POLICIES:
        topology = routed(policy, plain)
        for lane in range(topology.ways):
            route = routes(topology, one, other, lane)[0]
            assert [plain.link_name(link) for link in route] == ["gpu0->nvswitch0", "nvswitch0->gpu1"]
        assert topology.lanes(one, other).tolist() == [1]
    ports = {routes(routed("spray", plain), one, far, lane)[0][0] for lane in range(2)}
    assert {plain.link_name(port) for port in ports} == {"gpu0->asw0", "gpu0->asw1"}
    some = np.random.default_rng(0).integers(0, plain.hosts, (2, 60)).astype(np.int32)
    for policy in POLICIES:
        check_routes(plain, policy, *some)


@pytest.mark.parametrize("policy", ["ecmp:per=qp,qps=8", "spray", "adaptive"])
def test_both_planes_carry_a_flow(policy: str) -> None:
    plain = preset_of("alibaba_hpn")
    topology = routed(policy, plain)
    src, dst = np.array([3], np.int32), np.array([1024 + 77], np.int32)
    ports = [plain.link_name(routes(topology, src, dst, lane)[0][0]) for lane in range(topology.ways)]
    assert set(ports) == {"gpu3->plane0.rail0.3", "gpu3->plane1.rail0.3"}
    if policy == "spray":
        assert ports.count("gpu3->plane0.rail0.3") == 8


def time_of(plain: Topology, policy: str, src: np.ndarray, dst: np.ndarray, size: int) -> int:
    """ps until every pair has so many bytes, all at once, in parts of 16 KiB cut through."""
    network = build_network("cut_through:size=16KiB", routed(policy, plain))
    for one, other in zip(src.tolist(), dst.tolist(), strict=True):
        network.start(single(one, other, size), 0)
    times = []
    while len(times) < len(src):
        times += [done.at for done in network.run_until(NEVER)]
    return max(times)


def test_a_gpu_with_two_ports_sends_at_the_rate_of_both() -> None:
    """2 x 200 Gb/s under spray: the bytes over both ports, plus a few hops' time."""
    src, dst, size = np.array([3]), np.array([1024 + 77]), 16 << 20
    took = {policy: time_of(preset_of("alibaba_hpn"), policy, src, dst, size) for policy in ("static", "spray")}
    assert took["static"] == pytest.approx(size / 25e9 * 1e12, rel=0.02)
    assert took["spray"] == pytest.approx(size / 50e9 * 1e12, rel=0.02)


@pytest.mark.parametrize("graph", ["h100_superpod:nodes=16,nodes_per_unit=8", "meta_clos:nodes=8"])
def test_a_permutation_runs_at_full_speed_sprayed_and_collides_hashed(graph: str) -> None:
    """Every node sends to that half of them on, GPU to GPU of the same rail, over a 1:1 fabric: sprayed it takes what the
    bytes take over one port, hashed at least twice that (two connections on some up-link), adaptively something between."""
    plain, size = build(graph), 4 << 20
    src = np.arange(plain.hosts)
    dst = (src + plain.hosts // 2) % plain.hosts
    alone = size / 50e9 * 1e12
    took = {policy: time_of(plain, policy, src, dst, size) / alone for policy in ("spray:paths=64", "adaptive", "ecmp")}
    assert took["spray:paths=64"] < 1.1
    assert took["ecmp"] > 1.9
    assert took["spray:paths=64"] < took["adaptive"] < took["ecmp"]
