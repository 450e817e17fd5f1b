"""Activations that one layer keeps for the backward pass of one micro-batch, by kind.

For GPT in 16 bit (Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models", 2022, section 4):
sbh (34 + 5 a s / h) bytes; tensor parallelism divides 24 and the scores, sequence parallelism the other 10 as well; selective
recomputation drops the scores; full recomputation keeps the 2sbh of the layer's input. Everything else (gated MLPs, grouped
queries, latent attention, experts, flash attention) is counted the same way: an operator keeps what its backward pass reads.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from distsim.models.spec import Model
from distsim.workload.training.memory.states import QUANTISED, width_of
from distsim.workload.training.plan import Plan
from distsim.workload.training.stack import Stack


class Shape(NamedTuple):
    """All that the activations of a layer depend on beside the model. tokens: of a micro-batch on one rank, before tp."""

    tokens: int
    keys: int
    tp: int
    etp: int
    sequence_parallel: bool
    width: int
    saved: float
    recompute: str
    imbalance: float
    capacity: float
    fusion: str
    unfused: bool
    selective: str
    dropout: bool


class Layer(NamedTuple):
    """Bytes of one layer and one micro-batch.

    kept: by kind, from the forward pass to the backward pass. total: their sum. working: recomputed while the backward pass
    of this layer runs. gradients: of activations, alive at once during it.
    """

    kept: tuple[tuple[str, float], ...]
    total: float
    working: float
    gradients: float


def shape_of(plan: Plan, stack: Stack) -> Shape:
    """The shape that a plan gives to activations on this software."""
    width = width_of(plan)
    # NOTE: Transformer Engine saves the quantised input of a product; FSDP's dynamic float8 saves the 16-bit one
    saved = QUANTISED.get(plan.precision, width) if stack.master != "weights" else width
    return Shape(
        plan.micro_batch * plan.seq // plan.cp, plan.seq, plan.tp, plan.etp, plan.sequence_parallel, width, saved,
        plan.recompute, plan.ep_imbalance, plan.capacity, stack.fusion, stack.attention == "unfused",
        stack.selective, stack.dropout,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def layer(model: Model, sparse: bool, shape: Shape) -> Layer:
    """The activations of a dense or a sparse layer."""
    kinds, backward = _everything(model, sparse, shape)
    whole = sum(kinds.values())
    stream = shape.tokens * model.hidden / (shape.tp if shape.sequence_parallel else 1) * shape.width
    if shape.recompute == "full":
        kept = {"layer inputs": stream}
    elif shape.recompute == "selective" and shape.selective == "operations":
        kept = _every_second_product(model, sparse, shape, stream)
    elif shape.recompute == "selective":
        kept = {kind: size for kind, size in kinds.items() if kind not in ("scores", "softmax statistics")}
    else:
        kept = kinds
    total = sum(kept.values())
    return Layer(tuple(kept.items()), total, max(0.0, whole - total), backward)


def _everything(model: Model, sparse: bool, shape: Shape) -> tuple[dict[str, float], float]:
    """All that the operators of a layer save, by kind; and the most that gradients of activations take at once."""
    tokens, tp, width, saved = shape.tokens, shape.tp, shape.width, shape.saved
    stream = tokens * model.hidden / (tp if shape.sequence_parallel else 1)
    queries, keys, values, latent = _attention_widths(model)
    heads = tokens * model.heads / tp
    # eager RMS norms are written out in fp32: the converted input and the normalised one are saved too
    norms = model.norms * stream * (width + (2 * 4 if shape.fusion == "eager" and model.norm == "rmsnorm" else 0))
    attention = tokens * (queries + keys + values + model.heads * _value_dim(model)) / tp * width
    kinds = {
        "norm inputs": norms,
        "product inputs": min(model.norms, 2) * stream * saved
        + latent * tokens / (tp if shape.sequence_parallel else 1) * 2 * width,
        "attention": attention,
    }
    if saved != width:
        kinds["product inputs"] += tokens * model.heads * _value_dim(model) / tp * saved
    scores = 0.0
    if shape.unfused:
        scores = heads * shape.keys
        kinds["scores"] = scores * (2 * width + 1 if shape.dropout else width)
    else:
        kinds["softmax statistics"] = heads * 4
    if shape.dropout:
        kinds["dropout masks"] = 2 * stream
    gradients = attention + 2 * stream * width + 2 * scores * width
    if sparse and model.moe is not None:
        routed = _experts(model, shape, kinds, stream)
        return kinds, max(gradients, routed + 2 * stream * width)
    up = _mlp(kinds, "mlp", tokens * model.ffn_hidden / tp, model.gated, shape)
    return kinds, max(gradients, up + 2 * stream * width)


def _attention_widths(model: Model) -> tuple[int, int, int, int]:
    """Elements per token of queries, keys, values as attention reads them, and of latent attention's compressed ones."""
    if model.mla is not None:
        m = model.mla
        whole = model.heads * (m.nope + m.rope)
        return whole, whole, model.heads * m.v, m.q_lora + m.kv_lora + m.rope
    kv = model.kv_heads * model.head_dim
    return model.heads * model.head_dim, kv, kv, 0


