"""Where the time of every rank went; the parts add up to the run exactly.

compute      GPU computation, by class
exposed      communication under way while nothing computes, by operation and group
memory       a memory operation, and neither of the above
late_start   before the rank began, after the first had (captured traces)
stragglers   in a collective whose last member has not come, by operation and group
bubble       until a message comes: posted and not sent yet, or idle until what follows on one that has just come
host         while the host works, or until what it launches arrives: the cause is a host task or a latency
dependency   idle for another reason
ended        after the rank's last task, while others go on
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.breakdown import Breakdown
from distsim.analysis.explain.classes import Fractions, divided
from distsim.analysis.explain.starts import late_rows
from distsim.analysis.intervals import Ints, Union, owned
from distsim.analysis.source import rank_rows
from distsim.analysis.underway import POINT_TO_POINT, communicates, is_kind
from distsim.result import Result, SpanTable
from distsim.trace.kineto.named import launches

#: parts of a rank's time, in the order of reports
PARTS = ("compute", "exposed", "memory", "late_start", "stragglers", "bubble", "host", "dependency", "ended")

Bools = NDArray[np.bool_]
Operation = tuple[str, str]  #: (operation, group)


@dataclass(frozen=True)
class RankTime:
    """One rank's time, ps. ``of``: the rank whose spans these are (another one where ranks were folded)."""

    rank: int
    of: int
    compute: Mapping[str, int]
    exposed: Mapping[Operation, int]
    hidden: Mapping[Operation, int]  #: under computation: part of ``compute``
    memory: int
    late_start: int
    stragglers: Mapping[Operation, int]
    bubble: int
    host: int
    dependency: int
    ended: int
    launches: int  #: calls of the host that put work on a stream; 0 where the trace tells none
    host_work: int  #: of the host, whatever ran on the GPU meanwhile: no part

    @cached_property
    def parts(self) -> dict[str, int]:
        """See the module; they sum to the makespan."""
        return {
            "compute": sum(self.compute.values()), "exposed": sum(self.exposed.values()), "memory": self.memory,
            "late_start": self.late_start, "stragglers": sum(self.stragglers.values()), "bubble": self.bubble,
            "host": self.host, "dependency": self.dependency, "ended": self.ended,
        }  # fmt: skip

    @property
    def busy(self) -> int:
        """Computation, exposed communication and memory."""
        return self.parts["compute"] + self.parts["exposed"] + self.memory


@dataclass(frozen=True, slots=True)
class Straggler:
    """A rank that others waited for in collectives."""

    rank: int
    last: int  #: collectives that it was the last to come to
    caused_ps: int  #: waiting of all other members, summed
    of: int  #: collectives in which anyone waited


def rank_times(result: Result, split: Breakdown, shares: tuple[Fractions, ...]) -> tuple[RankTime, ...]:
    """One per rank."""
    spans = result.spans()
    first, count = rank_rows(spans.rank)
    # NOTE: found once for all ranks: the table is long
    computes, talks, causes = is_kind(spans, "compute"), communicates(spans), _causes(spans)
    late, hosts = late_rows(spans), is_kind(spans, "host")
    calls = hosts & np.array([launches(name) for name in (*spans.names, "")])[spans.name]
    works = computes | talks | is_kind(spans, "memory", "host")
    kept: dict[int, tuple[dict[str, int], dict[str, int]]] = {}
    launched: dict[int, tuple[int, int]] = {}
    for rank, low, size in zip(spans.rank[first].tolist(), first.tolist(), count.tolist(), strict=True):
        rows = slice(low, low + size)
        kept[rank] = _own(spans, rows, computes[rows], works[rows], late[rows], causes[rows], shares, result.makespan)
        took = spans.end[rows] - spans.start[rows]
        launched[rank] = int(calls[rows].sum()), int(took[hosts[rows]].sum())
    columns = split.shares
    names = list(zip(columns.kind.tolist(), columns.group.tolist(), strict=True))
    by_rank = np.searchsorted(columns.rank, np.arange(result.ranks + 1))
    found = []
    nothing = {"late": 0, "bubble": 0, "host": 0, "dependency": 0, "ended": result.makespan}
    for rank in range(result.ranks):
        of = rank if result.representative is None else int(result.representative[rank])
        compute, gaps = kept.get(of, ({}, nothing))
        exposed: dict[Operation, int] = {}
        hidden: dict[Operation, int] = {}
        waits: dict[Operation, int] = {}
        bubble = gaps["bubble"]
        for at in range(int(by_rank[rank]), int(by_rank[rank + 1])):
            kind, group = names[at]
            key = spans.kinds[kind], spans.groups[group] if group >= 0 else ""
            for column, into in ((columns.exposed, exposed), (columns.hidden, hidden)):
                if column[at]:
                    into[key] = int(column[at])
            waited = int(columns.waiting[at])
            if key[0] in POINT_TO_POINT:
                bubble += waited
            elif waited:
                waits[key] = waited
        found.append(
            RankTime(
                rank, of, compute, _longest(exposed), _longest(hidden), int(split.memory[rank]), gaps["late"],
                _longest(waits), bubble, int(split.host[rank]) + gaps["host"], gaps["dependency"], gaps["ended"],
                *launched.get(of, (0, 0)),
            )
        )  # fmt: skip
    return tuple(found)


