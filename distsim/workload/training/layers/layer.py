"""Whole layers, and what stands before the first and after the last: operations of each direction."""

from __future__ import annotations

from distsim.workload.training.layers import attention, ends, mlp, moe
from distsim.workload.training.layers.shard import Shard
from distsim.workload.training.layers.writer import Writer
from distsim.workload.training.operations import Operation

Operations = tuple[Operation, ...]


def layer_kind(shard: Shard, layer: int) -> tuple[bool, bool]:
    """Layers of one kind have the same operations: (sparse, windowed)."""
    return shard.model.sparse(layer), shard.model.windowed(layer)


def forward(shard: Shard, layer: int) -> Operations:
    """The forward pass of a layer over one micro-batch."""
    w = Writer(shard, "forward")
    _forward(w, layer)
    return tuple(w.operations)


def backward(shard: Shard, layer: int) -> Operations:
    """The backward pass, with the forward pass before it where everything is recomputed."""
    w = Writer(shard, "dgrad")
    if shard.plan.recompute == "full":
        w.part = "recompute"
        _forward(w, layer)
        w.part = "dgrad"
    elif shard.plan.recompute == "selective" and shard.stack.selective == "operations":
        w.part = "recompute"
        attention.recompute_operations(w)
        if shard.model.sparse(layer):
            moe.forward(w)
        else:
            mlp.recompute_operations(w, shard.model.ffn_hidden)
        w.part = "dgrad"
    if shard.model.sparse(layer):
        moe.backward(w)
    else:
        mlp.backward(w, shard.model.ffn_hidden)
    attention.backward(w, layer)
    return tuple(w.operations)


def embedding(shard: Shard, direction: str) -> Operations:
    """``forward`` or ``backward`` pass of the embedding."""
    w = Writer(shard, "forward" if direction == "forward" else "dgrad")
    (ends.embedding_forward if direction == "forward" else ends.embedding_backward)(w)
    return tuple(w.operations)


def head(shard: Shard, direction: str) -> Operations:
    """``forward`` or ``backward`` pass of the head and the loss."""
    w = Writer(shard, "forward" if direction == "forward" else "dgrad")
    (ends.head_forward if direction == "forward" else ends.head_backward)(w)
    return tuple(w.operations)


def prediction(shard: Shard, direction: str) -> Operations:
    """What a multi-token-prediction layer has around it: the projection of state and next token, and a head of its own."""
    forward = direction == "forward"
    w = Writer(shard, "forward" if forward else "dgrad")
    (ends.projection_forward if forward else ends.head_backward)(w)
    (ends.head_forward if forward else ends.projection_backward)(w)
    return tuple(w.operations)


def _forward(w: Writer, layer: int) -> None:
    attention.forward(w, layer)
    if w.shard.model.sparse(layer):
        moe.forward(w)
    else:
        mlp.forward(w, w.shard.model.ffn_hidden)
