"""Reading single rows: variants of GPUs, precisions, shards, and refusals."""

from __future__ import annotations

import pytest

from distsim.errors import ConfigError
from distsim.validation import training_rows as rows

ROW = {
    "id": "R1", "family": "simumax-b200", "source": "test", "year": "2025", "model": "llama", "layers": "8", "hidden": "4096",
    "heads": "32", "kv_heads": "8", "ffn_hidden": "14336", "vocab": "128256", "seq_len": "4096", "gpu": "H100-80G",
    "n_gpus": "16", "dp": "4", "tp": "2", "pp": "2", "cp": "1", "ep": "1", "vpp": "2", "micro_batch": "1.0", 
    "global_batch": "32.0", "precision": "bf16", "recompute": "none", "sequence_parallel": "yes", "zero_stage": "1",
}  # fmt: skip


def row(**changed: str) -> dict[str, str]:
    return {**ROW, **changed}


def test_a_whole_row():
    case = rows.case_of(ROW)
    assert (case.plan.tp, case.plan.pp, case.plan.dp, case.plan.vpp, case.plan.micro_batches) == (2, 2, 4, 2, 8)
    assert case.model.gated
    assert not case.model.tied
    assert case.stack == "megatron_core_simumax"
    assert case.assumptions == ()


@pytest.mark.parametrize(("text", "name"), [
    ("A100-80G", "a100_sxm"), ("A100(Ampere)-80G", "a100_sxm"), ("A100-40G", "a100_sxm_40g"), ("B200-SXM", "b200_sxm"),
    ("H200", "h200_sxm"), ("GB300", "gb300"), ("H100", "h100_sxm"),
])  # fmt: skip
def test_gpus(text, name):
    assert rows.gpu_of(row(gpu=text)).name == name


def test_a_gpu_described_by_its_figures():
    odd = rows.gpu_of(row(gpu="H100-64G 1.9TB/s 300W"))
    assert (odd.memory, odd.memory_bandwidth, odd.power, odd.generation) == (64 << 30, 1.9e12, 300, "hopper")


@pytest.mark.parametrize(("text", "name"), [
    ("MXFP8", "mxfp8"), ("FP8-MX", "mxfp8"), ("fp8 other granularity/mxfp8", "mxfp8"), ("FP8-CS", "fp8"), ("amp_fp8", "fp8"),
    ("NVFP4", "nvfp4"), ("amp_bf16", "bf16"), ("fp16/bf16", "fp16"),
])  # fmt: skip
def test_precisions(text, name):
    assert rows.plan_of(row(precision=text)).precision == name


@pytest.mark.parametrize(("text", "expected"), [
    ("0", (0, 0)), ("2", (2, 0)), ("FSDP 4", (3, 0)), ("FSDP2 2", (3, 2)), ("FSDP2 (ZeRO-3)", (3, 0)),
    ("FSDP (shards optim+grad; params not resharded after fwd)", (2, 0)),
])  # fmt: skip
def test_shards(text, expected):
    plan = rows.plan_of(row(zero_stage=text))
    assert (plan.zero, plan.shard_group) == expected


def test_latent_attention_and_experts_from_notes():
    notes = "dense_layers=1; MLA q_lora1536 kv_lora512 nope128 rope64 v128; dense ffn 18432 x3 layers, shared 2048"
    model = rows.model_of(row(notes=notes, experts="64", topk="8", ffn_hidden="2048"))
    assert model.mla is not None
    assert model.moe is not None
    assert (model.mla.q_lora, model.mla.kv_lora, model.mla.rope) == (1536, 512, 64)
    assert (model.ffn_hidden, model.moe.ffn_hidden, model.moe.shared_ffn_hidden, model.moe.dense_layers) == (
        18432,
        2048,
        2048,
        1,
    )


@pytest.mark.parametrize(("changed", "message"), [
    ({"layers": ""}, "shape of llama is not given"), ({"precision": "int3"}, "int3"), ({"dp": "3"}, "is not 16 GPUs"),
    ({"zero_stage": "some"}, "not understood"), ({"global_batch": "30"}, "no multiple"), ({"heads": "x"}, "heads"),
    ({"global_batch": ""}, "global batch is not given"), ({"gpu": "Z99"}, "unknown GPU"),
])  # fmt: skip
def test_refusals(changed, message):
    with pytest.raises(ConfigError, match=message):
        rows.case_of(row(**changed))
