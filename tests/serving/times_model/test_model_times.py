"""Iteration times from a model: laws of the interface, closed forms of its parts, and measured iterations of real servers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import ConfigError
from distsim.serving.deployment import Deployment
from distsim.serving.forward.allreduce import CONSTANTS, constants, seconds
from distsim.serving.forward.operations import operations
from distsim.serving.iteration import Shape
from distsim.serving.times.model import ModelTimes
from distsim.topology.spec import build

LLAMA = ModelTimes(Deployment(model="llama3-8b", gpu="h100_sxm"))
SPREAD = ModelTimes(Deployment(model="llama3-8b", gpu="h100_sxm", tp=2, pp=3))
EXPERTS = ModelTimes(Deployment(model="qwen3-30b-a3b", gpu="h100_sxm", dp=4, ep=4))
ALL = (LLAMA, SPREAD, EXPERTS)

prompts = st.lists(st.tuples(st.integers(1, 4096), st.integers(0, 8192)), max_size=3).map(tuple)


@st.composite
def shapes(draw):
    chunks = draw(prompts)
    n = draw(st.integers(0 if chunks else 1, 300))
    lengths = draw(st.integers(1, 8000)) if n else 0
    return Shape(chunks, n, n * lengths, lengths, n + len(chunks))


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 600), kv=st.integers(1, 9000), times=st.sampled_from((LLAMA, EXPERTS)))
def test_steady_agrees_with_times_as_long_as_it_says(n, kv, times):
    total = n * kv
    ps, count = times.steady(n, total, kv)
    assert count >= 1
    for done in {0, count // 2, count - 1}:
        assert times.times(Shape((), n, total + done * n, kv + done, n)) == (ps,)
    later, _ = times.steady(n, total + count * n, kv + count)
    assert times.times(Shape((), n, total + count * n, kv + count, n)) == (later,)


@settings(max_examples=15, deadline=None)
@given(shape=shapes(), times=st.sampled_from(ALL))
def test_times_are_positive_integers_and_pure(shape, times):
    first = times.times(shape)
    assert len(first) == times.stages
    assert all(isinstance(ps, int) and ps > 0 for ps in first)
    assert ModelTimes(times.deployment).times(shape) == first


@settings(max_examples=15, deadline=None)
@given(shape=shapes())
def test_equal_ranks_take_what_one_says(shape):
    assert EXPERTS.group_times([shape] * 4) == EXPERTS.times(shape)
    idle = EXPERTS.group_times([shape, None, None, None])
    assert idle <= EXPERTS.times(shape)


def test_a_group_waits_for_its_slowest_rank():
    long, short = Shape((), 8, 8 * 8000, 8000, 8), Shape((), 8, 8 * 500, 500, 8)
    mixed = EXPERTS.group_times([short, short, long, short])
    assert EXPERTS.times(short) < mixed <= EXPERTS.times(long)
    with pytest.raises(ConfigError):
        EXPERTS.group_times([short])


@settings(max_examples=15, deadline=None)
@given(shape=shapes(), times=st.sampled_from(ALL))
def test_the_list_of_operations_adds_up_to_the_time(shape, times):
    """On the GPU; outside a graph the host may take longer."""
    sums = [sum(times.operation(one) for one in operations(times.deployment, shape, stage)) for stage in range(times.stages)]
    launched = [sum(one.launches for one in operations(times.deployment, shape, stage)) for stage in range(times.stages)]
    graph = (shape.tokens if shape.prefills else shape.sequences) <= 512
    cost = 0 if graph else round(times.deployment.software.launch * 1e12)
    assert times.times(shape) == tuple(max(ps, cost * count) for ps, count in zip(sums, launched, strict=True))


def test_no_iteration_beats_the_roofline():
    """Weights are read once; every product is computed."""
    gpu = LLAMA.deployment.device
    read = 15.0e9 / gpu.memory_bandwidth
    assert LLAMA.times(Shape((), 1, 100, 100, 1))[0] > read * 1e12
    computed = 2 * 7.0e9 * 8192 / gpu.rate("bf16")
    assert LLAMA.times(Shape(((8192, 0),), 0, 0, 0, 1))[0] > computed * 1e12


def test_more_work_takes_longer():
    def one(**change):
        return ModelTimes(Deployment(**{"model": "llama3-8b", "gpu": "h100_sxm", **change}))

    decode, prompt = Shape((), 64, 64 * 2000, 2000, 64), Shape(((4096, 0),), 0, 0, 0, 1)
    assert one(tp=4).times(decode) < one(tp=2).times(decode) < one().times(decode)
    assert one(weights="fp8").times(decode) < one().times(decode)
    assert one(kv_dtype="fp8").times(decode) < one().times(decode)
    assert one(tp=8, cuda_graphs=False).times(decode) > one(tp=8).times(decode)
    assert one(tp=8, cuda_graphs=False, backend="sglang").times(decode) > one(tp=8, cuda_graphs=False).times(decode)
    gap = one(overlap=False).times(decode)[0] - one().times(decode)[0]
    assert gap == pytest.approx(64 * 5.5e-3 / 256 * 1e12, rel=1e-6)
    assert one(backend="trtllm").times(prompt) == one().times(prompt)  # one GPU: no all-reduce, nothing waits for the host
    assert one().times(Shape(((4096, 8192),), 0, 0, 0, 1)) > one().times(prompt)


def test_experts_met_and_their_imbalance():
    def one(**change):
        return ModelTimes(Deployment(**{"model": "qwen3-30b-a3b", "gpu": "h100_sxm", "tp": 4, **change}))

    few, many = Shape((), 1, 1000, 1000, 1), Shape((), 64, 64 * 1000, 1000, 64)
    apart = one(ep=4)

    def met(shape):
        return next(one for one in operations(apart.deployment, shape) if one.name == "expert up").kernel.shape[0]

    assert met(many) == round(32 * (1 - (1 - 8 / 128) ** 64))
    assert met(few) < met(many)
    prompt = Shape(((8192, 0),), 0, 0, 0, 1)
    assert one(ep=4, ep_imbalance=1.5).times(prompt) > apart.times(prompt)


def test_all_reduce_in_one_shot_and_in_two():
    shots = CONSTANTS["custom", "h100"]
    assert seconds(8192, 8, shots) == pytest.approx((4.34 + 6 * 0.064 + 7 * 8192 / 263.6e3) * 1e-6)
    assert seconds(8 << 20, 8, shots) == pytest.approx((6.54 + 6 * 0.586 + 2 * 7 / 8 * (8 << 20) / 287.0e3) * 1e-6)
    assert constants("custom", "h200") == shots
    assert constants("custom", "l40s") is None


def test_a_topology_decides_the_links():
    deployment = Deployment(model="llama3-8b", gpu="h100_sxm", tp=8)
    shape = Shape(((2048, 0),), 0, 0, 0, 1)
    usual = ModelTimes(deployment).times(shape)
    assert ModelTimes(deployment, build("dgx_h100:gpus=8", None)).times(shape) == usual
    across = ModelTimes(Deployment(model="llama3-70b", gpu="h100_sxm", tp=16), build("h100_superpod:nodes=2", None))
    inside = ModelTimes(Deployment(model="llama3-70b", gpu="h100_sxm", tp=8), build("h100_superpod:nodes=2", None))
    talk = [sum(times.operation(one) for one in operations(times.deployment, shape) if one.group) for times in (across, inside)]
    assert talk[0] > 1.3 * talk[1]


#: ms of iterations of vLLM 0.20 serving Qwen3-32B in bf16 on 8 B300 with tp=8, medians, from the public repository
#: ai-dynamo/aiconfigurator, fpm_golden_runs/fpm_upfront_qwen32_full_once_20260613_194007/tp8_ep1_past4096: no constant of the
#: package was fitted to them
MEASURED = [
    (Shape((), 1, 4096, 4096, 1), 4.50), (Shape((), 4, 4 * 4200, 4200, 4), 4.62), (Shape((), 14, 14 * 4200, 4200, 14), 5.00),
    (Shape(((128, 0),), 0, 0, 0, 1), 7.5), (Shape(((1024, 0),), 0, 0, 0, 1), 17.55), (Shape(((4096, 0),), 0, 0, 0, 1), 49.1),
    (Shape(((4096, 0), (4096, 0)), 0, 0, 0, 2), 100.0),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "ms"), MEASURED)
def test_measured_iterations(shape, ms):
    times = ModelTimes(Deployment(model="qwen3-32b", gpu="b300_sxm", tp=8))
    assert times.times(shape)[0] / 1e9 == pytest.approx(ms, rel=0.20)
