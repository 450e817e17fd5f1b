"""What a Hugging Face ``model_type`` implies beyond the numbers of its config.json: shape of the MLP, norms, positions, biases.

Source: the ``configuration_*.py`` and ``modeling_*.py`` of huggingface/transformers 4.57 (Apache-2.0), by their defaults; MPT's
is mosaicml/llm-foundry's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Family:
    """Defaults of one ``model_type``.

    Attributes:
        gated: three matrices in the MLP.
        norm, norms: kind, and how many per layer.
        positions: rope, learned or alibi.
        bias: all (every matrix), qkv (those three only) or none, where no key says it.
        tied: ``tie_word_embeddings`` where the key is absent.
        qk_norm: queries and keys are normalised, where no key says it.
        ffn: MLP width over the hidden size, where the key is absent; 0: the key is needed.
        window: layers with the sliding window, where ``layer_types`` is absent: all, even, or all but each n-th ("5:1", "3:1").
        head_dim: default where neither the key nor hidden / heads gives it; 0: hidden / heads.
    """

    gated: bool = True
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    norms: int = 2
    positions: Literal["rope", "learned", "alibi"] = "rope"
    bias: Literal["all", "qkv", "none"] = "none"
    tied: bool = False
    qk_norm: bool = False
    ffn: int = 0
    window: Literal["all", "even", "5:1", "3:1"] = "all"
    head_dim: int = 0


_LLAMA = Family()
_GPT = Family(gated=False, norm="layernorm", positions="learned", bias="all", tied=True, ffn=4)
_GEMMA = Family(tied=True, head_dim=256)
_PARALLEL = Family(gated=False, norm="layernorm", norms=1, bias="all", ffn=4)
FAMILIES = {
    "llama": _LLAMA, "mistral": _LLAMA, "mixtral": _LLAMA, "phi3": _LLAMA, "yi": _LLAMA, "deepseek": _LLAMA,
    "internlm": _LLAMA, "baichuan": _LLAMA, "granite": _LLAMA, "granitemoe": _LLAMA, "ministral": _LLAMA,
    "smollm3": Family(tied=True), "seed_oss": Family(bias="qkv"), "dbrx": Family(norm="layernorm"), "exaone": _LLAMA,
    "chatglm": Family(bias="qkv"),
    "qwen2": Family(bias="qkv"), "qwen2_moe": Family(bias="qkv"),
    "qwen3": Family(qk_norm=True, head_dim=128), "qwen3_moe": Family(qk_norm=True),
    "deepseek_v2": _LLAMA, "deepseek_v3": _LLAMA, "kimi_k2": _LLAMA, "glm4_moe": Family(bias="qkv"),
    "gpt_oss": Family(bias="all", window="even", head_dim=64),
    "olmo": Family(norm="layernorm"), "olmo2": Family(qk_norm=True), "olmo3": Family(qk_norm=True, window="3:1"),
    "olmoe": Family(qk_norm=True),
    "gemma": _GEMMA, "gemma2": Family(tied=True, norms=4, window="even", head_dim=256),
    "gemma3_text": Family(tied=True, norms=4, qk_norm=True, window="5:1", head_dim=256),
    "gpt2": _GPT, "gpt_bigcode": _GPT, "opt": _GPT, "bloom": Family(
        gated=False, norm="layernorm", positions="alibi", bias="all", tied=True, ffn=4),
    "gpt_neo": _GPT, "gpt_neox": Family(gated=False, norm="layernorm", bias="all"),
    "gptj": _PARALLEL, "phi": _PARALLEL, "falcon": Family(gated=False, norm="layernorm", norms=1, tied=True, ffn=4),
    "RefinedWeb": Family(gated=False, norm="layernorm", norms=1, tied=True, ffn=4),
    "RefinedWebModel": Family(gated=False, norm="layernorm", norms=1, tied=True, ffn=4),
    "mpt": Family(gated=False, norm="layernorm", positions="learned", tied=True, ffn=4),
    "stablelm": Family(norm="layernorm"), "starcoder2": Family(gated=False, norm="layernorm", bias="all", tied=True),
    "cohere": Family(norm="layernorm", norms=1, tied=True),
    "cohere2": Family(norm="layernorm", norms=1, tied=True, window="3:1"),
    "nemotron": Family(gated=False, norm="layernorm"), "llama4_text": _LLAMA,
}  # fmt: skip

#: wrappers whose language model sits under ``text_config`` with a type of its own, or none: wrapper -> type of the text
WRAPPERS = {
    "gemma3": "gemma3_text", "llama4": "llama4_text", "mllama": "llama", "llava": "llama", "mistral3": "mistral",
    "kimi_vl": "deepseek_v3", "kimi_k25": "kimi_k2",
}  # fmt: skip