def _longest(times: dict[Operation, int]) -> dict[Operation, int]:
    return dict(sorted(times.items(), key=lambda item: (-item[1], item[0])))


def _own(
    spans: SpanTable, rows: slice, computes: Bools, works: Bools, late: Bools, cause: Ints, shares: tuple[Fractions, ...],
    makespan: int,
) -> tuple[dict[str, int], dict[str, int]]:  # fmt: skip
    """Computation by class, and gaps in which no task of the rank runs by their cause."""
    start, end = spans.start[rows], spans.end[rows]
    piece, begin, stop = owned(start[computes], end[computes])
    name = spans.name[rows][computes][piece].astype(np.int64)
    total = np.zeros(len(spans.names) + 1, np.int64)
    np.add.at(total, name, stop - begin)  # -1 is the last
    took = {(at if at < len(spans.names) else -1): int(total[at]) for at in np.flatnonzero(total).tolist()}
    busy = Union.of(start[works], end[works])
    gap_begin, gap_end = np.concatenate((np.zeros(1, np.int64), busy.end)), np.append(busy.begin, makespan)
    gaps = dict.fromkeys(("bubble", "host", "dependency"), 0)
    order = np.flatnonzero(works & (end > start))
    order = order[np.argsort(start[order], kind="stable")]
    at = np.searchsorted(start[order], gap_end[:-1])
    of_gap = cause[order[at]] if len(order) else np.zeros(0, np.int64)
    before = Union.of(start[late], end[late]).within(gap_begin, gap_end)
    length = gap_end - gap_begin - before
    for number, kind in enumerate(("dependency", "bubble", "host")):
        gaps[kind] = int(length[:-1][of_gap == number].sum())
    return divided(took, shares), gaps | {"late": int(before.sum()), "ended": int(length[-1])}


def _causes(spans: SpanTable) -> Ints:
    """Per row, what an idle time before it is for: 0 a dependency, 1 a message, 2 the host."""
    by = spans.released_by.copy()
    idle = is_kind(spans, "none")
    for _ in range(8):  # through tasks that only pass on
        through = (by >= 0) & idle[by]
        if not through.any():
            break
        by[through] = spans.released_by[by[through]]
    message, host = is_kind(spans, *POINT_TO_POINT), is_kind(spans, "host", "delay")
    found = np.where(host[by], 2, np.where(message[by], 1, 0))
    found = np.where(by >= 0, found, 0)
    return np.where(is_kind(spans, "host") | is_kind(spans, *POINT_TO_POINT), np.where(found == 2, 2, 0), found)


def stragglers(result: Result, since: Ints, collective: Ints) -> tuple[Straggler, ...]:
    """Ranks that others waited for, most waiting first.

    Args:
        since, collective: of :class:`~distsim.analysis.underway.UnderWay`. Of the last to come the lowest counts.
    """
    spans = result.spans()
    rows = np.flatnonzero(collective >= 0)
    if not len(rows):
        return ()
    waited, number = (since - spans.start)[rows], collective[rows]
    weight = np.ones(len(rows), np.int64) if spans.multiplicity is None else spans.multiplicity[rows]
    caused = np.zeros(len(result.collectives), np.int64)
    np.add.at(caused, number, waited * weight)
    last = np.full(len(result.collectives), np.iinfo(np.int64).max)
    held = np.flatnonzero(waited == 0)
    np.minimum.at(last, number[held], spans.rank[rows][held].astype(np.int64))
    some = np.flatnonzero((caused > 0) & (last < result.ranks))
    ranks, which = np.unique(last[some], return_inverse=True)
    times = np.bincount(which, minlength=len(ranks))
    total = np.zeros(len(ranks), np.int64)
    np.add.at(total, which, caused[some])
    order = np.lexsort((ranks, -total))
    return tuple(Straggler(int(ranks[at]), int(times[at]), int(total[at]), len(some)) for at in order)
