"""Suite ``simgrid``: SimGrid's flow model, to be met flow by flow.

Layout of the data: ``simgrid_reference.csv`` (scenario, flow, activate_s, finish_s, finish_rttweighted_s) and the scenarios,
any ``*.json`` of schema netref/1 whose name has rows there. Every file may be gzip.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from distsim.errors import ConfigError, DistsimError
from distsim.network.flow_times import flow_times
from distsim.registry import register
from distsim.trace.netref import FlowScenario, read_netref
from distsim.validation.suite import Progress, Report, find, text

#: relative error of finish_s up to which a flow counts as met: what two independent solvers differ by (1.5e-9) and a little
TOLERANCE = 2e-9
_REFERENCE = "simgrid_reference.csv"
_WORST = 10
_Rows = dict[str, dict[int, dict[str, str]]]


@register("suite", "simgrid")
class SimGrid:
    """Finish of every flow within a relative 2e-9 under max-min sharing (``finish_s``). SimGrid's default, shares weighted by
    1/latency, is reported beside it (``finish_rttweighted_s``)."""

    summary = "SimGrid's flow completion times, max-min"

    def run(self, data: Path, progress: Progress) -> Report:
        """See Suite.run."""
        place = find(data, _REFERENCE)
        if place is None:
            raise ConfigError(f"holds no {_REFERENCE}", where=str(data), expected="the layout of reference/network")
        rows = read_reference(place)
        report = Report("simgrid", rows=sum(map(len, rows.values())))
        worst = {"": 0.0, "rttweighted_": 0.0}
        weighted = [0, 0]  # matched, judged
        seen = set()
        paths = sorted({*data.glob("*.json"), *data.glob("*.json.gz")})
        for number, path in enumerate(paths):
            progress(number / len(paths), path.name)
            try:
                scenario = read_netref(path)
            except DistsimError as error:
                stem = path.name.removesuffix(".gz").removesuffix(".json")
                if stem in rows:
                    seen.add(stem)
                    _refuse(report, path.name, error)
                continue
            if scenario.name not in rows or scenario.name in seen:
                continue
            seen.add(scenario.name)
            expected = rows[scenario.name]
            try:
                errors = _errors(scenario, "fluid", expected, "finish_s", place)
                beside = _errors(scenario, "fluid:rtt_weighted=true", expected, "finish_rttweighted_s", place)
            except DistsimError as error:
                _refuse(report, scenario.name, error)
                continue
            matched = sum(error <= TOLERANCE for error in errors.values())
            report.expressed += len(errors)
            report.matched += matched
            most = max(errors.values(), default=0.0)
            worst[""] = max(worst[""], most)
            worst["rttweighted_"] = max(worst["rttweighted_"], max(beside.values(), default=0.0))
            weighted[0] += sum(error <= TOLERANCE for error in beside.values())
            weighted[1] += len(beside)
            report.groups[scenario.name] = {"rows": len(errors), "matched": matched, "worst_relative": most}
            if beside:
                report.groups[scenario.name]["rttweighted_worst_relative"] = max(beside.values())
            report.worst += [
                {"row": f"{scenario.name} flow {flow}", "group": scenario.name, "error": error}
                for flow, error in errors.items() if error > TOLERANCE
            ]  # fmt: skip
        for name in sorted(rows.keys() - seen):
            _refuse(report, name, ConfigError("has rows in the reference, but no scenario"))
        report.metrics["matched"] = report.matched
        report.metrics["matched_fraction"] = report.matched / report.rows if report.rows else 0.0
        report.metrics["worst_relative"] = worst[""]
        report.metrics["rttweighted_matched_fraction"] = weighted[0] / weighted[1] if weighted[1] else 0.0
        report.metrics["rttweighted_worst_relative"] = worst["rttweighted_"]
        report.worst.sort(key=lambda row: -row["error"])
        del report.worst[_WORST:]
        return report


def read_reference(place: Path) -> _Rows:
    """Scenario -> flow -> row. Raises ConfigError on a row that has no flow or no finish."""
    found: _Rows = {}
    for line, row in enumerate(csv.DictReader(io.StringIO(text(place))), start=2):
        try:
            if not math.isfinite(float(row["finish_s"])):
                raise ValueError(f"finish_s is {row['finish_s']}")
            found.setdefault(row["scenario"], {})[int(row["flow"])] = row
        except (KeyError, ValueError, TypeError) as error:
            raise ConfigError(
                f"malformed row: {error}", where=f"{place}:{line}", expected="scenario,flow,finish_s ..."
            ) from None
    return found


def _errors(
    scenario: FlowScenario, network: str, expected: dict[int, dict[str, str]], column: str, place: Path
) -> dict[int, float]:
    """Relative error of every flow that has a figure in ``column``. Raises ConfigError where one is not in the scenario."""
    wanted = {}
    for flow, row in expected.items():
        if row.get(column):
            try:
                wanted[flow] = float(row[column])
            except ValueError:
                raise ConfigError(f"{column} of flow {flow} is {row[column]!r}", where=f"{place}, {scenario.name}") from None
    if not wanted:
        return {}
    finish = dict(zip(scenario.flow_id.tolist(), flow_times(scenario, network).finish.tolist(), strict=True))
    missing = wanted.keys() - finish.keys()
    if missing:
        raise ConfigError(f"has no flow {min(missing)}, which the reference has", where=scenario.name)
    return {flow: abs(finish[flow] - time) / abs(time) if time else abs(finish[flow]) for flow, time in wanted.items()}


def _refuse(report: Report, what: str, error: DistsimError) -> None:
    """Count a scenario that did not run."""
    reason = f"{type(error).__name__}: {error.what}"
    report.refused[reason] = report.refused.get(reason, 0) + 1
    report.worst.append({"row": what, "group": "refused", "error": 1.0, "why": str(error)})
