"""The critical path as legs: a stretch without a change of rank or activity is one; repetitions are folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from distsim.analysis.critical import WAITING, CriticalPath
from distsim.analysis.explain.classes import Fractions, divided
from distsim.analysis.explain.starts import late_rows
from distsim.analysis.intervals import Ints
from distsim.analysis.underway import LOCAL, UnderWay
from distsim.result import Result, SpanTable

#: activity of a leg in which a rank has not begun yet
LATE = "late start"
#: activities that are no communication
ALONE = (*LOCAL, WAITING, LATE)
#: longest body of a repetition, in legs or repetitions
_PERIOD = 64


@dataclass(frozen=True, slots=True)
class Leg:
    """A stretch of the path.

    ``activity``: compute, memory, host, delay, late start, none, waiting (nothing known ran), or an operation.
    """

    begin_ps: int
    end_ps: int
    rank: int  #: whose task it is; -1 while waiting
    activity: str
    group: str  #: of a communication
    classes: Mapping[str, int]  #: ps of a computation by class, of other local work by name
    tasks: int
    collective: int  #: index into Result.collectives, -1 for none
    row: int  #: last of its rows of the span table, -1 while waiting

    @property
    def ps(self) -> int:
        return self.end_ps - self.begin_ps


@dataclass(frozen=True, slots=True)
class Repeat:
    """``count`` times the same sequence of activities; times of its legs differ."""

    count: int
    legs: tuple[Leg, ...]  #: all of them, in order of time

    @property
    def begin_ps(self) -> int:
        return self.legs[0].begin_ps

    @property
    def end_ps(self) -> int:
        return self.legs[-1].end_ps

    @property
    def ps(self) -> int:
        return self.end_ps - self.begin_ps


@dataclass(frozen=True, slots=True)
class Contribution:
    """Part of the path: ``by`` kind, class, group or rank."""

    by: str
    name: str
    ps: int


@dataclass(frozen=True, slots=True, eq=False)
class Story:
    """The path, told. ``legs`` one by one; ``told`` with repetitions folded."""

    legs: tuple[Leg, ...]
    told: tuple[Leg | Repeat, ...]
    contributions: tuple[Contribution, ...]  #: of each ``by`` the longest first


def story(result: Result, path: CriticalPath, moving: UnderWay, shares: tuple[Fractions, ...], end_ps: int) -> Story:
    """Tell the path that ends at ``end_ps``."""
    spans = result.spans()
    legs = _legs(spans, path, moving, shares, end_ps)
    keys: dict[tuple[object, ...], int] = {}
    tokens = []
    for leg in legs:
        classes = sorted(leg.classes) if leg.activity == "compute" else ()
        tokens.append(keys.setdefault((leg.rank, leg.activity, leg.group, *classes), len(keys)))
    return Story(legs, _folded(legs, tokens), _contributions(legs))


def _legs(spans: SpanTable, path: CriticalPath, moving: UnderWay, shares: tuple[Fractions, ...], last: int) -> tuple[Leg, ...]:
    row, begin, end = path.row, path.begin, path.end
    keep = end > begin
    row, begin, end = row[keep], begin[keep], end[keep]
    if not len(row):
        return (_waiting(0, last),) if last else ()
    local = np.array([kind in LOCAL for kind in spans.kinds])[spans.kind[row]]
    rank = spans.rank[row]
    kind_of = spans.kind[row]
    late = late_rows(spans)[row]
    same = local[1:] & local[:-1] & (rank[1:] == rank[:-1]) & (kind_of[1:] == kind_of[:-1]) & (begin[1:] == end[:-1])
    same &= late[1:] == late[:-1]
    edge = np.append(np.flatnonzero(np.append(True, ~same)), len(row)).tolist()
    legs: list[Leg] = []
    at = 0
    for low, high in pairwise(edge):
        if begin[low] > at:
            legs.append(_waiting(at, int(begin[low])))
        of, at = int(row[high - 1]), int(end[high - 1])
        kind = LATE if late[low] else spans.kinds[spans.kind[of]]
        group = int(spans.group[of])
        classes: Mapping[str, int] = {}
        if local[low]:
            took: dict[int, int] = {}
            for name, ps in zip(spans.name[row[low:high]].tolist(), (end[low:high] - begin[low:high]).tolist(), strict=True):
                took[name] = took.get(name, 0) + ps
            plain = {spans.names[name] if name >= 0 else "": ps for name, ps in took.items()}
            classes = divided(took, shares) if kind == "compute" else {name: ps for name, ps in plain.items() if name}
        collective = int(moving.collective[of])
        told = spans.groups[group] if group >= 0 and not local[low] else ""
        legs.append(Leg(int(begin[low]), at, int(rank[low]), kind, told, classes, high - low, collective, of))
    if at < last:
        legs.append(_waiting(at, last))
    return tuple(legs)


def _waiting(begin: int, end: int) -> Leg:
    return Leg(begin, end, -1, WAITING, "", {}, 0, -1, -1)


def _contributions(legs: Sequence[Leg]) -> tuple[Contribution, ...]:
    totals: dict[tuple[str, str], int] = {}

    def add(by: str, name: str, ps: int) -> None:
        totals[by, name] = totals.get((by, name), 0) + ps

    for leg in legs:
        add("kind", leg.activity, leg.ps)
        for name, ps in leg.classes.items() if leg.activity == "compute" else ():
            add("class", name, ps)
        if leg.rank >= 0:
            add("rank", str(leg.rank), leg.ps)
        if leg.activity not in ALONE:
            add("operation", f"{leg.group} {leg.activity}".strip(), leg.ps)
    order = ("kind", "class", "operation", "rank")
    return tuple(
        Contribution(by, name, ps)
        for (by, name), ps in sorted(totals.items(), key=lambda item: (order.index(item[0][0]), -item[1], item[0][1]))
    )


def _folded(legs: Sequence[Leg], tokens: Sequence[int]) -> tuple[Leg | Repeat, ...]:
    """Fold repetitions, the one that saves most first, until there are none; bodies may hold repetitions themselves."""
    token = np.array(tokens, np.int64)
    edge = np.arange(len(token) + 1)  # token i covers the legs edge[i] .. edge[i + 1]
    count = np.ones(len(token), np.int64)
    made: dict[tuple[int, ...], int] = {}
    while True:
        runs = _best(token)
        if not runs:
            break
        keep = np.ones(len(token), np.bool_)
        for first, period, times in runs:
            body = (*token[first : first + period].tolist(), -times)
            keep[first + 1 : first + period * times] = False
            token[first] = made.setdefault(body, len(tokens) + len(made))
            count[first] = times
        token, count, edge = token[keep], count[keep], np.append(edge[:-1][keep], edge[-1])
    told: list[Leg | Repeat] = []
    for low, high, times in zip(edge[:-1].tolist(), edge[1:].tolist(), count.tolist(), strict=True):
        told.append(legs[low] if high - low == 1 else Repeat(times, tuple(legs[low:high])))
    return tuple(told)


def _best(token: Ints) -> list[tuple[int, int, int]]:
    """(first, period, times) of disjoint repetitions of the one period that saves most tokens; none where nothing repeats."""
    best: list[tuple[int, int, int]] = []
    most = 0
    for period in range(1, min(_PERIOD, len(token) // 2) + 1):
        equal = np.concatenate((np.zeros(1, np.bool_), token[period:] == token[:-period], np.zeros(1, np.bool_)))
        turn = np.flatnonzero(equal[1:] != equal[:-1])
        runs, saved, free = [], 0, 0
        for low, high in zip(turn[::2].tolist(), turn[1::2].tolist(), strict=True):
            low = max(low, free)
            times = (high - low) // period + 1
            if times > 1:
                runs.append((low, period, times))
                saved += (times - 1) * period
                free = low + times * period
        if saved > most:
            best, most = runs, saved
    return best
