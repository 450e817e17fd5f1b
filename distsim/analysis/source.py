"""The trace that a result came from, read again, and what it tells about the rows of the span table.

Spans name only the dependency that ended last; the trace names all of them, and says which send is for which receive.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from distsim.analysis.intervals import Ints
from distsim.analysis.underway import UnderWay
from distsim.errors import DistsimError
from distsim.profiles.loggops.params import is_loggops
from distsim.result import Result, SpanTable
from distsim.scenario import scenario_of
from distsim.trace.graph import TaskGraph
from distsim.trace.matching import messages
from distsim.trace.order import program_order
from distsim.training import Job

#: tasks of all ranks beyond which the send of a receive is found by times instead of by counting the channel's messages
_COUNTED = 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What a result was made from, as far as it could be had again."""

    graph: TaskGraph | None
    orders: tuple[Ints, ...] = ()  #: per program: row of each of its tasks, in task order
    job: Job | None = None  #: of a training step
    lacking: str = ""  #: why there is no graph

    def rows(self, spans: SpanTable) -> Iterator[tuple[int, int, Ints]]:
        """(rank, its first row in the span table, rows of its program in the table's order) of every rank that has spans."""
        assert self.graph is not None
        first, _ = rank_rows(spans.rank)
        for rank, low in zip(spans.rank[first].tolist(), first.tolist(), strict=True):
            yield rank, low, self.orders[int(self.graph.rank_program[rank])]


def source_of(result: Result, graph: TaskGraph | None = None) -> Source:
    """Read or build it again by the result's specification; ``graph``: where it is at hand.

    Never raises on account of the trace: a source that has gone, or has changed, is ``lacking``.
    """
    work = None
    try:
        if graph is None:
            scenario = scenario_of(result.spec)
            if scenario.profile or is_loggops(str(result.spec.get("network"))):
                return Source(None, lacking="a compatibility profile has tasks of its own")
            graph, work = scenario.graph, scenario.job if scenario.trains else None
        orders = tuple(np.asarray(program_order(program), np.int64) for program in graph.programs)
    except (DistsimError, OSError) as error:
        return Source(None, lacking=str(error).splitlines()[0])
    if not _same(result, graph, orders):
        return Source(None, lacking=f"{graph.source} is not what was run any more")
    return Source(graph, orders, work)


def _same(result: Result, graph: TaskGraph, orders: tuple[Ints, ...]) -> bool:
    """Whether the spans are of this graph: as many nodes of the same ids, on every rank that has spans."""
    spans = result.spans()
    if graph.ranks != result.ranks:
        return False
    first, count = rank_rows(spans.rank)
    for rank, low, size in zip(spans.rank[first].tolist(), first.tolist(), count.tolist(), strict=True):
        number = int(graph.rank_program[rank])
        if not np.array_equal(graph.programs[number].id[orders[number]], spans.node[low : low + size]):
            return False
    return True


def rank_rows(rank: Any) -> tuple[Ints, Ints]:
    """(first row, number of rows) of every rank that occurs; the column is ascending."""
    new = np.append(True, rank[1:] != rank[:-1])[: len(rank)]
    first = np.flatnonzero(new)
    return first, np.diff(np.append(first, len(rank)))


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
