"""Rows in parts: nothing is lost, times by hand, and leases that change no answer with any of it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_reference import dag

from distsim.errors import ConfigError
from distsim.network.check import check_network_model, drain, kernels, pair, random_transfers, star
from distsim.network.model import NO_LANE, Transfers
from distsim.network.pattern import Pattern
from distsim.network.pieces import Pieces
from distsim.network.spec import build_network
from distsim.network.transfers import single
from distsim.topology.routed import routed
from distsim.topology.spec import build

KIB, MIB = 1 << 10, 1 << 20
SER = MIB * 20  # ps of 1 MiB at 50 GB/s
LAT = 500_000
POLICIES = ["static", "ecmp:per=qp,qps=3", "spray:paths=4", "spray:paths=4,packet=1000", "adaptive:paths=3", "valiant:paths=2"]


def ends(spec, topology, *groups):
    network = build_network(spec, topology)
    for transfers in groups:
        network.start(transfers, 0)
    return [at for _, at, _ in drain(network)]


def uplink_tree(rate="400Gbps"):
    """Two leaves of four hosts, two spines."""
    return build(f"fat_tree:tiers=2,k=4,pods=2,hosts_per_leaf=4,oversubscription=2,uplink_bandwidth=400Gbps,bandwidth={rate}")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), rows=st.integers(0, 25), size=st.sampled_from([None, 1, 700, 50_000]),
    credits=st.sampled_from([None, 1, 2, 5]), policy=st.sampled_from(POLICIES),
)  # fmt: skip
def test_parts_make_up_the_rows(seed, rows, size, credits, policy):
    topology, whole = routed(policy, build("fat_tree:k=4")), random_transfers(16, rows, seed)
    if size == 1:
        whole = dataclasses.replace(whole, bytes=whole.bytes % 40)
    cut = Pieces(topology, size=size, credits=credits)(whole)
    for column, limit in ((cut.dep, None), (cut.lane, topology.ways)):
        assert column is None or not len(column) or limit is None or (column.min() >= NO_LANE and column.max() < limit)
    owner = np.repeat(np.arange(len(cut.src)), np.diff(cut.dep_ptr))
    assert (cut.dep < owner).all(), "a part depends on earlier parts"
    moved = np.zeros((2, 16, 16), np.int64)
    np.add.at(moved[0], (whole.src, whole.dst), whole.bytes)
    np.add.at(moved[1], (cut.src, cut.dst), cut.bytes)
    assert (moved[0] == moved[1]).all(), "every byte is sent once, between the same hosts"
    assert cut.delay.sum() == whole.delay.sum()
    assert size is None or not len(cut.bytes) or (cut.bytes[cut.src != cut.dst] <= max(size, 0)).all()
    known = Pieces(topology, size=size, credits=credits)
    assert known(whole) is known(whole)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("level", ["chunk", "cut_through", "chunk:size=4KiB,credits=2", "analytic", "fluid"])
def test_bytes_are_conserved_on_links(level, policy):
    """What leaves a host equals what its rows move, and so does what arrives, whatever the routes."""
    topology, moved = routed(policy, build("fat_tree:k=4")), random_transfers(16, 40, seed=5)
    network = build_network(level, topology)
    network.start(moved, 0)
    assert len(drain(network)) == 1
    far = moved.src != moved.dst
    for hosts, ends_of in ((moved.src, topology.link_src), (moved.dst, topology.link_dst)):
        expected = np.bincount(hosts[far], moved.bytes[far], minlength=16)
        cables = ends_of < 16
        sent = np.bincount(ends_of[cables], network.usage().bytes[cables], minlength=16)
        detour = policy.startswith("valiant")  # may pass a third host's leaf, never its cable
        assert (sent == expected).all() or (detour and (sent >= expected).all())


@pytest.mark.parametrize("policy", ["static", "spray:paths=3", "adaptive:paths=2"])
def test_levels_with_options_keep_the_contract(policy):
    """Enough credits, and a fast injection link, which an idle hop does not notice."""
    check_network_model(lambda topology: build_network("cut_through:credits=64,injection=10TBps", routed(policy, topology)))


def test_patterns_are_cut_once_and_alike():
    topology, plain = routed("spray:paths=4", build("fat_tree:k=4")), random_transfers(6, 20, seed=9)
    pattern, pieces = Pattern.of(*plain.columns()), Pieces(topology, size=5000)
    first, second = (pattern.on(np.arange(at, at + 6, dtype=np.int32)) for at in (0, 4))
    assert pieces(first).pattern is pieces(pattern.on(first.members)).pattern
    for placed in (first, second):
        bare = Transfers(*placed.columns())
        cut, same = pieces(placed), pieces(bare)
        for name in ("src", "dst", "bytes", "dep_ptr", "dep", "delay", "lane"):
            assert np.array_equal(getattr(cut, name), getattr(same, name)), name


def test_what_needs_no_cutting_stays_the_same_object():
    topology = build("fat_tree:k=4")
    small = single(0, 9, 1000)
    assert Pieces(topology)(small) is small
    assert Pieces(topology, size=1000)(small) is small
    assert Pieces(topology, size=999)(small) is not small


def test_given_lanes_are_kept():
    topology = routed("spray:paths=4", build("fat_tree:k=4"))
    given_lane = dataclasses.replace(single(0, 9, 10 * MIB), lane=np.array([2], np.int32))
    assert Pieces(topology)(given_lane) is given_lane
    assert Pieces(topology, size=4 * MIB)(given_lane).lane.tolist() == [2, 2, 2, NO_LANE]
    network = build_network("cut_through", topology)
    network.start(given_lane, 0)
    drain(network)
    used = np.flatnonzero(network.usage().bytes)
    one, other, lane = (np.array([number], np.int32) for number in (0, 9, 2))
    assert set(used.tolist()) == set(topology.paths(one, other, lane)[1].tolist())
    with pytest.raises(ConfigError, match="lane is 4"):
        network.start(dataclasses.replace(given_lane, lane=np.array([4], np.int32)), 10**12)


# by hand -------------------------------------------------------------------------------------------------------------------


def test_chunks_are_pipelined_over_hops():
    """4 MiB over two hops: stored whole 2 (4 s + l); in four chunks the last is on the second when it has left the first."""
    assert ends("chunk", star(3), single(0, 1, 4 * MIB)) == [2 * (4 * SER + LAT)]
    assert ends("chunk:size=1MiB", star(3), single(0, 1, 4 * MIB)) == [5 * SER + 2 * LAT]
    assert ends("chunk:size=1MiB", star(3), single(0, 1, 4 * MIB, 777)) == [5 * SER + 2 * LAT + 777], "the delay comes once"


@pytest.mark.parametrize("level", ["chunk", "cut_through"])
def test_one_credit_is_stop_and_wait(level):
    """Over one hop a chunk takes s + l, and the next one starts then; two credits keep two under way."""
    message = single(0, 1, 4 * MIB)
    assert ends(f"{level}:size=1MiB,credits=1", pair(), message) == [4 * (SER + LAT)]
    assert ends(f"{level}:size=1MiB,credits=4", pair(), message) == [4 * SER + LAT]
    slow = pair(latency=2 * SER)  # s + l = 3 s: two under way fill two thirds
    assert ends(f"{level}:size=1MiB,credits=2", slow, message) == [7 * SER]  # chunks set out at 0, s, 3 s, 4 s
    assert ends(f"{level}:size=1MiB,credits=3", slow, message) == [4 * SER + 2 * SER]


def test_credits_are_of_a_connection():
    """Two messages to different hosts do not wait for each other's credits; two to the same host do."""
    apart = dag([(0, 1, MIB), (0, 2, MIB)])
    together = dag([(0, 1, MIB), (0, 1, MIB)])
    assert ends("cut_through:credits=1", star(3), apart) == [2 * SER + 2 * LAT]
    assert ends("cut_through:credits=1", star(3), together) == [2 * (SER + 2 * LAT)]


