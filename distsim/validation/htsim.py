"""Suite ``htsim``: csg-htsim's packets against the level ``fluid`` with packets counted, under the same load balancing.

Layout of the data: ``htsim_summary.csv`` (scenario, proto, mean_s, p50_s, max_s ...) and the scenarios, any ``*.json`` of
schema netref/1 that it names; every file may be gzip. Protocols that spray packets over all paths are judged by the mean of
their flows' finish; single-path ones (hashed once per flow) come out as a distribution over hash seeds, and are reported.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distsim.errors import ConfigError, DistsimError
from distsim.network.flow_times import FlowTimes, flow_times
from distsim.registry import register
from distsim.trace.netref import FlowScenario, read_netref
from distsim.validation.suite import Progress, Report, find, text

MTU = 4096  #: bytes of a packet's payload in the reference runs
SEEDS = 16  #: hashes tried for a distribution
LARGE = 1 << 20  #: bytes: flows below are dominated by start-up, and are reported only
#: relative error of the mean up to which a sprayed row counts as met, by traffic (the bars of the project)
TOLERANCE = {"incast": 0.05, "all_to_all": 0.05, "permutation": 0.10}
_REFERENCE = "htsim_summary.csv"
_NETWORK = f"fluid:mtu={MTU}"
_SPRAYED = ("spray", "rr", "roundrobin")
_WORST = 10


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the summary."""

    scenario: str
    proto: str
    mean: float  #: seconds

    @property
    def sprayed(self) -> bool:
        return self.proto.rpartition("_")[2] in _SPRAYED


@register("suite", "htsim")
class Htsim:
    """Mean finish of sprayed large flows: incast and all-to-all within 5 %, permutations within 10 %."""

    summary = "csg-htsim's packet-level completion times, by load balancing"

    def run(self, data: Path, progress: Progress) -> Report:
        """See Suite.run."""
        place = find(data, _REFERENCE)
        if place is None:
            raise ConfigError(f"holds no {_REFERENCE}", where=str(data), expected="the layout of reference/network")
        rows = read_summary(place)
        report = Report("htsim", rows=len(rows))
        scenarios = _scenarios(data, {row.scenario for row in rows}, report)
        sprayed: dict[str, float] = {}
        hashed: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
        errors: dict[str, list[float]] = {}
        judged = 0
        for number, row in enumerate(rows):
            progress(number / len(rows), f"{row.scenario} {row.proto}")
            scenario = scenarios.get(row.scenario)
            if scenario is None:
                continue
            report.expressed += 1
            if not row.sprayed:
                if row.scenario not in hashed:
                    means = [mean_finish(scenario, f"ecmp:seed={seed}") for seed in range(SEEDS)]
                    hashed[row.scenario] = np.array(means)
                _distribution(report, row, hashed[row.scenario])
                continue
            if row.scenario not in sprayed:
                sprayed[row.scenario] = mean_finish(scenario, "spray:paths=64")
            error = sprayed[row.scenario] / row.mean - 1
            kind = traffic(scenario)
            report.groups[f"{row.scenario} {row.proto}"] = {
                "rows": 1, "mean_s": sprayed[row.scenario], "htsim_mean_s": row.mean, "error": error,
            }  # fmt: skip
            errors.setdefault(kind, []).append(abs(error))
            if kind in TOLERANCE:
                judged += 1
                report.matched += abs(error) <= TOLERANCE[kind]
                report.worst.append({"row": f"{row.scenario} {row.proto}", "group": kind, "error": abs(error)})
        for kind, values in errors.items():
            report.metrics[f"worst_{kind}"] = max(values)
        report.metrics["judged"] = judged
        report.metrics["matched_fraction"] = report.matched / judged if judged else 0.0
        report.worst.sort(key=lambda one: -one["error"])
        del report.worst[_WORST:]
        return report


def traffic(scenario: FlowScenario) -> str:
    """What a scenario is: incast, all_to_all or permutation of large flows, else ``small`` or ``other``."""
    pairs = set(zip(scenario.src.tolist(), scenario.dst.tolist(), strict=True))
    sources, targets = set(scenario.src.tolist()), set(scenario.dst.tolist())
    if len(scenario.dep) or len(pairs) != len(scenario) or np.ptp(scenario.bytes) > 0:
        return "other"
    if scenario.bytes[0] < LARGE:
        return "small"
    if len(targets) == 1:
        return "incast"
    if sources == targets and len(pairs) == len(sources) * (len(sources) - 1):
        return "all_to_all"
    return "permutation" if len(sources) == len(targets) == len(pairs) else "other"


def mean_finish(scenario: FlowScenario, routing: str, network: str = _NETWORK) -> float:
    """Mean over flows of when their sender knows that they are through: htsim's finish, one way of latency after the last
    byte has come."""
    times: FlowTimes = flow_times(scenario, network, routing)
    row = np.repeat(np.arange(len(scenario)), np.diff(scenario.route_ptr))
    back = np.bincount(row, weights=scenario.latency[scenario.route], minlength=len(scenario))
    return float((times.finish + back).mean())


def _distribution(report: Report, row: _Row, means: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    """Where one hashed run of htsim lies among ours."""
    report.groups[f"{row.scenario} {row.proto}"] = {
        "rows": 1, "htsim_mean_s": row.mean, "seeds": float(len(means)), "mean_s": float(means.mean()),
        "least_s": float(means.min()), "most_s": float(means.max()), "below": float((means < row.mean).mean()),
    }  # fmt: skip


def read_summary(place: Path) -> list[_Row]:
    """The lines. Raises ConfigError on one without scenario, protocol or mean."""
    found = []
    for line, row in enumerate(csv.DictReader(io.StringIO(text(place))), start=2):
        try:
            found.append(_Row(row["scenario"], row["proto"], float(row["mean_s"])))
            if not found[-1].mean > 0:
                raise ValueError(f"mean_s is {row['mean_s']}")
        except (KeyError, ValueError, TypeError) as error:
            expected = "scenario,proto,mean_s ..."
            raise ConfigError(f"malformed row: {error}", where=f"{place}:{line}", expected=expected) from None
    return found


def _scenarios(data: Path, wanted: set[str], report: Report) -> dict[str, FlowScenario]:
    """The scenarios that the summary names; those that are not there, or do not read, are counted as refused."""
    found: dict[str, FlowScenario] = {}
    for path in sorted({*data.glob("*.json"), *data.glob("*.json.gz")}):
        try:
            scenario = read_netref(path)
        except DistsimError as error:
            if path.name.partition(".")[0] in wanted:
                report.refused[f"{path.name}: {error.what}"] = 1
            continue
        if scenario.name in wanted:
            found[scenario.name] = scenario
    for name in sorted(wanted - found.keys()):
        report.refused[f"{name} has rows in the summary, but no scenario"] = 1
    return found
