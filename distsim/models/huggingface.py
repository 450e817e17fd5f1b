"""Hugging Face ``config.json`` -> Model: numbers by the keys that the many architectures give them, the rest by family.

Nothing is silent: an unknown ``model_type`` is read by generic keys with a warning; a key that is needed and absent is an
error, and so is an architecture that a Model cannot hold (state-space or linear attention layers, encoder-decoder).
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from distsim.errors import ConfigError
from distsim.models.families import FAMILIES, WRAPPERS, Family
from distsim.models.spec import MOST_LAYERS, Mla, Model, Moe
from distsim.params import worst

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HIDDEN = ("hidden_size", "n_embd", "n_embed", "d_model", "dim")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "kv_n_heads", "multi_query_group_num", "num_query_groups")
HEAD_DIM = ("head_dim", "attention_head_dim", "kv_channels", "d_head")
FFN = ("intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim", "ff_dim", "feed_forward_hidden")
VOCAB = ("vocab_size", "padded_vocab_size", "n_vocab")
SEQ = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "seq_length", "max_sequence_length")
EXPERTS = ("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")
TOPK = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_top_k", "top_k_experts")
#: layers of ``layer_types`` that a Model can hold -> whether they attend to a window
LAYER_TYPES = {"full_attention": False, "attention": False, "global": False,
               "sliding_attention": True, "chunked_attention": True, "local": True}  # fmt: skip
#: keys of state-space and linear-attention models, which have no place in a Model
FOREIGN = ("hybrid_override_pattern", "mamba_num_heads", "ssm_cfg", "ssm_state_size", "state_size", "linear_num_value_heads",
           "layers_block_type", "attn_layer_period", "rwkv_hidden_size")  # fmt: skip
#: keys of features that a Model leaves out -> what that means
UNTOLD = {
    "index_topk": "attention is read as full, not as picked tokens",
    "num_kv_shared_layers": "every layer is given keys and values of its own",
    "quantization_config": "precision is the plan's",
}
_FALCON = ("falcon", "RefinedWeb", "RefinedWebModel")
_GATES = ("silu", "swish", "swiglu", "geglu", "reglu", "glu")


def read_config(path: Path | str) -> tuple[Model, tuple[str, ...]]:
    """The model of a config.json, or of a folder that holds one, and the warnings of reading it: what was assumed, what was
    left out. ``seq`` is the longest sequence that the positions allow, which need not be the usual one.

    Raises: ConfigError naming file, key and the nearest keys present.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "config.json"
    try:
        loaded = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(file), expected="a Hugging Face config.json") from None
    if not isinstance(loaded, dict):
        raise ConfigError("no JSON object", where=str(file), expected="a Hugging Face config.json")
    return _Reader(file, loaded).model()


