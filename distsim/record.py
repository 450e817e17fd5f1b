"""What happened, in append-only columns while it happens (:class:`Recorder`), in immutable tables afterwards."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Collective(Protocol):
    """What the recorder wants to know of a collective."""

    @property
    def operation(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def members(self) -> tuple[int, ...]: ...
    @property
    def label(self) -> str: ...


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Per task, in ps: when its dependencies were done, when it ran, and which task's end released it (-1: none)."""

    ready: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    released_by: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CollectiveRow:
    """One collective: first member there, all members there, last delivery.

    Where ranks are folded, ``members`` are the representatives that meet, ``size`` the ranks of each group, and ``instances``
    how many groups did the same.
    """

    operation: str
    label: str
    bytes: int
    members: tuple[int, ...]
    algorithm: str
    first_ps: int
    start_ps: int
    end_ps: int
    size: int = 0  #: 0: as many as members
    instances: int = 1

    @property
    def ranks(self) -> int:
        """Ranks of the group."""
        return self.size or len(self.members)


#: ``by`` of a task that was released within a run, by the task before it
_WITHIN = -2


class Recorder:
    """Collects while a run goes on. Runs of timed tasks take one entry and are spread out at the end."""

    def __init__(self) -> None:
        self.collectives: list[CollectiveRow] = []
        self._size = 0
        self.ready = array("q")  #: per task, ps: its dependencies were done
        self.by = array("q")  #: per task: the last of them to end, -1 for none, _WITHIN a run
        self._start = array("q")
        self._end = array("q")
        self._runs = array("q")  # first, last, start: flat

    def grow(self, tasks: int) -> None:
        """Room for more tasks."""
        if tasks:
            self.ready.frombytes(bytes(8 * tasks))
            for column in (self._start, self._end):
                column.frombytes(b"\xff" * (8 * tasks))  # -1: not yet
            self.by.frombytes(array("q", [_WITHIN]).tobytes() * tasks)
        self._size += tasks

    def started(self, task: int, now: int) -> None:
        """A communicating task was issued."""
        self._start[task] = now

    def ended(self, task: int, now: int) -> None:
        """A communicating task has ended."""
        self._end[task] = now

    def ran(self, first: int, last: int, start: int, end: int) -> None:
        """Tasks first .. last ran one after the other from start to end."""
        self._runs.append(first)
        self._runs.append(last)
        self._runs.append(start)
        self._end[last] = end

    def collective(self, call: Collective, first: int, start: int, end: int, algorithm: str) -> None:
        """A collective has ended."""
        self.collectives.append(
            CollectiveRow(call.operation, call.label, call.bytes, call.members, algorithm, first, start, end)
        )

    def spans(self, durations: NDArray[np.int64], cut: int | None = None) -> Spans:
        """The finished columns.

        Args:
            durations: of every task, by which runs are spread out.
            cut: ps at which the run broke off: what is under way ends there, what has not begun begins and ends there.
        """
        ready, by, start, end = (np.array(c, dtype=np.int64) for c in (self.ready, self.by, self._start, self._end))
        runs = np.array(self._runs, dtype=np.int64).reshape(-1, 3)
        if len(runs):
            elapsed = np.concatenate(([0], np.cumsum(durations)))
            first, length = runs[:, 0], runs[:, 1] - runs[:, 0] + 1
            total = int(length.sum())
            within = np.arange(total) - np.repeat(np.cumsum(length) - length, length)
            row = np.repeat(first, length) + within
            base = np.repeat(runs[:, 2] - elapsed[first], length)
            told = end[runs[:, 1]]  # where a device was slowed, a task took longer than its duration
            start[row] = elapsed[row] + base
            end[row] = elapsed[row + 1] + base
            end[runs[:, 1]] = told
            inner = row[within > 0]
            inner = inner[by[inner] == _WITHIN]
            ready[inner] = start[inner]
            by[inner] = inner - 1
        if cut is not None:
            ready[by == _WITHIN], by[by == _WITHIN] = cut, -1
            start[start < 0], end[end < 0] = cut, cut
        return Spans(ready, start, end, by)
