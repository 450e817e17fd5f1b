"""Weights of every virtual stage on one rank, and who shares their gradients."""

from __future__ import annotations

from dataclasses import dataclass

from distsim.models.spec import Model
from distsim.workload.training.plan import Plan


@dataclass(frozen=True, slots=True)
class Weights:
    """Parameters that one rank holds of one virtual stage.

    dense: replicated over dp * cp. expert: over the expert-parallel ranks' copies. embedding: part of ``dense`` that the
    first and the last stage both hold where the head is tied.
    """

    dense: int
    expert: int
    embedding: int = 0

    @property
    def all(self) -> int:
        return self.dense + self.expert


def weights(model: Model, plan: Plan) -> tuple[Weights, ...]:
    """Of every virtual stage, in model order. Tensor parallelism splits matrices and embeddings; norms are not worth it."""
    layers = plan.stage_layers(model)
    found, layer = [], 0
    of_kind: dict[bool, tuple[int, int]] = {}
    for chunk, count in enumerate(layers):
        dense = expert = embedding = 0
        for number in range(layer, layer + count):
            sparse = model.sparse(number)
            if sparse not in of_kind:
                of_kind[sparse] = layer_weights(model, plan, number)
            d, e = of_kind[sparse]
            dense, expert = dense + d, expert + e
        layer += count
        table = -(-model.vocab // plan.tp) * model.hidden
        if chunk == 0:
            dense += table + (model.seq * model.hidden if model.positions == "learned" else 0)
            embedding = table if model.tied else 0
        if chunk == len(layers) - 1 and (not model.tied or len(layers) > 1):
            dense += table
            embedding = table if model.tied else 0
        if chunk == len(layers) - 1 and model.mtp:
            d, e = layer_weights(model, plan, model.layers)
            dense, expert = dense + model.mtp * (d + 2 * model.hidden * model.hidden // plan.tp), expert + model.mtp * e
        found.append(Weights(dense, expert, embedding))
    return tuple(found)


def layer_weights(model: Model, plan: Plan, layer: int) -> tuple[int, int]:
    """(dense, expert) parameters of one layer on a rank."""
    if not model.sparse(layer):
        return model.layer_parameters(layer) // plan.tp, 0
    moe = model.moe
    assert moe is not None
    one = model.mlp_parameters(moe.ffn_hidden)
    router = model.hidden * moe.experts
    dense = model.layer_parameters(layer, experts=0) - router
    return dense // plan.tp + router, moe.experts // plan.ep * one // plan.etp