def test_a_sprayed_permutation_runs_at_the_rate_of_the_hosts():
    """Full bisection: 16 MiB from every host to another one, in chunks of 64 KiB over all 16 paths: within 5 % of the host
    link's 20 ps a byte; hashed per flow it takes more than twice as long."""
    plain = build("fat_tree:k=8")
    dice = np.random.default_rng(3).permutation(128)
    moved = dag([(host, int(dice[host]), 16 * MIB) for host in range(128) if host != dice[host]])
    (sprayed,) = ends("cut_through:size=64KiB", routed("spray", plain), moved)
    (hashed,) = ends("cut_through:size=64KiB", routed("ecmp", plain), moved)
    assert 16 * SER <= sprayed <= 16.8 * SER + 6 * LAT
    assert hashed > 2 * sprayed


def test_analytic_takes_all_lanes_at_once():
    """A sprayed row takes as long as one whose route is as wide as all lanes together; its bytes are shared out."""
    tree = build("fat_tree:tiers=2,k=8,bandwidth=400Gbps,uplink_bandwidth=100Gbps,hosts_per_leaf=4")
    message = single(0, 31, 4 * MIB)
    assert ends("analytic", tree, message) == [4 * 4 * SER + 4 * LAT]
    network = build_network("analytic", routed("spray", tree))
    network.start(message, 0)
    assert [at for _, at, _ in drain(network)] == [4 * SER + 4 * LAT]
    assert sorted(network.usage().bytes[network.usage().bytes > 0].tolist()) == [MIB] * 8 + [4 * MIB] * 2


