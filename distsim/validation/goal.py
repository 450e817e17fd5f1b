"""Suite ``goal``: LogGOPSim, to be met to the nanosecond.

Layout of the data: any number of ``NAME.goal`` and ``loggopsim_reference.json``, a list of ``{"goal": "NAME.goal", "params":
{"L", "o", "g", "G", "O", "S"}, "set": name, "makespan_ns": time, "hosts": [times] or null, "events": count}``. Every file may
be gzip.

A row is *unexecuted* where LogGOPSim left operations undone, with or without a makespan: its ``events`` are fewer than the
operations and messages of the schedule, or it says so itself (``"unexecuted": count`` above 0, or ``"makespan_ns": null``).
distsim meets such a row by refusing it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from distsim.errors import ConfigError, DeadlockError, DistsimError
from distsim.profiles.loggops.model import simulate
from distsim.profiles.loggops.params import NAME, parameters
from distsim.registry import register
from distsim.trace.files import read_bytes
from distsim.trace.goal import parse
from distsim.trace.schedule import SEND, Schedule
from distsim.units import PS_PER_NS
from distsim.validation.suite import Progress, Report, find, text

_WORST = 10
_REFERENCE = "loggopsim_reference.json"


@register("suite", "goal")
class Goal:
    """Exact equality of the makespan and, where the row has it, of every host's end."""

    summary = "LogGOPSim's makespans of GOAL schedules"

    def run(self, data: Path, progress: Progress) -> Report:
        """See Suite.run."""
        place = find(data, _REFERENCE)
        if place is None:
            raise ConfigError(f"holds no {_REFERENCE}", where=str(data), expected="the layout of reference/goal")
        rows = _rows(place)
        report = Report("goal", rows=len(rows))
        schedules: dict[str, Schedule | DistsimError] = {}
        for number, row in enumerate(rows):
            progress(number / len(rows), f"{row['goal']} {row.get('set', '')}".rstrip())
            if row["goal"] not in schedules:
                schedules[row["goal"]] = _schedule(data, row["goal"])
            _compare(report, row, schedules[row["goal"]])
        report.metrics["matched"] = report.matched
        report.metrics["matched_fraction"] = report.matched / report.rows if report.rows else 0.0
        report.worst.sort(key=lambda found: -found["error"])
        del report.worst[_WORST:]
        return report


def _rows(place: Path) -> list[dict[str, Any]]:
    """The rows of the reference file. ConfigError where it is malformed."""
    try:
        rows = json.loads(text(place))
    except ValueError as error:
        raise ConfigError(f"is not JSON ({error})", where=str(place)) from None
    for number, row in enumerate(rows if isinstance(rows, list) else [rows]):
        if not isinstance(row, dict) or not isinstance(row.get("goal"), str) or not isinstance(row.get("params"), dict):
            raise ConfigError(f"row {number} has no goal and params", where=str(place), expected="a list of objects")
        if not isinstance(row.get("makespan_ns", ""), int | float | None):
            raise ConfigError(f"row {number} has no makespan_ns", where=str(place), expected="a number, or null")
    return list(rows)


def _schedule(data: Path, name: str) -> Schedule | DistsimError:
    """A schedule, or why it cannot be read."""
    place = find(data, name)
    if place is None:
        return ConfigError("the schedule is missing", where=str(data / name))
    try:
        return parse(read_bytes(place), str(place))
    except DistsimError as error:
        return error


def _compare(report: Report, row: dict[str, Any], schedule: Schedule | DistsimError) -> None:
    """Score a row."""
    what = f"{row['goal']} {row.get('set', '')}".rstrip()
    undone = _undone(row, schedule) if isinstance(schedule, Schedule) else 0
    unexecuted = bool(row.get("unexecuted")) or row["makespan_ns"] is None or undone > 0
    name = "unexecuted in the reference, refused here" if unexecuted else f"set {row.get('set', '-')}"
    group = report.groups.setdefault(name, {"rows": 0, "matched": 0})
    group["rows"] += 1
    try:
        if not isinstance(schedule, Schedule):
            raise schedule
        params = parameters(f"{NAME}:" + ",".join(f"{key}={value}" for key, value in row["params"].items()), where=what)
        finish = simulate(schedule, params).finish
    except DistsimError as error:
        if unexecuted and isinstance(error, DeadlockError):
            _score(report, group, 0.0, what, name)
            return
        reason = f"{type(error).__name__}: {error.what[:200]}"
        report.refused[reason] = report.refused.get(reason, 0) + 1
        report.worst.append({"row": what, "group": "refused", "error": 1.0, "why": str(error)})
        return
    found = int(finish.max(initial=0))
    if unexecuted:
        _score(report, group, 1.0, what, name)
        return
    wanted = row["makespan_ns"] * PS_PER_NS
    error_of = abs(found - wanted) / max(wanted, 1)
    hosts = row.get("hosts")
    if hosts is not None:
        ends = np.array(hosts, np.float64) * PS_PER_NS
        off = float(np.max(np.abs(finish - ends) / np.maximum(ends, 1), initial=0)) if len(ends) == len(finish) else 1.0
        error_of = max(error_of, off)
    _score(report, group, error_of, what, name)


def _undone(row: dict[str, Any], schedule: Schedule) -> int:
    """Operations and messages of the schedule that the reference did not count."""
    whole = len(schedule) + int(np.count_nonzero(schedule.kind == SEND))
    return whole - int(row["events"]) if isinstance(row.get("events"), int) else 0


def _score(report: Report, group: dict[str, float], error: float, what: str, name: str) -> None:
    """Count a row that ran, or was rightly refused. ``error``: relative, 0 = exact."""
    report.expressed += 1
    report.matched += int(error == 0)
    group["matched"] += int(error == 0)
    if error:
        report.worst.append({"row": what, "group": name, "error": error})
