"""What each rank does with the step, instant by instant; the parts add up exactly.

An instant of a rank counts as the first of these that is true:

compute        a GPU computation runs
exposed        communication is under way (its last member has come, its message has set out), and nothing computes
memory         a memory operation runs
host           a host computation runs
idle           none of these: dependencies, bubbles, waiting for other ranks, the end of slower ranks

Of the idle time, *waiting* is that in which the rank has issued a communication that waits for other ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distsim.analysis.intervals import Ints, Union, owned, sums
from distsim.analysis.underway import UnderWay, communicates, is_kind, under_way
from distsim.result import Result, SpanTable

#: the parts of a step, in order of precedence
PARTS = ("compute", "exposed", "memory", "host", "idle")
#: instants of one axis stay below this
_FAR = 1 << 62


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """Communication by rank, kind and group; where several tasks overlap, the one that began first has the instant.

    One row per (rank, kind, group) that occurs, ascending. Rows of a rank add up exactly to its ``exposed``, ``hidden``
    and ``waiting``.
    """

    rank: Ints
    kind: Ints  #: index into SpanTable.kinds
    group: Ints  #: index into SpanTable.groups, -1 for all ranks
    exposed: Ints  #: ps
    hidden: Ints  #: ps, under computation
    waiting: Ints  #: ps of idling in wait for other ranks


@dataclass(frozen=True, slots=True, eq=False)
class Breakdown:
    """Per rank, in ps: compute + exposed + memory + host + idle = makespan."""

    makespan: int
    compute: Ints
    exposed: Ints
    memory: Ints
    host: Ints
    idle: Ints
    waiting: Ints  #: part of ``idle``
    hidden: Ints  #: communication under way while the rank computes: part of ``compute``
    shares: Shares

    def average(self) -> dict[str, float]:
        """The parts as fractions of the step, averages over ranks; they sum to 1 (all idle where nothing takes time)."""
        whole = self.makespan * len(self.compute)
        if not whole:
            return dict.fromkeys(PARTS, 0.0) | {"idle": 1.0}
        return {part: int(getattr(self, part).sum()) / whole for part in PARTS}


def breakdown(result: Result, moving: UnderWay | None = None, *, waiting_first: bool = False) -> Breakdown:
    """Split the step of every rank.

    Args:
        moving: what :func:`under_way` found, where it is known already.
        waiting_first: an instant in which a communication waits for other ranks is idle even if the host works.
    """
    spans = result.spans()
    since = (moving or under_way(result)).since
    columns: dict[str, list[Ints]] = {name: [] for name in (*PARTS, "waiting", "hidden")}
    shares: list[tuple[Ints, ...]] = []
    stride = result.makespan + 1
    room = max(_FAR // stride, 1)
    for first in range(0, result.ranks, room):
        ranks = np.arange(first, min(first + room, result.ranks))
        low, high = np.searchsorted(spans.rank, np.array([ranks[0], ranks[-1] + 1], spans.rank.dtype))
        found, share = _split(spans, since, slice(int(low), int(high)), ranks, stride, result.makespan, waiting_first)
        for name, column in columns.items():
            column.append(found[name])
        shares.append(share)
    empty = np.zeros(0, np.int64)
    whole = {name: np.concatenate([empty, *parts]) for name, parts in columns.items()}
    joined = [np.concatenate([empty, *parts]) for parts in zip(*shares, strict=True)] if shares else [empty] * 6
    if result.representative is not None:
        whole = {name: column[result.representative] for name, column in whole.items()}
        joined = _unfolded(joined, result.representative)
    return Breakdown(makespan=result.makespan, shares=Shares(*joined), **whole)


def _unfolded(shares: list[Ints], representative: Ints) -> list[Ints]:
    """Rows of shares of all ranks, from those of their representatives."""
    begin, end = (np.searchsorted(shares[0], representative, side) for side in ("left", "right"))
    count = end - begin
    within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    row = np.repeat(begin, count) + within
    return [np.repeat(np.arange(len(representative)), count), *(column[row] for column in shares[1:])]


def _split(
    spans: SpanTable, since: Ints, rows: slice, ranks: Ints, stride: int, makespan: int, waiting_first: bool
) -> tuple[dict[str, Ints], tuple[Ints, ...]]:
    """Parts of each of these ranks, which the rows are of, and the columns of their Shares."""
    base = (spans.rank[rows] - ranks[:1]) * np.int64(stride)
    begin, moving, end = base + spans.start[rows], base + since[rows], base + spans.end[rows]
    talks = np.flatnonzero(communicates(spans)[rows])
    edges = np.arange(len(ranks) + 1) * stride

    def layer(below: Union, name: str) -> Union:
        mine = is_kind(spans, name)[rows]
        return below.with_(begin[mine], end[mine])

    compute = layer(Union.of(begin[:0], end[:0]), "compute")
    with_communication = compute.with_(moving[talks], end[talks])
    with_memory = layer(with_communication, "memory")
    late = talks[moving[talks] > begin[talks]]
    unless = with_memory if waiting_first else layer(with_memory, "host")  # in these instants nobody waits
    with_waiting = unless.with_(begin[late], moving[late])
    unions = (compute, with_communication, with_memory, unless, with_waiting, layer(with_waiting, "host"))
    covered = [np.diff(union.until(edges)) for union in unions]
    waiting = covered[4] - covered[3]
    under_way, hidden = _attribute(moving[talks], end[talks], compute)
    held_up, busy = _attribute(begin[talks], moving[talks], unless)
    groups = len(spans.groups) + 1
    rank, kind, group = (column[rows][talks] for column in (spans.rank, spans.kind, spans.group))
    key = (rank.astype(np.int64) * len(spans.kinds) + kind) * groups + group + 1
    key, exposed, under, waits = sums(key, under_way - hidden, hidden, held_up - busy)
    kinds = max(len(spans.kinds), 1)
    share = (key // groups // kinds, key // groups % kinds, key % groups - 1, exposed, under, waits)
    of_rank, hidden_sum = sums(share[0], under)
    hidden_of = np.zeros(len(ranks), np.int64)
    hidden_of[of_rank - ranks[0]] = hidden_sum
    parts = {
        "compute": covered[0], "exposed": covered[1] - covered[0], "memory": covered[2] - covered[1],
        "host": covered[5] - covered[2] - waiting, "idle": makespan - covered[5] + waiting, "waiting": waiting,
        "hidden": hidden_of,
    }  # fmt: skip
    return parts, share


def _attribute(begin: Ints, end: Ints, other: Union) -> tuple[Ints, Ints]:
    """Per interval: length of the piece that it owns, and how much of that the other union covers."""
    whole, covered = np.zeros(len(begin), np.int64), np.zeros(len(begin), np.int64)
    row, first, last = owned(begin, end)
    whole[row], covered[row] = last - first, other.within(first, last)
    return whole, covered
