"""Bytes per parameter: mixed precision's 16 to 20, and how ZeRO shards them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_cases import moe_model, software

from distsim.hardware.gpu import gpu
from distsim.workload.training.memory import memory_of, states, weights
from distsim.workload.training.plan import Plan
from distsim.workload.training.stack import Stack

H100, B200 = gpu("h100_sxm"), gpu("b200_sxm")


def total(plan: Plan, stack: Stack, group: int) -> float:
    one = states.per_parameter(plan, stack, H100, group)
    return one.weights + one.gradients + one.optimizer


@pytest.mark.parametrize(("gradients", "expected"), [("bf16", 16), ("fp32", 18)])
def test_mixed_precision_takes_sixteen_or_eighteen_bytes(gradients, expected):
    assert total(Plan(grad_dtype=gradients), software(), 1) == expected


def test_other_ways_to_keep_states():
    assert total(Plan(precision="fp32"), software(), 1) == 16  # 4 + 4 + 8: no master copy
    assert total(Plan(), software(master="weights"), 1) == 16  # FSDP: fp32 weights are the master
    assert total(Plan(grad_dtype="bf16"), software(gradient_copy=True), 1) == 20  # DeepSpeed fp16
    assert total(Plan(grad_dtype="fp32"), software(gradient_copy=True), 1) == 20  # DeepSpeed bf16: 2 + 2 + 4 + 12


@given(group=st.integers(1, 4096))
def test_zero_shards_as_published(group):
    """ZeRO (2020), figure 1, with fp32 gradients: 6 + 12/N, 2 + 16/N, 18/N."""
    stack = software()
    for stage, expected in ((0, 18), (1, 6 + 12 / group), (2, 2 + 16 / group), (3, 18 / group)):
        assert total(Plan(zero=stage), stack, group if stage else 1) == pytest.approx(expected)


@given(group=st.integers(1, 1024), zero=st.integers(0, 2))
def test_more_zero_never_takes_more(group, zero):
    for stack in (software(), software(gradient_copy=True, grad_dtype="bf16")):
        assert total(Plan(zero=zero + 1), stack, group) <= total(Plan(zero=zero), stack, group) + 1e-9


def test_groups_of_shards():
    plan = Plan(dp=16, cp=2, tp=2, ep=8, zero=1)
    assert states.shards(plan) == (32, 64 // 8)
    assert states.shards(plan.model_copy(update={"shard_group": 8})) == (8, 2)
    assert states.shards(plan.model_copy(update={"zero": 0})) == (1, 1)


def test_quantised_copies():
    assert states.quantised_copies(Plan(precision="bf16"), software(), H100) == 0
    assert states.quantised_copies(Plan(precision="fp8"), software(), H100) == 2
    assert states.quantised_copies(Plan(precision="fp8"), software(), B200) == 1
    assert states.quantised_copies(Plan(precision="mxfp8"), software(), B200) == 2
    assert states.quantised_copies(Plan(precision="fp8"), software(master="weights"), H100) == 0
    one = states.per_parameter(Plan(precision="mxfp8"), software(), B200, 1)
    assert one.quantised == pytest.approx(2 * 33 / 32)


@given(pp=st.sampled_from([1, 2, 4]), ep=st.sampled_from([1, 2, 4, 8]), tp=st.sampled_from([1, 2, 4]))
def test_ranks_together_hold_the_model_once(pp, ep, tp):
    """Sum over stages, tp and ep ranks is the model: what tp repeats is counted once per tp rank."""
    model = moe_model()
    plan = Plan(pp=pp, ep=ep, tp=tp, dp=8, global_batch=8)
    chunks = weights.chunks(model, plan)
    held = [weights.held(model, plan, (chunk,)) for chunk in chunks]
    dense, sparse = weights.layer(model, False), weights.layer(model, True)
    repeated = 2 * dense.repeated + 6 * sparse.repeated
    total = sum(tp * (one.dense + one.embedding) + ep * one.experts + tp * one.head for one in held)
    # the final norm is on every tp rank, as the layers' norms
    assert total == pytest.approx(model.parameters + (tp - 1) * (repeated + model.hidden))


def test_weights_in_fp8_only():
    """fp8_param_gather: layers' weights have no 16-bit copy; embedding and head have."""
    plan, model = Plan(precision="mxfp8"), moe_model()
    both, one = (memory_of(model, plan, software(quantised_weights=only), B200).worst.terms for only in (False, True))
    assert one["quantised weights"] == both["quantised weights"]
    assert one["weights"] == 2 * (2 * model.vocab * model.hidden + model.hidden)
    assert both["weights"] == 2 * model.parameters


def test_vocabulary_is_padded_for_tp():
    model = moe_model(vocab=50257)
    assert (weights.vocabulary(model, 1), weights.vocabulary(model, 8)) == (50304, 51200)


def test_tied_head_is_a_second_copy_only_across_stages():
    model = moe_model(tied=True)
    one = weights.held(model, Plan(), weights.chunks(model, Plan()))
    assert one.head == model.hidden
    plan = Plan(pp=2, dp=1)
    last = weights.held(model, plan, weights.chunks(model, plan)[1:])
    assert last.head == model.vocab * model.hidden + model.hidden
