"""Deployments: what cannot be spread like that is refused in words; KV sizes by hand."""

from __future__ import annotations

import pytest

from distsim.errors import ConfigError, OutOfMemoryError, UnknownNameError
from distsim.serving.deployment import Deployment
from distsim.serving.kv.sizes import REPORTED, activation_bytes, kv_blocks, token_bytes, weight_bytes

LLAMA = {"model": "llama3-8b", "gpu": "h100_sxm"}


@pytest.mark.parametrize(("options", "words"), [
    ({"tp": 3}, "tp 3 does not divide 32 attention heads"),
    ({"pp": 33}, "pp 33 for 32 layers"),
    ({"ep": 2}, "has no experts"),
    ({"model": "mixtral-8x7b", "tp": 2, "ep": 4}, "equal products"),
    ({"model": "mixtral-8x7b", "tp": 16, "ep": 16}, "ep 16 does not divide 8 experts"),
    ({"tpp": 2}, "unknown key 'tpp'"),
    ({"tp": 0}, "tp=0"),
    ({"kv_dtype": "int3"}, "kv_dtype"),
])  # fmt: skip
def test_what_cannot_be_spread_is_refused_in_words(options, words):
    with pytest.raises(ConfigError) as refused:
        Deployment.of(**{**LLAMA, **options})
    assert words in str(refused.value)


@pytest.mark.parametrize(("field", "name", "near"), [
    ("model", "llama3-8c", "llama3-8b"), ("gpu", "h100_sxn", "h100_sxm"), ("backend", "vlm", "vllm"), ("weights", "fp9", "fp8"),
])  # fmt: skip
def test_unknown_names_get_near_ones(field, name, near):
    with pytest.raises(UnknownNameError) as refused:
        Deployment.of(**{**LLAMA, field: name})
    assert near in str(refused.value)


def test_layers_are_shared_out_over_stages():
    deployment = Deployment(**LLAMA, pp=5)
    stages = [deployment.layers_of(stage) for stage in range(5)]
    assert [layer for stage in stages for layer in stage] == list(range(32))
    assert max(map(len, stages)) - min(map(len, stages)) == 1


def test_bytes_of_a_token():
    assert token_bytes(Deployment(**LLAMA)) == 32 * 2 * 8 * 128 * 2
    assert token_bytes(Deployment(**LLAMA, kv_dtype="fp8", tp=4)) == 32 * 2 * 2 * 128
    assert token_bytes(Deployment(**LLAMA, tp=16)) == 32 * 2 * 1 * 128 * 2  # key heads are copied
    assert token_bytes(Deployment(**LLAMA, pp=2), 1) == 16 * 2 * 8 * 128 * 2
    latent = Deployment(model="deepseek-v3", gpu="b200", tp=8)
    assert token_bytes(latent) == 61 * (512 + 64) * 2  # whole on every rank


def test_weights_are_those_of_the_model():
    whole = weight_bytes(Deployment(**LLAMA))
    assert whole == pytest.approx(2 * 8.03e9, rel=0.001)
    assert sum(weight_bytes(Deployment(**LLAMA, pp=2), stage) for stage in range(2)) == pytest.approx(whole, rel=1e-12)
    assert weight_bytes(Deployment(**LLAMA, tp=4)) == pytest.approx(whole / 4, rel=1e-12)
    narrow = weight_bytes(Deployment(**LLAMA, weights="fp8"))
    assert narrow == pytest.approx(whole / 2 + 128256 * 4096 * 2, rel=0.001)  # embedding and head stay in bf16
    experts = weight_bytes(Deployment(model="deepseek-v3", gpu="b200", tp=8, ep=8, weights="fp8"))
    assert experts == pytest.approx(671e9 / 8, rel=0.02)


def test_blocks_are_what_memory_leaves():
    deployment = Deployment(**LLAMA, utilisation=0.9, block=16)
    left = 0.9 * (REPORTED * 85899345920) - weight_bytes(deployment) - activation_bytes(deployment) - 2**30
    assert kv_blocks(deployment) == int(left // (16 * token_bytes(deployment)))
    # vLLM logs some 430,000 to 460,000 tokens for this model on 80 GB
    assert 0.93 * 430_000 < kv_blocks(deployment) * 16 < 1.07 * 460_000
    assert kv_blocks(Deployment(**LLAMA, kv_dtype="fp8")) > 1.99 * kv_blocks(Deployment(**LLAMA))


def test_the_tightest_stage_decides():
    deployment = Deployment(**LLAMA, pp=3)
    assert kv_blocks(deployment) > 3 * kv_blocks(Deployment(**LLAMA)) * 0.9


def test_a_model_that_does_not_fit():
    with pytest.raises(OutOfMemoryError) as refused:
        kv_blocks(Deployment(model="llama3-70b", gpu="h100_sxm"))
    assert refused.value.over > 60e9
    assert "weights of 131.4 GiB" in str(refused.value)
