"""Defects that a trace can have once it is read: within a program (on every read) and between ranks (on request)."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from distsim.errors import TraceError
from distsim.trace.build import describe
from distsim.trace.defect import Defect
from distsim.trace.graph import CollectiveType, NodeType, PeerKind, Program, TaskGraph
from distsim.trace.groups import instances
from distsim.trace.matching import collectives, is_collective, messages
from distsim.trace.order import find_cycle, program_order
from distsim.units import format_size

#: defects of one kind that are described one by one in each program; the rest is counted
_DESCRIBED = 5
_BETWEEN = 20


def check_programs(graph: TaskGraph, labels: Sequence[str] = (), chakra: bool = False) -> list[Defect]:
    """Defects within programs: unknown types, negative numbers, missing sizes and peers, foreign groups, cycles.

    Args:
        labels: file of each program, for messages.
        chakra: from a Chakra file, which has no delays.
    """
    defects: list[Defect] = []
    for index, program in enumerate(graph.programs):
        ranks = np.flatnonzero(graph.rank_program == index).tolist()
        if not ranks:
            continue
        where = labels[index] if labels else graph.source
        defects += _program_defects(graph, program, ranks, where, NodeType.COMM_COLL if chakra else NodeType.DELAY)
    return defects


def _program_defects(graph: TaskGraph, program: Program, ranks: list[int], where: str, last: NodeType) -> Iterator[Defect]:
    name = graph.names.__getitem__

    def each(rows: NDArray[np.int64], kind: str, text: Callable[[int], str], severity: str = "error") -> Iterator[Defect]:
        for k, row in enumerate(rows[:_DESCRIBED].tolist()):
            more = len(rows) - _DESCRIBED if k == _DESCRIBED - 1 else 0
            what = f"{describe(program, row, ranks[0], len(ranks), name)} {text(row)}"
            yield Defect(kind, what + (f" (and so do {more} more of its nodes)" if more > 0 else ""), where, severity)

    kind, collective = program.type, program.collective
    yield from each(
        np.flatnonzero((kind < 1) | (kind > last)),
        "type",
        lambda row: f"has type {int(kind[row])}, which is not a Chakra node type (1 to 7)",
    )
    for column, label in (
        ("duration_ps", "a negative duration"),
        ("start_ps", "a negative start"),
        ("num_ops", "negative num_ops"),
        ("tensor_size", "a negative tensor_size"),
        ("bytes", "negative bytes (comm_size)"),
    ):
        values = getattr(program, column)
        if len(values) and values.min() < -1:
            yield from each(np.flatnonzero(values < -1), "negative", lambda row, v=values, t=label: f"has {t} ({int(v[row])})")  # type: ignore[misc]
    collectives_ = kind == NodeType.COMM_COLL
    p2p = (kind == NodeType.COMM_SEND) | (kind == NodeType.COMM_RECV)
    yield from each(
        np.flatnonzero(collectives_ & (collective > 9)),
        "type",
        lambda row: f"has comm_type {int(collective[row])}, which is no collective (0 to 9)",
    )
    yield from each(
        np.flatnonzero(collectives_ & (collective < 0)),
        "missing",
        lambda row: "is a collective without a comm_type: it cannot be replayed on a network",
        "warning",
    )
    sized = p2p | (is_collective(program) & (collective != CollectiveType.BARRIER))
    if graph.captured:  # those that are not told are counted when it is read
        sized = p2p
    yield from each(np.flatnonzero(sized & (program.bytes == -1)), "missing", lambda row: "has no bytes (comm_size)", "warning")
    unsaid = p2p & (program.peer < 0) & (program.peer_kind == PeerKind.RANK)
    yield from each(
        np.flatnonzero(unsaid),
        "missing",
        lambda row: f"has no peer ({'comm_dst' if kind[row] == NodeType.COMM_SEND else 'comm_src'})",
    )
    yield from _absent_peers(graph, program, ranks, where)
    yield from _foreign_groups(graph, program, ranks, where)
    cycle = find_cycle(program)
    if cycle:
        shown = [
            f"{int(program.id[row])}" + (f' ("{name(program.name[row])}")' if program.name[row] >= 0 else "")
            for row in cycle[:8]
        ]
        path = " -> ".join([*shown, *(["..."] if len(cycle) > 8 else []), shown[0]])
        others = f" (and {len(ranks) - 1} others)" if len(ranks) > 1 else ""
        yield Defect(
            "cycle",
            f"nodes of rank {ranks[0]}{others} depend on each other in a cycle of {len(cycle)}: {path}",
            where,
            fix="Remove one of these dependencies.",
        )


def _absent_peers(graph: TaskGraph, program: Program, ranks: list[int], where: str) -> Iterator[Defect]:
    """Peers outside the trace."""
    for kind in (PeerKind.RANK, PeerKind.OFFSET):
        rows = np.flatnonzero((program.peer_kind == kind) & ((program.peer >= 0) | (kind == PeerKind.OFFSET)))
        if not len(rows):
            continue
        for rank in ranks[:1] if kind == PeerKind.RANK else [ranks[0], ranks[-1]] if len(ranks) > 1 else ranks:
            peer = program.peer[rows].astype(np.int64) + (rank if kind == PeerKind.OFFSET else 0)
            outside = np.flatnonzero((peer < 0) | (peer >= graph.ranks))
            if len(outside):
                row = int(rows[outside[0]])
                what = f"names rank {int(peer[outside[0]])} as its peer, but the trace has ranks 0 to {graph.ranks - 1}"
                yield Defect("message", f"{describe(program, row, rank, 1, graph.names.__getitem__)} {what}", where)
                break


def _foreign_groups(graph: TaskGraph, program: Program, ranks: list[int], where: str) -> Iterator[Defect]:
    """Groups that nobody defines, or that a rank uses without being in it."""
    used, first = np.unique(program.group, return_index=True)
    for g, row in zip(used.tolist(), first.tolist(), strict=True):
        if g < 0:
            continue
        group = graph.groups[g]
        outside = [rank for rank in ranks if rank not in group.members]
        if not outside:
            continue
        who = describe(program, row, outside[0], len(outside), graph.names.__getitem__)
        if group.members:
            yield Defect(
                "group",
                f"{who} uses communicator group {group.label(outside[0])!r} but is not a member of it",
                where,
                fix="Add the rank to the group.",
            )
        else:
            defined = [other.label(outside[0]) for other in graph.groups if other.members]
            yield Defect(
                "group",
                f"{who} uses communicator group {group.label(outside[0])!r}, which is not defined",
                where,
                near=tuple(difflib.get_close_matches(group.name, defined, n=3)),
                fix="Give the groups file (--groups).",
            )


def check_ranks(graph: TaskGraph) -> list[Defect]:
    """Defects between ranks: collectives that disagree, sends and receives that do not pair. Needs programs without cycles."""
    orders = [program_order(program) for program in graph.programs]
    found = [*_disagreements(graph, orders), *_unpaired(graph, orders)]
    if len(found) > _BETWEEN:
        more = Defect("collective", f"and {len(found) - _BETWEEN} more defects between ranks", graph.source)
        return [*found[:_BETWEEN], more]
    return found


def _place(graph: TaskGraph, rank: int, row: int) -> str:
    program = graph.program(rank)
    name = int(program.name[row])
    return f"node {int(program.id[row])} of rank {rank}" + (f' ("{graph.names[name]}")' if name >= 0 else "")


def _disagreements(graph: TaskGraph, orders: list[NDArray[np.int32]]) -> Iterator[Defect]:
    """First turn of each instance at which its ranks do not run the same collective."""
    c = collectives(graph, orders)
    n = len(c.rank)
    if n == 0:
        return
    new = np.ones(n, np.bool_)
    new[1:] = (c.instance[1:] != c.instance[:-1]) | (c.turn[1:] != c.turn[:-1])
    starts = np.flatnonzero(new)
    lengths = np.diff(np.append(starts, n))
    sizes = np.array([len(members) for members in c.members], np.int64)
    leader = np.repeat(starts, lengths)
    differs = (c.type != c.type[leader]) | (c.bytes != c.bytes[leader])
    bad = (lengths != sizes[c.instance[starts]]) | np.logical_or.reduceat(differs, starts)
    told: set[int] = set()
    for k in np.flatnonzero(bad).tolist():
        instance, start = int(c.instance[starts[k]]), int(starts[k])
        if instance in told:
            continue
        told.add(instance)
        members, g = c.members[instance], c.group[instance]
        label = "all ranks" if g < 0 else f"group {graph.groups[g].label(int(c.rank[start]))!r}"
        here = range(start, start + int(lengths[k]))
        what = f"collective {int(c.turn[start])} of {label} ({_some(members)}): {_told(graph, c.rank[start], c.row[start])}"
        other = next((j for j in here if differs[j]), None)
        if other is not None:
            what += f", but {_told(graph, c.rank[other], c.row[other])}"
        else:
            absent = sorted(set(members) - {int(c.rank[j]) for j in here})
            what += f", but {_some(tuple(absent))} {'runs' if len(absent) == 1 else 'run'} only {int(c.turn[start])} of them"
        yield Defect(
            "collective", what, graph.source, fix="All ranks of a group must run the same collectives in the same order."
        )


def _told(graph: TaskGraph, rank: int, row: int) -> str:
    program = graph.program(rank)
    kind, size = int(program.collective[row]), int(program.bytes[row])
    name = CollectiveType(kind).name.lower() if kind <= 9 else f"type {kind}"
    return f"{_place(graph, int(rank), int(row))} is {name} of {format_size(size) if size >= 0 else 'no size'}"


def _some(ranks: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, ranks[:4])) + (f" ... {len(ranks)} in all" if len(ranks) > 4 else "")
    return f"rank{'' if len(ranks) == 1 else 's'} {shown}"


def _unpaired(graph: TaskGraph, orders: list[NDArray[np.int32]]) -> Iterator[Defect]:
    m = messages(graph, orders)
    n = len(m.rank)
    if n == 0:
        return
    alike = np.zeros(n, np.bool_)  # entry k is the send of the receive k + 1
    alike[:-1] = (m.receive[:-1] == 0) & (m.receive[1:] == 1)
    for column in (m.src, m.dst, m.tag, m.turn):
        alike[:-1] &= column[:-1] == column[1:]
    paired = alike.copy()
    paired[1:] |= alike[:-1]
    for k in np.flatnonzero(~paired).tolist():
        tag = f", tag {int(m.tag[k])}" if m.tag[k] >= 0 else ""
        side = "receives from" if m.receive[k] else "sends to"
        peer, missing = (int(m.src[k]), "sends") if m.receive[k] else (int(m.dst[k]), "receives")
        yield Defect(
            "message",
            f"{_place(graph, int(m.rank[k]), int(m.row[k]))} {side} rank {peer} "
            f"(message {int(m.turn[k])}{tag}), "
            f"but rank {peer} never {missing} it",
            graph.source,
        )
    for k in np.flatnonzero(alike).tolist():
        if m.bytes[k] != m.bytes[k + 1]:
            yield Defect(
                "message",
                f"{_place(graph, int(m.rank[k]), int(m.row[k]))} sends {format_size(int(m.bytes[k]))}, but "
                f"{_place(graph, int(m.rank[k + 1]), int(m.row[k + 1]))} receives {format_size(int(m.bytes[k + 1]))} of it",
                graph.source,
            )


def check(graph: TaskGraph) -> list[Defect]:
    """Everything: within programs and, if they have no cycle, between ranks."""
    defects = check_programs(graph)
    try:
        return defects + check_ranks(graph)
    except TraceError:
        return defects


def group_sizes(graph: TaskGraph, group: int) -> list[int]:
    """Sizes of the instances of a group (-1: all ranks)."""
    return [graph.ranks] if group < 0 else [len(members) for members in instances(graph.groups[group])]
