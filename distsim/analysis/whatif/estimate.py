"""First-order estimates: the longest path of the recorded run with the durations that a change would give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.activity import Activities, Path, activities, once_moving
from distsim.analysis.intervals import Ints
from distsim.analysis.source import Source, source_of, told_by, with_senders
from distsim.analysis.underway import UnderWay, under_way
from distsim.analysis.whatif.times import (
    AsCoflows,
    Calls,
    Floats,
    OnLevel,
    alone_of,
    communication,
    computing,
    moved,
    same_shape,
)
from distsim.analysis.whatif.together import Episodes
from distsim.cost.speeds import Speeds
from distsim.result import COMPUTE, Result
from distsim.scenario import Scenario

_NO_LATENCY = {"link.*.latency": "0ns"}
#: ps: what is longer than alone by no more was not contended
_ROUNDING = 2.0
#: times that instants are taken from the path and given to the network again, at most; each makes more of the run right
_ROUNDS = 20


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """What a change gives, as far as the recorded run tells.

    Attributes:
        makespan: ps; None where the run tells nothing (``reason``).
        path: the longest path with the new durations. stayed: part of it, by time, that was on the recorded one.
        durations: ps of every row once it moves.
    """

    makespan: int | None
    path: Path | None = None
    stayed: float = 1.0
    durations: Floats | None = None
    reason: str = ""


class Recorded:
    """A finished run ready for estimates: its activities, and what its tasks take by themselves. Everything is made when first
    asked, and kept."""

    def __init__(self, scenario: Scenario, result: Result) -> None:
        self.scenario, self.result = scenario, result
        self._source = source_of(result, scenario.graph)
        told = told_by(result, self._source)
        self.moving: UnderWay = with_senders(under_way(result), told, result.spans())
        self.activities: Activities = activities(result, self.moving, told)
        self.path: Path = self.activities.path(self.activities.ends())

    def estimate(self, changed: Scenario) -> Estimate:
        """Of another scenario of the same trace. Raises as its run would (a topology that cannot be built, say)."""
        source = source_of(self.result, changed.graph)
        reason = self._told_nothing(changed, source)
        if reason:
            return Estimate(None, reason=reason)
        durations = self._durations(changed, source)
        path = self.activities.path(self._ends(durations))
        before = np.zeros(self.activities.spans, np.bool_)
        before[self.path.rows] = True
        whole = int(path.spent.sum())
        stayed = float(path.spent[before[path.rows]].sum()) / whole if whole else 1.0
        return Estimate(path.makespan, path, stayed, durations)

    def _durations(self, changed: Scenario, source: Source) -> Floats:
        """ps that every row takes once it moves.

        Computation: as recorded, plus what it takes alone after less before; what communication beside it had added changes as
        that communication does. Communication: the same. What others on its links had added is asked of the network, as long as
        who meets whom stays; else it changes as the time of its bytes without latencies, waiting for a link being waiting for
        bytes.
        """
        base, before = self._base, self._computing
        after = computing(changed, source, self.result.spans())
        same = network_of(changed) == network_of(self.scenario)
        if changed.recorded or (same and (changed.profile or changed.whole_run)):
            return base + after - before
        level = self._level if same else alone_of(changed)
        calls, was = communication(source, self.result.spans()), self._alone
        now = was if same else moved(*calls, level)
        talks, added = was > 0, base - before - was
        waited = talks & (added > _ROUNDING)
        found = after + now + added
        if waited.any() and not same:
            found = np.where(waited, now + added * self._bytes_ratio(changed, calls), found)
        if waited.any() and isinstance(level, OnLevel) and level.alike(self._level):
            found = self._met(found, calls, level)
        slowed = (before > 0) & (added > _ROUNDING)
        if slowed.any():
            ratio = np.where(talks, found / np.where(talks, base, 1.0), 1.0)
            found = np.where(slowed, after + added * self._beside(slowed, ratio), found)
        return found

    def _met(self, durations: Floats, calls: Calls, level: OnLevel) -> Floats:
        """With what communications that met take at the instants that the longest paths with these durations, in turn, give
        them; as they are where others would meet then."""
        met, before = self._episodes, durations
        mine = np.flatnonzero(met.unit >= 0)
        for _ in range(_ROUNDS):
            end, took = self._ends(durations)[met.row], np.rint(durations[met.row]).astype(np.int64)
            begin = end - took
            if not met.keep(begin, end):
                return before
            made = durations.copy()
            made[mine] = met.took(calls, begin, took, level)[met.unit[mine]]
            if np.array_equal(made, durations):
                break
            durations = made
        return durations

    def _ends(self, durations: Floats) -> Ints:
        return self.activities.ends(self.activities.lengths(np.rint(durations).astype(np.int64)))

    # --- of the run itself --------------------------------------------------------------------------------------------------

    @cached_property
    def _base(self) -> Floats:
        return once_moving(self.result.spans(), self.moving).astype(np.float64)

    @cached_property
    def _computing(self) -> Floats:
        return computing(self.scenario, self._source, self.result.spans())

    @cached_property
    def _level(self) -> OnLevel | AsCoflows:
        return alone_of(self.scenario)

    @cached_property
    def _calls(self) -> Calls:
        return communication(self._source, self.result.spans())

    @cached_property
    def _alone(self) -> Floats:
        """ps of communication on idle links."""
        return moved(*self._calls, self._level)

    @cached_property
    def _bytes(self) -> Floats:
        return moved(*self._calls, alone_of(self.scenario.changed(_NO_LATENCY)))

    @cached_property
    def _episodes(self) -> Episodes:
        assert isinstance(self._level, OnLevel)
        added = np.where(self._alone > 0, self._base - self._alone, 0)
        waited = np.where(added > _ROUNDING, added, 0).astype(np.int64)
        return Episodes(self.result.spans(), self.moving, self._calls, waited, self._level)

    def _bytes_ratio(self, changed: Scenario, calls: Calls) -> Floats:
        """Times of communication without latencies, after over before."""
        after = moved(*calls, alone_of(changed.changed(_NO_LATENCY)))
        return np.where(self._bytes > 0, after / np.where(self._bytes > 0, self._bytes, 1.0), 1.0)

    def _beside(self, slowed: NDArray[np.bool_], ratio: Floats) -> Floats:
        """How communication beside each slowed row changes: the mean of its ratios, by time."""
        spans, since, end = self.result.spans(), self.moving.since, self.result.spans().end
        talks = self.moving.collective >= 0
        found = np.ones(len(spans))
        for rank in np.unique(spans.rank[slowed]).tolist():
            mine, beside = np.flatnonzero(slowed & (spans.rank == rank)), np.flatnonzero(talks & (spans.rank == rank))
            low, high = since[beside], end[beside]
            whole = _until(low, high, np.ones(len(beside)), end[mine]) - _until(low, high, np.ones(len(beside)), since[mine])
            scaled = _until(low, high, ratio[beside], end[mine]) - _until(low, high, ratio[beside], since[mine])
            found[mine] = np.where(whole > 0, scaled / np.where(whole > 0, whole, 1.0), 1.0)
        return found

    def contended(self) -> float:
        """Part of the recorded path, by time, that is communication which took longer than alone."""
        if self.scenario.recorded:
            return 0.0
        rows = self.path.rows
        alone, took = self._alone[rows], self._base[rows]
        slowed = (alone > 0) & (took > alone + _ROUNDING)
        return float((took - alone)[slowed].sum()) / self.path.makespan if self.path.makespan else 0.0

    def _told_nothing(self, changed: Scenario, source: Source) -> str:
        """Why a run says nothing about a change; empty where it does."""
        folded = self.result.representative
        ours, theirs = (Speeds.parse(one.spec.speeds) for one in (self.scenario, changed))
        for rank in sorted({*ours.ranks, *theirs.ranks}):
            alike = 0 if folded is None or rank >= len(folded) else int(np.count_nonzero(folded == folded[rank]))
            if ours.own(rank) != theirs.own(rank) and alike > 1:
                return f"rank {rank} was simulated as one of {alike:,} that did the same"
        if changed.trains != self.scenario.trains or not same_shape(source, self.result):
            return "the step is made of other tasks"
        if changed.recorded != self.scenario.recorded:
            return "recorded times of communication say nothing of a simulated network"
        if self.scenario.spec.model_dump().get("events") is not None:
            return "its timed events changed links and devices while it ran"
        if changed.spec.model_dump().get("events") is not None:
            return "timed events change links and devices while it runs"
        return ""


def _until(low: Ints, high: Ints, weight: Floats, time: Ints) -> Floats:
    """Weighted time that intervals low .. high have covered by each of these instants."""
    found = np.zeros(len(time))
    for edge, sign in ((low, 1.0), (high, -1.0)):
        order = np.argsort(edge, kind="stable")
        edges, weights = edge[order].astype(np.float64), sign * weight[order]
        total, moment = np.append(0.0, np.cumsum(weights)), np.append(0.0, np.cumsum(weights * edges))
        at = np.searchsorted(edges, time)
        found += total[at] * time - moment[at]
    return found


def network_of(scenario: Scenario) -> Mapping[str, object]:
    """All fields that decide what communication takes."""
    fields = scenario.spec.model_dump()
    idle = ("speeds", "compute", "peak", "memory_bandwidth", "scale_compute", "trace")
    names = ("cluster", "network", "plan") if scenario.trains else tuple(set(fields) - set(idle))
    return {name: fields[name] for name in names}


def shares(path: Path, result: Result) -> dict[str, float]:
    """ps of a path by what it does: compute, communication, other."""
    spans = result.spans()
    found = {"compute": 0.0, "communication": 0.0, "other": 0.0}
    for kind, spent in zip(spans.kind[path.rows].tolist(), path.spent.tolist(), strict=True):
        name = spans.kinds[kind]
        found["compute" if name in COMPUTE else "other" if name in ("memory", "none", "delay") else "communication"] += spent
    return found
