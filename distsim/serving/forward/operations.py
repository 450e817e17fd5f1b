"""Operations of one iteration on one rank of a stage: kernels and communications in program order, for sums and task graphs."""

from __future__ import annotations

from distsim.serving.deployment import Deployment
from distsim.serving.forward.layers import attention, ends, mlp
from distsim.serving.forward.layers.writer import Rank, Writer
from distsim.serving.forward.work import FINE, Graphs, Work, work_of
from distsim.serving.iteration import Shape
from distsim.workload.training.operations import Operation

#: tokens: the mean cached length of generating sequences is rounded up to a multiple of this
BUCKET = 64

#: of a layer: whether it is a mixture of experts, and its window (0: none)
Kind = tuple[bool, int]


def kind_of(rank: Rank, layer: int) -> Kind:
    """What tells the layer from others."""
    model = rank.model
    return model.sparse(layer), model.window if model.windowed(layer) else 0


def attention_half(rank: Rank, work: Work, window: int) -> list[Operation]:
    """Of one layer."""
    w = Writer(rank)
    attention.forward(w, work, window)
    return w.operations


def mlp_half(rank: Rank, rows: int, everyone: int, sparse: bool) -> list[Operation]:
    """Of one layer; everyone: tokens of all data parallel ranks."""
    w = Writer(rank)
    mlp.forward(w, rows, everyone, sparse)
    return w.operations


def before(rank: Rank, rows: int, stage: int) -> list[Operation]:
    """What a stage does before its layers."""
    w = Writer(rank)
    if stage == 0:
        ends.embedding(w, rows)
    return w.operations


def after(rank: Rank, work: Work, stage: int) -> list[Operation]:
    """What a stage does after its layers."""
    w = Writer(rank)
    if stage == rank.deployment.pp - 1:
        ends.head(w, work.samples)
    else:
        ends.hand_on(w, work.rows)
    return w.operations


def operations(deployment: Deployment, shape: Shape, stage: int = 0, *, bucket: int = BUCKET) -> list[Operation]:
    """All of a rank of ``stage``, where every data parallel rank has the same shape.

    Streams are computation and one per communicator; a communication is between the operations before and after it, nothing
    overlaps: serving systems wait for all-reduces.
    """
    rank = Rank.of(deployment)
    work = padded(work_of(shape, bucket, captured(deployment)))
    found = before(rank, work.rows, stage)
    for layer in deployment.layers_of(stage):
        sparse, window = kind_of(rank, layer)
        found += attention_half(rank, work, window)
        found += mlp_half(rank, work.rows, work.rows * deployment.dp, sparse)
    return chained(found + after(rank, work, stage))


def chained(found: list[Operation]) -> list[Operation]:
    """Each waits for the one before it, whatever their streams."""
    return [one._replace(after=(place - 1,)) if place else one for place, one in enumerate(found)]


def captured(deployment: Deployment) -> Graphs:
    """Which batches have a CUDA graph."""
    software = deployment.software
    return Graphs(software.graph, software.graph if software.piecewise else 0) if deployment.cuda_graphs else Graphs(0, 0)


def padded(work: Work) -> Work:
    """A batch with a graph computes as many rows as the next larger captured one (see distsim.serving.backends)."""
    if not work.graph or work.prompts or not work.sequences:
        return work
    n = work.sequences
    return work._replace(rows=1 << (n - 1).bit_length() if n <= FINE else -(-n // FINE) * FINE)
