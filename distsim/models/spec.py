"""A transformer as numbers: what decides its kernels, its messages and its memory."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_LAYERS = 10_000


class Mla(BaseModel):
    """Multi-head latent attention (DeepSeek-V2, 2024): ranks of the compressed queries and keys, sizes of a head's parts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    q_lora: int = Field(0, ge=0, description="rank of compressed queries, 0: not compressed")
    kv_lora: int = Field(gt=0)
    nope: int = Field(gt=0, description="head size without positions")
    rope: int = Field(gt=0, description="head size with positions, shared by all heads of the keys")
    v: int = Field(gt=0, description="head size of values")


class Moe(BaseModel):
    """Mixture of experts. Layers that are not sparse have the model's ``ffn_hidden``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    experts: int = Field(gt=0)
    topk: int = Field(gt=0)
    ffn_hidden: int = Field(gt=0, description="of one expert")
    shared_ffn_hidden: int = Field(0, ge=0, description="of all shared experts together, 0: none")
    dense_layers: int = Field(0, ge=0, description="first layers that are dense")
    every: int = Field(1, ge=1, description="each n-th layer is sparse")
    layers: tuple[int, ...] = Field((), description="the sparse layers (from 0), where dense_layers and every do not tell")


class Model(BaseModel):
    """A decoder-only transformer.

    window / window_every: sliding-window attention over that many tokens in each n-th layer (0: full everywhere);
    windowed_layers: the layers with it (from 0), where each n-th does not tell them (Gemma 3: five of six).
    mtp: multi-token-prediction layers beside the ``layers`` (DeepSeek-V3); not counted in ``parameters``.
    head_dim: with MLA that of the values.
    seq: usual sequence length; with learned positions also the length of their table.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    source: str = ""
    aliases: tuple[str, ...] = ()
    layers: int = Field(gt=0, le=MOST_LAYERS)
    hidden: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    ffn_hidden: int = Field(gt=0, description="of dense layers")
    vocab: int = Field(gt=0)
    seq: int = Field(2048, gt=0, description="usual sequence length")
    gated: bool = Field(True, description="SwiGLU or GeGLU: three matrices; False: two")
    tied: bool = Field(False, description="the head uses the embedding's weights")
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    positions: Literal["rope", "learned", "alibi", "none"] = "rope"
    bias: bool = Field(False, description="biases on every matrix but embedding and head")
    qkv_bias: bool = Field(False, description="biases on queries, keys and values only (Qwen2)")
    qk_norm: bool = False
    norms: int = Field(2, ge=1, description="norms per layer: 1 where attention and MLP run side by side, 4 in Gemma 2 and 3")
    window: int = Field(0, ge=0)
    window_every: int = Field(1, ge=1)
    windowed_layers: tuple[int, ...] = ()
    mla: Mla | None = None
    moe: Moe | None = None
    mtp: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        """Refuse what no model can be."""
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.kv_heads} kv_heads do not divide {self.heads} heads")
        if self.moe is not None and self.moe.topk > self.moe.experts:
            raise ValueError(f"topk {self.moe.topk} of {self.moe.experts} experts")
        for what, listed in (("moe.layers", self.moe.layers if self.moe else ()), ("windowed_layers", self.windowed_layers)):
            if any(not 0 <= layer < self.layers for layer in listed):
                raise ValueError(f"{what} names a layer outside 0..{self.layers - 1}")
        return self

    def sparse(self, layer: int) -> bool:
        """Whether layer number ``layer`` (from 0; from ``layers`` on: multi-token prediction) is a mixture of experts."""
        moe = self.moe
        if moe is None:
            return False
        if moe.layers and layer < self.layers:
            return layer in moe.layers
        return layer >= self.layers or (layer >= moe.dense_layers and (layer - moe.dense_layers) % moe.every == 0)

    def windowed(self, layer: int) -> bool:
        """Whether the layer attends to a window only."""
        if self.windowed_layers:
            return self.window > 0 and layer in self.windowed_layers
        return self.window > 0 and layer % self.window_every == 0

    @property
    def sparse_layers(self) -> int:
        """Number of mixture-of-experts layers."""
        return sum(self.sparse(layer) for layer in range(self.layers))

    def _attention_weights(self) -> int:
        """Matrix weights of one attention block."""
        h, a = self.hidden, self.heads
        if self.mla is not None:
            m = self.mla
            q = h * m.q_lora + (m.q_lora or h) * a * (m.nope + m.rope)
            kv = h * (m.kv_lora + m.rope) + m.kv_lora * a * (m.nope + m.v)
            return q + kv + a * m.v * h
        return 2 * h * (a + self.kv_heads) * self.head_dim

    def attention_parameters(self) -> int:
        """Weights of one attention block with its biases and inner norms; the layer's norms not."""
        weights = self._attention_weights()
        if self.mla is not None:
            return weights + self.mla.q_lora + self.mla.kv_lora
        qkv = (self.heads + 2 * self.kv_heads) * self.head_dim
        biases = qkv + self.hidden if self.bias else qkv if self.qkv_bias else 0
        return weights + biases + (2 * self.head_dim if self.qk_norm else 0)

    def mlp_parameters(self, ffn_hidden: int) -> int:
        """Weights of one MLP, biases included."""
        matrices = 3 if self.gated else 2
        return matrices * self.hidden * ffn_hidden + ((matrices - 1) * ffn_hidden + self.hidden if self.bias else 0)

    def layer_parameters(self, layer: int, *, experts: int | None = None) -> int:
        """Weights of a layer. ``experts``: how many of its experts count (default all)."""
        norms = self.norms * self.hidden * (2 if self.norm == "layernorm" else 1)
        base = self.attention_parameters() + norms
        if not self.sparse(layer):
            return base + self.mlp_parameters(self.ffn_hidden)
        moe = self.moe
        assert moe is not None
        shared = self.mlp_parameters(moe.shared_ffn_hidden) if moe.shared_ffn_hidden else 0
        router = self.hidden * moe.experts + (moe.experts if self.bias else 0)
        count = moe.experts if experts is None else experts
        return base + count * self.mlp_parameters(moe.ffn_hidden) + shared + router

    def embedding_parameters(self) -> int:
        """Weights of the token (and learned position) embedding."""
        return self.vocab * self.hidden + (self.seq * self.hidden if self.positions == "learned" else 0)

    def mtp_parameters(self) -> int:
        """Weights of the multi-token-prediction modules: a layer each, the projection of two joined hidden states onto one,
        two norms; embedding and head are the model's own (DeepSeek-V3, 2024, section 2.2)."""
        norm = self.hidden * (2 if self.norm == "layernorm" else 1)
        return self.mtp * (self.layer_parameters(self.layers) + 2 * self.hidden * self.hidden + 3 * norm)

    @property
    def parameters(self) -> int:
        """All weights, without multi-token-prediction layers."""
        head = 0 if self.tied else self.vocab * self.hidden
        final = self.hidden * (2 if self.norm == "layernorm" else 1)
        return sum(self.layer_parameters(layer) for layer in range(self.layers)) + self.embedding_parameters() + head + final

    @property
    def active_parameters(self) -> int:
        """Weights that one token meets, the whole embedding among them, without multi-token-prediction layers."""
        if self.moe is None:
            return self.parameters
        inactive = (self.moe.experts - self.moe.topk) * self.mlp_parameters(self.moe.ffn_hidden)
        return self.parameters - inactive * self.sparse_layers

    def multiplied_weights(self) -> int:
        """Matrix weights that one token is multiplied by, multi-token prediction and head included; embedding, router, norms
        and biases are not counted, as in Megatron-Core's FLOP formula."""
        matrices = 3 if self.gated else 2
        total = (self.layers + self.mtp) * self._attention_weights()
        for layer in range(self.layers + self.mtp):
            width = self.ffn_hidden
            if self.moe is not None and self.sparse(layer):
                width = self.moe.topk * self.moe.ffn_hidden + self.moe.shared_ffn_hidden
            total += matrices * self.hidden * width
        return total + self.mtp * 2 * self.hidden * self.hidden + (1 + self.mtp) * self.vocab * self.hidden

    def flops_per_token(self, seq: int, *, causal: bool = False) -> float:
        """Model FLOPs of one token of ``seq``, forward and backward, no recomputation: 6 per weight that multiplies, and
        scores and their product with the values, forward 2 + 2 and backward twice that per head element and attended token.

        causal: count the tokens that are attended only (half of ``seq`` on average, less with a window), as Megatron-Core and
        Megatron-Bridge do since 2025. By default all of ``seq`` counts, as in PaLM (2022, appendix B), in SC21, and in
        Megatron-Core up to 2024.
        """
        if self.mla is not None:
            width = self.heads * (self.mla.nope + self.mla.rope + self.mla.v) / 2
        else:
            width = self.heads * self.head_dim
        spans = 0.0
        for layer in range(self.layers + self.mtp):
            span = min(seq, self.window) if self.windowed(layer) else seq
            spans += span - span * span / (2 * seq) if causal else span
        return 6.0 * self.multiplied_weights() + 12.0 * width * spans
