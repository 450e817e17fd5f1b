"""What the first and the last stage have beside their layers: the embedding, and the head with its loss."""

from __future__ import annotations

from distsim.workload.training.layers.passes import PASSES
from distsim.workload.training.layers.tensor import column_backward, column_forward
from distsim.workload.training.layers.writer import Writer

#: reads and writes of the logits, in fp32 elements, by the stack's loss, forward and backward. Vocabulary-parallel
#: (Megatron-LM, fused or not): max, subtract, exponentiate, sum; the gradient and its cast. Eager: torch's cross_entropy of
#: logits.float(): the cast, log-softmax; the gradients of what is looked up, of log-softmax, of the cast. Compiled, or one
#: kernel: a pass or two each way
_LOSS = {"eager": (3.5, 5.5), "parallel": (5.0, 3.0), "fused": (5.0, 3.0), "compiled": (2.5, 2.5)}


def embedding_forward(w: Writer) -> None:
    """Look-up; with tensor parallelism every rank holds a part of the vocabulary and the parts are summed."""
    shard = w.shard
    w.memory("embedding", 3 * shard.activations, 3)
    if shard.plan.tp > 1:
        operation = "reduce_scatter" if shard.sequence_parallel else "all_reduce"
        w.exchange("reduce embedding", "tp", operation, shard.activations)


def embedding_backward(w: Writer) -> None:
    """Gradients are added to their rows."""
    shard = w.shard
    if shard.sequence_parallel:
        w.exchange("gather embedding gradient", "tp", "all_gather", shard.activations // shard.plan.tp)
    w.part = "wgrad"
    w.memory("embedding wgrad", 3 * shard.activations, 3)
    w.part = "dgrad"


def head_forward(w: Writer) -> None:
    """Final norm, logits, cross entropy."""
    shard = w.shard
    model, passes = shard.model, PASSES[shard.stack.fusion]
    w.memory("norm", shard.rows * model.hidden * shard.width * passes.norm[0], passes.norm_launches[0])
    part = -(-model.vocab // shard.plan.tp)
    w.scaled = False  # the head stays in the activations' dtype
    column_forward(w, "logits", shard.tokens, part, model.hidden)
    w.memory("loss", 4.0 * shard.tokens * part * _LOSS[shard.stack.loss][0], 8)
    if shard.plan.tp > 1:
        w.exchange("reduce loss", "tp", "all_reduce", 3 * 4 * shard.tokens)


def head_backward(w: Writer) -> None:
    """Loss, logits, norm."""
    shard = w.shard
    model, passes = shard.model, PASSES[shard.stack.fusion]
    part = -(-model.vocab // shard.plan.tp)
    w.memory("loss backward", 4.0 * shard.tokens * part * _LOSS[shard.stack.loss][1], 4)
    w.scaled = False
    column_backward(w, "logits", shard.tokens, part, model.hidden)
    w.memory("norm backward", shard.rows * model.hidden * shard.width * passes.norm[1], passes.norm_launches[1])


def projection_forward(w: Writer) -> None:
    """Of a multi-token-prediction layer: norms of the state and of the next token's embedding, and both made one."""
    shard = w.shard
    passes, h = PASSES[shard.stack.fusion], shard.model.hidden
    w.memory("norms", 2 * shard.rows * h * shard.width * passes.norm[0], 2 * passes.norm_launches[0])
    w.memory("join", 4 * shard.rows * h * shard.width)
    w.scaled = False
    column_forward(w, "projection", shard.tokens, h // shard.plan.tp, 2 * h)
    if shard.plan.tp > 1:
        w.exchange("gather projection", "tp", "all_gather", shard.tokens * h // shard.plan.tp * shard.width)


def projection_backward(w: Writer) -> None:
    """Projection, norms."""
    shard = w.shard
    passes, h = PASSES[shard.stack.fusion], shard.model.hidden
    w.scaled = False
    column_backward(w, "projection", shard.tokens, h // shard.plan.tp, 2 * h)
    w.memory("norms backward", 2 * shard.rows * h * shard.width * passes.norm[1], 2 * passes.norm_launches[1])
