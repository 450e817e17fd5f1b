"""A transformer as numbers: what decides its kernels, its messages and its memory."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


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


class Model(BaseModel):
    """A decoder-only transformer.

    window / window_every: sliding-window attention over that many tokens in each n-th layer (0: full everywhere).
    mtp: multi-token-prediction layers beside the ``layers`` (DeepSeek-V3).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    source: str = ""
    layers: int = Field(gt=0)
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
    bias: bool = False
    qk_norm: bool = False
    window: int = Field(0, ge=0)
    window_every: int = Field(1, ge=1)
    mla: Mla | None = None
    moe: Moe | None = None
    mtp: int = Field(0, ge=0)

    def sparse(self, layer: int) -> bool:
        """Whether layer number ``layer`` (from 0) is a mixture of experts."""
        moe = self.moe
        return moe is not None and layer >= moe.dense_layers and (layer - moe.dense_layers) % moe.every == 0

    def windowed(self, layer: int) -> bool:
        """Whether the layer attends to a window only."""
        return self.window > 0 and layer % self.window_every == 0

    @property
    def sparse_layers(self) -> int:
        """Number of mixture-of-experts layers."""
        return sum(self.sparse(layer) for layer in range(self.layers))

    def attention_parameters(self) -> int:
        """Weights of one attention block, biases included, norms not."""
        h, a = self.hidden, self.heads
        if self.mla is not None:
            m = self.mla
            q_in = m.q_lora or h
            q = (h * m.q_lora + m.q_lora if m.q_lora else 0) + q_in * a * (m.nope + m.rope)
            kv = h * (m.kv_lora + m.rope) + m.kv_lora + m.kv_lora * a * (m.nope + m.v)
            return q + kv + a * m.v * h
        width = a * self.head_dim
        kv = self.kv_heads * self.head_dim
        weights = h * (width + 2 * kv) + width * h
        return weights + (width + 2 * kv + h if self.bias else 0) + (2 * self.head_dim if self.qk_norm else 0)

    def mlp_parameters(self, ffn_hidden: int) -> int:
        """Weights of one MLP, biases included."""
        matrices = 3 if self.gated else 2
        return matrices * self.hidden * ffn_hidden + ((matrices - 1) * ffn_hidden + self.hidden if self.bias else 0)

    def layer_parameters(self, layer: int, *, experts: int | None = None) -> int:
        """Weights of a layer. ``experts``: how many of its experts count (default all)."""
        norms = 2 * self.hidden * (2 if self.norm == "layernorm" else 1)
        base = self.attention_parameters() + norms
        if not self.sparse(layer):
            return base + self.mlp_parameters(self.ffn_hidden)
        moe = self.moe
        assert moe is not None
        shared = self.mlp_parameters(moe.shared_ffn_hidden) if moe.shared_ffn_hidden else 0
        count = moe.experts if experts is None else experts
        return base + count * self.mlp_parameters(moe.ffn_hidden) + shared + self.hidden * moe.experts

    def embedding_parameters(self) -> int:
        """Weights of the token (and learned position) embedding."""
        return self.vocab * self.hidden + (self.seq * self.hidden if self.positions == "learned" else 0)

    @property
    def parameters(self) -> int:
        """All weights, without multi-token-prediction layers."""
        head = 0 if self.tied else self.vocab * self.hidden
        final = self.hidden * (2 if self.norm == "layernorm" else 1)
        return sum(self.layer_parameters(layer) for layer in range(self.layers)) + self.embedding_parameters() + head + final

    @property
    def active_parameters(self) -> int:
        """Weights that one token meets."""
        if self.moe is None:
            return self.parameters
        inactive = (self.moe.experts - self.moe.topk) * self.mlp_parameters(self.moe.ffn_hidden)
        return self.parameters - inactive * self.sparse_layers

    def flops_per_token(self, seq: int) -> float:
        """Model FLOPs of one token, forward and backward, no recomputation: 6 per active matrix weight that multiplies, and
        attention over ``seq`` tokens counted whole (not halved for causality), as Megatron-Core and PaLM count them."""
        matrices = self.active_parameters - self.embedding_parameters() + (self.vocab * self.hidden if self.tied else 0)
        if self.mla is not None:
            width = self.heads * (self.mla.nope + self.mla.rope + self.mla.v) / 2
        else:
            width = self.heads * self.head_dim
        spans = sum(min(seq, self.window) if self.windowed(layer) else seq for layer in range(self.layers))
        return 6.0 * matrices + 12.0 * width * spans
