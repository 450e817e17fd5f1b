"""Who meets whom in a trace: the instances of its communicators, and the other side of every send and receive, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.errors import CollectiveError, TraceError
from distsim.trace.graph import NodeType, PeerKind, TaskGraph
from distsim.workload.rows import unique_rows

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """Communicators in use. An instance is one group of ranks that meet; instances of all groups are numbered together.

    Attributes:
        of: group -> instance of every rank (-1: in none, or asks for none).
        place: group -> index of every rank among the members of its instance.
        ptr, members: ranks of instance i are ``members[ptr[i]:ptr[i + 1]]``, in order.
        group: group of every instance.
    """

    of: dict[int, Ints]
    place: dict[int, Ints]
    ptr: Ints
    members: Ints
    group: Ints

    def __len__(self) -> int:
        return len(self.group)

    @property
    def size(self) -> Ints:
        """Members of every instance."""
        return np.diff(self.ptr)

    def ranks(self, instance: int) -> tuple[int, ...]:
        """Members of an instance, in order."""
        return tuple(self.members[self.ptr[instance] : self.ptr[instance + 1]].tolist())


def instances(graph: TaskGraph) -> Instances:
    """The instances of all groups that programs name. Raises TraceError where a rank is not in the group that it uses,
    CollectiveError where ranks do not agree on who is in it."""
    users: dict[int, list[int]] = {}
    for number in np.unique(graph.rank_program).tolist():
        program = graph.programs[number]
        talks = program.type == NodeType.COMM_COLL
        talks |= (program.peer_kind == PeerKind.IN_GROUP) & _messages(program.type)
        for group in np.unique(program.group[talks]).tolist():
            users.setdefault(group, []).append(number)
    of: dict[int, Ints] = {}
    place: dict[int, Ints] = {}
    sizes, lists, groups = [0], [np.zeros(0, np.int64)], list[int]()
    for group in sorted(users):
        mine, where = np.full(graph.ranks, -1, np.int64), np.zeros(graph.ranks, np.int64)
        known: dict[int, tuple[int, ...]] = {}
        for rank in np.flatnonzero(np.isin(graph.rank_program, users[group])).tolist():
            number = int(mine[rank])
            if group < 0 and number >= 0:
                continue
            ranks = graph.members(rank, group)
            if number >= 0:
                if ranks is not known[number] and ranks != known[number]:
                    raise _disagree(graph, group, rank)
                continue
            column = np.array(ranks, np.int64)
            if not 0 <= column.min() <= column.max() < graph.ranks or rank not in ranks:
                raise TraceError(
                    f"group {graph.groups[group].label(rank)!r} of rank {rank} has members {_few(ranks)}", where=graph.source,
                    expected=f"ranks 0 to {graph.ranks - 1}, and rank {rank} among them",
                )  # fmt: skip
            if (mine[column] >= 0).any() or len(np.unique(column)) < len(column):
                raise _disagree(graph, group, rank)
            number = len(groups)
            known[number] = ranks
            mine[column], where[column] = number, np.arange(len(column))
            groups.append(group)
            sizes.append(len(column))
            lists.append(column)
        of[group], place[group] = mine, where
    return Instances(of, place, np.cumsum(sizes), np.concatenate(lists), np.array(groups, np.int64))


def _disagree(graph: TaskGraph, group: int, rank: int) -> CollectiveError:
    return CollectiveError(
        f"rank {rank} and others of group {graph.groups[group].label(rank)!r} do not name the same members", where=graph.source,
        expected="every rank in one instance of a group, whose members all list the same ranks in the same order",
    )  # fmt: skip


def _few(ranks: tuple[int, ...]) -> str:
    return ", ".join(str(r) for r in ranks[:8]) + (" ..." if len(ranks) > 8 else "")


def _messages(kind: NDArray[np.int8]) -> NDArray[np.bool_]:
    return np.asarray((kind == NodeType.COMM_SEND) | (kind == NodeType.COMM_RECV), np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class Ways:
    """One direction of messages: every (rank, other rank) in use, once.

    Attributes:
        rank, peer: who sends (receives) and the other side.
        slot: by which of its expressions the rank knows the peer: the first of those that lead there.
        partner: slot by which the other side knows this rank in the opposite direction; -1: it does not.
        raw: (row of these columns, expression): expressions behind each row.
    """

    rank: Ints
    peer: Ints
    slot: Ints
    partner: Ints
    raw: tuple[Ints, Ints]


@dataclass(frozen=True, slots=True, eq=False)
class Peers:
    """How programs name the other sides of their messages. An *expression* is a distinct (kind, peer, group) of a program.

    Attributes:
        first: first expression of every program (numbers go on from program to program).
        expression: program -> expression of each of its rows (-1: no message).
        pattern: per rank, a number that tells which of its expressions lead to the same peer.
        sends, receives: see Ways.
    """

    first: dict[int, int]
    expression: dict[int, Ints]
    pattern: Ints
    sends: Ways
    receives: Ways


def peers(graph: TaskGraph, groups: Instances) -> Peers:
    """Resolve all peers of all ranks. Raises TraceError where one falls outside the trace."""
    first: dict[int, int] = {}
    expression: dict[int, Ints] = {}
    pattern = np.zeros(graph.ranks, np.int64)
    patterns: dict[bytes, int] = {}
    count = 0
    found: dict[int, list[tuple[Ints, Ints, Ints, Ints]]] = {NodeType.COMM_SEND: [], NodeType.COMM_RECV: []}
    for number in np.unique(graph.rank_program).tolist():
        program = graph.programs[number]
        rows = np.flatnonzero(_messages(program.type))
        first[number] = count
        mine = expression[number] = np.full(len(program), -1, np.int64)
        if not len(rows):
            continue
        in_group = program.peer_kind[rows] == PeerKind.IN_GROUP
        key = (program.peer_kind[rows], program.peer[rows], np.where(in_group, program.group[rows], -1))
        distinct, at, which = unique_rows(*key)
        mine[rows] = which + count
        ranks = np.flatnonzero(graph.rank_program == number)
        columns = []
        for place, (kind, peer, group) in enumerate(distinct.tolist()):
            if kind == PeerKind.RANK:
                column = np.full(len(ranks), peer, np.int64)
            elif kind == PeerKind.OFFSET:
                column = ranks + peer
            else:
                instance = groups.of[group][ranks]
                size = groups.size[instance]
                column = groups.members[groups.ptr[instance] + (groups.place[group][ranks] + peer) % size]
            wrong = np.flatnonzero((column < 0) | (column >= graph.ranks))
            if len(wrong):
                graph.peer(int(ranks[wrong[0]]), int(rows[at[place]]))  # says what is wrong
            columns.append(column)
        table = np.stack(columns, axis=1)
        same = _first_alike(table)
        for row in np.unique(same, axis=0, return_index=True)[1].tolist():
            alike = (same == same[row]).all(axis=1)
            pattern[ranks[alike]] = patterns.setdefault(same[row].tobytes(), len(patterns))
        for kind, parts in found.items():
            for e in np.unique(mine[rows[program.type[rows] == kind]]).tolist():
                slot = same[:, e - count] + count
                parts.append((ranks, table[:, e - count], slot, np.full(len(ranks), e, np.int64)))
        count += len(distinct)
    sends, receives = (_ways(found[kind], graph.ranks) for kind in (NodeType.COMM_SEND, NodeType.COMM_RECV))
    return Peers(first, expression, pattern, _paired(sends, receives, graph.ranks), _paired(receives, sends, graph.ranks))


def _first_alike(table: Ints) -> Ints:
    """Per row, of every entry: the column in which its value comes first."""
    order = np.argsort(table, axis=1, kind="stable")
    ordered = np.take_along_axis(table, order, axis=1)
    new = np.ones(table.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    begin = np.maximum.accumulate(np.where(new, np.arange(table.shape[1]), 0), axis=1)
    found = np.empty_like(order)
    np.put_along_axis(found, order, np.take_along_axis(order, begin, axis=1), axis=1)
    return found


def _ways(parts: list[Any], ranks: int) -> Ways:
    if not parts:
        none = np.zeros(0, np.int64)
        return Ways(none, none, none, none, (none, none))
    rank, peer, slot, expression = (np.concatenate(column) for column in zip(*parts, strict=True))
    _, at, row = np.unique(rank * ranks + peer, return_index=True, return_inverse=True)
    return Ways(rank[at], peer[at], slot[at], np.full(len(at), -1, np.int64), (row.ravel(), expression))


def _paired(mine: Ways, other: Ways, ranks: int) -> Ways:
    """With partners. Rows of Ways are ascending in (rank, peer)."""
    if not len(other.rank) or not len(mine.rank):
        return mine
    theirs = other.peer * ranks + other.rank
    order = np.argsort(theirs)
    wanted = mine.rank * ranks + mine.peer
    at = order[np.minimum(np.searchsorted(theirs[order], wanted), len(order) - 1)]
    partner = np.where(theirs[at] == wanted, other.slot[at], -1)
    return Ways(mine.rank, mine.peer, mine.slot, partner, mine.raw)
