"""Models, plans and software that the memory tests share."""

from __future__ import annotations

from distsim.models.spec import Model, Moe
from distsim.workload.training.plan import Plan
from distsim.workload.training.stack import Stack


def software(**options: object) -> Stack:
    """A Megatron-like stack without allowances."""
    base = {"name": "test", "about": "", "gemm": {"*": 1.0}, "attention": "flash2", "fusion": "fused", "launch": 0.0,
            "fragmentation": 0.0, "context_bytes": 0, "sources": {}}  # fmt: skip
    return Stack.model_validate({**base, **options})


def plan(**options: object) -> Plan:
    return Plan.model_validate({"global_batch": 64, "seq": 2048, **options})


def moe_model(**options: object) -> Model:
    """Two dense and six sparse layers of 16 experts."""
    base: dict[str, object] = {"name": "moe", "layers": 8, "hidden": 512, "heads": 8, "kv_heads": 8, "head_dim": 64}
    base |= {"ffn_hidden": 1024, "vocab": 4096}
    base["moe"] = Moe.model_validate({"experts": 16, "topk": 2, "ffn_hidden": 256, "dense_layers": 2})
    return Model.model_validate({**base, **options})


#: as of 2022: scores and masks of dropout in memory
UNFUSED = software(attention="unfused", dropout=True)
GPT = Model.model_validate({
    "name": "gpt3-175b", "layers": 96, "hidden": 12288, "heads": 96, "kv_heads": 96, "head_dim": 128, "ffn_hidden": 49152,
    "vocab": 51200, "gated": False, "tied": True, "norm": "layernorm", "positions": "learned", "bias": True,
})  # fmt: skip
LLAMA = Model.model_validate({
    "name": "llama", "layers": 4, "hidden": 4096, "heads": 32, "kv_heads": 8, "head_dim": 128, "ffn_hidden": 14336,
    "vocab": 128256,
})  # fmt: skip
