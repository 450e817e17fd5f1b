"""One workload on several network levels: how far their answers lie apart, what each costs, and where they part.

The last level is the *reference*, the finest by convention: errors are relative to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distsim.analysis.links import DomainUse, domains
from distsim.result import Result

#: durations that differ by less are the same to a reader
APART = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class LevelRun:
    """One level's run of the workload."""

    network: str  #: as asked for, such as ``chunk:size=1MiB``
    result: Result
    cpu_s: float  #: CPU seconds of the simulation, reading the trace excluded


@dataclass(frozen=True, slots=True)
class LevelRow:
    """What a level says, and what it costs."""

    network: str
    makespan_ps: int
    error: float  #: makespan relative to the reference's, minus 1
    collective_error: float  #: mean of |duration / reference - 1| over all collectives, weighted by the reference's durations
    cpu_s: float
    events: int  #: of the control plane and, where the level counts them, inside the network
    bytes: int  #: over all links
    domains: tuple[DomainUse, ...]


@dataclass(frozen=True, slots=True)
class Divergence:
    """All collectives of one operation and group: their time on every level, in order of the levels."""

    operation: str
    group: str
    count: int
    time_ps: tuple[int, ...]  #: from the last member's arrival to the last delivery, summed over the collectives

    @property
    def spread_ps(self) -> int:
        """Between the slowest and the fastest level."""
        return max(self.time_ps) - min(self.time_ps)


@dataclass(frozen=True, slots=True)
class Parting:
    """The first collective, by its start on the reference level, whose durations differ by more than APART."""

    operation: str
    group: str
    bytes: int
    ranks: int
    start_ps: int  #: on the reference level
    duration_ps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Findings over several levels."""

    rows: tuple[LevelRow, ...]
    divergences: tuple[Divergence, ...]  #: widest spread first
    parting: Parting | None  #: None where all collectives take the same on all levels


_Key = tuple[str, str, tuple[int, ...], int]


def compare(runs: Sequence[LevelRun]) -> Comparison:
    """Compare runs of one workload; the last one is the reference."""
    timed = [_durations(run.result) for run in runs]
    reference = timed[-1]
    common = [key for key in reference if all(key in one for one in timed)]
    rows = []
    for run, mine in zip(runs, timed, strict=True):
        whole = sum(reference[key][1] for key in common)
        off = sum(abs(mine[key][1] - reference[key][1]) for key in common)
        last = runs[-1].result.makespan
        error = run.result.makespan / last - 1 if last else 0.0
        rows.append(
            LevelRow(
                run.network, run.result.makespan, error, off / whole if whole else 0.0, run.cpu_s,
                run.result.counts["events"] + run.result.counts.get("network_events", 0),
                int(run.result.links.bytes.sum()), domains(run.result),
            )
        )  # fmt: skip
    return Comparison(tuple(rows), _divergences(timed, common), _parting(timed, common))


def _durations(result: Result) -> dict[_Key, tuple[int, int, int]]:
    """(start, duration, bytes) of every collective; the key is the same on every level.

    Collectives of one communicator come in program order on all levels, so the n-th of an operation is the same one.
    """
    seen: dict[tuple[str, str, tuple[int, ...]], int] = {}
    found = {}
    for row in sorted(result.collectives, key=lambda row: row.start_ps):
        who = (row.operation, row.label, row.members)
        number = seen[who] = seen.get(who, -1) + 1
        found[(*who, number)] = (row.start_ps, row.end_ps - row.start_ps, row.bytes)
    return found


def _divergences(timed: Sequence[dict[_Key, tuple[int, int, int]]], common: Sequence[_Key]) -> tuple[Divergence, ...]:
    groups: dict[tuple[str, str], list[_Key]] = {}
    for key in common:
        groups.setdefault(key[:2], []).append(key)
    found = [
        Divergence(operation, group, len(keys), tuple(sum(one[key][1] for key in keys) for one in timed))
        for (operation, group), keys in groups.items()
    ]
    return tuple(sorted(found, key=lambda d: (-d.spread_ps, d.operation, d.group)))


def _parting(timed: Sequence[dict[_Key, tuple[int, int, int]]], common: Sequence[_Key]) -> Parting | None:
    for key in sorted(common, key=lambda key: (timed[-1][key][0], key)):
        durations = tuple(one[key][1] for one in timed)
        if max(durations) > (1 + APART) * min(durations):
            start, _, size = timed[-1][key]
            return Parting(key[0], key[1], size, len(key[2]), start, durations)
    return None
