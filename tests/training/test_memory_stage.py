"""Memory of stages: terms add up, laws of plans and schedules, and the timeline of a rank."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_cases import GPT, LLAMA, UNFUSED, moe_model, plan, software

from distsim.errors import ConfigError
from distsim.hardware.gpu import gpu
from distsim.models.catalog import model as shipped
from distsim.workload.training.memory import memory_of, timeline
from distsim.workload.training.schedules.slot import B, F, Slot

H100 = gpu("h100_sxm")
STACK = software()


PLANS = st.builds(
    dict,
    tp=st.sampled_from([1, 2, 4]), pp=st.sampled_from([1, 2, 4]), dp=st.sampled_from([1, 2, 8]), cp=st.sampled_from([1, 2]),
    zero=st.integers(0, 3), micro_batch=st.sampled_from([1, 2, 4]), recompute=st.sampled_from(["none", "selective", "full"]),
    sequence_parallel=st.booleans(), precision=st.sampled_from(["bf16", "fp8", "fp32"]),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(options=PLANS, moe=st.booleans())
def test_terms_add_up_to_the_peak(options, moe):
    memory = memory_of(moe_model() if moe else LLAMA, plan(**options), software(dummy_gradients=True), H100)
    assert len(memory.stages) == options["pp"]
    for stage in memory.stages:
        assert abs(sum(stage.terms.values()) - stage.allocated) <= len(stage.terms)
        assert stage.allocated == max(stage.moments.values()) <= stage.reserved <= stage.device
        if stage.moment != "optimizer":
            assert abs(sum(stage.activations.values()) - stage.terms["activations"]) <= len(stage.activations)


@settings(deadline=None, max_examples=60)
@given(options=PLANS, change=st.sampled_from(["micro_batch", "zero", "recompute", "sequence_parallel"]))
def test_cheaper_plans_never_need_more(options, change):
    """Half the micro-batch, a higher ZeRO stage up to 2, more recomputation, sequence parallelism."""
    before = memory_of(GPT, plan(**options), UNFUSED, H100).device
    less = dict(options)
    if change == "micro_batch":
        less["micro_batch"] = max(1, options["micro_batch"] // 2)
    elif change == "zero":
        less["zero"] = min(2, options["zero"] + 1) if options["zero"] < 3 else 3
    elif change == "recompute":
        less["recompute"] = {"none": "selective", "selective": "full", "full": "full"}[options["recompute"]]
    else:
        less["sequence_parallel"] = options["tp"] > 1
        if options["tp"] == 1 or options["sequence_parallel"]:
            return
        # gathering the split input takes one buffer more, at the head and at messages
        before += 4 * 2048 * options["micro_batch"] * GPT.hidden * 4
    assert memory_of(GPT, plan(**less), UNFUSED, H100).device <= before


def test_one_f_one_b_holds_pp_minus_stage():
    memory = memory_of(LLAMA, plan(pp=4, global_batch=64), STACK, H100)
    assert [stage.in_flight for stage in memory.stages] == [{0: 4}, {1: 3}, {2: 2}, {3: 1}]
    few = memory_of(LLAMA, plan(pp=4, global_batch=2), STACK, H100)
    assert [list(stage.in_flight.values()) for stage in few.stages] == [[2], [2], [2], [1]]
    everything = memory_of(LLAMA, plan(pp=4, global_batch=64, schedule="gpipe"), STACK, H100)
    assert [list(stage.in_flight.values()) for stage in everything.stages] == [[64]] * 4


@pytest.mark.parametrize(("pp", "vpp", "count"), [(2, 2, 8), (4, 3, 16), (4, 2, 256)])
def test_interleaving_holds_megatrons_warm_up_and_one(pp, vpp, count):
    """2 (pp - 1 - stage) + (vpp - 1) pp + 1 chunks: a factor 1 + (pp - 1) / (pp vpp) over 1F1B on the first stage."""
    model = LLAMA.model_copy(update={"layers": 24})
    memory = memory_of(model, plan(pp=pp, vpp=vpp, global_batch=count), STACK, H100)
    held = [sum(stage.in_flight.values()) for stage in memory.stages]
    assert held == [2 * (pp - 1 - stage) + (vpp - 1) * pp + 1 for stage in range(pp)]


def test_dualpipe_keeps_weights_twice():
    model = LLAMA.model_copy(update={"layers": 8, "tied": True})
    one = memory_of(model, plan(pp=4), STACK, H100)
    two = memory_of(model, plan(pp=4, schedule="dualpipe"), STACK, H100)
    middle = one.stages[1].terms["weights"]
    assert two.stages[1].terms["weights"] == 2 * middle


def test_uneven_stages():
    model = LLAMA.model_copy(update={"layers": 8})
    memory = memory_of(model, plan(pp=2, layers_per_stage=(5, 3), recompute="full"), STACK, H100)
    per = 2 * 2048 * 4096
    assert memory.stages[0].activations["layer inputs"] == 2 * 5 * per
    assert memory.stages[1].activations["layer inputs"] == 3 * per


def test_multi_token_prediction_is_on_the_last_stage():
    model = moe_model()
    more = model.model_copy(update={"mtp": 1})
    one, two = (memory_of(m, plan(pp=2), STACK, H100) for m in (model, more))
    assert two.stages[0].allocated == one.stages[0].allocated
    assert two.stages[1].terms["weights"] - one.stages[1].terms["weights"] == pytest.approx(2 * more.mtp_parameters(), rel=0.01)
    assert two.stages[1].terms["activations"] > one.stages[1].terms["activations"]


def test_zero_three_gathers_layers():
    whole = memory_of(LLAMA, plan(dp=8, zero=3, reshard=False), STACK, H100).worst.terms["gathered weights"]
    some = [
        memory_of(LLAMA, plan(dp=8, zero=3, prefetch=ahead), STACK, H100).worst.terms["gathered weights"] for ahead in (0, 1)
    ]
    layer = 2 * LLAMA.layer_parameters(0)
    assert some[1] - some[0] == layer
    assert whole == some[0] + 3 * layer


@pytest.mark.parametrize("schedule", ["1f1b", "gpipe", "zb_h1", "dualpipe"])
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_the_timelines_peak_is_the_stages(schedule, recompute):
    model = LLAMA.model_copy(update={"layers": 8})
    made = plan(pp=4, global_batch=16, schedule=schedule, recompute=recompute)
    memory = memory_of(model, made, STACK, H100)
    for stage in range(4):
        line = timeline(model, made, STACK, H100, stage)
        assert abs(line.peak - memory.stages[stage].allocated) <= 2
        assert line.points[-1].after == line.static
        assert line.points[line.when].during == line.peak
        assert min(point.after for point in line.points) >= line.static


def test_interleaved_timeline_stays_within_the_stages_peak():
    model = LLAMA.model_copy(update={"layers": 8})
    made = plan(pp=2, vpp=2, global_batch=16)
    memory = memory_of(model, made, STACK, H100)
    for stage in range(2):
        line = timeline(model, made, STACK, H100, stage)
        assert line.static < line.peak <= memory.stages[stage].allocated + 1


def test_the_optimizer_can_be_the_peak():
    tiny = plan(seq=64, global_batch=1)
    line = timeline(GPT, tiny, software(master="weights"), H100, 0)
    assert line.peak == line.optimizer
    assert line.when == len(line.points)


def test_timeline_refuses_impossible_orders():
    made = plan(pp=2, global_batch=2)
    with pytest.raises(ConfigError, match="before its forward"):
        timeline(LLAMA, made, STACK, H100, 0, [Slot(B, 0, 0)])
    with pytest.raises(ConfigError, match="does not hold"):
        timeline(LLAMA, made, STACK, H100, 0, [Slot(F, 0, 1)])
    with pytest.raises(ConfigError, match="no stage 2"):
        timeline(LLAMA, made, STACK, H100, 2)


def test_a_plan_that_does_not_fit_the_model_is_refused():
    with pytest.raises(ConfigError, match="attention heads"):
        memory_of(LLAMA, plan(tp=3), STACK, H100)


def test_a_plan_is_answered_in_about_a_millisecond():
    """Sweeps ask thousands of times: many times the usual cost is allowed here, since machines are shared."""
    model = shipped("llama3-405b")
    made = plan(tp=8, pp=16, dp=128, vpp=4, global_batch=4096, seq=8192, sequence_parallel=True, zero=1)
    memory_of(model, made, STACK, H100)
    spent = []
    for _ in range(30):
        began = time.perf_counter()
        memory_of(model, made, STACK, H100)
        spent.append(time.perf_counter() - began)
    assert min(spent) < 0.004
