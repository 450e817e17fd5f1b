"""Activations of one layer against the closed forms of Korthikanti et al. (2022), and how they shrink."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_cases import GPT, LLAMA, UNFUSED, software

from distsim.models.spec import Mla, Model, Moe
from distsim.workload.training.memory import activations
from distsim.workload.training.plan import Plan

A, H, S = GPT.heads, GPT.hidden, 2048


def kept(model: Model, stack=UNFUSED, *, sparse: bool = False, **options: object) -> float:
    plan = Plan.model_validate({"seq": S, **options})
    return activations.layer(model, sparse, activations.shape_of(plan, stack)).total


@pytest.mark.parametrize("b", [1, 4])
@pytest.mark.parametrize("t", [1, 2, 8])
def test_korthikanti(b, t):
    """Table 2 of the paper, exactly."""
    sbh, scores = S * b * H, 5 * A * S / H
    sizes = {"micro_batch": b, "tp": t}
    assert kept(GPT, **sizes) == pytest.approx(sbh * (10 + 24 / t + scores / t), rel=1e-12)
    assert kept(GPT, **sizes, recompute="selective") == pytest.approx(sbh * (10 + 24 / t), rel=1e-12)
    assert kept(GPT, **sizes, recompute="full") == 2 * sbh
    if t > 1:
        sizes["sequence_parallel"] = True
        assert kept(GPT, **sizes) == pytest.approx(sbh * (34 + scores) / t, rel=1e-12)
        assert kept(GPT, **sizes, recompute="selective") == pytest.approx(sbh * 34 / t, rel=1e-12)


def test_spec_figure_without_parallelism():
    assert kept(GPT) == S * H * (34 + 5 * A * S / H)


def test_flash_attention_keeps_statistics_instead_of_scores():
    flash = kept(GPT, software(dropout=True))
    assert flash == S * H * 34 + 4 * A * S


def test_gated_and_grouped():
    """Llama: 2 + 2 (norms) + 2 + 2 (product inputs) + q, k, v, out + 2 * 2f + 2f, no masks; unit: bytes of h elements."""
    h, f, kv = 4096, 14336, 1024
    expected = S * (8 * h + 2 * (h + 2 * kv) + 2 * h + 4 * f + 2 * f) + 4 * 32 * S
    assert kept(LLAMA, software()) == expected
    assert kept(LLAMA, software(fusion="eager")) == expected + S * (2 * f + 16 * h)


def test_context_parallelism_divides_tokens():
    assert kept(LLAMA, software(), cp=4) == kept(LLAMA, software()) / 4


def test_latent_attention_keeps_full_heads():
    model = LLAMA.model_copy(update={"mla": Mla(q_lora=1536, kv_lora=512, nope=128, rope=64, v=128)})
    expected = S * 2 * (2 * (1536 + 512 + 64) + 32 * (192 + 192 + 128 + 128))
    plain = S * 2 * (4096 + 2 * 1024 + 4096)
    assert kept(model, software()) - kept(LLAMA, software()) == expected - plain


def test_experts_keep_what_is_dispatched_to_them():
    moe = Moe.model_validate({"experts": 8, "topk": 2, "ffn_hidden": 1024})
    model = LLAMA.model_copy(update={"moe": moe})
    one = dict(activations.layer(model, True, activations.shape_of(Plan(seq=S), software())).kept)
    assert one["expert inputs"] == S * 2 * 4096 * 2
    assert one["experts"] == S * 2 * 1024 * (2 * 2 + 2)
    full = dict(activations.layer(model, True, activations.shape_of(Plan(seq=S, ep_imbalance=1.5), software())).kept)
    capped = dict(activations.layer(model, True, activations.shape_of(Plan(seq=S, ep_imbalance=1.5, capacity=1.0),
                                                                      software())).kept)  # fmt: skip
    assert full["experts"] == 1.5 * one["experts"]
    assert capped == one


def test_quantised_products_save_smaller_inputs():
    assert kept(LLAMA, software(), precision="fp8") < kept(LLAMA, software())
    assert kept(LLAMA, software(master="weights"), precision="fp8") == kept(LLAMA, software(master="weights"))


def test_per_operator_recomputation():
    """torchtitan: the layer's input, q, v, gate (every second product), the last one where nothing drops it, and attention."""
    h, f, kv = 4096, 14336, 1024
    compiled = software(selective="operations", fusion="compiled")
    eager = software(selective="operations", fusion="eager")
    expected = S * 2 * (h + h + kv + f + h) + 4 * 32 * S
    assert kept(LLAMA, compiled, recompute="selective") == expected
    assert kept(LLAMA, eager, recompute="selective") == expected + 2 * S * h


@given(
    tp=st.sampled_from([1, 2, 4, 8]), b=st.integers(1, 8), fusion=st.sampled_from(["eager", "fused"]),
    attention=st.sampled_from(["unfused", "flash2"]), selective=st.sampled_from(["attention", "operations"]),
)  # fmt: skip
def test_recomputation_keeps_less_and_works_more(tp, b, fusion, attention, selective):
    stack = software(fusion=fusion, attention=attention, selective=selective)
    for model in (GPT, LLAMA):
        one = {
            mode: activations.layer(
                model, False, activations.shape_of(Plan(seq=S, tp=tp, micro_batch=b, recompute=mode), stack)
            )
            for mode in ("none", "selective", "full")
        }
        assert one["none"].total >= one["selective"].total >= one["full"].total > 0
        for layer in one.values():
            assert layer.total + layer.working == pytest.approx(one["none"].total)
            assert layer.total == pytest.approx(sum(size for _, size in layer.kept))
