"""Parameters of one rank: those split over tp, those that every tp rank repeats, and experts."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from distsim.models.spec import Model
from distsim.workload.training.plan import Plan

#: Megatron-LM pads the vocabulary to a multiple of this per tp rank (--make-vocab-size-divisible-by)
_VOCABULARY_STEP = 128


class Layer(NamedTuple):
    """Parameters of one layer: split over tp, repeated by every tp rank, all experts, one expert."""

    split: int
    repeated: int
    experts: int
    expert: int


class Held(NamedTuple):
    """Parameters that one rank holds, before any ZeRO sharding.

    dense: of layers, not experts. experts: of its experts. embedding, head: shares of them (a tied head on the embedding's
    own rank is 0). largest: of its largest layer, as gathered by ZeRO-3. products: one layer's distinct weight matrices.
    """

    dense: float
    experts: float
    embedding: float
    head: float
    largest: float
    products: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.dense + self.experts + self.embedding + self.head


def vocabulary(model: Model, tp: int) -> int:
    """The vocabulary, padded so that tp ranks have equal shares."""
    step = _VOCABULARY_STEP * tp
    return -(-model.vocab // step) * step


@lru_cache(maxsize=256)
def layer(model: Model, sparse: bool) -> Layer:
    """Parameters of a dense or a sparse layer. Down-projections of latent attention, routers and norms are not split."""
    h = model.hidden
    repeated = model.norms * h * (2 if model.norm == "layernorm" else 1)
    attention = model.attention_parameters()
    if model.mla is not None:
        m = model.mla
        down = h * (m.kv_lora + m.rope) + m.kv_lora + (h * m.q_lora + m.q_lora if m.q_lora else 0)
        attention, repeated = attention - down, repeated + down
    moe = model.moe
    if not sparse or moe is None:
        return Layer(attention + model.mlp_parameters(model.ffn_hidden), repeated, 0, 0)
    shared = model.mlp_parameters(moe.shared_ffn_hidden) if moe.shared_ffn_hidden else 0
    one = model.mlp_parameters(moe.ffn_hidden)
    return Layer(attention + shared, repeated + h * moe.experts, moe.experts * one, one)


@lru_cache(maxsize=64)
def sparse_before(model: Model) -> tuple[int, ...]:
    """Number of sparse layers before each layer, and of all of them at the end."""
    counts = [0]
    for index in range(model.layers):
        counts.append(counts[-1] + model.sparse(index))
    return tuple(counts)


class Chunk(NamedTuple):
    """Layers of one virtual stage, by kind. mtp: multi-token-prediction layers beside the last one."""

    dense: int
    sparse: int
    first: bool
    last: bool
    mtp: int


def chunks(model: Model, plan: Plan) -> tuple[Chunk, ...]:
    """The virtual stages in model order."""
    return _chunks(model, plan.stage_layers(model))


@lru_cache(maxsize=1024)
def _chunks(model: Model, sizes: tuple[int, ...]) -> tuple[Chunk, ...]:
    before = sparse_before(model)
    found, at = [], 0
    for index, size in enumerate(sizes):
        sparse = before[min(at + size, model.layers)] - before[min(at, model.layers)]
        last = index == len(sizes) - 1
        found.append(Chunk(size - sparse, sparse, index == 0, last, model.mtp if last else 0))
        at += size
    return tuple(found)


def held(model: Model, plan: Plan, mine: tuple[Chunk, ...]) -> Held:
    """What one rank holds of these virtual stages."""
    h, tp = model.hidden, plan.tp
    share = plan.ep * plan.etp
    dense = experts = largest = products = 0.0
    kinds = [(layer(model, False), sum(chunk.dense for chunk in mine)), (layer(model, True), sum(c.sparse for c in mine))]
    mtp = sum(chunk.mtp for chunk in mine)
    kinds[model.moe is not None] = (kinds[model.moe is not None][0], kinds[model.moe is not None][1] + mtp)
    for kind, count in kinds:
        if count:
            dense += count * (kind.split / tp + kind.repeated)
            experts += count * kind.experts / share
            largest = max(largest, kind.split / tp + kind.repeated + kind.experts / share)
            products = max(products, kind.split / tp + kind.repeated + kind.expert / plan.etp)
    # a multi-token-prediction layer joins two hidden states (2h -> h) and norms both
    dense += mtp * (2 * h * h / tp + 3 * h)
    table = vocabulary(model, tp) * h / tp
    first, last = any(chunk.first for chunk in mine), any(chunk.last for chunk in mine)
    embedding = table + (model.seq * h if model.positions == "learned" else 0) if first else 0.0
    head = (0.0 if model.tied and first else table) + h if last else 0.0
    return Held(dense, experts, embedding, head, largest, products)
