"""Who meets whom: the k-th collective of a group on each of its ranks, the k-th send of a channel and its k-th receive.

Counted in program order (:mod:`~distsim.trace.order`), over all ranks, in columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.trace.graph import NodeType, PeerKind, Program, TaskGraph

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Collectives:
    """One entry per collective node of every rank that is in the node's group, sorted by (instance, turn, rank)."""

    rank: Ints
    row: Ints
    instance: Ints  #: index into ``members``
    turn: Ints  #: k: how many collectives of this instance the rank ran before
    type: Ints
    bytes: Ints
    members: tuple[tuple[int, ...], ...]
    group: tuple[int, ...]  #: group of each instance


@dataclass(frozen=True, slots=True)
class Messages:
    """One entry per send or receive of every rank, sorted by (src, dst, tag, turn), sends first."""

    rank: Ints
    row: Ints
    src: Ints
    dst: Ints
    tag: Ints
    turn: Ints
    receive: Ints
    bytes: Ints


def turns(*keys: Ints) -> Ints:
    """For every entry, how many earlier ones have the same keys.

    >>> turns(np.array([7, 8, 7, 7])).tolist()
    [0, 0, 1, 2]
    """
    n = len(keys[0])
    if n == 0:
        return np.zeros(0, np.int64)
    order = np.lexsort((np.arange(n), *keys))
    new = np.ones(n, np.bool_)
    new[1:] = np.logical_or.reduce([key[order][1:] != key[order][:-1] for key in keys])
    starts = np.flatnonzero(new)
    result = np.empty(n, np.int64)
    result[order] = np.arange(n) - np.repeat(starts, np.diff(np.append(starts, n)))
    return result


def is_collective(program: Program) -> NDArray[np.bool_]:
    """Collective nodes that say what they do (a host-side launch, of unknown kind, takes no part)."""
    chosen: NDArray[np.bool_] = (program.type == NodeType.COMM_COLL) & (program.collective >= 0)
    return chosen


def collectives(graph: TaskGraph, orders: list[NDArray[np.int32]]) -> Collectives:
    """All collectives; ``orders``: program order of each program."""
    rows = [order[is_collective(program)[order]] for program, order in zip(graph.programs, orders, strict=True)]
    turn = [turns(program.group[r].astype(np.int64)) for program, r in zip(graph.programs, rows, strict=True)]
    everyone = tuple(range(graph.ranks))
    numbers: dict[tuple[int, tuple[int, ...]], int] = {}
    parts: list[list[Ints]] = [[] for _ in range(6)]
    for rank in range(graph.ranks):
        p = int(graph.rank_program[rank])
        program, row = graph.programs[p], rows[p]
        if not len(row):
            continue
        table = np.full(len(graph.groups) + 1, -1, np.int64)  # the last entry serves -1
        for g in np.unique(program.group[row]).tolist():
            members = everyone if g < 0 else graph.groups[g].members.get(rank)
            if members is not None:
                table[g] = numbers.setdefault((g, members), len(numbers))
        instance = table[program.group[row]]
        inside = instance >= 0
        row = row[inside]
        own, size = np.full(len(row), rank), program.bytes[row]
        values: tuple[NDArray[Any], ...] = (own, row, instance[inside], turn[p][inside], program.collective[row], size)
        for part, value in zip(parts, values, strict=True):
            part.append(value.astype(np.int64))
    columns = [np.concatenate(part) if part else np.zeros(0, np.int64) for part in parts]
    order = np.lexsort((columns[0], columns[3], columns[2]))
    ranks_, rows_, instance_, turn_, kind, size_ = (column[order] for column in columns)
    return Collectives(ranks_, rows_, instance_, turn_, kind, size_, tuple(m for _, m in numbers), tuple(g for g, _ in numbers))


def peers(graph: TaskGraph, rank: int, rows: NDArray[np.int32]) -> Ints:
    """Peer rank of these rows on ``rank``; -1 where it is not said or cannot be, as when the rank is not in the group."""
    program = graph.program(rank)
    peer = program.peer[rows].astype(np.int64)
    kind = program.peer_kind[rows]
    peer[kind == PeerKind.OFFSET] += rank
    for k in np.flatnonzero(kind == PeerKind.IN_GROUP):
        group = int(program.group[rows[k]])
        members = tuple(range(graph.ranks)) if group < 0 else graph.groups[group].members.get(rank, ())
        peer[k] = members[(members.index(rank) + peer[k]) % len(members)] if members else -1
    return np.where((peer >= 0) & (peer < graph.ranks), peer, -1)


def messages(graph: TaskGraph, orders: list[NDArray[np.int32]]) -> Messages:
    """All sends and receives whose peer is a rank of the trace."""
    parts: list[list[Ints]] = [[] for _ in range(7)]
    for rank in range(graph.ranks):
        p = int(graph.rank_program[rank])
        program, order = graph.programs[p], orders[p]
        kind = program.type[order]
        row = order[(kind == NodeType.COMM_SEND) | (kind == NodeType.COMM_RECV)]
        if not len(row):
            continue
        peer = peers(graph, rank, row)
        row, peer = row[peer >= 0], peer[peer >= 0]
        receive = program.type[row] == NodeType.COMM_RECV
        own = np.full(len(row), rank)
        src, dst = np.where(receive, peer, own), np.where(receive, own, peer)
        values: tuple[NDArray[Any], ...] = (own, row, src, dst, program.tag[row], receive, program.bytes[row])
        for part, value in zip(parts, values, strict=True):
            part.append(value.astype(np.int64))
    rank_, row_, src, dst, tag, receives, size = [np.concatenate(part) if part else np.zeros(0, np.int64) for part in parts]
    turn = turns(src, dst, tag, receives)
    order_ = np.lexsort((receives, turn, tag, dst, src))
    return Messages(*(c[order_] for c in (rank_, row_, src, dst, tag, turn, receives, size)))
