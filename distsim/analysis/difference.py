"""Two runs side by side: where the difference of their step times comes from.

A step is split into parts that add up to it, on the mean of its ranks: computation, exposed communication and waiting by
operation and group, memory, host, and what is idle besides (:mod:`distsim.analysis.breakdown`). So the differences of the parts
add up to the difference of the steps, whatever the two runs are: other networks, other plans, other numbers of ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from distsim.analysis.breakdown import Breakdown
from distsim.analysis.communication import Traffic
from distsim.analysis.links import domains
from distsim.analysis.summary import Summary
from distsim.result import Result


@dataclass(frozen=True, slots=True)
class Part:
    """A part of both steps, ps on the mean of ranks. kind: compute, exposed, waiting, memory, host or idle."""

    kind: str
    operation: str  #: of exposed communication and waiting
    group: str  #: as above; empty: all ranks
    first: float
    second: float

    @property
    def more(self) -> float:
        """What the second takes longer, ps."""
        return self.second - self.first


@dataclass(frozen=True, slots=True)
class Pair:
    """Communication of one operation and group in both runs; None where a run has none."""

    operation: str
    group: str
    first: Traffic | None
    second: Traffic | None


@dataclass(frozen=True, slots=True)
class Compute:
    """Computation of one name in both runs: ps on the mean of ranks, and tasks per rank."""

    name: str
    first: float
    second: float
    first_count: float
    second_count: float


@dataclass(frozen=True, slots=True)
class LinkPair:
    """A link of the same name in both topologies, or a domain (the mean of its links). Utilisations 0 to 1, None: not there."""

    name: str
    domain: str
    first: float | None
    second: float | None
    first_bytes: int
    second_bytes: int

    @property
    def apart(self) -> float:
        """What the second is busier, as a share of its step."""
        return (self.second or 0.0) - (self.first or 0.0)


@dataclass(frozen=True, slots=True)
class Difference:
    """Findings over two runs."""

    first_ps: int
    second_ps: int
    parts: tuple[Part, ...]  #: the largest difference first; they add up to both steps
    traffic: tuple[Pair, ...]  #: as they differ in exposed time
    compute: tuple[Compute, ...]  #: names whose time differs, the most first
    domains: tuple[LinkPair, ...]
    links: tuple[LinkPair, ...]  #: of links with the same name, those whose bytes differ most, then whose use does
    settings: tuple[tuple[str, Any, Any], ...]  #: fields of the specification that differ: name, first, second; None: absent


def difference(first: tuple[Result, Summary], second: tuple[Result, Summary], most: int = 20) -> Difference:
    """Compare two runs. most: rows of links and of names of computation."""
    runs = (first[0], second[0])
    return Difference(
        runs[0].makespan, runs[1].makespan, _parts(first, second), _traffic(first[1], second[1]), _compute(*runs)[:most],
        _domains(*runs), _links(*runs)[:most], settings(runs[0].spec, runs[1].spec),
    )  # fmt: skip


_Key = tuple[str, str, str]


def _parts(first: tuple[Result, Summary], second: tuple[Result, Summary]) -> tuple[Part, ...]:
    found = [_split(result, summary.breakdown) for result, summary in (first, second)]
    keys = sorted({key for one in found for key, time in one.items() if time})
    parts = [Part(*key, found[0].get(key, 0.0), found[1].get(key, 0.0)) for key in keys]
    return tuple(sorted(parts, key=lambda part: (-abs(part.more), -part.second, part.kind, part.operation, part.group)))


def _split(result: Result, split: Breakdown) -> dict[_Key, float]:
    """Parts of a step by (kind, operation, group), ps on the mean of ranks."""
    ranks = max(result.ranks, 1)
    found: dict[_Key, float] = {
        (part, "", ""): int(getattr(split, part).sum()) / ranks for part in ("compute", "memory", "host")
    }
    found["idle", "", ""] = int((split.idle - split.waiting).sum()) / ranks
    spans, shares = result.spans(), split.shares
    for kind, group in sorted(set(zip(shares.kind.tolist(), shares.group.tolist(), strict=True))):
        mine = (shares.kind == kind) & (shares.group == group)
        name = spans.kinds[kind], spans.groups[group] if group >= 0 else ""
        found["exposed", *name] = int(shares.exposed[mine].sum()) / ranks
        found["waiting", *name] = int(shares.waiting[mine].sum()) / ranks
    return found


def _traffic(first: Summary, second: Summary) -> tuple[Pair, ...]:
    rows = [{(row.operation, row.group): row for row in one.traffic} for one in (first, second)]

    def apart(pair: Pair) -> float:
        return (pair.second.exposed_ps if pair.second else 0.0) - (pair.first.exposed_ps if pair.first else 0.0)

    keys = sorted({*rows[0], *rows[1]})
    pairs = [Pair(*key, rows[0].get(key), rows[1].get(key)) for key in keys]
    return tuple(sorted(pairs, key=lambda pair: -abs(apart(pair))))


def _compute(first: Result, second: Result) -> tuple[Compute, ...]:
    rows = [_by_name(one) for one in (first, second)]
    none = (0.0, 0.0)
    found = []
    for name in sorted({*rows[0], *rows[1]}):
        (time, count), (other, others) = rows[0].get(name, none), rows[1].get(name, none)
        if abs(other - time) >= 0.5:  # less than a picosecond is rounding
            found.append(Compute(name, time, other, count, others))
    return tuple(sorted(found, key=lambda row: -abs(row.second - row.first)))


def _by_name(result: Result) -> dict[str, tuple[float, float]]:
    """Computation by name: (ps, tasks) on the mean of ranks."""
    spans = result.spans()
    if "compute" not in spans.kinds:
        return {}
    rows = np.flatnonzero(spans.kind == spans.kinds.index("compute"))
    weight = result.stand_for[spans.rank[rows]]
    name = spans.name[rows] + 1
    size = len(spans.names) + 1
    time = np.bincount(name, (spans.end[rows] - spans.start[rows]) * weight, size) / max(result.ranks, 1)
    count = np.bincount(name, weight, size) / max(result.ranks, 1)
    names = ("", *spans.names)
    found: dict[str, tuple[float, float]] = {}
    for at in np.flatnonzero(count).tolist():
        before = found.get(names[at], (0.0, 0.0))
        found[names[at]] = before[0] + float(time[at]), before[1] + float(count[at])
    return found


def _domains(first: Result, second: Result) -> tuple[LinkPair, ...]:
    rows = [{row.domain: row for row in domains(one)} for one in (first, second)]
    names = list(dict.fromkeys([*rows[0], *rows[1]]))
    return tuple(
        LinkPair(
            name, name, rows[0][name].mean if name in rows[0] else None, rows[1][name].mean if name in rows[1] else None,
            rows[0][name].bytes if name in rows[0] else 0, rows[1][name].bytes if name in rows[1] else 0,
        )
        for name in names
    )  # fmt: skip


def _links(first: Result, second: Result) -> tuple[LinkPair, ...]:
    """Links with a name in both topologies whose use differs."""
    use = [_use(one) for one in (first, second)]
    found = [
        LinkPair(name, use[0][name][0], use[0][name][1], use[1][name][1], use[0][name][2], use[1][name][2])
        for name in use[0]
        if name in use[1] and use[0][name][1:] != use[1][name][1:]
    ]
    return tuple(sorted(found, key=lambda pair: (-abs(pair.second_bytes - pair.first_bytes), -abs(pair.apart), pair.name)))


def _use(result: Result) -> dict[str, tuple[str, float, int]]:
    """Links that carried something, by name: domain, utilisation, bytes; of parallel links the busiest."""
    topology, links = result.topology, result.links
    found: dict[str, tuple[str, float, int]] = {}
    for link in np.flatnonzero(links.bytes | links.busy).tolist():
        name = topology.link_name(link)
        share = int(links.busy[link]) / result.makespan if result.makespan else 0.0
        row = topology.domains[topology.link_domain[link]], share, int(links.bytes[link])
        found[name] = max(found.get(name, row), row, key=lambda one: one[1:])
    return found


def settings(first: Any, second: Any, before: str = "") -> tuple[tuple[str, Any, Any], ...]:
    """Fields in which two specifications differ, with dots where they nest; None where one has no such field.

    >>> settings({"tp": 2, "plan": {"pp": 1}}, {"tp": 2, "plan": {"pp": 4}})
    (('plan.pp', 1, 4),)
    """
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        names = [(name, first.get(name), second.get(name)) for name in dict.fromkeys([*first, *second])]
    elif isinstance(first, list | tuple) and isinstance(second, list | tuple) and len(first) == len(second) and first != second:
        names = [(number, *pair) for number, pair in enumerate(zip(first, second, strict=True))]
    else:
        return () if first == second else ((before, first, second),)
    return tuple(row for name, one, other in names for row in settings(one, other, f"{before}.{name}" if before else str(name)))
