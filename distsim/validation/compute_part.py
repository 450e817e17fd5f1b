"""Predicted beside measured kernel times: what every part of the suite ``compute`` hands over, and how it is summed up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from distsim.validation.suite import Progress, Report

WORST = 6  #: rows of every part that are listed as furthest off
TOLERANCE = 0.2  #: a row is matched within it


@dataclass(slots=True)
class Judged:
    """What one provider says to rows of one system and dtype.

    Attributes:
        group: name of the group in the report: kernel, system, dtype, provider.
        rows: rows of that system and dtype, those that the provider cannot serve included.
        measured, model: seconds of the rows that it can.
        what: place among those -> the row in words.
        default: the first provider of the shipped chain that serves these rows; only its figures enter the metric.
    """

    group: str
    rows: int
    measured: NDArray[np.float64]
    model: NDArray[np.float64]
    what: Callable[[int], str]
    default: bool

    @property
    def errors(self) -> NDArray[np.float64]:
        """(model - measured) / measured."""
        return self.model / self.measured - 1


class Part(Protocol):
    """One kind of kernel: its metric, and the files of the data folder that it reads."""

    @property
    def metric(self) -> str: ...

    @property
    def files(self) -> tuple[str, ...]: ...

    def judge(self, path: Path, report: Report, progress: Progress) -> Iterable[Judged]:
        """Every provider on every row of a file. Counts into report.refused what nothing can express, by reason; rows and
        expressed rows are counted by :func:`enter`. Raises ConfigError where the file is no table of such rows."""
        ...


def enter(judged: Iterable[Judged], metric: str, report: Report) -> list[NDArray[np.float64]]:
    """Put a part's results into the report; returns the errors of the default providers."""
    found: list[NDArray[np.float64]] = []
    worst: list[tuple[float, dict[str, Any]]] = []
    for one in judged:
        errors = one.errors
        group: dict[str, float] = {"rows": one.rows, "expressed": len(errors)}
        if len(errors):
            size = np.abs(errors)
            group |= {"mape": float(size.mean()), "bias": float(errors.mean()), "median": float(np.median(size))}
        report.groups[one.group] = group
        if not one.default:
            continue
        report.expressed += len(errors)
        report.matched += int((np.abs(errors) <= TOLERANCE).sum())
        found.append(errors)
        for place in np.argsort(-np.abs(errors), kind="stable")[:WORST]:
            worst.append((float(abs(errors[place])), _line(one, int(place))))
    worst.sort(key=lambda item: -item[0])
    report.worst += [line for _, line in worst[:WORST]]
    return found


def _line(one: Judged, place: int) -> dict[str, Any]:
    return {
        "row": one.what(place), "group": one.group, "error": float(abs(one.errors[place])),
        "measured_us": float(one.measured[place] * 1e6), "model_us": float(one.model[place] * 1e6),
    }  # fmt: skip


def refuse(report: Report, reason: str, rows: int) -> None:
    """Count rows that nothing can express."""
    if rows:
        report.refused[reason] = report.refused.get(reason, 0) + rows