def _value_dim(model: Model) -> int:
    return model.mla.v if model.mla is not None else model.head_dim


def _mlp(kinds: dict[str, float], name: str, inner: float, gated: bool, shape: Shape) -> float:
    """Adds what an MLP saves inside: the activation function's input and output. Returns the bytes of its input."""
    before = inner * (2 if gated else 1) * shape.width
    eager = inner * shape.width if gated and shape.fusion == "eager" else 0  # silu(x) apart from silu(x) * y
    kinds[name] = kinds.get(name, 0.0) + before + inner * shape.saved + eager
    return before


def _experts(model: Model, shape: Shape, kinds: dict[str, float], stream: float) -> float:
    """Adds what a mixture of experts saves. Returns the bytes of gradients alive at once while tokens are put back."""
    moe = model.moe
    assert moe is not None
    # NOTE: tokens leave their rank split over tp (sequence parallelism is required there); each goes to topk experts, and
    # with tensor parallelism inside experts every one of etp ranks sees the tokens of all of them
    factor = shape.capacity or shape.imbalance
    routed = shape.tokens / shape.tp * moe.topk * factor * shape.etp
    # the router computes in fp32: its input, and logits, scores and probabilities of every expert
    rows = stream / model.hidden
    kinds["router"] = rows * 4 * (model.hidden + 3 * moe.experts)
    kinds["expert inputs"] = routed * model.hidden * shape.saved
    before = _mlp(kinds, "experts", routed * moe.ffn_hidden / shape.etp, model.gated, shape)
    if moe.shared_ffn_hidden:
        _mlp(kinds, "shared expert", shape.tokens * moe.shared_ffn_hidden / shape.tp, model.gated, shape)
    return 2 * routed * model.hidden * shape.width + before


def _every_second_product(model: Model, sparse: bool, shape: Shape, stream: float) -> dict[str, float]:
    """torchtitan's per-operator selective recomputation: results of every second matrix product, and of attention.

    Source: torchtitan, activation_checkpoint mode "selective", option "op" (2024): ``aten.mm`` and attention are on the save
    list, and every second ``mm`` is recomputed; products in program order: q, k, v, output, gate, up, down.
    """
    tokens, tp, width = shape.tokens, shape.tp, shape.width
    queries, keys, values, _ = _attention_widths(model)
    products = [tokens * size / tp for size in (queries, keys, values)] + [stream / width]
    inner = tokens * model.ffn_hidden / tp
    if sparse and model.moe is not None:
        inner = tokens * model.moe.shared_ffn_hidden / tp  # grouped products of routed experts are not ``mm``: recomputed
    products += [inner] * (2 if model.gated else 1) + [stream / width]
    if shape.fusion == "compiled":
        products[-1] = 0.0  # nobody reads the layer's last product again: the compiler's partitioner drops it
    kept = sum(products[::2])
    return {
        "layer inputs": stream,
        "products": kept * width,
        "attention": tokens * model.heads * _value_dim(model) / tp * width,
        "softmax statistics": tokens * model.heads / tp * 4,
    }
