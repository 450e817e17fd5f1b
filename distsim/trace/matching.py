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
    chosen = [order[is_collective(program)[order]] for program, order in zip(graph.programs, orders, strict=True)]
    columns_of = [_columns(program, rows) for program, rows in zip(graph.programs, chosen, strict=True)]
    groups_of = [(program.group[rows], np.unique(program.group[rows]).tolist())
                 for program, rows in zip(graph.programs, chosen, strict=True)]  # fmt: skip
    everyone = tuple(range(graph.ranks))
    numbers: dict[tuple[int, tuple[int, ...]], int] = {}
    parts: list[list[Ints]] = [[] for _ in range(6)]
    table = np.empty(len(graph.groups) + 1, np.int64)  # the last entry serves -1
    for rank, p in enumerate(graph.rank_program.tolist()):
        group, used = groups_of[p]
        if not used:
            continue
        apart = False
        for g in used:
            members = everyone if g < 0 else graph.groups[g].members.get(rank)
            table[g] = -1 if members is None else numbers.setdefault((g, members), len(numbers))
            apart = apart or members is None
        values = [np.full(len(group), rank), table[group], *columns_of[p]]
        if apart:
            inside = values[1] >= 0
            values = [value[inside] for value in values]
        for part, value in zip(parts, values, strict=True):
            part.append(value)
    columns = [np.concatenate(part) if part else np.zeros(0, np.int64) for part in parts]
    order = np.lexsort((columns[0], columns[3], columns[1]))
    rank_, instance, row, turn, kind, size = (column[order] for column in columns)
    return Collectives(rank_, row, instance, turn, kind, size, tuple(m for _, m in numbers), tuple(g for g, _ in numbers))


def _columns(program: Program, rows: NDArray[np.int32]) -> tuple[Ints, Ints, Ints, Ints]:
    """Row, turn, type and bytes of the collectives in these rows, which are in program order."""
    kind, size = program.collective[rows].astype(np.int64), program.bytes[rows].astype(np.int64)
    return rows.astype(np.int64), turns(program.group[rows].astype(np.int64)), kind, size


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
    kinds = [program.type[order] for program, order in zip(graph.programs, orders, strict=True)]
    sends, receives = int(NodeType.COMM_SEND), int(NodeType.COMM_RECV)
    rows = [order[(kind == sends) | (kind == receives)] for kind, order in zip(kinds, orders, strict=True)]
    for rank, p in enumerate(graph.rank_program.tolist()):
        program, row = graph.programs[p], rows[p]
        if not len(row):
            continue
        peer = peers(graph, rank, row)
        row, peer = row[peer >= 0], peer[peer >= 0]
        receive = program.type[row] == receives
        own = np.full(len(row), rank)
        src, dst = np.where(receive, peer, own), np.where(receive, own, peer)
        values: tuple[NDArray[Any], ...] = (own, row, src, dst, program.tag[row], receive, program.bytes[row])
        for part, value in zip(parts, values, strict=True):
            part.append(value.astype(np.int64))
    rank_, row_, src, dst, tag, receiving, size = [np.concatenate(part) if part else np.zeros(0, np.int64) for part in parts]
    turn = turns(src, dst, tag, receiving)
    order_ = np.lexsort((receiving, turn, tag, dst, src))
    return Messages(*(c[order_] for c in (rank_, row_, src, dst, tag, turn, receiving, size)))
