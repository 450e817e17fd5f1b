"""What one rank does for one block of a model and one micro-batch: kernels and communications in program order, on streams.

A block is the unit that pipeline schedules move about: the layers of one virtual stage, forward or backward. Its operations
say nothing of time; ``after`` are indices of earlier operations of the same block. Streams are in order, as CUDA streams.
"""

from __future__ import annotations

from typing import NamedTuple

from distsim.cost.kernel import Kernel

#: streams of a rank: computation, and one per communicator, as frameworks have them
COMPUTE = "compute"


class Operation(NamedTuple):
    """One kernel or one communication.

    name: what it is, for people and traces: ``attention``, ``mlp up``.
    kind: class for breakdowns: gemm, attention, memory, optimizer for kernels; tp, cp, ep, dp, pp for communications.
    kernel: what computes; None for a communication.
    operation: all_reduce, all_gather, reduce_scatter, all_to_all; send for ring steps; "" for kernels.
    bytes: per-rank input of a collective, or the message.
    group: communicator: tp, cp, ep, dp ...; "" for kernels.
    stream: ``compute`` or the communicator's.
    after: earlier operations that must end before this one starts, beside those before it on its stream.
    part: forward, recompute, dgrad, wgrad: for schedules that split the backward pass, and for breakdowns.
    launches: kernels that the software issues for it (eager code: several).
    """

    name: str
    kind: str
    kernel: Kernel | None
    operation: str = ""
    bytes: int = 0
    group: str = ""
    stream: str = COMPUTE
    after: tuple[int, ...] = ()
    part: str = "forward"
    launches: int = 1
