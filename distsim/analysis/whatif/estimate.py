"""First-order estimates: the longest path of the recorded run with the durations that a change would give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.underway import UnderWay, under_way
from distsim.analysis.whatif.structure import Floats, Ints, Path, Structure, structure_of
from distsim.analysis.whatif.times import alone_of, communicated, computing, same_shape
from distsim.cost.speeds import Speeds
from distsim.result import COMPUTE, Result
from distsim.scenario import Scenario

_NO_LATENCY = {"link.*.latency": "0ns"}
#: ps: what is longer than alone by no more was not contended
_ROUNDING = 2.0


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
    """A finished run ready for estimates: its structure, and what its tasks take by themselves. Everything is made when first
    asked, and kept."""

    def __init__(self, scenario: Scenario, result: Result) -> None:
        self.scenario, self.result = scenario, result
        self.moving: UnderWay = under_way(result)
        self.structure: Structure = structure_of(result, scenario.graph, self.moving)
        self.path: Path = self.structure.path()
        self._computing: Floats | None = None
        self._communicated: Floats | None = None
        self._bytes: Floats | None = None

    def estimate(self, changed: Scenario) -> Estimate:
        """Of another scenario of the same trace. Raises as its run would (a topology that cannot be built, say)."""
        reason = self._told_nothing(changed)
        if reason:
            return Estimate(None, reason=reason)
        durations = self.durations(changed)
        path = self.structure.path(durations)
        before = np.zeros(len(self.structure.base), np.bool_)
        before[self.path.rows] = True
        whole = float(path.spent.sum())
        stayed = float(path.spent[before[path.rows]].sum()) / whole if whole else 1.0
        return Estimate(round(path.makespan), path, stayed, durations)

    def durations(self, changed: Scenario) -> Floats:
        """ps that every row takes once it moves.

        Communication: what it takes alone after, and what contention had added, in proportion to the time of its bytes without
        latencies (waiting for a link is waiting for bytes). Computation: as recorded, plus what it takes alone after less
        before; what communication beside it had added changes as that communication does.
        """
        base = self.structure.base.astype(np.float64)
        if self._computing is None:
            self._computing = computing(self.scenario, self.result)
        before, after = self._computing, computing(changed, self.result)
        if network_of(changed) == network_of(self.scenario) or changed.recorded:
            return base + after - before
        was, now = self._moved(self.scenario), self._moved(changed)
        added = base - before - was
        talks = was > 0
        if (talks & (added > _ROUNDING)).any():
            added = np.where(talks, added * self._bytes_ratio(changed), added)
        slowed = (before > 0) & (added > _ROUNDING)
        if slowed.any():
            added = np.where(slowed, added * self._beside(slowed, np.where(talks, now / np.where(talks, was, 1.0), 1.0)), added)
        return after + now + added

    def _bytes_ratio(self, changed: Scenario) -> Floats:
        """Times of communication without latencies, after over before."""
        if self._bytes is None:
            self._bytes = self._moved(self.scenario.changed(_NO_LATENCY))
        after = self._moved(changed.changed(_NO_LATENCY))
        return np.where(self._bytes > 0, after / np.where(self._bytes > 0, self._bytes, 1.0), 1.0)

    def _moved(self, scenario: Scenario) -> Floats:
        """ps of communication alone; of the run itself they are kept."""
        if scenario is not self.scenario:
            return communicated(scenario, self.result, alone_of(scenario))
        if self._communicated is None:
            self._communicated = communicated(scenario, self.result, alone_of(scenario))
        return self._communicated

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
        alone, took = self._moved(self.scenario)[rows], self.structure.base[rows]
        slowed = (alone > 0) & (took > alone + _ROUNDING)
        return float((took - alone)[slowed].sum()) / self.path.makespan if self.path.makespan else 0.0

    def _told_nothing(self, changed: Scenario) -> str:
        """Why a run says nothing about a change; empty where it does."""
        folded = self.result.representative
        ours, theirs = (Speeds.parse(one.spec.speeds) for one in (self.scenario, changed))
        for rank in sorted({*ours.ranks, *theirs.ranks}):
            alike = 0 if folded is None or rank >= len(folded) else int(np.count_nonzero(folded == folded[rank]))
            if ours.of_rank(rank) != theirs.of_rank(rank) and alike > 1:
                return f"rank {rank} was simulated as one of {alike:,} that did the same"
        if changed.trains != self.scenario.trains or not same_shape(changed.graph, self.result):
            return "the step is made of other tasks"
        if changed.recorded != self.scenario.recorded:
            return "recorded times of communication say nothing of a simulated network"
        if self.scenario.spec.model_dump().get("events") is not None:
            return "its timed events changed links and devices while it ran"
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
