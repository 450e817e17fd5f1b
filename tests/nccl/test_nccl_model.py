"""The closed form: laws for any system, and its plan."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nccl_systems import operations, sizes, systems

from distsim.errors import CollectiveError
from distsim.nccl.model import Calibration, Factors, chosen, factors_of, plan, segments, time_us
from distsim.nccl.shape import LL_HOP, OWN_SHARD, shape
from distsim.nccl.system import System, system_of


@settings(max_examples=150, deadline=None)
@given(operation=operations, system=systems(), pair=st.tuples(sizes, sizes))
def test_law_time_never_falls_with_size(operation, system, pair):
    small, large = sorted(pair)
    assert time_us(operation, small, system) <= time_us(operation, large, system) * (1 + 1e-12)


@settings(max_examples=100, deadline=None)
@given(operation=operations, system=systems())
def test_law_time_never_falls_at_a_switch(operation, system):
    for at in segments(operation, system)[1:]:
        assert time_us(operation, at.start - 1, system) <= time_us(operation, at.start, system) * (1 + 1e-12)


@settings(max_examples=100, deadline=None)
@given(operation=operations, system=systems(), size=st.floats(1, 2**36))
def test_law_continuous_but_for_the_switches(operation, system, size):
    """A thousandth more bytes is never more than a few thousandths more time, unless NCCL takes another protocol."""
    more = size * 1.001
    if chosen(operation, int(size), system) == chosen(operation, int(more) + 1, system):
        assert time_us(operation, more, system) <= time_us(operation, size, system) * 1.004


@settings(max_examples=100, deadline=None)
@given(operation=operations, system=systems(), size=st.integers(1 << 20, 1 << 36))
def test_law_no_faster_than_the_links(operation, system, size):
    """No rank sends more than 1.3 times what NCCL counts of its links, no node more than its NICs carry."""
    found = plan(operation, size, system)
    assert found.time_ps > found.base_ps >= 0
    assert found.rate <= 1.3e9 * system.kind.rate * (2 if found.algorithm in ("nvls", "nvls_tree") else 1)
    assert found.inter_rate <= 1e9 * system.net_rate * (1 + 1e-9)


@settings(max_examples=100, deadline=None)
@given(operation=operations, system=systems(), size=sizes)
def test_a_plan_adds_up(operation, system, size):
    found = plan(operation, size, system)
    form = shape(operation, found.algorithm, found.protocol, size, system)
    parts = found.base_ps + form.intra_hops * found.intra_hop_ps + form.inter_hops * found.inter_hop_ps
    moving = form.moved / found.rate * 1e12 if form.moved else 0.0
    assert parts + moving == pytest.approx(found.time_ps, rel=1e-6, abs=4096)
    assert found.time_ps == pytest.approx(time_us(operation, size, system) * 1e6, rel=1e-9, abs=1)
    assert min(found.channels, found.chunk) >= 1
    assert found.slices in (1, 2)
    assert (found.inter_rate > 0) == (system.nodes > 1)


@settings(max_examples=60, deadline=None)
@given(system=systems(), size=st.integers(1, 1 << 33))
def test_more_work_takes_longer(system, size):
    """An all_reduce is no faster than the reduce_scatter or the all_gather that it contains, by the same algorithm."""
    whole = time_us("all_reduce", size, system, None, "ring", "simple")
    assert time_us("all_gather", size, system, None, "ring", "simple") <= whole
    assert time_us("reduce_scatter", size, system, None, "ring", "simple") <= whole


def test_ring_ll_by_hand():
    """2 ranks and 1 KiB on H100: one channel of 24, half of the wait for it shows."""
    system = system_of("h100", 2)
    latency, transfer = system.generation.latency, system.generation.transfer
    sent = 1024 / 2 * (2 + OWN_SHARD)
    waits = 1 + 0.5 * (24 - 1)
    expected = latency * (6.6 + 2 * 0.6 * LL_HOP) + transfer * sent * waits / (1000 * 141)
    assert time_us("all_reduce", 1024, system) == pytest.approx(expected)


def test_nvls_by_hand():
    system = system_of("h100", 8)
    size, bus = 512 << 20, 8 * 40 * 0.85 * 7 / 8 * 2
    sent = size * 14 / 8
    ramp = (sent * 16 * 8 * (128 << 10)) ** 0.5
    expected = system.generation.latency * 25 + system.generation.transfer * (sent + ramp) / (1000 * bus)
    assert time_us("all_reduce", size, system) == pytest.approx(expected)


def test_the_network_bounds_what_nvlink_could_do():
    slow, fast = (system_of("h100", 16, 2, 8, rate) for rate in (6.25e9, 50e9))
    size = 8 << 30
    assert time_us("all_reduce", size, slow) > 4 * time_us("all_reduce", size, fast)
    # a node sends the buffer once over 50 GB/s, or twice in a ring: never faster than that
    assert time_us("all_reduce", size, slow) >= size / 50e3


def test_more_ranks_more_time_for_little_data():
    times = [time_us("all_reduce", 1024, system_of("h100", 8 * nodes, nodes)) for nodes in (1, 2, 4, 8, 16, 32)]
    assert times == sorted(times)


def test_a_calibration_holds_for_its_system_only():
    found = Calibration("h100", False, (("ring", "ll", Factors(2, 2, 1, 1, 1)),))
    one, many, other = system_of("h100", 8), system_of("h100", 16, 2), system_of("a100", 8)
    assert factors_of(one, "ring", "ll", found).base == 2
    assert time_us("all_reduce", 1024, one, found) > time_us("all_reduce", 1024, one)
    for system in (many, other):
        assert time_us("all_reduce", 1024, system, found) == time_us("all_reduce", 1024, system)
    assert factors_of(one, "ring", "simple", found) == factors_of(one, "ring", "simple")


def test_refusals():
    system = system_of("h100", 8)
    with pytest.raises(CollectiveError, match="a buffer of -1"):
        plan("all_reduce", -1, system)
    with pytest.raises(CollectiveError, match="NCCL has no barrier"):
        plan("barrier", 0, system)
    assert plan("all_reduce", 0, system).time_ps > 0
    assert System("h100", 9, 2, 8, 50.0).per_node == 5
