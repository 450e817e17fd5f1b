"""A capture: what one Kineto file says, in columns; the form between the file and the execution graph.

All times are integer picoseconds from ``base_ps``, the absolute time of the earliest event, so that the captures of several
ranks can be laid side by side (``a.base_ps + a.gpu.start_ps[k]``; the sum does not fit 64 bits, it is Python's integer).
Rows of every table are ordered by (start, place in the file).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.trace.kineto.oddity import Oddity


class GpuKind(IntEnum):
    """What a row of the GPU table did."""

    COMPUTE = 0
    COMMUNICATION = 1
    COPY = 2
    SET = 3


class CallKind(IntEnum):
    """What a call of the CUDA (or HIP) runtime or driver did, as far as it orders anything."""

    OTHER = 0
    LAUNCH = 1  #: puts work on a stream: a kernel, an asynchronous copy or set, a CUDA graph
    BLOCKING_COPY = 2  #: puts a copy on a stream and returns when it is done
    EVENT_RECORD = 3
    EVENT_WAIT = 4  #: cudaStreamWaitEvent: a stream waits, the host goes on
    STREAM_SYNC = 5
    EVENT_SYNC = 6
    DEVICE_SYNC = 7


@dataclass(frozen=True, slots=True, eq=False)
class GpuTable:
    """What ran on the GPUs: kernels, copies, sets. One entry per row in every column."""

    start_ps: NDArray[np.int64]
    end_ps: NDArray[np.int64]
    stream: NDArray[np.int32]  #: index into Capture.streams
    kind: NDArray[np.int8]  #: GpuKind
    name: NDArray[np.int32]  #: index into Capture.names
    correlation: NDArray[np.int64]  #: -1: none; kernels of one CUDA graph share one
    external: NDArray[np.int64]  #: External id: that of the host operation in newer files, often the correlation in older ones
    launch: NDArray[np.int64]  #: row of the call that put it on its stream; -1: not in the file
    step: NDArray[np.int32]  #: index into Capture.steps; -1: launched outside every step
    bytes: NDArray[np.int64]  #: of a copy or set; -1 where not said
    args: Mapping[int, Mapping[str, Any]]  #: row -> what the file says beside it; rows of kind COMMUNICATION only

    def __len__(self) -> int:
        return len(self.start_ps)


@dataclass(frozen=True, slots=True, eq=False)
class CallTable:
    """Calls of the CUDA runtime and driver on the host."""

    start_ps: NDArray[np.int64]
    end_ps: NDArray[np.int64]
    thread: NDArray[np.int32]  #: index into Capture.threads
    kind: NDArray[np.int8]  #: CallKind
    name: NDArray[np.int32]  #: index into Capture.names
    correlation: NDArray[np.int64]  #: -1: none
    external: NDArray[np.int64]  #: External id; -1: none
    stream: NDArray[np.int64]  #: number of the stream that it is about, where the file tells (cuda_sync events); else -1
    waits_on: NDArray[np.int64]  #: number of the stream that it waits for, of an EVENT_WAIT or EVENT_SYNC; else -1
    record: NDArray[np.int64]  #: correlation of the call that recorded the event, where the file tells; else -1

    def __len__(self) -> int:
        return len(self.start_ps)


@dataclass(frozen=True, slots=True, eq=False)
class OpTable:
    """Host operations that communicate: record_param_comms, ``nccl:`` annotations, ``c10d::`` operators."""

    start_ps: NDArray[np.int64]
    end_ps: NDArray[np.int64]
    thread: NDArray[np.int32]  #: index into Capture.threads
    name: NDArray[np.int32]  #: index into Capture.names
    external: NDArray[np.int64]  #: External id; -1: none
    args: tuple[Mapping[str, Any], ...]  #: of each row, as the file has them

    def __len__(self) -> int:
        return len(self.start_ps)


@dataclass(frozen=True, slots=True, eq=False)
class HostTable:
    """When each thread was in some event of the profiler: merged intervals of all its events, by (thread, start)."""

    start_ps: NDArray[np.int64]
    end_ps: NDArray[np.int64]
    thread: NDArray[np.int32]  #: index into Capture.threads

    def __len__(self) -> int:
        return len(self.start_ps)


@dataclass(frozen=True, slots=True)
class Step:
    """One iteration as the host saw it: a ProfilerStep annotation. A file without any is one step from end to end."""

    name: str
    start_ps: int
    end_ps: int


@dataclass(frozen=True, slots=True, eq=False)
class Capture:
    """One Kineto file of one rank."""

    label: str  #: the file, for messages
    rank: int  #: of distributedInfo; -1: not said
    world_size: int  #: of distributedInfo; 0: not said
    gpu: str  #: name of the GPU that ran; empty: not said
    distributed: Mapping[str, Any]  #: distributedInfo (pg_config, backend ...), as the file has it
    devices: tuple[Mapping[str, Any], ...]  #: deviceProperties
    base_ps: int  #: absolute time of the earliest event
    kernels: GpuTable
    calls: CallTable
    ops: OpTable
    host: HostTable
    steps: tuple[Step, ...]
    streams: tuple[tuple[int, int], ...]  #: (device, stream number)
    threads: tuple[str, ...]  #: "main thread", "thread 2" ...: names that the threads of all ranks share
    names: tuple[str, ...]
    forward: NDArray[np.int64]  #: (m, 4): thread and time of a forward operation, thread and time of its backward
    world: Mapping[str, Any] = field(default_factory=dict)  #: the file's other words: schemaVersion, record_shapes ...
    oddities: tuple[Oddity, ...] = ()  #: what was wrong with the file, and what was done about it
