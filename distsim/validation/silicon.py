"""Suite ``silicon``: measured serving points against simulated ones, from shipped providers that were not fitted to them.

Layout of the data: ``silicon_e2e_measured.csv[.gz]``, else every other ``*.csv[.gz]`` of the folder, with the columns
``silicon_rows.COLUMNS`` (those of workers where the mode is disagg). All figures are shares: 0.12 is 12 %.

``tpot_mape`` and ``ttft_mape`` judge dense models, aggregated; where there are none, all that is expressed. The others are told
as ``..._moe`` (aggregated) and ``..._disagg``. ``..._noise``: mean distance of aggregated configurations measured repeatedly
from their median, which no model can be below. A row is matched where its time per output token is within 20 %.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distsim.errors import ConfigError, DistsimError
from distsim.registry import register
from distsim.validation.silicon_rows import COLUMNS, Case, Row, case_of, dense
from distsim.validation.silicon_run import Point, predict
from distsim.validation.suite import Progress, Report, find, text

_FILE = "silicon_e2e_measured.csv"
_TOLERANCE = 0.2
_WORST = 12
#: columns that do not tell configurations apart
_APART = ("id", "backend_version", "silicon_ttft_ms", "silicon_tpot_ms")


@dataclass(frozen=True, slots=True)
class _Compared:
    """A row, what was measured and what was simulated, ms."""

    row: Row
    dense: bool
    measured: Point
    simulated: Point

    @property
    def tpot(self) -> float:
        return self.simulated.tpot / self.measured.tpot - 1

    @property
    def ttft(self) -> float:
        return self.simulated.ttft / self.measured.ttft - 1

    @property
    def kind(self) -> str:
        """Suffix of the metrics."""
        return "_disagg" if self.row["mode"] == "disagg" else "" if self.dense else "_moe"

    @property
    def group(self) -> str:
        row = self.row
        return f"{row['model_path'].rsplit('/', 1)[-1]}, {row['system']}, {row['backend']} {row['mode']}"


@register("suite", "silicon")
class Silicon:
    """Mean absolute relative errors of time per output token and time to first token."""

    summary = "measured serving points: time per output token and to the first"

    def run(self, data: Path, progress: Progress) -> Report:
        """See Suite.run."""
        report = Report("silicon")
        rows = _rows(data)
        report.rows = len(rows)
        compared: list[_Compared] = []
        known: dict[Case, Point | DistsimError] = {}
        for place, row in enumerate(rows):
            progress(place / len(rows), row["id"])
            try:
                found = _compare(row, known)
            except DistsimError as error:
                reason = _reason(error)
                report.refused[reason] = report.refused.get(reason, 0) + 1
                continue
            compared.append(found)
        report.expressed = len(compared)
        report.matched = sum(abs(one.tpot) <= _TOLERANCE for one in compared)
        _metrics(report, compared)
        _groups(report, compared)
        for name, value in _noise(rows).items():
            report.metrics[name] = value
        for one in sorted(compared, key=lambda one: -abs(one.tpot))[:_WORST]:
            report.worst.append({
                "row": one.row["id"], "error": one.tpot, "tpot_ms": one.measured.tpot, "simulated_tpot_ms": one.simulated.tpot,
                "ttft_ms": one.measured.ttft, "simulated_ttft_ms": one.simulated.ttft,
            })  # fmt: skip
        return report


def _rows(data: Path) -> list[Row]:
    """All rows. Raises ConfigError where there are no such files, or one lacks a column."""
    own = find(data, _FILE)
    files = [own] if own else sorted(path for path in data.iterdir() if path.name.endswith((".csv", ".csv.gz")))
    if not files:
        raise ConfigError(f"holds no {_FILE}[.gz] and no other *.csv[.gz]", where=str(data), expected="measured serving points")
    rows: list[Row] = []
    for path in files:
        reader = csv.DictReader(io.StringIO(text(path)))
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ConfigError(f"has no column {missing[0]}", where=str(path), expected=", ".join(COLUMNS))
        rows += ({key: value or "" for key, value in row.items() if key is not None} for row in reader)
    return rows


def _compare(row: Row, known: dict[Case, Point | DistsimError]) -> _Compared:
    """Simulates each configuration once. Raises DistsimError where the row cannot be expressed."""
    measured = Point(_positive(row, "silicon_ttft_ms"), _positive(row, "silicon_tpot_ms"))
    case = case_of(row)
    if case not in known:
        try:
            known[case] = predict(case)
        except DistsimError as error:
            known[case] = error
    found = known[case]
    if isinstance(found, DistsimError):
        raise found
    return _Compared(row, dense(row), measured, found)


def _positive(row: Row, column: str) -> float:
    try:
        found = float(row[column])
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise ConfigError(f"{column} is no time")
    return found


def _reason(error: DistsimError) -> str:
    """What is wrong, without the figures of the row."""
    if type(error).__name__ == "OutOfMemoryError":
        return "the model does not fit the memory"
    return error.what


def _measures(found: Iterable[_Compared]) -> dict[str, float]:
    listed = list(found)
    if not listed:
        return {}
    tpot, ttft = np.array([one.tpot for one in listed]), np.array([one.ttft for one in listed])
    return {
        "tpot_mape": float(np.abs(tpot).mean()), "ttft_mape": float(np.abs(ttft).mean()),
        "tpot_bias": float(tpot.mean()), "ttft_bias": float(ttft.mean()),
    }  # fmt: skip


def _metrics(report: Report, compared: list[_Compared]) -> None:
    judged = [one for one in compared if not one.kind] or compared
    report.metrics.update(_measures(judged))
    for kind in ("_moe", "_disagg"):
        for name, value in _measures(one for one in compared if one.kind == kind).items():
            report.metrics[f"{name}{kind}"] = value


def _groups(report: Report, compared: list[_Compared]) -> None:
    by: dict[str, list[_Compared]] = defaultdict(list)
    for one in compared:
        by[one.group].append(one)
    for name in sorted(by):
        report.groups[name] = {"rows": len(by[name]), **_measures(by[name])}


def _noise(rows: list[Row]) -> dict[str, float]:
    """Scatter of repeated measurements, of versions of the software among them. Disaggregated rows are left out: most do not
    tell their load."""
    by: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row["mode"] == "agg":
            by[tuple(value for key, value in row.items() if key not in _APART)].append(row)
    found = {}
    for name in ("tpot", "ttft"):
        distances: list[float] = []
        for group in by.values():
            try:
                values = [_positive(row, f"silicon_{name}_ms") for row in group]
            except ConfigError:
                continue
            if len(values) > 1:
                distances += (np.abs(np.array(values) / np.median(values) - 1)).tolist()
        if distances:
            found[f"{name}_noise"] = float(np.mean(distances))
    return found