def test_an_injection_limit_is_one_link_for_all_ports():
    """A host with two ports of 50 GB/s and a NIC of 50 GB/s: over both as long as over one. NVLink is free."""
    rails = build("rail_optimized:nodes=2,gpus_per_node=2")
    out = dag([(0, 2, MIB)])
    assert ends("cut_through", rails, out) == [SER + 2 * LAT]
    assert ends("cut_through:injection=25GBps", rails, out) == [2 * SER + 2 * LAT]
    assert ends("cut_through:injection=1TBps", rails, out) == [SER + 2 * LAT]
    inside = dag([(0, 1, 9 * MIB)])
    assert ends("cut_through:injection=1GBps", rails, inside) == ends("cut_through", rails, inside)
    torus = build("torus:dims=4x4")
    both = dag([(5, 6, MIB), (5, 9, MIB)])
    assert ends("cut_through", torus, both) == [SER + LAT]
    assert ends("cut_through:injection=50GBps", torus, both) == [2 * SER + LAT]
    through = dag([(5, 7, MIB), (6, 10, MIB)])  # 5 -> 6 -> 7: host 6 forwards without injecting
    assert ends("cut_through:injection=50GBps", torus, through) == [SER + 2 * LAT]
    network = build_network("chunk:injection=50GBps", torus)
    network.start(both, 0)
    drain(network)
    assert len(network.usage().bytes) == torus.links
    assert network.usage().bytes.sum() == 2 * MIB


def test_fluid_sprays_and_injects_too():
    rails = build("rail_optimized:nodes=2,gpus_per_node=2")
    assert ends("fluid:injection=25GBps", rails, single(0, 2, MIB)) == [2 * SER + 2 * LAT]
    network = build_network("fluid:injection=25GBps", rails)
    network.start(single(0, 2, MIB), 0)
    drain(network)
    assert len(network.usage().bytes) == rails.links
    tree = build("fat_tree:tiers=2,k=8,bandwidth=400Gbps,uplink_bandwidth=100Gbps,hosts_per_leaf=4")
    assert ends("fluid", tree, single(0, 31, 4 * MIB)) == [4 * 4 * SER + 4 * LAT]
    assert ends("fluid", routed("spray", tree), single(0, 31, 4 * MIB)) == [4 * SER + 4 * LAT]


def test_adaptive_avoids_a_loaded_uplink():
    """gpu0 keeps one up-link of its leaf busy; gpu1's message, released meanwhile, takes the other spine."""
    tree = uplink_tree()
    topology = routed("adaptive:paths=2", tree)
    one, other = single(0, 4, 8 * MIB), single(1, 5, 8 * MIB)
    for first, second in ((one, other), (other, one)):
        network = build_network("cut_through", topology)
        network.start(first, 0)
        network.run_until(2 * LAT)
        network.start(second, 2 * LAT)
        assert sorted(at for _, at, _ in drain(network)) == [8 * SER + 4 * LAT, 8 * SER + 6 * LAT]
    up = (tree.link_src == 8) & (tree.link_dst >= 10)
    assert network.usage().bytes[up].tolist() == [8 * MIB] * 2


