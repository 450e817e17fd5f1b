"""A stream: an in-order queue on a device. States: idle, or busy with one task or with a run of timed ones."""

from __future__ import annotations

from distsim.kernel.clock import Call


class Stream:
    """What a device can do one at a time. Of the ready tasks it takes the one that was submitted first.

    A *run* is a chain of timed tasks, each released by the one before it and by nothing else: they are started as one and
    end as one, unless a task that goes before them becomes ready: then the run is cut at the next boundary, exactly as if
    it had been stepped.
    """

    __slots__ = ("call", "device", "first", "last", "name", "ready", "start")

    def __init__(self, device: int, name: str) -> None:
        self.device = device
        self.name = name
        self.ready: list[int] = []  #: heap of ready tasks
        self.first = -1  #: task that is running, the first of the run; -1 when idle
        self.last = -1  #: last task of the run
        self.start = 0  #: ps
        self.call: Call | None = None  #: the completion that counts; an older one is ignored
