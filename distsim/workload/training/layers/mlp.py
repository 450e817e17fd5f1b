"""The MLP half of a layer, dense."""

from __future__ import annotations

from distsim.workload.training.layers.passes import PASSES
from distsim.workload.training.layers.tensor import column_backward, column_forward, row_backward, row_forward
from distsim.workload.training.layers.writer import Writer


def forward(w: Writer, ffn_hidden: int) -> None:
    """Norm to residual."""
    shard = w.shard
    passes = PASSES[shard.stack.fusion]
    hidden = shard.rows * shard.model.hidden * shard.width
    w.memory("norm", hidden * passes.norm[0], passes.norm_launches[0])
    network_forward(w, "mlp", shard.tokens, ffn_hidden // shard.plan.tp)
    w.memory("residual", hidden * passes.residual[0], passes.residual_launches[0])


def backward(w: Writer, ffn_hidden: int) -> None:
    """Residual back to norm."""
    shard = w.shard
    passes = PASSES[shard.stack.fusion]
    hidden = shard.rows * shard.model.hidden * shard.width
    w.memory("residual backward", hidden * passes.residual[1], passes.residual_launches[1])
    network_backward(w, "mlp", shard.tokens, ffn_hidden // shard.plan.tp)
    w.memory("norm backward", hidden * passes.norm[1], passes.norm_launches[1])


def recompute_operations(w: Writer, ffn_hidden: int) -> None:
    """Norm and activation, and every second matrix product: of a gated MLP one of the two up projections, else the down one."""
    shard = w.shard
    passes, h, f = PASSES[shard.stack.fusion], shard.model.hidden, ffn_hidden // shard.plan.tp
    w.memory("norm", shard.rows * h * shard.width * passes.norm[0], passes.norm_launches[0])
    w.quantise(shard.tokens * (h if shard.model.gated else f))
    if shard.model.gated:
        w.gemm("mlp up", shard.tokens, f, h)
    activation(w, shard.tokens * f, 0)
    if not shard.model.gated:
        w.gemm("mlp down", shard.tokens, h, f)


def network_forward(w: Writer, name: str, m: int, f: int) -> None:
    """Up, activation, down; f: this rank's share of the intermediate size."""
    h = w.shard.model.hidden
    column_forward(w, f"{name} up", m, f * (2 if w.shard.model.gated else 1), h)
    activation(w, m * f, 0)
    w.quantise(m * f)
    row_forward(w, f"{name} down", m, h, f)


def network_backward(w: Writer, name: str, m: int, f: int) -> None:
    """Down, activation, up."""
    h = w.shard.model.hidden
    row_backward(w, f"{name} down", m, h, f)
    activation(w, m * f, 1)
    column_backward(w, f"{name} up", m, f * (2 if w.shard.model.gated else 1), h)


def activation(w: Writer, elements: float, direction: int) -> None:
    """GELU or gated SiLU; ``elements`` of its output."""
    passes = PASSES[w.shard.stack.fusion]
    count = (passes.gated if w.shard.model.gated else passes.activation)[direction]
    w.memory("activation", elements * w.shard.width * count, passes.activation_launches[direction])
