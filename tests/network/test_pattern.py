"""Patterns: a DAG handed over with its pattern is the DAG without, on every level; one sweep or evaluation per shape."""

import dataclasses
import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_reference import dag

from distsim import registry
from distsim.collectives.schedule import Collective, schedule
from distsim.engine.placement import CollectiveOptions, Placer, place
from distsim.engine.task import CollectiveCall
from distsim.errors import ConfigError
from distsim.network import pattern as module
from distsim.network.analytic import Analytic
from distsim.network.check import drain, kernels, random_transfers, star
from distsim.network.chunk import Chunk
from distsim.network.fifo import FifoLinks
from distsim.network.pattern import Pattern, by_first_use
from distsim.topology.spec import build

TOPOLOGIES = ["switch:hosts=8", "torus:dims=2x4", "fat_tree:k=4", "ring:hosts=8"]


def bare(transfers):
    """The same rows without a pattern."""
    return dataclasses.replace(transfers, pattern=None, members=None)


def seen(network, started):
    """Everything that can be seen of groups started at given times."""
    told = []
    for transfers, at in started:
        for done in network.run_until(at):
            told.append((done.group, done.at, sorted(done.host_end.items())))
        network.start(transfers, max(at, told[-1][1] if told else 0))
    told.append(drain(network))
    return told, network.usage().bytes.tolist(), network.usage().busy.tolist()


def test_numbering_by_first_use(monkeypatch):
    assert doctest.testmod(module).failed == 0
    values = np.random.default_rng(1).integers(0, 50, 400)
    by_table = by_first_use(values, 50)
    monkeypatch.setattr(module, "_TABLE", 10)
    for limit in (1601, 1 << 40):
        for one, other in zip(by_first_use(values, limit), by_table, strict=True):
            assert one.tolist() == other.tolist()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), topology=st.sampled_from(TOPOLOGIES), form=st.sampled_from(["python", "compiled"]))
def test_with_a_pattern_is_without_on_all_levels(seed, topology, form):
    """Random schedules on random hosts, several members on one host and joins included; groups that meet, and that do not."""
    dice = np.random.default_rng(seed)
    patterns = []
    for _ in range(3):
        members = int(dice.integers(2, 9))
        patterns.append(Pattern.of(*random_transfers(members, int(dice.integers(0, 30)), int(dice.integers(10**6))).columns()))
    plan = schedule("direct", Collective("all_reduce", 4, 1000))  # has joins
    started, at = [], 0
    for _ in range(8):
        hosts = dice.integers(0, 8, 9).astype(np.int32) if dice.random() < 0.5 else dice.permutation(8)[:8].astype(np.int32)
        one = patterns[int(dice.integers(3))]
        which = one.on(np.resize(hosts, 9)) if dice.random() < 0.7 else place(plan, hosts[:4], int(dice.integers(0, 3)))
        started.append((which, at))
        at += int(dice.choice([0, 0, 1, 300_000, 10**8]))
    with kernels(form):
        network = build(topology)
        for level in registry.names("network"):
            make = registry.lookup("network", level)
            expected = seen(make(network), [(bare(one), at) for one, at in started])
            assert seen(make(network), started) == expected, level
        for cut_through in (False, True):
            expected = seen(FifoLinks(network, cut_through=cut_through), [(bare(one), at) for one, at in started])
            assert seen(FifoLinks(network, cut_through=cut_through), started) == expected


@pytest.mark.parametrize("level", ["analytic", "chunk", "cut_through"])
def test_both_have_one_shape(level, form):
    network = registry.lookup("network", level)(star(8))
    ring = Pattern.of(*random_transfers(4, 40, seed=3).columns())
    for first in (0, 4):
        placed = ring.on(np.arange(first, first + 4, dtype=np.int32))
        network.start(placed, network._now)
        drain(network)
        network.start(bare(placed), network._now)
        drain(network)
    assert len(network._outlines._shapes) == 1


def test_analytic_sweeps_once_per_shape(form):
    network, ring = Analytic(star(16)), Pattern.of(*random_transfers(4, 40, seed=3).columns())
    for first in range(0, 16, 4):
        network.start(ring.on(np.arange(first, first + 4, dtype=np.int32)), 0)
    ends = [(at, tuple(end for _, end in host_end)) for _, at, host_end in drain(network)]
    assert len(set(ends)) == 1
    assert network._sweeps == 1
    assert (network.usage().bytes.reshape(4, -1) == network.usage().bytes[:8]).all()


def test_shared_hosts_are_a_shape_of_their_own():
    ring = Pattern.of(*dag([(0, 1, 1000), (1, 2, 1000, [0]), (2, 0, 1000, [1])]).columns())
    ends = []
    for hosts in ([0, 1, 2], [3, 4, 4], [5, 5, 5]):
        network = Analytic(star(6))
        network.start(ring.on(np.array(hosts, dtype=np.int32)), 0)
        ends += [at for _, at, _ in drain(network)]
    assert ends == [3 * 1_020_000, 2 * 1_020_000, 0]


def test_patterns_refuse_what_is_no_dag():
    with pytest.raises(ConfigError, match=r"transfer 1.*does not come before"):
        Pattern.of(*dag([(0, 1, 1), (0, 1, 1, [1])]).columns())
    with pytest.raises(ConfigError, match="bytes is -1"):
        Pattern.of(*dag([(0, 1, -1)]).columns())
    with pytest.raises(ConfigError, match="src is -1"):
        Pattern.of(*dag([(-1, 1, 1)]).columns())
    placed = Pattern.of(*dag([(0, 1, 1), (1, 0, 1), (0, 1, 1), (2, 1, 1)]).columns()).on(np.array([0, 1, 9], dtype=np.int32))
    for network in (Analytic(star(3)), Chunk(star(3)), FifoLinks(star(3))):
        with pytest.raises(ConfigError, match=r"transfer 3.*src is 9|src is 9.*transfer 3") as told:
            network.start(placed, 0)
        assert "transfer 3" in str(told.value)


def test_the_placer_makes_one_pattern_per_schedule():
    placer = Placer(star(8), range(8))
    calls = [CollectiveCall(("world", 0), "all_reduce", 1000, members) for members in ((0, 1, 2, 3), (4, 5, 6, 7))]
    one, other = (placer.collective(call, CollectiveOptions())[0] for call in calls)
    assert one.pattern is other.pattern
    assert one.bytes is other.bytes
    late = placer.collective(calls[0], CollectiveOptions(endpoint_ps=5))[0]
    assert late.pattern is not one.pattern
    assert set(late.delay.tolist()) == {5}
