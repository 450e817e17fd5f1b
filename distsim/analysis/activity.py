"""The activity network of a run: what had to end before what could begin, with the times that it took.

The critical path method (Kelley & Walker, 1959) on what the engine did. Every span is an activity; a collective's member and a
receive are two, to come and to go on, and a collective has a meeting between them:

    member comes -> meeting (all have come) -> member goes on        receive is posted -> receive ends <- its send

Edges are the dependencies, the order on every stream, meetings and messages. An activity begins when the last of its
predecessors has ended, ``lag`` later (0 but for faults and what the results do not tell), and takes ``length``. With other
lengths it tells, to first order, another run: streams keep their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.intervals import Ints
from distsim.analysis.source import Told
from distsim.analysis.underway import UnderWay, is_kind
from distsim.errors import DistsimError
from distsim.result import Result, SpanTable
from distsim.trace.critical import longest


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """The longest path through a run's activities."""

    makespan: int  #: ps
    rows: Ints  #: of the span table, in order of time: tasks whose own length lies on the path
    spent: Ints  #: ps of each on it, lags included


@dataclass(frozen=True, slots=True, eq=False)
class Activities:
    """Activities 0 .. n-1 are the ends of the n spans; then come the arrivals of members and receives, then the meetings."""

    spans: int
    begins: Ints  #: per span: the activity that its predecessors lead to
    source: Ints  #: edges, ascending: this activity ends ...
    target: Ints  #: ... before that one begins
    end: Ints  #: per activity, ps, as it was
    lag: Ints
    length: Ints
    complete: bool  #: all dependencies are known, not only those that ended last

    def __len__(self) -> int:
        return len(self.end)

    def lengths(self, took: Ints) -> Ints:
        """Of all activities, where the task of row i takes ``took[i]`` ps once it moves (a collective: once all have come; a
        receive is only waited for)."""
        return np.concatenate((took, self.length[self.spans :]))

    def ends(self, length: Ints | None = None) -> Ints:
        """When each activity would end if they took this long (default: as long as they took, which gives ``end``)."""
        return self._longest(self.lag + (self.length if length is None else length), self.source, self.target)

    def tails(self) -> Ints:
        """Per activity: the longest way from its end to the end of the run."""
        weight, order = self.lag + self.length, np.argsort(self.target, kind="stable")
        return self._longest(weight, self.target[order], self.source[order]) - weight

    def path(self, end: Ints) -> Path:
        """The path that decides these :meth:`ends`; of equals the first."""
        if not len(end):
            return Path(0, np.zeros(0, np.int64), np.zeros(0, np.int64))
        released = np.zeros(len(end), np.int64)
        np.maximum.at(released, self.target, end[self.source])
        binding = np.flatnonzero(end[self.source] == released[self.target])[::-1]
        cause = np.full(len(end), -1, np.int64)
        cause[self.target[binding]] = self.source[binding]
        at, chain = int(np.argmax(end)), []
        while at >= 0:
            chain.append(at)
            at = int(cause[at])
        events = np.array(chain[::-1], np.int64)
        events = events[events < self.spans]
        return Path(int(end.max()), events, (end - released)[events])

    def _longest(self, weight: Ints, source: Ints, target: Ints) -> Ints:
        """``source`` ascending."""
        n = len(self)
        next_ptr = np.concatenate((np.zeros(1, np.int64), np.cumsum(np.bincount(source, minlength=n))))
        run, compiled = longest.for_work(2 * (n + len(source)))
        space = np.zeros(n, np.int64), np.zeros(n, np.int64)
        columns: list[Any] = [weight, np.bincount(target, minlength=n), next_ptr, target, *space]
        if not compiled:
            columns = [column.tolist() for column in columns]
        if run(n, *columns) < n:
            raise DistsimError("the tasks of these results wait for each other in a circle")
        return np.asarray(columns[4], np.int64)


def once_moving(spans: SpanTable, moving: UnderWay) -> Ints:
    """ps that each row took once it could do nothing but take its time: a member from the last arrival, a receive none."""
    took = np.where(moving.collective >= 0, spans.end - moving.since, spans.end - spans.start)
    return np.where(is_kind(spans, "recv"), 0, took)


def activities(result: Result, moving: UnderWay, told: Told | None) -> Activities:
    """Make it. ``told``: what the trace tells; None: only the dependencies that ended last are known.

    Raises DistsimError where spans contradict each other so that they wait in a circle.
    """
    spans = result.spans()
    n = len(spans)
    members = np.flatnonzero(moving.collective >= 0)
    receives = np.flatnonzero(is_kind(spans, "recv"))
    issued = np.concatenate((members, receives))
    begins = np.arange(n)
    begins[issued] = n + np.arange(len(issued))
    met, meeting = np.unique(moving.collective[members], return_inverse=True)
    meeting = n + len(issued) + meeting.ravel()

    gathered = np.zeros(len(met), np.int64)
    np.maximum.at(gathered, meeting - n - len(issued), moving.since[members])
    length = np.concatenate((once_moving(spans, moving), np.zeros(len(issued) + len(met), np.int64)))
    end = np.concatenate((spans.end, spans.start[issued], gathered))

    if told is None:
        needs = np.flatnonzero(spans.released_by >= 0)
        told = Told(spans.released_by[needs], needs, *(np.zeros(0, np.int64),) * 2)
        complete = False
    else:
        complete = True
    sends, gets = told.sends, told.gets
    if not len(gets):
        gets = np.flatnonzero(moving.send >= 0)
        sends = moving.send[gets]
    before, then, empty = _streams(spans)
    pairs = [
        (told.needed, begins[told.needs]), (begins[members], meeting), (meeting, members), (begins[receives], receives),
        (sends, gets), (before, begins[then]),
    ]  # fmt: skip
    made = _timed(pairs, n, begins, end, length, complete)
    try:
        made.tails()
    except DistsimError:  # tasks of no length at one instant, whose order on their stream the times do not tell
        pairs[-1] = (before[~empty], begins[then[~empty]])
        made = _timed(pairs, n, begins, end, length, complete)
    return made


def _timed(pairs: list[tuple[Ints, Ints]], n: int, begins: Ints, end: Ints, length: Ints, complete: bool) -> Activities:
    """With lags. An edge that the times contradict is none: spans cut short by a fault, guesses about messages."""
    source, target = (np.concatenate(column) for column in zip(*pairs, strict=True))
    start = end - length
    held = end[source] <= start[target]
    source, target = source[held], target[held]
    order = np.argsort(source, kind="stable")
    source, target = source[order], target[order]
    released = np.zeros(len(end), np.int64)
    np.maximum.at(released, target, end[source])
    return Activities(n, begins, source, target, end, start - released, length, complete)


def _streams(spans: SpanTable) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """(row, next row on its stream, neither takes time)."""
    named = np.array([bool(name) for name in (*spans.streams, "")])
    rows = np.flatnonzero(named[spans.stream])
    order = rows[np.lexsort((rows, spans.end[rows], spans.start[rows], spans.stream[rows], spans.rank[rows]))]
    one, two = order[:-1], order[1:]
    same = (spans.stream[one] == spans.stream[two]) & (spans.rank[one] == spans.rank[two])
    one, two = one[same], two[same]
    return one, two, (spans.end[one] == spans.start[one]) & (spans.end[two] == spans.start[two])
