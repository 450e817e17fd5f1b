"""Models of GEMMs: closed forms, laws, batch = scalar, compiled = interpreted, who is served with what."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.cost.kernel import gemm, grouped_gemm, memory
from distsim.cost.kernels import pnorm, stream
from distsim.cost.kernels.fits import shipped
from distsim.cost.kernels.pnorm import Pnorm, PnormParameters
from distsim.cost.kernels.roofline import Roofline
from distsim.cost.kernels.stream import Stream
from distsim.cost.kernels.tile_wave import TileWave, TileWaveParameters, detail, evaluate, times, typical
from distsim.cost.kernels.tile_wave_kernel import FIELDS
from distsim.errors import ConfigError
from distsim.hardware.gpu import gpu
from distsim.registry import lookup

H100 = gpu("h100_sxm")
#: everything at its limit, nothing overlaps less than fully: the terms can be written down
PLAIN = TileWaveParameters(
    compute_efficiency=0.999999, memory_efficiency=0.999999, overhead_us=1e-9, tile_area_half=1e-9, k_prologue=1e-9,
    active_sm_bandwidth=1e-9, l2_bandwidth_ratio=1e12, splitk_overhead_us=1e9, pnorm=1e3, quantisation=0.999999, l2_reuse=1e-9,
)  # fmt: skip
sizes = st.integers(1, 20_000)
shapes = st.tuples(sizes, sizes, sizes)


def test_one_tile_in_one_wave_takes_its_arithmetic_on_one_sm():
    # of all tiles that cover 16 x 64, the smallest is fastest; nothing else costs anything (all fits into L2)
    found = detail((16, 64, 4096), H100, "bf16", PLAIN)
    assert (found["tile_rows"], found["tile_columns"], found["split_k"]) == (16, 64, 1)
    assert found["seconds"] == pytest.approx(2 * 16 * 64 * 4096 / (H100.rate("bf16") / H100.sms), rel=1e-4)


@pytest.mark.parametrize("quantisation", [0.000001, 0.5, 0.999999])
def test_the_last_wave_costs_its_share_or_a_whole_one(quantisation):
    # 256 x 256 tiles are the only ones worth it: small ones pay for their size
    parameters = replace(PLAIN, tile_area_half=1e9, quantisation=quantisation)
    full, more = (detail((256, 256 * tiles, 512), H100, "bf16", parameters) for tiles in (H100.sms, H100.sms + 66))
    assert {full["tile_rows"], full["tile_columns"], more["tile_rows"], more["tile_columns"]} == {256}
    assert (full["waves"], more["waves"]) == (1.0, 1.5)
    assert more["seconds"] / full["seconds"] == pytest.approx(quantisation * 2 + (1 - quantisation) * 1.5, rel=1e-3)


def test_large_gemms_run_at_the_efficiency_of_the_parameters():
    time_, flops = times([(16384, 16384, 16384)], H100)[0], 2 * 16384**3
    efficiency = flops / H100.rate("bf16") / time_
    assert 0.6 < efficiency < 0.85


@pytest.mark.parametrize("name", ["a100_sxm", "h100_sxm", "b200_sxm", "l40s"])
def test_large_weights_stream_at_the_efficiency_of_the_memory(name):
    moved = 2 * (65536 + 65536 * 65536 + 65536)
    share = moved / gpu(name).memory_bandwidth / times([(1, 65536, 65536)], gpu(name))[0]
    assert 0.6 < share < 0.95


@given(shape=shapes, dtype=st.sampled_from(["bf16", "fp16", "fp8", "int8"]))
@settings(max_examples=60, deadline=None)
def test_no_gemm_is_faster_than_its_arithmetic_at_peak(shape, dtype):
    assert times([shape], H100, dtype)[0] >= 2 * math.prod(shape) / H100.rate(dtype)


@given(shape=shapes, axis=st.integers(0, 2), name=st.sampled_from(["a100_sxm", "h100_sxm", "b200_sxm", "l40s"]))
@settings(max_examples=100, deadline=None)
def test_twice_the_size_takes_longer(shape, axis, name):
    """k always; n and m but where twice the tiles draw enough more from memory (few tiles; see docs/compute.md)."""
    larger = list(shape)
    larger[axis] *= 2
    small, large = times([shape, larger], gpu(name))
    assert large >= small * (0.6, 0.95, 1.0)[axis]


@given(shape=shapes, name=st.sampled_from(["a100_sxm", "h100_sxm", "b200_sxm", "l40s"]))
@settings(max_examples=60, deadline=None)
def test_twice_of_everything_takes_longer(shape, name):
    small, large = times([shape, [2 * size for size in shape]], gpu(name))
    assert large > small


@given(shape=shapes, share=st.floats(1.0, 3.0))
@settings(max_examples=40, deadline=None)
def test_a_faster_chip_is_never_slower(shape, share):
    faster = H100.model_copy(update={
        "peak": {name: rate * share for name, rate in H100.peak.items()}, "memory_bandwidth": H100.memory_bandwidth * share,
    })  # fmt: skip
    assert times([shape], faster)[0] <= times([shape], H100)[0] * (1 + 1e-12)


@given(many=st.lists(shapes, min_size=1, max_size=20), dtype=st.sampled_from(["bf16", "fp8"]))
@settings(max_examples=30, deadline=None)
def test_a_batch_is_its_kernels_one_by_one(many, dtype):
    provider = TileWave()
    alone = [provider.answer(gemm(*shape, dtype), H100).seconds for shape in many]
    assert times(many, H100, dtype).tolist() == alone


def test_law_5_compiled_is_interpreted(monkeypatch):
    rng = np.random.default_rng(1)
    many = (2 ** rng.uniform(0, 15, (300, 3))).astype(int)
    found = []
    for form in ("python", "compiled"):
        monkeypatch.setenv("DISTSIM_KERNELS", form)
        found.append(evaluate(many, H100, "fp8", typical("fp8"), fields=FIELDS))
    assert np.allclose(found[0], found[1], rtol=1e-12, atol=0)


def test_100_000_shapes_take_less_than_a_second():
    many = np.random.default_rng(0).integers(1, 16384, (100_000, 3))
    times(many, H100)  # compiled, or loaded
    begin = time.process_time()
    times(many, H100)
    assert time.process_time() - begin <= 1.0


@given(shape=shapes, groups=st.integers(1, 64))
@settings(max_examples=40, deadline=None)
def test_groups_fill_waves_together(shape, groups):
    provider = TileWave()
    together = provider.answer(grouped_gemm(groups, *shape, "bf16"), H100).seconds
    alone = provider.answer(gemm(*shape, "bf16"), H100).seconds
    # the share of L2 that a group's operands find is smaller beside others, hence the slack
    assert alone * 0.999 <= together or groups == 1
    assert together <= groups * alone * 2
    if groups == 1:
        assert together == alone


def test_small_experts_are_cheaper_in_one_launch():
    provider = TileWave()
    alone = provider.answer(gemm(128, 2048, 2048, "bf16"), H100).seconds
    assert provider.answer(grouped_gemm(8, 128, 2048, 2048, "bf16"), H100).seconds < 8 * alone


@pytest.mark.parametrize(
    ("name", "dtype", "source"),
    [
        ("h100_sxm", "bf16", "tile_wave"), ("h100_sxm", "fp16", "tile_wave"), ("h200_sxm", "bf16", "tile_wave family"),
        ("gb200", "fp8", "tile_wave family"), ("b200_sxm", "fp4", "tile_wave"), ("v100_sxm", "fp16", "tile_wave family"),
        ("v100_sxm", "bf16", None), ("mi300x", "bf16", None), ("tpu_v5p", "bf16", None), ("a100_sxm", "fp8", None),
        ("l40", "bf16", "tile_wave family"),
    ],
)  # fmt: skip
def test_who_is_served_with_whose_parameters(name, dtype, source):
    device = gpu(name)
    answer = TileWave().answer(gemm(4096, 4096, 4096, dtype), device)
    assert (answer and answer.source) == source
    fallback = Pnorm().answer(gemm(4096, 4096, 4096, dtype), device)
    assert (fallback is None) == (dtype not in device.peak)
    if answer and source == "tile_wave family":
        assert answer.error >= shipped("tile_wave").borrowed_error > TileWave().answer(gemm(1, 1, 1, "bf16"), H100).error


def test_a_data_type_without_measurements_has_a_wider_band():
    provider = TileWave()
    device = gpu("b200_sxm")
    known, scaled = (provider.answer(gemm(8192, 8192, 8192, dtype), device) for dtype in ("fp8", "fp4"))
    assert scaled.error > known.error
    assert scaled.seconds < known.seconds


def test_other_kernels_are_not_for_the_tile_wave_model():
    assert TileWave().answer(memory(1e9), H100) is None


@given(flops=st.floats(1e3, 1e16), moved=st.floats(1e2, 1e12))
@settings(max_examples=50, deadline=None)
def test_the_pnorm_lies_between_the_longer_and_the_sum(flops, moved):
    parameters = PnormParameters(0.8, 0.7, 2.0, 1.7)
    found = pnorm.times(np.array([flops]), np.array([moved]), H100, "bf16", parameters)[0] - 2e-6
    parts = flops / H100.rate("bf16") / 0.8, moved / H100.memory_bandwidth / 0.7
    assert max(parts) - 1e-12 <= found <= sum(parts) + 1e-12


def test_the_rooflines_serve_all_kinds():
    for provider in (Roofline(), Pnorm()):
        for kernel in (gemm(64, 64, 64, "bf16"), grouped_gemm(8, 64, 64, 64, "bf16"), memory(1e6)):
            assert provider.answer(kernel, gpu("mi300x")).seconds > 0
    assert Roofline().answer(memory(H100.memory_bandwidth), H100).seconds == pytest.approx(1.0)


def test_stream_is_a_launch_and_a_share_of_the_bandwidth():
    provider = Stream()
    assert provider.answer(memory(0), H100).seconds == stream.LAUNCH
    assert provider.answer(memory(0.8 * H100.memory_bandwidth), H100).seconds == pytest.approx(1 + stream.LAUNCH)
    assert provider.answer(gemm(1, 1, 1, "bf16"), H100) is None


def test_shipped_parameters_are_sound_and_sourced():
    for model, kind in (("tile_wave", TileWaveParameters), ("pnorm", PnormParameters)):
        fits = shipped(model)
        assert fits.source
        assert {fit.gpu for fit in fits.fits} == {"a100_sxm", "h100_sxm", "b200_sxm", "l40s"}
        for fit in fits.fits:
            gpu(fit.gpu).rate(fit.dtype)
            parameters = kind.read(fit)
            assert kind.of(parameters.vector).vector == pytest.approx(parameters.vector)


@pytest.mark.parametrize("shapes", [[(0, 1, 1)], [(1, 2)], 5])
def test_a_shape_that_is_none_is_refused(shapes):
    with pytest.raises(ConfigError):
        times(shapes, H100)


def test_a_gpu_without_parameters_or_data_type_is_refused_by_name():
    with pytest.raises(ConfigError, match="mi300x"):
        times([(1, 1, 1)], gpu("mi300x"))
    with pytest.raises(ConfigError, match="fp8"):
        times([(1, 1, 1)], gpu("a100_sxm"), "fp8")


def test_the_providers_are_found_by_name():
    assert lookup("kernels", "tile_wave") is TileWave
    assert lookup("kernels", "pnorm") is Pnorm
    assert lookup("kernels", "roofline") is Roofline
    assert lookup("kernels", "stream") is Stream
