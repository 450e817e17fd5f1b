"""Leases: leased = unleased, whatever starts when; and they do spare events."""

import dataclasses
import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_reference import dag

from distsim.errors import ConfigError
from distsim.network.check import drain, kernels, pair, random_transfers, star
from distsim.network.chunk import Chunk
from distsim.network.cut_through import CutThrough
from distsim.network.fifo import FifoLinks
from distsim.network.model import NEVER, Transfers
from distsim.network.transfers import single
from distsim.topology.spec import build

MIB = 1 << 20
SER = MIB * 20
LAT = 500_000
LEVELS = [Chunk, CutThrough]


def shifted(transfers, hosts):
    """The same DAG, so many hosts further on."""
    return Transfers(transfers.src + hosts, transfers.dst + hosts, *transfers.columns()[2:])


def script(seed, hosts, halves):
    """Random steps: ("start", dag, at) with dags that come again, ("run", limit), ("usage",)."""
    dice = np.random.default_rng(seed)
    dags = [random_transfers(halves, int(dice.integers(0, 12)), int(dice.integers(0, 10**6))) for _ in range(4)]
    dags += [shifted(one, halves * int(dice.integers(1, hosts // halves))) for one in dags]
    dags += [single(*dice.integers(0, hosts, 2).tolist(), int(dice.choice([0, 1, 5000]))) for _ in range(3)]
    now, steps = 0, []
    for _ in range(int(dice.integers(1, 25))):
        kind = dice.random()
        if kind < 0.5:
            ahead = int(dice.choice([0, 0, 0, 1, 300_000]))
            steps.append(("start", dags[int(dice.integers(len(dags)))], now + ahead))
        elif kind < 0.95:
            now += int(dice.choice([0, 1, 20_000, LAT, 3_000_000]))
            steps.append(("run", now))
        else:
            steps += [("run", now), ("usage",)]
    return steps


def play(network, steps):
    """Everything that can be seen: reports and uses, in order."""
    seen = []
    for kind, *words in steps:
        if kind == "start":
            seen.append(network.start(*words))
        elif kind == "usage":
            seen += [column.tolist() for column in (network.usage().bytes, network.usage().busy)]
        else:
            while done := network.run_until(words[0]):
                seen += [(one.group, one.at, sorted(one.host_end.items())) for one in done]
                assert network.next_event() > done[0].at
    seen.append(drain(network))
    seen += [column.tolist() for column in (network.usage().bytes, network.usage().busy)]
    return seen


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**9), cut_through=st.booleans(), compiled=st.booleans(), latency=st.sampled_from([0, LAT]),
    halves=st.sampled_from([2, 4]),
)  # fmt: skip
def test_leased_is_unleased(seed, cut_through, compiled, latency, halves):
    """Law 5. Groups that keep apart, groups that meet, at any instant, with the same and with other shapes."""
    steps = script(seed, 8, halves)
    level = CutThrough if cut_through else Chunk
    with kernels("compiled" if compiled else "python"):
        expected = play(FifoLinks(star(8, 50e9, latency), cut_through=cut_through), steps)
        assert play(level(star(8, 50e9, latency)), steps) == expected
        assert play(level(star(8, 50e9, latency), leases=False), steps) == expected


@pytest.mark.parametrize("level", LEVELS)
def test_a_flow_at_every_instant(level, form):
    """A message on one of the leased links, at every instant at which anything happens in the lease, before and after."""
    topology, ring = star(4), random_transfers(4, 30, seed=8)
    instants, plain = {0, 1}, level(topology, leases=False)
    plain.start(ring, 0)
    while (at := plain.next_event()) < NEVER:
        plain.run_until(at)
        instants |= {at - 1, at, at + 1}
    for at in sorted(one for one in instants if one >= 0):
        answers = []
        for leases in (True, False):
            network = level(topology, leases=leases)
            network.start(ring, 0)
            seen = [(one.group, one.at, one.host_end) for one in network.run_until(at)]
            if not seen or seen[0][1] == at:
                network.start(single(0, 2, 4096), at)
            seen.append(drain(network))
            answers.append((seen, network.usage().bytes.tolist(), network.usage().busy.tolist()))
        assert answers[0] == answers[1], at


@pytest.mark.parametrize("level", LEVELS)
def test_rings_on_leaves_of_their_own_share_one_evaluation(level, form):
    topology = star(16)
    network = level(topology)
    rings = [shifted(random_transfers(4, 40, seed=3), 4 * leaf) for leaf in range(4)]
    ends = set()
    for turn in range(5):
        for ring in rings:
            network.start(ring, turn * NEVER // 8)
        ends |= {at - turn * NEVER // 8 for at in [at for _, at, _ in drain(network)]}
    assert len(ends) == 1
    assert len(network._outlines._shapes) == 1
    assert network._scratch._work == 8 * 40
    assert network._live._live._work == 0


def test_what_meets_in_one_instant_is_not_tried_out():
    network = Chunk(star(4))
    for seed in (1, 2, 1, 2):
        network.start(random_transfers(4, 20, seed), 0)
        assert network.run_until(0) == []
    assert len(drain(network)) == 4
    assert network._scratch is None


@pytest.mark.parametrize("level", LEVELS)
def test_the_end_of_a_lease_is_the_next_event(level):
    network, message = level(pair()), single(0, 1, MIB)
    network.start(message, 0)
    assert network.next_event() == LAT  # nothing more is known yet
    assert network.run_until(LAT) == []
    assert network.next_event() == SER + LAT
    network.start(message, LAT)  # revokes the first
    assert [(group, at) for group, at, _ in drain(network)] == [(0, SER + LAT), (1, 2 * SER + LAT)]
    network.start(message, 3 * SER)
    assert network.next_event() == 4 * SER + LAT


def test_groups_that_always_meet_are_soon_no_longer_leased():
    network = Chunk(star(6))
    dags = [random_transfers(6, 30, seed=seed) for seed in range(40)]
    now = 0
    for one in dags:
        network.start(one, now)
        network.run_until(now + 1)
        network.start(single(0, 1, 10), now + 1)
        now = max(at for _, at, _ in drain(network))
    tried = sum(shape.alone is not None for shape in network._outlines._shapes.values())
    assert tried < 15
    assert network._crowd == {}
    assert network._held == network._crowded == 0


def test_what_takes_for_ever_says_so_when_it_runs():
    network = Chunk(star(3, bandwidth=1.0))
    long = dag([(0, 1, 1 << 52), *((0, 1, 1 << 52, [row]) for row in range(5))])
    network.start(long, 0)
    with pytest.raises(ConfigError, match="beyond 2"):
        network.run_until(NEVER)
    network = Chunk(star(3))
    message = single(0, 1, MIB)
    network.start(message, 0)
    drain(network)
    network.start(message, NEVER - SER)
    with pytest.raises(ConfigError, match="beyond 2"):
        network.run_until(NEVER)


def test_memory_of_outlines_ends_with_their_transfers():
    network = Chunk(star(4))
    for size in range(50):
        network.start(single(0, 1, size), network._now)
        drain(network)
    gc.collect()
    assert len(network._known) <= 1


def test_shapes_are_forgotten_when_they_are_too_many(monkeypatch):
    monkeypatch.setattr("distsim.network.outline._REMEMBER", 100)
    network = Chunk(star(4))
    ends = []
    for size in (*range(30), *range(30)):
        network.start(single(0, 1, size), 10**9 * len(ends))
        ends.append(drain(network)[0][1] - 10**9 * len(ends))
    assert ends[:30] == ends[30:]
    assert len(network._outlines._shapes) < 10


def test_shapes_differ_where_links_do():
    rates = np.full(8, 50e9)
    rates[4:] = 1e9
    topology = dataclasses.replace(star(4), link_bandwidth=rates)
    network = Chunk(topology)
    network.start(single(0, 1, MIB), 0)
    network.start(single(2, 3, MIB), 0)
    assert [at for _, at, _ in drain(network)] == [2 * (SER + LAT), 2 * (50 * SER + LAT)]


@pytest.mark.parametrize("level", LEVELS)
def test_a_large_run_compiles_everything_together(level):
    """Routes are shared: what the outlines, the live and the scratch network hold changes its form with them."""
    topology, answers = build("torus:dims=4x4"), []
    for leases in (True, False):
        network = level(topology, leases=leases)
        seen = []
        for rows in (20, 900, 20, 30_000, 20):
            for seed in (rows, rows + 1):
                network.start(random_transfers(16, rows, seed), network._now)
            seen += drain(network)
        answers.append((seen, network.usage().busy.tolist()))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("level", [Chunk, CutThrough])
def test_events_count_what_was_simulated(level):
    """A start and two crossings a message; none where a lease answers."""
    topology = star(4)
    for leases, count in ((True, 0), (False, 3)):
        network = level(topology, leases=leases)
        network.start(single(0, 1, 1000), 0)
        network.run_until(NEVER)
        assert network.events == count
    network = level(topology)
    for _ in range(2):
        network.start(single(0, 1, 1000), 0)
    network.run_until(NEVER)
    network.run_until(NEVER)
    assert network.events == 6