class _Reader:
    """One config.json while it is read; ``warnings`` gathers."""

    def __init__(self, file: Path, loaded: dict[str, Any]) -> None:
        self.where, self.warnings = str(file), list[str]()
        self.label = str(loaded.get("_name_or_path") or "").rstrip("/").rsplit("/", 1)[-1] or file.resolve().parent.name
        kind = str(loaded.get("model_type", ""))
        inside = (loaded.get(key) for key in ("text_config", "llm_config", "language_config"))
        text = next((one for one in inside if isinstance(one, dict)), None)
        if text is not None:
            # NOTE: what the wrapper says of both (tied embeddings) holds where the text has no say
            self.config = {key: value for key, value in loaded.items() if not isinstance(value, dict)} | text
            kind = str(text.get("model_type") or WRAPPERS.get(kind, kind))
            self.warnings.append(f"only the language model of {loaded.get('model_type', 'it')} is read: no vision, no audio")
        else:
            self.config = dict(loaded)
        kind = kind if kind in FAMILIES else WRAPPERS.get(kind, kind)
        for key in ("attn_config", "ffn_config"):
            inner = self.config.get(key)
            if isinstance(inner, dict):
                self.config = inner | self.config
        self.kind, self.family = kind, FAMILIES.get(kind)

    def model(self) -> tuple[Model, tuple[str, ...]]:
        """The model, and all warnings."""
        self._refuse_foreign()
        family = self.family or self._generic()
        layers, hidden, heads = self._need(LAYERS), self._need(HIDDEN), self._need(HEADS)
        if layers > MOST_LAYERS:
            raise ConfigError(f"{layers:,} layers", where=self.where, expected=f"at most {MOST_LAYERS:,}")
        mla = self._mla()
        ffn = self._number(FFN) or self._number(("intermediate_size_mlp",))
        if "expansion_ratio" in self.config:
            ffn = self._need(("expansion_ratio",)) * hidden
        if not ffn:
            ffn = family.ffn * hidden or self._need(FFN)
        moe = self._moe(layers, ffn)
        if self.kind == "llama4_text":
            ffn = self._number(("intermediate_size_mlp",)) or ffn
        positions = self._positions(family)
        window, every, windowed = self._windows(family, layers)
        bias, qkv_bias = self._biases(family)
        projected = self._number(("word_embed_proj_dim",))
        if projected and projected != hidden:
            self.warnings.append(f"embeddings {projected} wide are read as {hidden} wide (word_embed_proj_dim)")
        try:
            made = Model(
                name=self.label, source=self.where, layers=layers, hidden=hidden, heads=heads, kv_heads=self._kv_heads(heads),
                head_dim=mla.v if mla else self._head_dim(family, hidden, heads), ffn_hidden=ffn, vocab=self._need(VOCAB),
                seq=self._seq(), gated=family.gated, tied=self._flag("tie_word_embeddings", family.tied), norm=family.norm,
                positions=positions, bias=bias, qkv_bias=qkv_bias, qk_norm=self._qk_norm(family), norms=self._norms(family),
                window=window, window_every=every, windowed_layers=windowed, mla=mla, moe=moe,
                mtp=self._number(("num_nextn_predict_layers", "mtp_num_layers")) or 0,
            )  # fmt: skip
        except ValidationError as error:
            first = worst(error)
            key = ".".join(str(part) for part in first["loc"])
            reason = first["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{key}: {reason}" if key else reason, where=self.where) from None
        return made, tuple(self.warnings)

    # -- values ----------------------------------------------------------------------------------------------------------

    def _number(self, keys: tuple[str, ...]) -> int | None:
        """First of the keys that has a value; None where all are absent or null. Raises ConfigError on what is no count."""
        for key in keys:
            value = self.config.get(key)
            if value is None or isinstance(value, dict):
                continue
            if isinstance(value, list):
                raise ConfigError(f"{key} differs by layer", where=self.where, expected="one number for all layers")
            if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or not 0 <= value < 1 << 48:
                raise ConfigError(f"{key} is {value!r}", where=self.where, expected="a whole number, 0 or more")
            return int(value)
        return None

    def _need(self, keys: tuple[str, ...]) -> int:
        found = self._number(keys)
        if found:
            return found
        if found == 0:
            key = next(key for key in keys if self.config.get(key) is not None)
            raise ConfigError(f"{key} is 0", where=self.where, expected="at least 1")
        present = sorted(key for key, value in self.config.items() if value is not None)
        near = [close for key in keys for close in difflib.get_close_matches(key, present, n=2, cutoff=0.6)]
        raise ConfigError(
            f"key {keys[0]!r} is absent",
            where=self.where,
            near=tuple(dict.fromkeys(near)),
            expected=f"one of {', '.join(keys)}",
            fix=f"Present: {', '.join(present[:40]) or 'nothing'}.",
        )

    def _flag(self, key: str, otherwise: bool) -> bool:
        value = self.config.get(key)
        if value is None:
            return otherwise
        if not isinstance(value, bool):
            raise ConfigError(f"{key} is {value!r}", where=self.where, expected="true or false")
        return value

    # -- parts -----------------------------------------------------------------------------------------------------------

    def _refuse_foreign(self) -> None:
        if self.config.get("is_encoder_decoder") is True:
            raise ConfigError(f"{self.kind} has an encoder", where=self.where, expected="a decoder-only transformer")
        for key in FOREIGN:
            if self.config.get(key):
                raise ConfigError(f"{key} tells of layers that are no attention", where=self.where, expected="attention only")
        kinds = self.config.get("layer_types")
        unknown = sorted({str(kind) for kind in kinds} - set(LAYER_TYPES)) if isinstance(kinds, list) else []
        if unknown:
            raise ConfigError(f"layer_types has {unknown[0]!r}", where=self.where, expected=f"only {', '.join(LAYER_TYPES)}")
        for key, meaning in UNTOLD.items():
            if self.config.get(key):
                self.warnings.append(f"{key} is left out: {meaning}")

    def _generic(self) -> Family:
        """A family for a model_type that is not in the table, by the keys present."""
        config = self.config
        norm = "layernorm" if any(key.startswith("layer_norm") for key in config) else "rmsnorm"
        act = str(config.get("hidden_act") or config.get("activation_function") or config.get("hidden_activation") or "")
        gated = any(gate in act.lower() for gate in _GATES)
        guess = Family(gated=gated, norm="layernorm" if norm == "layernorm" else "rmsnorm")
        self.warnings.append(
            f"model_type {self.kind!r} is not known: read by generic keys as {guess.norm}, rotary positions, "
            f"{'three' if gated else 'two'} matrices per MLP (activation {act!r}), "
            f"{'tied' if config.get('tie_word_embeddings') else 'untied'} head"
        )
        return guess

    def _kv_heads(self, heads: int) -> int:
        old_falcon = self.kind in _FALCON and not self._flag("new_decoder_architecture", self.kind == "RefinedWeb")
        if old_falcon or self.kind == "gpt_bigcode":
            return 1 if self._flag("multi_query", True) else heads
        if self.kind == "chatglm" and not self._flag("multi_query_attention", True):
            return heads
        return self._number(KV_HEADS) or heads

    def _head_dim(self, family: Family, hidden: int, heads: int) -> int:
        found = self._number(HEAD_DIM) or family.head_dim
        if found:
            return found
        if hidden % heads:
            raise ConfigError(f"{heads} heads do not divide hidden size {hidden}", where=self.where, fix="Give head_dim.")
        return hidden // heads

    def _seq(self) -> int:
        found = self._number(SEQ)
        if found:
            return found
        self.warnings.append("no key gives the sequence length: 2048 assumed")
        return 2048

    def _norms(self, family: Family) -> int:
        if self.kind in _FALCON and self._flag("new_decoder_architecture", self.kind == "RefinedWeb"):
            return 1 if self._number(("num_ln_in_parallel_attn",)) == 1 else 2
        if self.kind in _FALCON and not self._flag("parallel_attn", True):
            return 2
        if self.kind == "stablelm" and self._flag("use_parallel_residual", False):
            return 1
        return family.norms

    def _qk_norm(self, family: Family) -> bool:
        for key in ("use_qk_norm", "qk_layernorm", "qk_ln"):
            if key in self.config and self.kind != "llama4_text":
                return self._flag(key, False)
        return family.qk_norm

    def _positions(self, family: Family) -> Literal["rope", "learned", "alibi", "none"]:
        if self.kind in (*_FALCON, "mpt") and self._flag("alibi", False):
            return "alibi"
        if self.kind == "mpt":
            if self._flag("rope", False):
                return "rope"
            return "learned" if self._flag("learned_pos_emb", True) else "none"
        return family.positions

    def _biases(self, family: Family) -> tuple[bool, bool]:
        """(biases everywhere, biases on queries, keys and values only)."""
        if self.kind == "mpt":
            return not self._flag("no_bias", False), False
        if self.kind in _FALCON:
            return self._flag("bias", False), False
        if self.kind in ("opt", "starcoder2", "phi", "gptj"):
            return self._flag({"opt": "enable_bias"}.get(self.kind, "use_bias"), True), False
        if self.kind == "stablelm":
            return False, self._flag("use_qkv_bias", False)
        attention = self.config.get("attention_bias")
        if family.bias == "all":
            return True, False
        if isinstance(attention, bool):
            both = attention and self._flag("mlp_bias", False)
            return both, attention and not both
        return False, family.bias == "qkv"

    def _mla(self) -> Mla | None:
        if not self._number(("kv_lora_rank",)):
            return None
        return Mla(
            q_lora=self._number(("q_lora_rank",)) or 0, kv_lora=self._need(("kv_lora_rank",)),
            nope=self._need(("qk_nope_head_dim",)), rope=self._need(("qk_rope_head_dim",)), v=self._need(("v_head_dim",)),
        )  # fmt: skip

    def _moe(self, layers: int, ffn: int) -> Moe | None:
        experts = self._number(EXPERTS)
        if not experts or experts == 1:
            return None
        own = self._number(("moe_intermediate_size", "expert_hidden_size", "moe_ffn_hidden_size"))
        if own is None:
            own = ffn
        shared = self._number(("shared_expert_intermediate_size", "shared_intermediate_size"))
        if shared is None:
            shared = own * (self._number(("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")) or 0)
        if self.kind == "llama4_text":
            shared = own
        sparse = self._sparse(layers)
        if not sparse:
            self.warnings.append(f"{experts} experts, but no layer that uses them")
            return None
        dense = sparse[0]
        every = sparse[1] - sparse[0] if len(sparse) > 1 else layers
        regular = sparse == list(range(dense, layers, every))
        return Moe(
            experts=experts, topk=self._need(TOPK), ffn_hidden=own, shared_ffn_hidden=shared,
            dense_layers=dense if regular else 0, every=every if regular else 1, layers=() if regular else tuple(sparse),
        )  # fmt: skip

    def _sparse(self, layers: int) -> list[int]:
        """Numbers of the layers that have experts."""
        listed = self.config.get("moe_layers")
        if isinstance(listed, list):
            return sorted(layer for layer in listed if isinstance(layer, int) and 0 <= layer < layers)
        pattern = self.config.get("moe_layer_freq")
        if isinstance(pattern, list):
            return [layer for layer, on in enumerate(pattern[:layers]) if on]
        first = self._number(("first_k_dense_replace", "moe_layer_start_index")) or 0
        step = self._number(("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval")) or 1
        freq = self._number(("moe_layer_freq",)) or 1
        dense = self.config.get("mlp_only_layers") or ()
        rest = range(first, layers)
        return [layer for layer in rest if (layer + 1) % step == 0 and layer % freq == 0 and layer not in dense]

    def _windows(self, family: Family, layers: int) -> tuple[int, int, tuple[int, ...]]:
        """(window, window_every, windowed_layers) of the model."""
        window = self._number(("sliding_window", "attention_chunk_size", "sliding_window_size"))
        if not window or self.config.get("use_sliding_window") is False:
            return 0, 1, ()
        if "attention_chunk_size" in self.config and not self.config.get("sliding_window"):
            self.warnings.append(f"attention in chunks of {window} tokens is read as a sliding window")
        windowed = self._windowed(family, layers)
        if not windowed:
            return 0, 1, ()
        every = windowed[1] - windowed[0] if len(windowed) > 1 else layers
        if windowed == list(range(0, layers, every)):
            return window, every, ()
        return window, 1, tuple(windowed)

    def _windowed(self, family: Family, layers: int) -> list[int]:
        kinds = self.config.get("layer_types")
        if isinstance(kinds, list):
            if len(kinds) != layers:
                raise ConfigError(f"layer_types names {len(kinds)} layers of {layers}", where=self.where)
            return [layer for layer, kind in enumerate(kinds) if LAYER_TYPES[kind]]
        pattern = self._number(("sliding_window_pattern", "_sliding_window_pattern"))
        if self.kind in ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"):
            return list(range(self._number(("max_window_layers",)) or 0, layers))
        if self.kind == "llama4_text":
            pattern = 4
        each = {"all": 0, "even": 2, "5:1": 6, "3:1": 4}[family.window] if pattern is None else pattern
        return [layer for layer in range(layers) if each <= 1 or (layer + 1) % each]
