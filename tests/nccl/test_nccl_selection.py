"""NCCL's own expectations, against hand calculation, and what it chooses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from nccl_systems import operations, sizes, systems

from distsim.errors import CollectiveError
from distsim.nccl.channels import chunk_bytes, fractional_channels, slices, threads
from distsim.nccl.model import segments
from distsim.nccl.selection import candidates, choose, tree_correction
from distsim.nccl.system import System, system_of


def _of(operation, size, system):
    return {(one.algorithm, one.protocol): one for one in candidates(operation, size, system)}


def test_ring_of_eight_h100_by_hand():
    found = _of("all_reduce", 1 << 20, system_of("h100", 8))
    ll, ll128, simple = (found["ring", name] for name in ("ll", "ll128", "simple"))
    assert ll.latency_us == pytest.approx(6.6 + 14 * 0.6)
    assert ll.rate == pytest.approx(min(141, 360 / 2) * 8 / 14)
    assert ll128.rate == pytest.approx(min(0.92 * 360, 12 * 36.7) * 8 / 14)
    assert simple.latency_us == pytest.approx(8.4 + 14 * 3.4)
    assert simple.time_us == pytest.approx(8.4 + 14 * 3.4 + (1 << 20) / (1000 * 360 * 8 / 14))


def test_nvls_of_eight_h100_and_b200_by_hand():
    """476 GB/s on the bus, 272 of the buffer on H100; 932 and 533 on B200."""
    h100 = _of("all_reduce", 1 << 20, system_of("h100", 8))["nvls", "simple"]
    assert h100.rate == pytest.approx(8 * 40 * 0.85 * 7 / 8 * 2 * 8 / 14) == pytest.approx(272, abs=0.1)
    b200 = _of("all_reduce", 1 << 20, system_of("b200", 8))["nvls", "simple"]
    assert b200.rate == pytest.approx(533, abs=0.5)


def test_two_nodes_of_h100_by_hand():
    """NVLSTree is bound by its 57.7 GB/s per channel; a tree crosses the network twice, up and down."""
    found = _of("all_reduce", 1 << 20, system_of("h100", 16, 2))
    assert found["nvls_tree", "simple"].rate == pytest.approx(8 * 57.7 * 16 / 30)
    assert found["nvls_tree", "simple"].latency_us == pytest.approx(25 + 2 * 20.9)
    assert found["tree", "ll"].latency_us == pytest.approx(6.8 + 2 * (7 * 0.6 + 5.0))
    # a ring's hop is no cheaper than posting to the network, and Simple on several nodes has reached its plateau
    assert found["ring", "ll"].latency_us == pytest.approx(6.6 + 28 * 1.0 + 2 * 2.7)
    assert found["ring", "simple"].latency_us == pytest.approx((8.4 + 28 * 3.4 + 2 * 14.0) * 1.4)


def test_pat_and_rooted_rings_by_hand():
    found = _of("all_gather", 1 << 20, system_of("h100", 4, 4))
    assert found["pat", "simple"].latency_us == pytest.approx(8 + 2 * 14 / 3.5 + 2.8 * 4)
    assert ("pat", "simple") not in _of("all_gather", 1 << 20, system_of("h100", 8, 4))
    assert set(_of("broadcast", 1 << 20, system_of("h100", 8))) == {("ring", name) for name in ("ll", "ll128", "simple")}


def test_tree_correction_is_the_table_and_its_interpolation():
    assert tree_correction(2, 64) == 0.9
    assert tree_correction(2, 64 << 11) == 0.5
    assert tree_correction(0, 64 << 11) == 0.5
    assert tree_correction(0, 64 << 30) == 1.0
    assert tree_correction(0, 96 << 10, smooth=True) == pytest.approx(0.6 + (0.5 - 0.6) * 0.585, abs=1e-3)


def test_small_messages_take_ll_and_large_ones_simple():
    for gpu in ("a100", "h100", "b200"):
        for ranks, nodes in ((2, 1), (8, 1), (16, 2), (64, 8)):
            system = system_of(gpu, ranks, nodes)
            assert choose("all_reduce", 1024, system).protocol == "ll"
            assert choose("all_reduce", 8 << 30, system).protocol == "simple"


def test_nvls_only_where_a_switch_reduces():
    large = 512 << 20
    assert choose("all_reduce", large, system_of("h100", 8)).algorithm == "nvls"
    assert choose("all_reduce", large, system_of("h100", 8, nvls=False)).algorithm == "ring"
    assert choose("all_reduce", large, system_of("a100", 8)).algorithm == "ring"
    assert choose("all_reduce", large, system_of("h100", 4)).algorithm == "ring"  # four heads of 60 GB/s do not beat a ring
    assert choose("all_reduce", large, system_of("h100", 16, 2)).algorithm == "nvls_tree"


def test_what_is_disabled():
    one = {name for name, _ in _of("all_reduce", 1 << 20, system_of("h100", 8))}
    assert one == {"ring", "tree", "nvls"}
    many = {name for name, _ in _of("all_reduce", 1 << 20, system_of("h100", 16, 2))}
    assert many == {"ring", "tree", "nvls_tree"}
    sharp = {name for name, _ in _of("all_reduce", 1 << 20, system_of("h100", 16, 2, collnet=True))}
    assert sharp == {"ring", "tree", "nvls", "nvls_tree", "collnet_direct", "collnet_chain"}
    assert {name for name, _ in _of("all_reduce", 1 << 20, System("h100", 15, 2, 8, 50.0))} == {"ring"}


def test_a_forced_choice_and_one_that_is_not_there():
    system = system_of("h100", 8)
    assert choose("all_reduce", 1024, system, "tree").algorithm == "tree"
    assert choose("all_reduce", 1024, system, protocol="simple").protocol == "simple"
    with pytest.raises(CollectiveError, match="by nvls_tree"):
        choose("all_reduce", 1024, system, "nvls_tree")
    with pytest.raises(CollectiveError, match="NCCL has no gather"):
        choose("gather", 1024, system)


@settings(max_examples=60, deadline=None)
@given(operation=operations, size=sizes, system=systems())
def test_segments_tell_the_choice(operation, size, system):
    """Between its switches the scan agrees with the tuner itself, apart from ties of rounding at a switch."""
    at = [one for one in segments(operation, system) if one.start <= size][-1]
    able = {(one.algorithm, one.protocol): one.time_us for one in candidates(operation, max(size, 1), system)}
    assert able[at.algorithm, at.protocol] <= 1.1 * min(able.values())


def test_channels_ramp_in_fractions():
    system = system_of("h100", 8)
    assert fractional_channels("ring", "ll", 10, system) == 1
    assert fractional_channels("ring", "ll", 4096 * 8 * 3.25, system) == 3.25
    assert fractional_channels("ring", "ll128", 5120 * 7.5, system) == 7.5
    assert fractional_channels("ring", "simple", 1 << 40, system) == 24
    assert fractional_channels("nvls", "simple", 10, system) == 16


def test_threads_and_chunks():
    system = system_of("h100", 8)
    assert threads("ring", "simple", 1 << 20, system) == 512
    assert threads("ring", "simple", 1000, system) == 64
    assert threads("ring", "ll128", 1 << 30, system) == 640
    assert slices("all_reduce", "ring", "simple") == 2
    assert slices("all_reduce", "ring", "ll") == slices("broadcast", "ring", "simple") == 1
    # one loop: the chunk is the share of a rank and channel, aligned to 16 bytes
    assert chunk_bytes("all_reduce", "ring", "simple", 64 << 20, system) == -(-(64 << 20) // (24 * 8 * 16)) * 16
    assert chunk_bytes("all_reduce", "ring", "simple", 1 << 34, system) == 2 << 20
    assert chunk_bytes("all_reduce", "nvls", "simple", 1 << 30, system) == 128 << 10
    assert chunk_bytes("all_reduce", "nvls", "simple", 1 << 20, system) == 16 << 10
