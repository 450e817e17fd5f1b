"""Bisection against brute force over every split, distances against closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from distsim.topology.graph import Topology
from distsim.topology.metrics import bisection_found, measure, size_of, to_networkx
from distsim.topology.spec import build


def brute_force(topology: Topology) -> float:
    """The least capacity between the sides, one way, over every even split of the hosts, switches placed by minimum cut."""
    import networkx

    graph = networkx.DiGraph()
    for link in range(topology.links):
        src, dst = int(topology.link_src[link]), int(topology.link_dst[link])
        before = graph.get_edge_data(src, dst, {"capacity": 0.0})["capacity"]
        graph.add_edge(src, dst, capacity=before + float(topology.link_bandwidth[link]))
    best = float("inf")
    hosts = range(topology.hosts)
    for half in itertools.combinations(hosts, topology.hosts // 2):
        for host in hosts:
            graph.remove_edges_from([("a", host), (host, "b")])
            graph.add_edge(*(("a", host) if host in half else (host, "b")))  # no capacity: unlimited
        best = min(best, networkx.minimum_cut_value(graph, "a", "b"))
    return best


SMALL = [
    "ring:hosts=2",
    "ring:hosts=7",
    "ring:hosts=8",
    "fully_connected:hosts=5",
    "fully_connected:hosts=8",
    "switch:hosts=7",
    "switch:hosts=8",
    "torus:dims=4x2",
    "torus:dims=2x2x2",
    "torus:dims=4x3",
    "torus:dims=4x2,bandwidth=10GB/s+90GB/s",
    "nd:dims=ring4+fully_connected2",
    "nd:dims=ring2+switch2,bandwidth=300GB/s+50GB/s",
    "fat_tree:k=2,hosts_per_leaf=4",
    "fat_tree:k=4,pods=2",
    "fat_tree:k=4,pods=3,hosts_per_leaf=1",
    "fat_tree:tiers=2,k=4,pods=3",
    "fat_tree:tiers=2,k=4,pods=3,oversubscription=1.5",
    "fat_tree:tiers=2,k=2,pods=2,hosts_per_leaf=4",
    "fat_tree:tiers=2,k=4,pods=2,hosts_per_leaf=4,oversubscription=4",
    "fat_tree:tiers=2,k=8,pods=4,hosts_per_leaf=2",
    "rail_optimized:nodes=2,gpus_per_node=4",
    "rail_optimized:nodes=4,gpus_per_node=2,nvlink_bandwidth=100GB/s",
    "rail_optimized:nodes=4,gpus_per_node=2,spines=1",
]


@pytest.mark.parametrize("spec", SMALL)
def test_closed_forms_of_the_bisection_are_the_least_cut(spec: str) -> None:
    topology = build(spec)
    assert topology.bisection is not None
    assert topology.bisection == pytest.approx(brute_force(topology))


@pytest.mark.parametrize(
    "spec",
    [*SMALL, "dragonfly:p=1,a=2,h=1", "nd:dims=switch3+switch3", "torus:dims=3x3", "rail_optimized:nodes=3,gpus_per_node=3"],
)
def test_a_bisection_that_was_searched_for_is_an_upper_bound(spec: str) -> None:
    topology = build(spec)
    assert bisection_found(topology) >= brute_force(topology) * (1 - 1e-12)


@pytest.mark.parametrize(
    "spec", ["nd:dims=switch4+switch4", "torus:dims=3x3", "dragonfly", "rail_optimized:nodes=3", "torus:dims=5x4"]
)
def test_no_closed_form_is_claimed_where_none_is_proved(spec: str) -> None:
    metrics = measure(build(spec))
    assert not metrics.bisection_exact
    assert metrics.bisection > 0


@pytest.mark.parametrize(
    ("spec", "bytes_per_s"),
    [
        ("fat_tree:k=8", 64 * 50e9),
        ("fat_tree:k=8,oversubscription=4,hosts_per_leaf=4", 16 * 50e9),
        ("fat_tree:k=16", 512 * 50e9),
        ("torus:dims=16x8x8", 2 * 64 * 50e9),
        ("torus:dims=4x4x4", 2 * 16 * 50e9),
        ("ring:hosts=1000", 2 * 50e9),
        ("switch:hosts=1024", 512 * 50e9),
        ("fully_connected:hosts=64", 32 * 32 * 50e9),
        ("rail_optimized:nodes=32", 128 * 50e9),
        ("ring:hosts=1", 0),
    ],
)
def test_bisections_of_known_networks(spec: str, bytes_per_s: float) -> None:
    assert measure(build(spec)).bisection == pytest.approx(bytes_per_s)


@pytest.mark.parametrize(
    ("spec", "diameter", "average"),
    [
        ("ring:hosts=8", 4, 16 / 7),
        ("switch:hosts=8", 2, 2),
        ("fully_connected:hosts=8", 1, 1),
        ("torus:dims=4x4x4", 6, 3 * 64 / 63),
        ("torus:dims=16x8x8", 16, 8 * 1024 / 1023),
        ("fat_tree:k=4", 6, (1 * 2 + 2 * 4 + 12 * 6) / 15),
        ("fat_tree:tiers=2,k=4", 4, (1 * 2 + 6 * 4) / 7),
        ("dragonfly", 5, None),
        ("rail_optimized:nodes=4", 4, (7 * 2 + 3 * 2 + 21 * 4) / 31),
        ("ring:hosts=1", 0, 0),
    ],
)
def test_distances(spec: str, diameter: int, average: float | None) -> None:
    metrics = measure(build(spec))
    assert metrics.diameter == diameter
    assert not metrics.sampled
    if average is not None:
        assert metrics.average_hops == pytest.approx(average)


def test_large_networks_are_sampled_and_say_so() -> None:
    metrics = measure(build("fat_tree:k=22"))
    assert metrics.sampled
    assert metrics.diameter == 6


def test_links_by_domain() -> None:
    rows = measure(build("rail_optimized:nodes=4,nvlink_latency=1us")).domains
    assert [(row.name, row.ends, row.cables) for row in rows] == [
        ("nvlink", "gpu - nvswitch", 32),
        ("rail", "gpu - rail", 32),
        ("spine", "rail - spine", 32),
    ]
    assert rows[0].bandwidth == (450e9, 450e9)
    assert rows[0].latency == (1_000_000, 1_000_000)


def test_networkx_graph_for_people() -> None:
    graph = to_networkx(build("fat_tree:k=4"))
    assert graph.number_of_nodes() == 36
    assert graph.number_of_edges() == 96
    assert graph.nodes["gpu0"]["host"]
    assert not graph.nodes["core0"]["host"]
    (link,) = graph["gpu0"]["leaf0"].values()
    assert link == {"link": 0, "bandwidth": 50e9, "latency": 500_000, "domain": "host"}


def test_size_in_words() -> None:
    assert size_of(build("switch:hosts=1024")) == "1,024 hosts, 1 switch, 1,024 cables"
    assert size_of(build("ring:hosts=2")) == "2 hosts, 0 switches, 1 cable"


def test_hops_and_paths_agree_on_large_networks() -> None:
    topology = build("torus:dims=16x8x8")
    random = np.random.default_rng(7)
    src, dst = random.integers(0, 1024, (2, 500)).astype(np.int32)
    assert np.array_equal(np.diff(topology.paths(src, dst)[0]), topology.hops(src, dst))
