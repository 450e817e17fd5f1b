"""A task graph as a schedule: computations stay, collectives become the sends and receives of their algorithm.

Everything of a rank runs on its CPU 0: LogGOPS knows one kind of processor, so computing and receiving do not overlap.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from distsim.collectives.schedule import Collective, schedule
from distsim.engine.placement import DEFAULTS, CollectiveOptions
from distsim.errors import CollectiveError, TraceError
from distsim.trace.check import check_ranks
from distsim.trace.defect import refuse
from distsim.trace.graph import CollectiveType, NodeType, Program, TaskGraph
from distsim.trace.matching import Collectives, collectives, is_collective, peers
from distsim.trace.order import program_order
from distsim.trace.schedule import CALC, RECV, SEND, Ints, Schedule

#: operations that the collectives of a trace may become
_MOST = 30_000_000
#: tags of collectives lie above those of a trace
_TAGS = 1 << 40


class Durations(Protocol):
    """The role ``cost``: durations in ps of the rows of a program."""

    def durations(self, program: Program, where: str) -> NDArray[np.int64]: ...


class _Parts:
    """Operations and dependencies under construction."""

    def __init__(self) -> None:
        self.count = 0
        self._columns: list[list[Ints]] = [[] for _ in range(7)]
        self._edges: list[list[Ints]] = [[], []]

    def add(self, rank: Ints, kind: int | Ints, size: int | Ints = 0, duration: int | Ints = 0, peer: int | Ints = -1,
            tag: int | Ints = 0, name: int | Ints = -1) -> Ints:  # fmt: skip
        """Operations; their numbers."""
        values = (rank, kind, size, duration, peer, tag, name)
        for column, value in zip(self._columns, values, strict=True):
            column.append(np.broadcast_to(np.asarray(value, np.int64), rank.shape))
        first, self.count = self.count, self.count + len(rank)
        return np.arange(first, self.count)

    def after(self, child: Ints, parent: Ints) -> None:
        """Each child waits for its parent."""
        self._edges[0].append(child)
        self._edges[1].append(parent)

    def schedule(self, source: str, ranks: int, names: tuple[str, ...]) -> Schedule:
        empty = np.zeros(0, np.int64)
        rank, kind, size, duration, peer, tag, name = (np.concatenate([empty, *column]) for column in self._columns)
        child, parent = (np.concatenate([empty, *column]) for column in self._edges)
        order = np.argsort(rank, kind="stable")
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        zero, said = np.zeros(len(order), np.int64), name[order]

        def label(op: int) -> str:
            return names[int(said[op])] if said[op] >= 0 else f"operation {op}"

        return Schedule(
            source, ranks, rank[order], kind[order], size[order], duration[order], peer[order], tag[order], zero, zero,
            place[child], place[parent], np.zeros(len(child), np.bool_), label,
        )  # fmt: skip


def lower(graph: TaskGraph, cost: Durations, options: CollectiveOptions) -> Schedule:
    """The schedule of a task graph.

    Raises:
        TraceError: ranks disagree, or a node cannot be replayed. CollectiveError: a collective without a schedule, or too many.
    """
    refuse(check_ranks(graph), True)
    orders = [program_order(program) for program in graph.programs]
    durations = [cost.durations(program, graph.source) for program in graph.programs]
    parts = _Parts()
    entries, exits = [], []
    for rank in range(graph.ranks):
        number = int(graph.rank_program[rank])
        program, order = graph.programs[number], orders[number]
        entry, leave = _plain(graph, parts, rank, program, order, durations[number])
        entries.append(entry)
        exits.append(leave)
        degree = np.diff(program.dep_ptr)
        parts.after(np.repeat(entry, degree), leave[program.dep])
    _collectives(graph, parts, collectives(graph, orders), entries, exits, options)
    return parts.schedule(graph.source, graph.ranks, graph.names)


def _plain(
    graph: TaskGraph, parts: _Parts, rank: int, program: Program, order: NDArray[np.int32], duration: Ints
) -> tuple[Ints, Ints]:
    """Operations of a rank, collectives as a begin and an end: (first, last operation of every row)."""
    kind = np.full(len(program), CALC, np.int64)
    kind[program.type == NodeType.COMM_SEND], kind[program.type == NodeType.COMM_RECV] = SEND, RECV
    message = kind != CALC
    peer = peers(graph, rank, np.arange(len(program), dtype=np.int32))
    if (message & (peer < 0)).any():
        row = int(np.flatnonzero(message & (peer < 0))[0])
        raise TraceError(f"node {int(program.id[row])} has no peer", where=f"{graph.source}: rank {rank}")
    entry, leave = np.empty(len(program), np.int64), np.empty(len(program), np.int64)
    size, tag = np.where(message, np.maximum(program.bytes, 0), 0), np.where(message, np.maximum(program.tag, 0), 0)
    columns = (kind, size, np.where(message, 0, duration), np.where(message, peer, -1), tag, program.name.astype(np.int64))
    entry[order] = parts.add(np.full(len(order), rank), *(column[order] for column in columns))
    leave[:] = entry
    rows = order[is_collective(program)[order]]
    leave[rows] = parts.add(np.full(len(rows), rank), CALC, name=program.name[rows].astype(np.int64))
    parts.after(leave[rows], entry[rows])
    return entry, leave


def _collectives(
    graph: TaskGraph, parts: _Parts, found: Collectives, entries: list[Ints], exits: list[Ints], options: CollectiveOptions
) -> None:
    """The sends and receives of every collective, between the begin and the end that each member has of it."""
    plan_of = lru_cache(maxsize=256)(schedule)
    n = len(found.rank)
    if not n:
        return
    new = np.ones(n, np.bool_)
    new[1:] = (found.instance[1:] != found.instance[:-1]) | (found.turn[1:] != found.turn[:-1])
    starts = np.flatnonzero(new)
    tag = _TAGS
    for start, stop in zip(starts.tolist(), np.append(starts[1:], n).tolist(), strict=True):
        members = np.array(found.members[int(found.instance[start])], np.int64)
        row = dict(zip(found.rank[start:stop].tolist(), found.row[start:stop].tolist(), strict=True))
        operation = CollectiveType(int(found.type[start])).name.lower().removesuffix("_block")
        root = int(graph.program(int(members[0])).root[row[int(members[0])]])
        plan = plan_of(
            options.algorithms.get(operation) or DEFAULTS[operation],
            Collective(operation, len(members), max(int(found.bytes[start]), 0), options.chunks, max(root, 0), options.window),
        )
        if parts.count + 2 * len(plan) > _MOST:
            raise CollectiveError(
                "the collectives become too many sends and receives", where=graph.source, expected=f"at most {_MOST:,}",
                fix="Take another network level, or fewer --splits.",
            )  # fmt: skip
        begin = np.array([entries[m][row[m]] for m in members.tolist()], np.int64)
        end = np.array([exits[m][row[m]] for m in members.tolist()], np.int64)
        src, dst = plan.src.astype(np.int64), plan.dst.astype(np.int64)
        joins = src == dst
        gives = parts.add(members[src], np.where(joins, CALC, SEND), plan.bytes, 0, members[dst], tag + np.arange(len(plan)))
        gets = gives.copy()
        gets[~joins] = parts.add(
            members[dst[~joins]], RECV, plan.bytes[~joins], 0, members[src[~joins]], tag + np.flatnonzero(~joins)
        )
        tag += len(plan)
        parts.after(gives, begin[src])
        parts.after(gets[~joins], begin[dst[~joins]])
        parts.after(end[src], gives)
        parts.after(end[dst[~joins]], gets[~joins])
        late, first = np.repeat(np.arange(len(plan)), np.diff(plan.dep_ptr)), plan.dep.astype(np.int64)
        at_sender = (dst[first] == src[late]) | (src[first] == src[late])
        at_receiver = ~at_sender & ((dst[first] == dst[late]) | (src[first] == dst[late]))
        sender, receiver = src[late], dst[late]
        side = np.where(at_sender, sender, receiver)
        parent = np.where(dst[first] == side, gets[first], gives[first])
        kept = at_sender | at_receiver
        parts.after(np.where(at_sender, gives[late], gets[late])[kept], parent[kept])
