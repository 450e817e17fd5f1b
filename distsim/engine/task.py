"""Tasks in columns, and what communicating tasks say to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Kind(IntEnum):
    """What a task does while it runs."""

    TIMED = 0  #: takes its duration: compute, copy, delay
    COLLECTIVE = 1  #: meets its group, then takes as long as the network needs
    SEND = 2  #: runs until its message has been delivered
    RECEIVE = 3  #: runs until a matching message has been delivered
    INSTANT = 4  #: done as soon as its dependencies are; needs no stream
    DELAY = 5  #: takes its duration, beside anything else: a latency; needs no stream


@dataclass(frozen=True, slots=True)
class CollectiveCall:
    """One member's part in a collective. Members whose ``key`` is equal meet; they must agree on all the rest.

    key: (communicator, how many collectives that communicator has had before), unique among those that have not ended.
    ranks: the devices that communicate, where the members stand for them: ranks in lockstep need only one task.
    """

    key: tuple[Any, int]
    operation: str
    bytes: int  #: per-rank input
    members: tuple[int, ...]  #: devices, in ring order
    root: int = 0  #: index in members
    dims: int = -1  #: bits of the topology dimensions that take part, -1 for all
    label: str = ""  #: name of the communicator, for people
    ranks: tuple[int, ...] = ()  #: devices, in ring order; empty: the members
    algorithm: str = ""  #: one of distsim's own that the workload insists on; empty: as the run's options say
    #: ps that this member goes on after all have come, as it was recorded (members may differ); -1: as the network says
    transfer_ps: int = -1


@dataclass(frozen=True, slots=True)
class MessageCall:
    """A send or receive: the k-th send of (src, dst, tag) is for the k-th receive of it, and sizes must agree."""

    src: int
    dst: int
    tag: int
    bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Tasks:
    """A batch of n tasks in columns. Dependencies are rows of the batch; rows are in program order.

    A stream that could start several ready tasks starts the one submitted first, that is, of the lowest row.
    """

    kind: NDArray[np.int8]
    stream: NDArray[np.int32]  #: from Executor.stream(); -1 for INSTANT, DELAY and RECEIVE, which hold none
    duration: NDArray[np.int64]  #: ps, of TIMED and DELAY tasks; 0 elsewhere
    call: NDArray[np.int32]  #: index into ``calls``, -1 where there is none
    dep_ptr: NDArray[np.int64]
    dep: NDArray[np.int32]
    calls: tuple[CollectiveCall | MessageCall, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.kind)
