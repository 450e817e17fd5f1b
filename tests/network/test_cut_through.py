"""Level ``cut_through``: figures worked by hand, a plain reference simulator, and what it has in common with other levels."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_reference import dag, reference

from distsim.network.analytic import Analytic
from distsim.network.check import drain, kernels, pair, random_transfers, star
from distsim.network.chunk import Chunk
from distsim.network.cut_through import CutThrough
from distsim.network.model import NEVER
from distsim.network.transfers import single
from distsim.topology.spec import build

MIB = 1 << 20
SER = MIB * 20  # ps of 1 MiB at 50 GB/s
LAT = 500_000


def only(network, transfers, at=0):
    network.start(transfers, at)
    (done,) = network.run_until(NEVER)
    return done


def uneven(topology, seed):
    """The same graph, every link with a bandwidth and a latency of its own."""
    dice = np.random.default_rng(seed)
    rates = dice.choice([1e9, 3e9, 12.5e9, 50e9, 53_687_091_200.0, 400e9], topology.links)
    return dataclasses.replace(topology, link_bandwidth=rates, link_latency=dice.integers(0, 10**6, topology.links))


def test_two_hops_pay_the_bytes_once(form):
    # 1 MiB at 50 GB/s: 20,971,520 ps, overlapped on both links; 500 ns latency each.
    done = only(CutThrough(star(3)), single(0, 1, MIB))
    assert done.at == 20_971_520 + 2 * 500_000
    assert done.host_end == {0: done.at, 1: done.at}


def test_a_slow_link_upstream_holds_its_own_tail_back_but_not_others(form):
    # Host 0 sends at 1 GB/s, everything else is at 50 GB/s: on link 3 (to host 1) its tail comes late. Host 2's message
    # comes a little later, waits for the 20 ns that link 3 gives to host 0, and overtakes that tail.
    rates = np.full(6, 50e9)
    rates[0] = 1e9
    network = CutThrough(dataclasses.replace(star(3), link_bandwidth=rates))
    network.start(single(0, 1, 1000), 0)
    network.start(single(2, 1, 1000), 5)
    slow = 1_000_000 + 2 * LAT
    assert [(group, at) for group, at, _ in drain(network)] == [(1, 2 * LAT + 40_000), (0, slow)]
    assert network.usage().busy.tolist() == [1_000_000, 0, 0, 40_000, 20_000, 0]


def test_heads_queue_in_the_order_of_their_arrival(form):
    # Hosts 1 and 2 send to 0; the head of 1 is at the switch first though its tail is not.
    network = CutThrough(star(3))
    network.start(single(1, 0, MIB), 0)
    network.start(single(2, 0, 1000), 1)
    assert [(group, at) for group, at, _ in drain(network)] == [(0, SER + 2 * LAT), (1, SER + 2 * LAT + 20_000)]


def test_incast_is_bound_by_the_last_link(form):
    incast = dag([(host, 0, MIB) for host in range(1, 6)])
    assert only(CutThrough(star(6)), incast).at == 5 * SER + 2 * LAT


@pytest.mark.parametrize("spec", ["torus:dims=4x3x2", "fat_tree:k=4", "ring:hosts=9"])
def test_on_an_idle_path_it_is_analytic(spec, form):
    """Law 5: levels agree where theory says so. To the picosecond, whatever the links."""
    for seed in range(3):
        topology = uneven(build(spec), seed)
        dice = np.random.default_rng(seed)
        network, plain = CutThrough(topology), Analytic(topology)
        now = 0
        for _ in range(60):
            src, dst = dice.integers(0, topology.hosts, 2).tolist()
            message = single(src, dst, int(dice.choice([0, 1, 999, MIB, 3 * MIB + 1])), int(dice.choice([0, 77])))
            done = only(network, message, now)
            assert done.at == only(plain, message, now).at
            now = done.at
        assert network.usage().busy.tolist() == plain.usage().busy.tolist()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(0, 60), bandwidth=st.sampled_from([50e9, 3e9]))
def test_over_one_hop_it_is_chunk(seed, rows, bandwidth):
    transfers = random_transfers(2, rows, seed)
    done, stored = only(CutThrough(pair(bandwidth)), transfers), only(Chunk(pair(bandwidth)), transfers)
    assert (done.at, done.host_end) == (stored.at, stored.host_end)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(0, 60), links=st.integers(0, 50))
def test_it_is_never_faster_than_analytic_nor_than_any_link(seed, rows, links):
    """Law 3, bounds: chain of dependencies, and bytes over bandwidth of every link."""
    topology = uneven(star(6), links)
    transfers = random_transfers(6, rows, seed)
    network, plain = CutThrough(topology), Analytic(topology)
    done, bound = only(network, transfers), only(plain, transfers)
    assert done.at >= bound.at
    assert done.at >= network.usage().busy.max()
    for one, other in zip(dataclasses.astuple(network.usage()), dataclasses.astuple(plain.usage()), strict=True):
        assert one.tolist() == other.tolist()


@settings(max_examples=120, deadline=None)
@given(
    seeds=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 60), st.integers(0, 3_000_000)), min_size=1, max_size=4),
    links=st.integers(0, 50),
    step=st.sampled_from([NEVER, 400_000, 7_777_777]),
    compiled=st.booleans(),
)
def test_equals_the_reference_simulator_however_sliced(seeds, links, step, compiled):
    topology = uneven(star(7), links) if links else star(7)
    started = [(random_transfers(7, rows, seed), at) for seed, rows, at in sorted(seeds, key=lambda one: one[2])]
    with kernels("compiled" if compiled else "python"):
        network = CutThrough(topology)
        seen, now = {}, 0
        for transfers, at in [*started, (None, NEVER)]:
            while now < at and (transfers or network.next_event() < NEVER):
                now = min(at, now + step)
                for done in network.run_until(now):
                    now = min(now, done.at)
                    seen[done.group] = (done.at, done.host_end)
            if transfers:
                network.start(transfers, at)
    assert seen == reference(topology, started, cut_through=True)


@pytest.mark.parametrize("spec", ["torus:dims=4x3x2", "fat_tree:k=4"])
def test_equals_the_reference_simulator_over_many_hops(spec, form):
    topology = uneven(build(spec), 9)
    started = []
    for at in (0, 1000, 900_000_000):
        dice = np.random.default_rng(at)
        rows = 700
        deps = np.where(np.arange(rows) % 40 < 8, -1, np.arange(rows) - dice.integers(1, 9, rows))
        ends = dice.integers(0, topology.hosts, (2, rows)).tolist()
        given = zip(*ends, dice.integers(1, 20_000, rows).tolist(), deps, strict=True)
        started.append((dag([(src, dst, size, [dep] if dep >= 0 else []) for src, dst, size, dep in given]), at))
    network = CutThrough(topology)
    for transfers, at in started:
        network.start(transfers, at)
    assert {group: (at, dict(ends)) for group, at, ends in drain(network)} == reference(topology, started, cut_through=True)
