"""Suite ``kineto``: replays of captured traces against what was measured in the captures.

Layout of the data: folders of ``kineto_rank<N>.json[.gz]``, each the ranks of one run, and
``reference_measurements.json[.gz]``, an object ``{"<folder>/<file>": {"steps": [{"step", "gpu_span_us", "compute_us",
"comm_us", "overlap_us"}, ...]}}``. A file without an entry is compared with its own measurement, by the same definitions, and
its trace is told apart (``own measurement``). ``hta_ref/<folder>_get_temporal_breakdown.csv``, HolisticTraceAnalysis' answer
per rank over the whole file, is compared where the capture has one step (HTA drops the last of several).

Definitions, per rank and step, of the kernels launched in the step (:class:`StepTimes`): step time is the first kernel's
start to the last kernel's end; communication the union of the kernels with "nccl" in their name, compute that of the other
kernels; copies and sets are neither. Replays take recorded transfers and simulate the waiting of all ranks.

A row is a step of a rank. It is matched where its step time is within 3 %, its exposed communication within 5 % of the step,
and its compute and overlap within 1 % or 5 us. ``exposed_error`` is a share of the step; ``compute_error`` and
``overlap_error`` are shares of what was measured, or of 500 us if that is more, so that 1 % is the bar for both; the three
are the worst of all rows. ``simulated_step_time_mape`` replaces the network by a simulated one of the default topology where
that can be; it is not judged.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.intervals import Union
from distsim.api import simulate
from distsim.errors import ConfigError, DistsimError
from distsim.registry import register
from distsim.result import Result
from distsim.trace.graph import TaskGraph
from distsim.trace.kineto.capture import Capture, GpuKind
from distsim.trace.kineto.reading import read_capture
from distsim.trace.read import read_trace
from distsim.validation.suite import Progress, Report, find, text

Ints = NDArray[np.int64]
_REFERENCE = "reference_measurements.json"
_NAME = re.compile(r"kineto_rank(\d+)\.json(\.gz)?$")
_PS_PER_US = 1e6
_STEP_BAR, _EXPOSED_BAR, _SHARE_BAR = 0.03, 0.05, 0.01
#: 5 us are 1 % of it
_FLOOR_US = 500.0
#: nodes of a run beyond which the network is not simulated besides
_SIMULATED_NODES = 300_000
_WORST = 10


@dataclass(frozen=True, slots=True)
class StepTimes:
    """What one rank did in one step, us."""

    step: float
    compute: float
    communication: float
    overlap: float

    @property
    def exposed(self) -> float:
        """Communication beside which nothing was computed."""
        return self.communication - self.overlap


def times_of(start: Ints, end: Ints, communicates: NDArray[np.bool_], computes: NDArray[np.bool_]) -> StepTimes:
    """Of the rows on the GPU of one rank and step, ps; a row that does neither is a copy or a set."""

    def covered(rows: NDArray[np.bool_]) -> int:
        return int(Union.of(start[rows], end[rows]).before[-1])

    communication, compute, both = covered(communicates), covered(computes), covered(communicates | computes)
    return StepTimes(*(float(ps) / _PS_PER_US for ps in (
        int(end.max(initial=0)) - int(start.min(initial=np.iinfo(np.int64).max)) if len(start) else 0,
        compute, communication, communication + compute - both,
    )))  # fmt: skip


def measured(capture: Capture) -> dict[str, StepTimes]:
    """By step, as the capture itself has it."""
    table = capture.kernels
    named = np.array(["nccl" in name.lower() for name in capture.names] or [False], np.bool_)[table.name]
    kernel = np.isin(table.kind, (GpuKind.COMPUTE, GpuKind.COMMUNICATION))
    found = {}
    for number, step in enumerate(capture.steps):
        mine = table.step == number
        if mine.any():
            found[step.name] = times_of(table.start_ps[mine], table.end_ps[mine], named[mine], (kernel & ~named)[mine])
    return found


def replayed(result: Result, rank: int) -> dict[str, StepTimes]:
    """By step, of one rank of a replay."""
    spans = result.spans()
    if spans.step is None:
        return {}
    beside = [place for place, kind in enumerate(spans.kinds) if kind in ("host", "none", "delay")]
    copies = [place for place, kind in enumerate(spans.kinds) if kind == "memory"]
    rows = np.flatnonzero((spans.rank == rank) & ~np.isin(spans.kind, beside) & (spans.step >= 0))
    named = np.array(["nccl" in name.lower() for name in spans.names] or [False], np.bool_)[spans.name[rows]]
    kernel = ~np.isin(spans.kind[rows], copies)
    found = {}
    for number, name in enumerate(spans.steps):
        mine = spans.step[rows] == number
        if mine.any():
            at = rows[mine]
            found[name] = times_of(spans.start[at], spans.end[at], named[mine], (kernel & ~named)[mine])
    return found


@dataclass(frozen=True, slots=True)
class _Row:
    """A step of a rank: measured and replayed."""

    name: str
    wanted: StepTimes
    got: StepTimes

    @property
    def step(self) -> float:
        return abs(self.got.step - self.wanted.step) / max(self.wanted.step, 1e-9)

    @property
    def exposed(self) -> float:
        return abs(self.got.exposed - self.wanted.exposed) / max(self.wanted.step, 1e-9)

    @property
    def overlap(self) -> float:
        return abs(self.got.overlap - self.wanted.overlap) / max(self.wanted.overlap, _FLOOR_US)

    @property
    def compute(self) -> float:
        return abs(self.got.compute - self.wanted.compute) / max(self.wanted.compute, _FLOOR_US)

    @property
    def met(self) -> bool:
        return (self.step <= _STEP_BAR and self.exposed <= _EXPOSED_BAR and self.overlap <= _SHARE_BAR
                and self.compute <= _SHARE_BAR)  # fmt: skip


@register("suite", "kineto")
class Kineto:
    """Step time, compute, exposed communication and overlap of replays."""

    summary = "captured traces, replayed: step time, exposed communication, overlap"

    def run(self, data: Path, progress: Progress) -> Report:
        """See Suite.run."""
        folders = [folder for folder in (data, *sorted(data.iterdir())) if folder.is_dir() and _files(folder)]
        if not folders:
            raise ConfigError(
                "holds no folder with kineto_rank<N>.json[.gz]", where=str(data), expected="the layout of reference/traces"
            )
        reference = _reference(data)
        report = Report("kineto")
        judged: list[_Row] = []
        within = 0
        simulated: list[float] = []
        for place, folder in enumerate(folders):
            progress(place / len(folders), folder.name)
            try:
                rows, group = _trace(report, folder, data, reference, simulated)
            except DistsimError as error:
                reason = f"{folder.name}: {error.what[:200]}"
                report.refused[reason] = report.refused.get(reason, 0) + 1
                report.worst.append({"row": folder.name, "error": 1.0, "why": str(error)})
                continue
            judged += rows
            within += all(row.met for row in rows)
            report.groups[group] |= _figures(rows)
        report.expressed, report.matched = len(judged), sum(row.met for row in judged)
        report.rows = report.expressed + len(report.refused)
        report.metrics |= _figures(judged) | {"traces_within_bars": within / len(folders)}
        report.metrics.pop("rows")
        if simulated:
            report.metrics["simulated_step_time_mape"] = float(np.mean(simulated))
        for row in sorted((row for row in judged if not row.met), key=lambda row: -max(row.step, row.exposed))[:_WORST]:
            report.worst.append({
                "row": row.name, "error": max(row.step, row.exposed, row.overlap, row.compute), "step_us": row.wanted.step,
                "replayed_step_us": row.got.step, "exposed_us": row.wanted.exposed, "replayed_exposed_us": row.got.exposed,
                "overlap_us": row.wanted.overlap, "replayed_overlap_us": row.got.overlap, "compute_us": row.wanted.compute,
                "replayed_compute_us": row.got.compute,
            })  # fmt: skip
        return report


def _files(folder: Path) -> dict[int, Path]:
    """Rank -> file."""
    found = ((path, _NAME.match(path.name)) for path in folder.iterdir() if path.is_file())
    return {int(name[1]): path for path, name in sorted(found) if name}


def _reference(data: Path) -> Mapping[str, Any]:
    """Measurements by file, if there are any. ConfigError where they are malformed."""
    place = find(data, _REFERENCE)
    if place is None:
        return {}
    try:
        document = json.loads(text(place))
    except ValueError as error:
        raise ConfigError(f"is not JSON ({error})", where=str(place)) from None
    if not isinstance(document, dict):
        raise ConfigError("is no object of files", where=str(place), expected='{"<folder>/<file>": {"steps": [...]}}')
    return document


def _trace(
    report: Report, folder: Path, data: Path, reference: Mapping[str, Any], simulated: list[float]
) -> tuple[list[_Row], str]:
    """Replay one run, and compare every rank and step. Raises DistsimError."""
    files = _files(folder)
    graph = read_trace(tuple(str(path) for path in files.values()))
    numbers = json.loads(graph.metadata.get("kineto.ranks", json.dumps(list(range(graph.ranks)))))
    wanted: dict[int, dict[str, StepTimes]] = {}
    own = False
    for place, number in enumerate(numbers):
        path = files[number] if number in files else list(files.values())[place]
        key = f"{path.parent.relative_to(data).as_posix()}/{path.name}".removeprefix("./")
        if key in reference:
            wanted[place] = _told(reference[key], key)
        else:
            wanted[place] = measured(read_capture(str(path)))
            own = True
    result = simulate(graph, communication="recorded")
    rows = [
        _Row(f"{folder.name} rank {numbers[place]} {step}", one, found)
        for place, steps in wanted.items()
        for found_all in (replayed(result, place),)
        for step, one in steps.items()
        for found in (found_all.get(step, StepTimes(0, 0, 0, 0)),)
    ]
    if not rows:
        raise ConfigError("no kernel was launched in any step", where=str(folder))
    name = f"{folder.name} (own measurement)" if own else folder.name
    report.groups[name] = {}
    _hta(report, name, data, folder, result, numbers)
    _other_network(report, name, graph, wanted, simulated)
    return rows, name


def _told(entry: Any, key: str) -> dict[str, StepTimes]:
    """Steps of an entry of the reference. ConfigError where a figure is missing."""
    found = {}
    try:
        for one in entry["steps"]:
            compute, communication, overlap = (float(one[name]) for name in ("compute_us", "comm_us", "overlap_us"))
            found[str(one["step"])] = StepTimes(float(one["gpu_span_us"]), compute, communication, overlap)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"a step lacks a figure ({error})", where=f"{_REFERENCE}: {key}") from None
    return found


def _figures(rows: Iterable[_Row]) -> dict[str, float]:
    listed = list(rows)
    if not listed:
        return {"rows": 0}
    return {
        "rows": len(listed), "matched": sum(row.met for row in listed),
        "step_time_mape": float(np.mean([row.step for row in listed])), "step_time_worst": max(row.step for row in listed),
        "exposed_error": max(row.exposed for row in listed), "overlap_error": max(row.overlap for row in listed),
        "compute_error": max(row.compute for row in listed),
    }  # fmt: skip


def _hta(report: Report, name: str, data: Path, folder: Path, result: Result, numbers: list[int]) -> None:
    """Compute time of HolisticTraceAnalysis, which counts every kernel of the file, so that only files of one step serve."""
    place = data / "hta_ref" / f"{folder.name}_get_temporal_breakdown.csv"
    spans = result.spans()
    if not place.is_file() or len(spans.steps) != 1:
        return
    errors = []
    beside = [place for place, kind in enumerate(spans.kinds) if kind in ("host", "none", "delay", "memory")]
    named = np.array(["nccl" in one.lower() for one in spans.names] or [False], np.bool_)
    try:
        for row in csv.DictReader(io.StringIO(text(place))):
            if int(row["rank"]) in numbers:
                at = (spans.rank == numbers.index(int(row["rank"]))) & ~np.isin(spans.kind, beside) & ~named[spans.name]
                compute = int(Union.of(spans.start[at], spans.end[at]).before[-1]) / _PS_PER_US
                errors.append(abs(compute - float(row["compute_time(us)"])) / max(float(row["compute_time(us)"]), _FLOOR_US))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"lacks a figure ({error})", where=str(place)) from None
    if errors:
        report.groups[name]["hta_compute_error"] = max(errors)


def _other_network(
    report: Report, name: str, graph: TaskGraph, wanted: Mapping[int, Mapping[str, StepTimes]], simulated: list[float]
) -> None:
    """The same with the network simulated, where sizes are known and the run is not large; told, not judged."""
    world = int(graph.metadata.get("kineto.world", "1"))
    if graph.nodes * (world if graph.ranks == 1 else 1) > _SIMULATED_NODES or world == 1:
        return
    numbers = json.loads(graph.metadata.get("kineto.ranks", "[0]"))
    try:
        result = simulate(graph, communication="simulated")
    except DistsimError:
        return
    errors = []
    for place, steps in wanted.items():
        found = replayed(result, numbers[place] if graph.ranks == 1 else place)
        errors += [abs(found[step].step / one.step - 1) for step, one in steps.items() if step in found and one.step > 0]
    if errors:
        report.groups[name]["simulated_step_time_mape"] = float(np.mean(errors))
        simulated += errors
