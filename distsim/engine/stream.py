"""A stream: a queue on a device. States: idle, or busy with one task or with a run of timed ones."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from distsim.kernel.clock import Call

if TYPE_CHECKING:
    from distsim.engine.beside import Beside


class Stream:
    """What a device can do one at a time.

    An *in-order* stream starts its tasks in the order of their submission, as a CUDA stream does: a task that is not ready
    holds up those behind it. Communicators are in order: their members must enter the same collectives one after the other.
    Any other stream takes, of the tasks that are ready, the one that was submitted first.

    A *run* is several timed tasks that follow each other without anything happening in between: a chain, each released by
    the one before it and by nothing else, or *loose* tasks, ready together, that release nothing. They are started as one and
    end as one, unless a task that goes before them becomes ready: then the run is cut at the next boundary, exactly as if
    it had been stepped.
    """

    __slots__ = ("beside", "call", "device", "first", "last", "loose", "name", "order", "ready", "start")

    def __init__(self, device: int, name: str, in_order: bool) -> None:
        self.device = device
        self.name = name
        self.ready: list[int] = []  #: heap of ready tasks
        self.order: deque[int] | None = deque() if in_order else None  #: in-order: tasks not yet started
        self.first = -1  #: task that is running, the first of the run; -1 when idle
        self.last = -1  #: last task of the run
        self.loose = False  #: the run is of loose tasks
        self.start = 0  #: ps
        self.beside: Beside | None = None  #: what slows its device
        self.call: Call | None = None  #: the completion that counts; an older one is ignored
