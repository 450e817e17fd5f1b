"""A recorded run as a graph of events whose longest path is its makespan: other durations, another path, no simulation.

Events are ends of tasks, arrivals at collectives, and collectives that all members have come to. What an event waits for:

- the dependencies of its task, where the trace can be read again; else the one that released it (``released_by``)
- the task that its stream ran before it: streams keep the order of the recorded run
- for a collective all members; for a receive its send

The weight of an event is the recorded duration of its task, and whatever of its start none of these explains (a *lag*: devices
that were lost, a receive whose send is not known). With recorded durations the longest path ends at the recorded makespan,
exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.underway import UnderWay, is_kind, under_way
from distsim.kernel.jit import kernel
from distsim.result import Result, SpanTable
from distsim.trace.graph import NodeType, TaskGraph
from distsim.trace.order import program_order
from distsim.workload.rows import unique_rows

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@kernel
def sort_events(next_ptr: Any, after: Any, waits: Any, order: Any) -> int:
    """Events in an order in which all that each waits for come first; returns how many were reached. waits: in-degrees."""
    count = 0
    for event in range(len(order)):
        if waits[event] == 0:
            order[count] = event
            count += 1
    at = 0
    while at < count:
        event = order[at]
        at += 1
        for edge in range(next_ptr[event], next_ptr[event + 1]):
            other = after[edge]
            waits[other] -= 1
            if waits[other] == 0:
                order[count] = other
                count += 1
    return count


@kernel
def longest(ptr: Any, before: Any, weight: Any, time: Any, by: Any) -> None:
    """Time of every event, in ps, and the event that it waited for last (-1: none); events are in order."""
    for event in range(len(weight)):
        latest = 0.0
        cause = -1
        for edge in range(ptr[event], ptr[event + 1]):
            other = before[edge]
            if time[other] > latest or cause < 0:
                latest = max(latest, time[other])
                cause = other
        time[event] = latest + weight[event]
        by[event] = cause


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """The longest path through a run's events."""

    makespan: float  #: ps
    rows: Ints  #: of the span table, in order of time: tasks whose own duration lies on the path
    spent: Floats  #: ps of each on it, lags included


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """Events of a run in topological order, and their edges.

    Attributes:
        row: of the span table, whose duration weighs on the event; -1 for arrivals and starts of collectives.
        lag: ps of each event that nothing explains. known: dependencies are those of the trace, not only the binding ones.
        base: ps that the task of each row takes once it moves (a collective: from its last arrival).
    """

    spans: SpanTable
    ptr: Ints
    before: Ints
    row: Ints
    lag: Ints
    base: Ints
    known: bool

    def path(self, durations: Floats | None = None) -> Path:
        """The longest path where the task of row i takes ``durations[i]`` ps once it moves (default: as recorded)."""
        weight = self.lag.astype(np.float64)
        mine = self.row >= 0
        weight[mine] += (self.base if durations is None else durations)[self.row[mine]]
        run, compiled = longest.for_work(len(self.before) + 2 * len(weight))
        columns: list[Any] = [self.ptr, self.before, weight]
        time, by = np.zeros(len(weight)), np.full(len(weight), -1, np.int64)
        outcome: list[Any] = [time, by]
        if not compiled:
            columns, outcome = [column.tolist() for column in columns], [time.tolist(), by.tolist()]
        run(*columns, *outcome)
        time = np.asarray(outcome[0], np.float64)
        if not len(time):
            return Path(0.0, np.zeros(0, np.int64), np.zeros(0))
        at, chain = int(np.argmax(time)), []
        while at >= 0:
            chain.append(at)
            at = int(outcome[1][at])
        events = np.array(chain[::-1], np.int64)
        spent, row = weight[events], self.row[events]
        return Path(float(time.max()), row[row >= 0], spent[row >= 0])


