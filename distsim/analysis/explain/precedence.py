"""The activity network of a run: what had to end before what could begin, with the times that it took.

The critical path method (Kelley & Walker, 1959) on what the engine did. Every span is an activity; a collective's member and a
receive are two, to come and to go on, and a collective has a meeting between them:

    member comes -> meeting (all have come) -> member goes on        receive is posted -> receive ends <- its send

Edges are the dependencies, the order on every stream, meetings and messages. An activity begins when the last of its
predecessors has ended, ``lag`` later (0 but for faults and what the results do not tell), and takes ``length``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.explain.source import Source, rank_rows
from distsim.analysis.intervals import Ints
from distsim.analysis.underway import UnderWay, is_kind
from distsim.errors import DistsimError
from distsim.result import Result, SpanTable
from distsim.trace.critical import longest
from distsim.trace.matching import messages

#: tasks of all ranks beyond which the send of a receive is found by times instead of by counting the channel's messages
_COUNTED = 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Precedence:
    """Activities 0 .. n-1 are the ends of the n spans; then come the arrivals of members and receives, then the meetings."""

    spans: int
    begins: Ints  #: per span: the activity that its predecessors lead to
    source: Ints  #: edges: this activity ends ...
    target: Ints  #: ... before that one begins
    end: Ints  #: per activity, ps, as it was
    lag: Ints
    length: Ints
    complete: bool  #: all dependencies are known, not only those that ended last

    def __len__(self) -> int:
        return len(self.end)

    def ends(self, length: Ints | None = None) -> Ints:
        """When each activity would end if they took this long (default: as long as they took, which gives ``end``)."""
        return self._longest(self.lag + (self.length if length is None else length), self.source, self.target)

    def tails(self) -> Ints:
        """Per activity: the longest way from its end to the end of the run."""
        weight = self.lag + self.length
        return self._longest(weight, self.target, self.source) - weight

    def _longest(self, weight: Ints, source: Ints, target: Ints) -> Ints:
        n = len(self)
        next_ptr = np.concatenate((np.zeros(1, np.int64), np.cumsum(np.bincount(source, minlength=n))))
        after = target[np.argsort(source, kind="stable")]
        run, compiled = longest.for_work(2 * (n + len(source)))
        space = np.zeros(n, np.int64), np.zeros(n, np.int64)
        columns: list[Any] = [weight, np.bincount(target, minlength=n), next_ptr, after, *space]
        if not compiled:
            columns = [column.tolist() for column in columns]
        if run(n, *columns) < n:
            raise DistsimError("the tasks of these results wait for each other in a circle")
        return np.asarray(columns[4], np.int64)


class Told(NamedTuple):
    """What a trace tells, in rows of the span table. Where it counts no messages, sends are found by their times."""

    needed: Ints  #: this row has to end ...
    needs: Ints  #: ... before that one
    sends: Ints  #: this send is for ...
    gets: Ints  #: ... that receive

    def among(self, new: Ints) -> Told:
        """Of some rows: ``new`` is their number, -1 for the others."""
        kept = (new[self.needed] >= 0) & (new[self.needs] >= 0), (new[self.sends] >= 0) & (new[self.gets] >= 0)
        return Told(new[self.needed[kept[0]]], new[self.needs[kept[0]]], new[self.sends[kept[1]]], new[self.gets[kept[1]]])


def with_senders(moving: UnderWay, told: Told | None, spans: SpanTable) -> UnderWay:
    """With the sends that receives really waited for, where the trace tells them; by their times alone, messages that move side
    by side can be taken for each other."""
    if told is None or not len(told.gets):
        return moving
    waited = spans.end[told.gets] > spans.start[told.gets]
    sends, gets = told.sends[waited], told.gets[waited]
    since, send = moving.since.copy(), moving.send.copy()
    since[gets], send[gets] = np.clip(spans.start[sends], spans.start[gets], spans.end[gets]), sends
    return UnderWay(since, moving.collective, send)


def precedence(result: Result, moving: UnderWay, told: Told | None) -> Precedence:
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

    start, length = spans.start.copy(), spans.end - spans.start
    start[members], length[members] = moving.since[members], (spans.end - moving.since)[members]
    start[receives], length[receives] = spans.end[receives], 0
    gathered = np.zeros(len(met), np.int64)
    np.maximum.at(gathered, meeting - n - len(issued), moving.since[members])
    start = np.concatenate((start, spans.start[issued], gathered))
    length = np.concatenate((length, np.zeros(len(issued) + len(met), np.int64)))
    end = start + length

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
    from_, to = (np.concatenate(column) for column in zip(*pairs, strict=True))
    made = _timed(from_, to, n, begins, start, end, length, complete)
    try:
        made.tails()
    except DistsimError:  # tasks of no length at one instant, whose order on their stream the times do not tell
        pairs[-1] = (before[~empty], begins[then[~empty]])
        from_, to = (np.concatenate(column) for column in zip(*pairs, strict=True))
        made = _timed(from_, to, n, begins, start, end, length, complete)
    return made


def _timed(
    source: Ints, target: Ints, n: int, begins: Ints, start: Ints, end: Ints, length: Ints, complete: bool
) -> Precedence:  # fmt: skip
    """With lags. An edge that the times contradict is none: spans cut short by a fault, guesses about messages."""
    held = end[source] <= start[target]
    source, target = source[held], target[held]
    released = np.zeros(len(end), np.int64)
    np.maximum.at(released, target, end[source])
    return Precedence(n, begins, source, target, end, start - released, length, complete)


def _streams(spans: SpanTable) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """(row, next row on its stream, neither takes time)."""
    named = np.array([bool(name) for name in (*spans.streams, "")])
    rows = np.flatnonzero(named[spans.stream])
    order = rows[np.lexsort((rows, spans.end[rows], spans.start[rows], spans.stream[rows], spans.rank[rows]))]
    one, two = order[:-1], order[1:]
    same = (spans.stream[one] == spans.stream[two]) & (spans.rank[one] == spans.rank[two])
    one, two = one[same], two[same]
    return one, two, (spans.end[one] == spans.start[one]) & (spans.end[two] == spans.start[two])


def told_by(result: Result, source: Source) -> Told | None:
    """What the trace of a result tells; None where there is none."""
    spans, graph, orders = result.spans(), source.graph, source.orders
    if graph is None:
        return None
    first, _ = rank_rows(spans.rank)
    base = np.full(graph.ranks, -1, np.int64)
    base[spans.rank[first]] = first
    if result.representative is not None:
        base = base[result.representative]
    place = []
    for order in orders:
        at = np.empty(len(order), np.int64)
        at[order] = np.arange(len(order))
        place.append(at)
    edges = [
        (place[number][program.dep], place[number][np.repeat(np.arange(len(program)), np.diff(program.dep_ptr))])
        for number, program in enumerate(graph.programs)
    ]
    shown = spans.rank[first].tolist()
    none = np.zeros(0, np.int64)
    needed, needs = (
        np.concatenate([none, *(edges[int(graph.rank_program[rank])][side] + base[rank] for rank in shown)]) for side in (0, 1)
    )
    if graph.nodes > _COUNTED:
        return Told(needed, needs, none, none)
    m = messages(graph, [order.astype(np.int32) for order in orders])
    pair = np.flatnonzero((m.receive[:-1] == 0) & (m.receive[1:] == 1)) if len(m.rank) else none
    for column in (m.src, m.dst, m.tag, m.turn):
        pair = pair[column[pair] == column[pair + 1]]
    own = np.zeros(graph.ranks, np.bool_)
    own[shown] = True
    pair = pair[own[m.rank[pair + 1]]]
    row = np.zeros(len(m.rank), np.int64)
    programs = graph.rank_program[m.rank]
    for number, at in enumerate(place):
        mine = programs == number
        row[mine] = at[m.row[mine]]
    row += base[m.rank]
    return Told(needed, needs, row[pair], row[pair + 1])