def test_adaptive_counts_what_is_on_its_way():
    """Four messages released in one instant, before any has reached the up-links: two on each. On ties the first candidate."""
    tree = uplink_tree()
    moved = dag([(host, 4 + host, MIB) for host in range(4)])
    network = build_network("cut_through", routed("adaptive:paths=2", tree))
    network.start(moved, 0)
    assert [at for _, at, _ in drain(network)] == [2 * SER + 4 * LAT]
    up = (tree.link_src == 8) & (tree.link_dst >= 10)
    assert network.usage().bytes[up].tolist() == [2 * MIB] * 2


# leases ---------------------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**9), level=st.sampled_from(["chunk", "cut_through"]), compiled=st.booleans(),
    policy=st.sampled_from(POLICIES), size=st.sampled_from([None, "3KB"]), credits=st.sampled_from([None, 1, 2]),
    injection=st.sampled_from([None, "30GBps"]), graph=st.sampled_from(["fat_tree:k=4", "torus:dims=4x2"]),
)  # fmt: skip
def test_leased_is_unleased_with_all_of_it(seed, level, compiled, policy, size, credits, injection, graph):
    """Law 5: groups that come again, on the same and on other hosts, apart or in each other's way."""
    from distsim import registry

    topology, dice = routed(policy, build(graph)), np.random.default_rng(seed)
    dags = [random_transfers(3, int(dice.integers(1, 8)), int(dice.integers(10**6))) for _ in range(3)]
    patterns = [Pattern.of(*one.columns()) for one in dags]
    placed = [p.on(dice.permutation(8)[:3].astype(np.int32)) for p in patterns for _ in range(2)]
    placed += [single(*dice.integers(0, 8, 2).tolist(), int(dice.choice([0, 5000, 70_000]))) for _ in range(2)]
    steps = [(int(dice.integers(len(placed))), int(dice.choice([0, 0, 100_000, 3_000_000]))) for _ in range(12)]
    seen = []
    with kernels("compiled" if compiled else "python"):
        for leases in (True, False):
            make = registry.lookup("network", level)
            network = make(topology, leases=leases, size=size, credits=credits, injection=injection)
            now, told = 0, []
            for which, wait in steps:
                now += wait
                while done := network.run_until(now):
                    told += [(one.group, one.at, sorted(one.host_end.items())) for one in done]
                network.start(placed[which], now)
            told.append(drain(network))
            told += [network.usage().bytes.tolist(), network.usage().busy.tolist()]
            seen.append(told)
    assert seen[0] == seen[1]


@pytest.mark.parametrize(("spec", "complaint"), [
    ("chunk:size=0", "size"), ("chunk:size=-1", "size"), ("chunk:credits=0", "credits"), ("chunk:injection=0", "injection"),
    ("chunk:chunk=3", "unknown key"), ("analytic:size=3", "unknown key"),
])  # fmt: skip
def test_bad_options_are_refused(spec, complaint):
    with pytest.raises(ConfigError, match=complaint):
        build_network(spec, star(3))


def test_too_many_parts_are_refused_before_they_are_made():
    with pytest.raises(ConfigError, match="would be cut into"):
        build_network("chunk:size=1", star(3)).start(single(0, 1, 1 << 40), 0)


def test_a_transfer_over_many_lanes_has_one_share_of_a_link() -> None:
    """Hosts 1 (same leaf, one lane) and 15 (other pod, four lanes) send to host 0: half of its port each."""
    topology = routed("spray", build("fat_tree:k=4,latency=0ns"))
    network = build_network("fluid", topology)
    size = 50_000_000  # 1 ms alone at 50 GB/s
    for src in (1, 15):
        network.start(single(src, 0, size), 0)
    assert [at for _, at, _ in drain(network)] == pytest.approx([2 * 10**9, 2 * 10**9], rel=1e-6)
