"""Level ``chunk``: figures worked by hand, and equality with a plain reference simulator."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_reference import dag, reference

from distsim.errors import ConfigError, TopologyError
from distsim.network.check import drain, kernels, pair, random_transfers, star
from distsim.network.chunk import Chunk
from distsim.network.event_queue import REVIEWED
from distsim.network.fifo import FifoLinks
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


def test_two_hops_store_and_forward(form):
    # 1 MiB at 50 GB/s: 20,971,520 ps on each of two links, 500 ns latency each.
    done = only(Chunk(star(3)), single(0, 1, MIB))
    assert done.at == 2 * (20_971_520 + 500_000) == 42_943_040
    assert done.host_end == {0: done.at, 1: done.at}


def test_empty_transfers_pay_latency_and_local_ones_nothing(form):
    assert only(Chunk(star(3)), single(0, 1, 0)).at == 2 * LAT
    assert only(Chunk(star(3)), single(1, 1, MIB), at=9).at == 9
    assert only(Chunk(star(3)), dag([])).host_end == {}
    assert only(Chunk(star(3)), dag([(0, 0, 0), (0, 0, 0, [0], 5), (0, 1, 0, [1])])).at == 5 + 2 * LAT


def test_incast_is_served_in_the_order_of_arrival(form):
    # Hosts 1..3 send to 0; host 3's message is smaller and reaches the switch first; 1 and 2 tie and go by row.
    network = Chunk(star(4))
    for row in ((2, 0, MIB), (1, 0, MIB), (3, 0, MIB // 2)):
        network.start(dag([row]), 0)
    first = SER // 2 + LAT
    ends = [first + SER // 2 + LAT, SER + LAT + SER + LAT, SER + LAT + 2 * SER + LAT]
    assert [(group, at) for group, at, _ in drain(network)] == [(2, ends[0]), (0, ends[1]), (1, ends[2])]


def test_fifo_holds_back_a_late_small_message(form):
    network = Chunk(pair())
    network.start(single(0, 1, MIB), 0)
    network.start(single(0, 1, 1), 1)
    assert [at for _, at, _ in drain(network)] == [SER + LAT, SER + 20 + LAT]


def test_a_long_delay_does_not_hold_back_what_follows_on_the_link(form):
    network = Chunk(pair())
    network.start(single(0, 1, MIB, delay=100 * SER), 0)
    network.start(single(0, 1, MIB), 0)
    assert [(group, at) for group, at, _ in drain(network)] == [(1, 2 * SER + LAT), (0, 101 * SER + LAT)]


def test_dependents_leave_at_the_delivery(form):
    done = only(Chunk(star(3)), dag([(0, 1, MIB, [], 7), (1, 2, MIB, [0]), (0, 2, 0)]))
    assert done.at == 4 * (SER + LAT) + 7
    assert done.host_end == {0: 2 * (SER + LAT) + 7, 1: done.at, 2: done.at}


def test_run_until_stops_at_the_instant_of_a_finish_and_at_the_limit(form):
    network = Chunk(pair())
    network.start(single(0, 1, 1000), 0)
    network.start(single(1, 0, 1000), 0)
    network.start(single(0, 1, 1000), 0)
    end = 20_000 + LAT
    assert network.next_event() == 0
    assert network.run_until(end - 1) == []
    assert [done.group for done in network.run_until(end)] == [0, 1]
    assert network.next_event() == end + 20_000
    assert [done.group for done in network.run_until(NEVER)] == [2]
    assert network.next_event() == NEVER


def test_usage_counts_bytes_and_busy_time(form):
    network = Chunk(star(3, bandwidth=3e9))
    only(network, dag([(0, 1, 1), (0, 2, 1), (1, 2, 10)]))
    usage = network.usage()
    assert usage.bytes.tolist() == [2, 0, 10, 1, 0, 11]
    assert usage.busy.tolist() == [668, 0, 3334, 334, 0, 3668]  # ceil(1e12 / 3e9) = 334


def test_refuses_what_is_no_dag_of_the_topology(form):
    network = Chunk(star(3))
    with pytest.raises(ConfigError, match=r"transfer 1.*does not come before"):
        network.start(dag([(0, 1, 1), (0, 1, 1, [1])]), 0)
    with pytest.raises(ConfigError, match="transfer 0: dst is 3"):
        network.start(single(0, 3, 1), 0)
    with pytest.raises(ConfigError, match="bytes is -1"):
        network.start(single(0, 1, -1), 0)
    with pytest.raises(ConfigError, match="do not fit"):
        network.start(type(single(0, 1, 1))(*single(0, 1, 1).columns()[:5], np.zeros(2, dtype=np.int64)), 0)
    with pytest.raises(ConfigError, match="do not fit"):
        network.start(dataclasses.replace(dag([(0, 1, 1)] * 3), dep_ptr=np.array([0, 2, 1, 0])), 0)
    assert only(network, single(0, 1, 0), at=50).at == 50 + 2 * LAT
    with pytest.raises(ConfigError, match="cannot start at 7"):
        network.start(single(0, 1, 1), 7)


def test_times_beyond_the_clock_are_refused(form):
    network = Chunk(star(3, bandwidth=1.0))
    network.start(single(0, 1, 1 << 52), NEVER - 1)
    with pytest.raises(ConfigError, match="beyond 2"):
        network.run_until(NEVER)


def test_a_router_that_finds_no_way_leaves_the_network_usable(form):
    whole = star(4)
    cut = True

    def router(src, dst):
        if cut and (dst == 3).any():
            raise TopologyError("no path to node3")
        return whole.router(src, dst)

    network = Chunk(dataclasses.replace(whole, router=router))
    for _ in range(2):
        with pytest.raises(TopologyError):
            network.start(dag([(0, 1, 1), (0, 3, 1)]), 0)
    cut = False
    assert only(network, dag([(0, 1, MIB), (0, 3, MIB)])).at == 2 * (SER + LAT) + SER


def test_long_runs_reuse_their_slots(form):
    network = FifoLinks(star(6))
    now = 0
    for turn in range(60):
        network.start(random_transfers(6, 20, seed=turn), now)
        network.start(random_transfers(6, 5, seed=turn), now)
        now = max(at for _, at, _ in drain(network))
    assert network._slot_blocks.end == network._room_blocks.end == network._seat_blocks.end == 0
    assert network._slots.rows < 100


def test_lists_become_arrays_while_groups_are_in_flight():
    started = [(random_transfers(6, 40, seed=seed), 1000 * seed) for seed in range(4)]
    network = Chunk(star(6))
    seen = {}
    for number, (transfers, at) in enumerate(started):
        with kernels("python" if number < 2 else "compiled"):
            network.start(transfers, at)
            for done in network.run_until(at + 500):
                seen[done.group] = (done.at, done.host_end)
    for group, at, ends in drain(network):
        seen[group] = (at, dict(ends))
    assert seen == reference(star(6), started)


@settings(max_examples=150, deadline=None)
@given(
    seeds=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 60), st.integers(0, 3_000_000)), min_size=1, max_size=4),
    bandwidth=st.sampled_from([50e9, 3e9, 53_687_091_200.0]),
    latency=st.sampled_from([0, 1, LAT]),
    step=st.sampled_from([NEVER, 400_000, 7_777_777]),
    compiled=st.booleans(),
)
def test_equals_the_reference_simulator_however_sliced(seeds, bandwidth, latency, step, compiled):
    topology = star(7, bandwidth, latency)
    started = [(random_transfers(7, rows, seed), at) for seed, rows, at in sorted(seeds, key=lambda one: one[2])]
    with kernels("compiled" if compiled else "python"):
        network = Chunk(topology)
        seen, now = {}, 0
        for transfers, at in started:
            while now < at:
                now = min(at, now + step)
                for done in network.run_until(now):
                    now = min(now, done.at)
                    seen[done.group] = (done.at, done.host_end)
            network.start(transfers, at)
        while network.next_event() < NEVER:
            now = min(NEVER, now + step)
            for done in network.run_until(now):
                now = min(now, done.at)
                seen[done.group] = (done.at, done.host_end)
    assert seen == reference(topology, started)


@pytest.mark.parametrize("spec", ["torus:dims=4x3x2", "fat_tree:k=4", "ring:hosts=9"])
@pytest.mark.parametrize("sizes", [(1, 50), (10_000, 20_000), (65_536, 65_537)])
def test_equals_the_reference_simulator_over_many_hops(spec, sizes, form):
    """Enough events for the queue to change the width of its buckets, in bursts of another density each."""
    topology = build(spec)
    dice = np.random.default_rng(5)
    started = []
    for at in (0, 1000, 2_000_000_000):
        rows = 900
        deps = np.where(np.arange(rows) % 40 < 8, -1, np.arange(rows) - dice.integers(1, 9, rows))
        ends = dice.integers(0, topology.hosts, (2, rows)).tolist()
        given = zip(*ends, dice.integers(*sizes, rows).tolist(), deps, strict=True)
        started.append((dag([(src, dst, size, [dep] if dep >= 0 else []) for src, dst, size, dep in given]), at))
    network = FifoLinks(topology)
    for transfers, at in started:
        network.start(transfers, at)
    assert {group: (at, dict(ends)) for group, at, ends in drain(network)} == reference(topology, started)
    assert network._state["value"][REVIEWED] > 0