def structure_of(result: Result, graph: TaskGraph | None = None, moving: UnderWay | None = None) -> Structure:
    """Of a result; ``graph``: the trace that ran, where it is at hand (without it, or where it is another, only the edges that
    were binding are known)."""
    spans, moving = result.spans(), moving or under_way(result)
    n = len(spans)
    meets = moving.collective >= 0
    members = np.flatnonzero(meets)
    arrival = np.full(n, -1, np.int64)
    arrival[members] = n + np.arange(len(members))
    met, which = np.unique(moving.collective[members], return_inverse=True)
    starts = n + len(members) + np.arange(len(met))
    total = n + len(members) + len(met)
    begin = np.arange(n)  # event at which a task begins to wait for its turn: its arrival, or its own end
    begin[members] = arrival[members]
    edges = [_streams(spans, begin)]
    if graph is not None and not same_trace(spans, graph, result):
        graph = None
    if graph is None:
        by = np.flatnonzero(spans.released_by >= 0)
        dependencies = np.stack([spans.released_by[by], by])
    else:
        dependencies = _dependencies(spans, graph)
    edges.append(np.stack([dependencies[0], begin[dependencies[1]]]))
    edges.append(np.stack([arrival[members], starts[which.ravel()]]))
    edges.append(np.stack([starts[which.ravel()], members]))
    edges.append(_messages(spans, graph if result.representative is None else None, moving))
    # recorded times: of an event itself, and of the instant from which it can do nothing but take its duration
    own = np.zeros(total, np.int64)
    own[:n], own[arrival[members]] = spans.end, spans.start[members]
    np.maximum.at(own, starts[which.ravel()], moving.since[members])
    moves = own.copy()
    moves[:n] = np.where(is_kind(spans, "recv"), spans.end, np.where(meets, moving.since, spans.start))
    moves[members] = own[starts[which.ravel()]]
    edge = np.concatenate(edges, axis=1)
    edge = edge[:, (own[edge[0]] <= moves[edge[1]]) & (edge[0] != edge[1])]  # NOTE: an edge against time was none
    latest = np.zeros(total, np.int64)
    np.maximum.at(latest, edge[1], own[edge[0]])
    row = np.full(total, -1, np.int64)
    row[:n] = np.arange(n)
    return _sorted(spans, edge, row, moves - latest, own[:n] - moves[:n], graph is not None)


def _sorted(spans: SpanTable, edge: Ints, row: Ints, lag: Ints, base: Ints, known: bool) -> Structure:
    """With events numbered in topological order."""
    total = len(row)
    ptr, before = _compressed(edge[1], edge[0], total)
    next_ptr, after = _compressed(edge[0], edge[1], total)
    columns: list[Any] = [next_ptr, after, np.diff(ptr), np.zeros(total, np.int64)]
    run, compiled = sort_events.for_work(2 * edge.shape[1] + total)
    if not compiled:
        columns = [column.tolist() for column in columns]
    reached = run(*columns)
    order = np.asarray(columns[-1], np.int64)
    if reached < total:  # tasks of no length that wait for each other in one instant: any order does
        left = np.ones(total, np.bool_)
        left[order[:reached]] = False
        order[reached:] = np.flatnonzero(left)
    place = np.empty(total, np.int64)
    place[order] = np.arange(total)
    edge = place[edge]
    edge = edge[:, edge[0] < edge[1]]
    ptr, before = _compressed(edge[1], edge[0], total)
    return Structure(spans, ptr, before, row[order], lag[order], base, known)


def _compressed(owner: Ints, value: Ints, total: int) -> tuple[Ints, Ints]:
    """Offsets and values by owner."""
    order = np.argsort(owner, kind="stable")
    ptr = np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=total)))).astype(np.int64)
    return ptr, value[order]


def _streams(spans: SpanTable, begin: Ints) -> Ints:
    """Edges from each task to the beginning of the next on its stream, as they ran."""
    named = np.array([bool(name) for name in (*spans.streams, "")])
    rows = np.flatnonzero(named[spans.stream] & ~is_kind(spans, "recv", "none"))
    order = rows[np.lexsort((rows, spans.end[rows], spans.start[rows], spans.stream[rows], spans.rank[rows]))]
    first, then = order[:-1], order[1:]
    same = (spans.rank[first] == spans.rank[then]) & (spans.stream[first] == spans.stream[then])
    return np.stack([first[same], begin[then[same]]])


