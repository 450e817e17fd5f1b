"""Why a member came last to a collective: what it did more of than the others since they last met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distsim.analysis.explain.classes import Fractions, divided
from distsim.analysis.explain.links import last_members
from distsim.analysis.explain.starts import late_rows
from distsim.analysis.explain.story import LATE, Leg
from distsim.analysis.intervals import Union
from distsim.analysis.underway import LOCAL, UnderWay
from distsim.result import Result, SpanTable

#: other members that the last one is compared with
_OTHERS = 32
#: a difference that is less of the delay than this explains nothing
_EXPLAINS = 0.2


@dataclass(frozen=True, slots=True)
class Late:
    """A collective of the path that waited for a member."""

    collective: int
    rank: int
    after_ps: int  #: that it came after the member in the middle
    since_ps: int  #: when these members had last met, 0 for the start
    because: tuple[tuple[str, int], ...]  #: what it spent more on than the member in the middle, ps; the most first


def latecomers(
    result: Result, legs: Sequence[Leg], moving: UnderWay, shares: tuple[Fractions, ...], top: int
) -> tuple[Late, ...]:  # fmt: skip
    """The ``top`` collectives of the path that waited longest, longest first."""
    waited = [leg for leg in legs if leg.collective >= 0]
    rows = result.collectives
    waited = [leg for leg in waited if rows[leg.collective].start_ps > rows[leg.collective].first_ps]
    waited.sort(key=lambda leg: (rows[leg.collective].first_ps - rows[leg.collective].start_ps, leg.begin_ps))
    last = last_members(result, moving)
    found = (_late(result, leg.collective, int(last[leg.collective]), moving, shares) for leg in waited[:top])
    return tuple(one for one in found if one is not None)


def _late(result: Result, number: int, rank: int, moving: UnderWay, shares: tuple[Fractions, ...]) -> Late | None:
    spans, row = result.spans(), result.collectives[number]
    members = np.flatnonzero(moving.collective == number)
    others = members[spans.rank[members] != rank]
    if not len(others):
        return None
    middle = others[np.argsort(spans.start[others], kind="stable")]
    middle = middle[:: max(1, len(middle) // _OTHERS)]
    after = row.start_ps - int(np.median(spans.start[middle]))
    before = [one.end_ps for one in result.collectives if one.members == row.members and one.end_ps <= row.first_ps]
    since = max(before, default=0)
    mine = _spent(spans, moving, rank, since, row.start_ps, shares)
    theirs = [_spent(spans, moving, int(spans.rank[at]), since, int(spans.start[at]), shares) for at in middle]
    more = []
    for what, ps in mine.items():
        excess = ps - int(np.median([one.get(what, 0) for one in theirs]))
        if excess >= _EXPLAINS * max(after, 1):
            more.append((what, excess))
    return Late(number, rank, after, since, tuple(sorted(more, key=lambda item: (-item[1], item[0]))[:3]))


def _spent(
    spans: SpanTable, moving: UnderWay, rank: int, begin: int, end: int, shares: tuple[Fractions, ...]
) -> dict[str, int]:  # fmt: skip
    """What a rank did in a window: computation by class, communication under way, other tasks by kind, and idle."""
    low, high = np.searchsorted(spans.rank, np.array([rank, rank + 1], spans.rank.dtype))
    rows = np.arange(low, high)
    works = np.array([kind != "none" for kind in (*spans.kinds, "none")])[spans.kind[rows]]
    rows = rows[(spans.end[rows] > begin) & (spans.start[rows] < end) & works]
    since, until = np.clip(moving.since[rows], begin, end), np.clip(spans.end[rows], begin, end)
    busy, before = Union.of(since, until), late_rows(spans)[rows]
    total = {"idle": max(0, end - begin - int(busy.before[-1]))}
    took: dict[int, int] = {}
    for row, ps, late in zip(rows.tolist(), (until - since).tolist(), before.tolist(), strict=True):
        kind, group = spans.kinds[int(spans.kind[row])], int(spans.group[row])
        if kind == "compute":
            name = int(spans.name[row])
            took[name] = took.get(name, 0) + ps
        else:
            what = LATE if late else kind if kind in LOCAL else f"{spans.groups[group] if group >= 0 else ''} {kind}".strip()
            total[what] = total.get(what, 0) + ps
    for what, ps in divided(took, shares).items():
        total[what] = total.get(what, 0) + ps
    return total
