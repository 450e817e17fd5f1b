"""Recorded durations on another GPU: what each class goes with, what stays, what is refused; typical durations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from building import graph, program
from hypothesis import given
from hypothesis import strategies as st

from distsim import simulate
from distsim.cost.check import check_cost_provider
from distsim.cost.precision import dtype_of
from distsim.cost.rescaled import FIXED_PS, Between, Factor, Rescaled, rescaled, scaling
from distsim.cost.typical import Typical
from distsim.errors import ConfigError, TraceError, UnknownNameError
from distsim.hardware.gpu import gpu, gpus
from distsim.trace.graph import NodeType
from distsim.trace.read import read_trace

US = 1_000_000
COMP, LOAD = NodeType.COMP, NodeType.MEM_LOAD
NAMES = (
    "", "cutlass_80_tensorop_s1688gemm_256x64", "void at::native::vectorized_elementwise_kernel<4>", "flash_fwd_kernel<half_t>",
    "Memcpy HtoD (Pinned -> Device)", "Memcpy HtoD (Pageable -> Device)", "Memset (Device)", "unheard_of", "cudaLaunchKernel",
)  # fmt: skip


def capture(*rows, on="NVIDIA A100-SXM4-80GB"):
    """rows: (type, name, ps, more)."""
    made = [
        (k, kind, [], {"name": NAMES.index(name), "duration_ps": ps, **more}) for k, (kind, name, ps, more) in enumerate(rows)
    ]
    return replace(graph(program(made)), names=NAMES, captured=True, metadata={"kineto.gpu": on} if on else {})


def test_each_class_goes_with_its_own_resource():
    one = capture(*((COMP if place < 4 or place > 6 else LOAD, name, 103 * US, {}) for place, name in enumerate(NAMES[1:], 1)))
    found = (rescaled("a100->h100", one).durations(one.programs[0], "") - FIXED_PS) / (100 * US)
    bandwidth = gpu("a100").memory_bandwidth / gpu("h100").memory_bandwidth
    assert found[1] == found[5] == found[6] == pytest.approx(bandwidth, abs=1e-6)
    assert (found[3], found[4]) == (0.5, 1.0)  # PCIe 4 -> 5; pageable memory is the host's doing
    assert 156 / 494.7 * 0.8 < found[0] < 156 / 494.7 * 1.25  # tf32 peaks of the data sheets, some 20 % apart in efficiency
    assert 0.2 < found[2] < 0.5


def test_what_a_launch_takes_stays():
    one = capture((COMP, NAMES[2], 2 * US, {}), (COMP, NAMES[2], 0, {}), (COMP, NAMES[2], 3 * US, {}))
    assert rescaled("a100->h100", one).durations(one.programs[0], "").tolist() == [2 * US, 0, 3 * US]
    assert rescaled("a100->v100", one).durations(one.programs[0], "").tolist() == [2 * US, 0, 3 * US]


def test_host_and_communication_stay():
    launch, delay = (COMP, "cudaLaunchKernel", 50 * US, {"cpu": True}), (NodeType.DELAY, "", 9 * US, {})
    one = capture(launch, delay, (COMP, NAMES[2], 80 * US, {}))
    assert rescaled("2x", one).durations(one.programs[0], "").tolist() == [50 * US, 9 * US, 40 * US]


@pytest.mark.parametrize("name", sorted(name for name, one in gpus().items() if one.generation != "tpu"))
def test_law_there_and_back_is_where_one_was(name):
    there, back = Between(gpu("h100"), gpu(name)), Between(gpu(name), gpu("h100"))
    for kernel, kind in ((NAMES[1], COMP), (NAMES[2], COMP), (NAMES[3], COMP), (NAMES[4], LOAD)):
        assert there.scale(kernel, kind).ratio * back.scale(kernel, kind).ratio == pytest.approx(1)
    assert Between(gpu(name), gpu(name)).scale(NAMES[1], COMP).ratio == 1


kernels = st.tuples(st.sampled_from([COMP, LOAD]), st.sampled_from(NAMES), st.integers(0, 10**12), st.booleans())


@given(st.lists(kernels, max_size=8))
def test_law_the_contract_and_faster_gpus_are_faster(rows):
    one = capture(*((kind, name, ps, {"cpu": cpu}) for kind, name, ps, cpu in rows))
    for provider in (rescaled("a100->h100", one), rescaled("1.7x", one), Typical(one)):
        check_cost_provider(provider, one.programs[0])
    if rows:
        assert (rescaled("a100->h100", one).durations(one.programs[0], "") <= one.programs[0].duration_ps).all()


def test_what_was_done_is_told_and_sums_up():
    one = capture((COMP, NAMES[1], 60 * US, {}), (COMP, NAMES[2], 30 * US, {}), (LOAD, NAMES[5], 10 * US, {}))
    two = replace(one, rank_program=np.zeros(2, np.int32))  # two ranks run it
    provider = rescaled("a100->h100", two)
    told = provider.told(two)
    assert [(t.by, t.kernels) for t in told] == [
        ("matrix products in tf32", 2), ("memory bandwidth", 2), ("copies of pageable host memory", 2),
    ]  # fmt: skip
    assert [t.share for t in told] == pytest.approx([0.6, 0.3, 0.1])
    after = provider.durations(one.programs[0], "")
    assert sum(t.share * t.whole for t in told) * 100 * US == pytest.approx(after.sum())
    (note,) = provider.notes(two)
    assert "a100_sxm -> h100_sxm: 60 % of the kernels' time by matrix products in tf32" in note
    assert "3 us of each kernel stay" in note
    assert "does not say which GPU" in rescaled("a100->h100", capture(on="")).notes(capture(on=""))[1]


def test_the_captured_gpu_is_checked():
    assert scaling("v100->h100", "Tesla V100-SXM2-32GB").said == "v100_sxm -> h100_sxm"
    assert scaling("a100->h100", "NVIDIA A100-PG509-200").said == "a100_sxm -> h100_sxm"
    assert scaling("a100->h100", "NVIDIA A100-SXM4-40GB").said == "a100_sxm_40g -> h100_sxm"
    with pytest.raises(ConfigError, match=r"recorded on Tesla V100-SXM2-32GB, not on a100_sxm(.|\n)*Nearest: v100_sxm"):
        scaling("a100->h100", "Tesla V100-SXM2-32GB")
    with pytest.raises(ConfigError, match="not on h100_sxm"):
        scaling("h100->b200", "NVIDIA H100 80GB HBM3, NVIDIA A100-SXM4-80GB")


@pytest.mark.parametrize("text", ["", "fast", "1..5x", "x", "1.5x faster", "nanx", "0x", "-1x", "1e999x"])
def test_bad_factors_are_refused(text):
    with pytest.raises(ConfigError, match="--scale-compute"):
        scaling(text)


def test_bad_gpus_are_refused():
    with pytest.raises(UnknownNameError, match=r"unknown GPU 'h1000'(.|\n)*Nearest: h100"):
        scaling("a100->h1000")
    with pytest.raises(ConfigError, match="names of a GPU"):
        scaling("a100->tpu_v4")
    one = capture((COMP, NAMES[0], US, {}))
    bf16 = replace(one, names=("sm80_xmma_gemm_bf16bf16_bf16f32_f32_tn", *NAMES[1:]))
    with pytest.raises(ConfigError, match=r"v100_sxm has no bf16 units(.|\n)*a GPU with bf16"):
        rescaled("a100->v100", bf16).durations(bf16.programs[0], "")


def test_data_types_by_name():
    for name, dtype in {
        "volta_sgemm_128x64_nn": "fp32", "volta_fp16_s884gemm_fp16_128x128_ldg8": "fp16", "turing_fp16_s1688gemm_fp16": "fp16",
        "cutlass_80_tensorop_f16_s16816gemm_f16_256x128": "fp16", "ampere_bf16_s16816gemm_bf16": "bf16",
        "sm80_xmma_wgrad_implicit_gemm_indexed_tf32f32_tf32f32_f32": "tf32", "sm90_xmma_gemm_e4m3bf16_e4m3f32_f32_tn": "fp8",
        "nvjet_tst_128x256_64x4": "bf16", "nvjet_hsh_64x8": "fp16", "nvjet_qqtst_64": "fp8", "ampere_dgemm_64x64": "fp64",
        "Cijk_Ailk_Bljk_HHS_BH_MT128": "fp16", "Cijk_Alik_Bljk_BBS_BH_MT": "bf16", "Cijk_Ailk_Bljk_SB_MT64": "fp32",
        "Cijk_Alik_Bljk_F8B8HS": "fp8", "Cijk_Alik_Bljk_I8BH_MT": "int8", "my_kernel": None,
    }.items():  # fmt: skip
        assert dtype_of(name) == dtype, name


def test_a_factor_leaves_copies_alone():
    assert (Factor(2).scale("any", COMP).ratio, Factor(2).scale("any", LOAD).ratio) == (0.5, 1.0)


def test_typical_is_the_mean_of_a_name():
    on_host = (COMP, NAMES[1], 99, {"cpu": True})
    one = capture((COMP, NAMES[1], 10, {}), (COMP, NAMES[1], 30, {}), (COMP, NAMES[2], 7, {}), on_host)
    assert Typical(one).durations(one.programs[0], "").tolist() == [20, 20, 7, 99]
    other = program([(0, COMP, [], {"name": 7, "duration_ps": 5})])
    assert Typical(one).durations(other, "").tolist() == [5]  # of no known name
    weighted = replace(
        graph(one.programs[0], program([(0, COMP, [], {"name": 1, "duration_ps": 80})])), names=NAMES,
        rank_program=np.array([0, 1, 1], np.int32),
    )  # fmt: skip
    assert Typical(weighted).durations(one.programs[0], "")[0] == 50
    with pytest.raises(TraceError, match="no recorded duration"):
        Typical(graph(program([(0, COMP, [], {"num_ops": 5})])))


def test_a_captured_trace_is_nearly_all_of_known_classes(traces_reference):
    one = read_trace(str(traces_reference / "hta_ddp_2xA100" / "kineto_rank0.json.gz"))
    provider = rescaled("a100->h100", one)
    told = provider.told(one)
    assert sum(t.share for t in told) == pytest.approx(1)
    assert sum(t.share for t in told if "not known" in t.by) < 0.05
    after = Rescaled(scaling("a100->h100"), one.names).durations(one.programs[0], "")
    rows = (one.programs[0].type == COMP) & ~one.programs[0].cpu
    assert 0.3 < after[rows].sum() / one.programs[0].duration_ps[rows].sum() < 0.7
    with pytest.raises(ConfigError, match="recorded on NVIDIA A100"):
        rescaled("v100->h100", one)


def test_a_run_takes_it():
    kernel, host = {"duration_ps": 10_000_000}, {"duration_ps": 6_000_000, "cpu": True}
    made = graph(program([(0, NodeType.COMP, [], kernel), (1, NodeType.COMP, [0], host)]))
    assert simulate(made).makespan == 16_000_000
    assert simulate(made, scale_compute="2x").makespan == 11_000_000