def same_trace(spans: SpanTable, graph: TaskGraph, result: Result) -> bool:
    """Whether a trace is the one that ran: the same nodes on every rank that has spans."""
    if graph.ranks != result.ranks:
        return False
    ranks, count = np.unique(spans.rank, return_counts=True)
    if any(len(graph.program(rank)) != size for rank, size in zip(ranks.tolist(), count.tolist(), strict=True)):
        return False
    return all(
        np.array_equal(spans.node[at : at + len(order)], graph.program(rank).id[order])
        for rank, at, order in rows_of(spans, graph)
    )


def rows_of(spans: SpanTable, graph: TaskGraph) -> list[tuple[int, int, Ints]]:
    """(rank, its first row in the table, rows of its program in the table's order) of every rank that has spans."""
    ranks, first = np.unique(spans.rank, return_index=True)
    orders: dict[int, Ints] = {}
    found = []
    for rank, at in zip(ranks.tolist(), first.tolist(), strict=True):
        number = int(graph.rank_program[rank])
        if number not in orders:
            orders[number] = np.asarray(program_order(graph.programs[number]), np.int64)
        found.append((rank, at, orders[number]))
    return found


def _dependencies(spans: SpanTable, graph: TaskGraph) -> Ints:
    """Edges of the trace."""
    parts = [np.zeros((2, 0), np.int64)]
    made: dict[int, Ints] = {}
    for rank, at, order in rows_of(spans, graph):
        number = int(graph.rank_program[rank])
        if number not in made:
            program = graph.programs[number]
            place = np.empty(len(order), np.int64)
            place[order] = np.arange(len(order))
            owner = np.repeat(np.arange(len(order)), np.diff(program.dep_ptr))
            made[number] = np.stack([place[program.dep], place[owner]])
        parts.append(made[number] + at)
    return np.concatenate(parts, axis=1)


def _messages(spans: SpanTable, graph: TaskGraph | None, moving: UnderWay) -> Ints:
    """Edges from sends to their receives: by peers and tags where the trace is at hand, else as far as times tell."""
    if graph is None:
        known = np.flatnonzero(moving.send >= 0)
        return np.stack([moving.send[known], known])
    keys: list[Ints] = []
    for rank, at, order in rows_of(spans, graph):
        program = graph.program(rank)
        kind = program.type[order]
        mine = np.flatnonzero((kind == NodeType.COMM_SEND) | (kind == NodeType.COMM_RECV))
        if not len(mine):
            continue
        rows = order[mine]
        _, first, which = unique_rows(program.peer_kind[rows], program.peer[rows], program.group[rows])
        peer = np.array([graph.peer(rank, int(rows[one])) for one in first], np.int64)[which]
        sends = kind[mine] == NodeType.COMM_SEND
        tag = np.where(program.tag[rows] == -1, 0, program.tag[rows])
        own = np.full(len(mine), rank)
        keys.append(np.stack([np.where(sends, own, peer), np.where(sends, peer, own), tag, sends, mine + at]))
    if not keys:
        return np.zeros((2, 0), np.int64)
    src, dst, tag, is_send, row = np.concatenate(keys, axis=1)
    order = np.lexsort((row, spans.start[row], is_send, tag, dst, src))
    src, dst, tag, is_send, row = (column[order] for column in (src, dst, tag, is_send, row))
    fresh = np.ones(len(row), np.bool_)
    fresh[1:] = np.any([column[1:] != column[:-1] for column in (src, dst, tag, is_send)], axis=0)
    within = np.arange(len(row)) - np.maximum.accumulate(np.where(fresh, np.arange(len(row)), 0))
    order = np.lexsort((is_send, within, tag, dst, src))  # a receive, then the send of its number
    one, two = order[:-1], order[1:]
    pair = (src[one] == src[two]) & (dst[one] == dst[two]) & (tag[one] == tag[two]) & (within[one] == within[two])
    pair &= (is_send[one] == 0) & (is_send[two] == 1)
    return np.stack([row[two[pair]], row[one[pair]]])
