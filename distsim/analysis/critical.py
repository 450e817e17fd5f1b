"""The critical path: what the end of the step waited for, from the last task back to the start.

From a task one goes back to what let it start, or let it go on: for a collective the member that came last, for a receive
its send, for a task whose stream was taken the task that held it, else the dependency that ended last (``released_by``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.intervals import Ints, sums
from distsim.analysis.underway import UnderWay, under_way
from distsim.result import Result, SpanTable

#: name, among the kinds, of instants of the path in which no known task ran
WAITING = "waiting"


@dataclass(frozen=True, slots=True, eq=False)
class CriticalPath:
    """Steps from the start of the run to its end. Step i occupies ``begin[i] .. end[i]``; steps do not overlap."""

    row: Ints  #: of the span table
    begin: Ints  #: ps
    end: Ints  #: ps
    times: Mapping[str, int]  #: kind -> ps on the path, longest first; with ``waiting`` they sum to the makespan


def critical_path(result: Result, moving: UnderWay | None = None, last: int | None = None) -> CriticalPath:
    """Trace the last-ending task (of equals the first row) back. ``moving``: what :func:`under_way` found, if known already;
    ``last``: trace this row back instead; ``times`` then sum to its end."""
    spans, moving = result.spans(), moving or under_way(result)
    chains: list[Ints] = []
    if len(spans):
        back = _Back(spans, moving)
        row: int | None = int(np.argmax(spans.end)) if last is None else last
        while row is not None and not back.seen[row]:
            chains.append(back.chain(row))
            row = back.cause(int(chains[-1][0]))
    rows = np.concatenate([np.zeros(0, np.int64), *reversed(chains)])
    ends, send = spans.end[rows], moving.send[rows]
    # NOTE: a message may have set out before its receive was posted: what is waited for began there
    begins = np.where(_from_another(spans, moving)[rows], spans.start[send], moving.since[rows])
    kinds, lengths = sums(spans.kind[rows].astype(np.int64), ends - begins)
    times = {spans.kinds[kind]: time for kind, time in zip(kinds.tolist(), lengths.tolist(), strict=True) if time}
    rest = (result.makespan if last is None else int(spans.end[last])) - sum(times.values())
    longest = dict(sorted(times.items(), key=lambda item: (-item[1], item[0])))
    return CriticalPath(rows, begins, ends, longest | ({WAITING: rest} if rest else {}))


def _from_another(spans: SpanTable, moving: UnderWay) -> NDArray[np.bool_]:
    """Receives that end when the message of another rank does: when they were posted does not matter."""
    return np.asarray((moving.send >= 0) & (spans.rank[moving.send] != spans.rank), np.bool_)


class _Back:
    """One step back along the path; remembers where it has been, as tasks of no length could lead in a circle."""

    def __init__(self, spans: SpanTable, moving: UnderWay) -> None:
        self.seen = bytearray(len(spans))
        self._spans, self._moving = spans, moving
        at = np.arange(len(spans))
        self._sent = _from_another(spans, moving)
        after = (spans.released_by == at - 1) & (spans.ready == spans.start) & (moving.since == spans.start) & ~self._sent
        self._head = np.maximum.accumulate(np.where(after, 0, at))  #: first of the rows that follow on one another, up to each
        members = np.flatnonzero(moving.collective >= 0)
        self._members = members[np.argsort(moving.collective[members], kind="stable")]
        self._collective = moving.collective[self._members]
        self._before: dict[int, Ints] = {}  #: rank -> row before each of its rows on the same stream, -1 for none

    def chain(self, row: int) -> Ints:
        """The rows up to this one, each of which was started by the one before it and by nothing else."""
        first = max(int(self._head[row]), self.seen.rfind(1, int(self._head[row]), row) + 1)
        self.seen[first : row + 1] = b"\1" * (row + 1 - first)
        return np.arange(first, row + 1)

    def cause(self, row: int) -> int | None:
        """The row whose end let this one start, or go on; None at the beginning."""
        spans, since = self._spans, self._moving.since[row]
        if since > spans.start[row] or self._sent[row]:
            row = self._other(row)
            self.seen[row] = 1
        start = spans.start[row]
        if spans.ready[row] < start:
            held = self._held_up(row)
            if held >= 0 and spans.end[held] == start:
                return held
        by = int(spans.released_by[row])
        return by if by >= 0 else None

    def _other(self, row: int) -> int:
        """Who was waited for: the member that came last, or the sender; the row itself where that is not known."""
        since = self._moving.since[row]
        send = int(self._moving.send[row])
        if send >= 0:
            return send if self._sent[row] else row
        low, high = np.searchsorted(self._collective, [self._moving.collective[row], self._moving.collective[row] + 1])
        members = self._members[low:high]
        last = members[self._spans.start[members] == since]
        return int(last[0]) if len(last) else row

    def _held_up(self, row: int) -> int:
        """The row that the stream ran before this one; -1 for none."""
        spans, rank = self._spans, int(self._spans.rank[row])
        low, high = np.searchsorted(spans.rank, np.array([rank, rank + 1], spans.rank.dtype))
        if rank not in self._before:
            part = slice(int(low), int(high))
            order = np.lexsort((spans.end[part], spans.start[part], spans.stream[part]))
            same = spans.stream[part][order[1:]] == spans.stream[part][order[:-1]]
            before = np.full(high - low, -1, np.int64)
            before[order[1:]] = np.where(same, order[:-1] + low, -1)
            self._before[rank] = before
        return int(self._before[rank][row - low])
