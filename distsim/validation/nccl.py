"""Suite ``nccl``: measured NCCL collectives against the NCCL model, with shipped defaults and calibrated.

Layout of the data: ``nccl_measured.csv[.gz]`` with the columns system, gpu, nodes, gpus, collective, dtype, size_bytes,
latency_us, impl, use (version, note, source are read where there are any). All figures are shares: 0.12 is 12 %.

Judged are rows with impl NCCL and use yes: all_reduce, all_gather and reduce_scatter of 1 KiB to 512 MiB on one node behind an
NVSwitch, and all_reduce from 1 KiB across nodes. Everything else that can be expressed is reported in groups of its own.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distsim.errors import ConfigError, DistsimError
from distsim.nccl.calibrate import Network, measures, sample_of, size_class
from distsim.nccl.fit import FEWEST, Sample, left_out_errors, relative_errors
from distsim.nccl.measured import Measured, operation_name
from distsim.registry import register
from distsim.validation.suite import Progress, Report, find, text

_FILE = "nccl_measured.csv"
_COLUMNS = ("system", "gpu", "nodes", "gpus", "collective", "dtype", "size_bytes", "latency_us", "impl", "use")
_JUDGED = ("all_reduce", "all_gather", "reduce_scatter")
_LEAST, _MOST = 1 << 10, 512 << 20
_TOLERANCE = 0.2  #: a row is matched within it
_WORST = 12
_SEED = 0
#: ``8x BF3 400G per node``, ``16x100G/node``: NICs of a node and Gb/s of each
_NICS = re.compile(r"(\d+)\s*x\s*(?:[A-Z][\w-]*\s+)?(\d+)\s*G\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Row:
    """A reference row that the model can express."""

    sample: Sample
    system: str
    implementation: str
    what: str

    @property
    def judged(self) -> str:
        """``node``, ``nodes`` or "" for what is only reported."""
        one = self.sample
        if self.implementation != "NCCL" or one.size < _LEAST or one.operation not in _JUDGED:
            return ""
        if one.system.nodes > 1:
            return "nodes" if one.operation == "all_reduce" else ""
        return "node" if one.size <= _MOST and one.system.kind.link == "nvlink" else ""

    @property
    def group(self) -> str:
        """Group of a row that is not judged."""
        one = self.sample
        if self.implementation != "NCCL":
            return f"by {self.implementation}"
        if one.operation == "all_to_all":
            return f"all_to_all, {self.system}"
        if one.system.kind.link != "nvlink":
            return f"no NVSwitch, {self.system}"
        return f"out of range, {self.system}"


@register("suite", "nccl")
class Nccl:
    """Mean absolute relative error of the closed form; the calibrated one on points that its fit has not seen."""

    summary = "measured NCCL times: shipped defaults, and calibrated on left-out points"

    def run(self, data: Path, progress: Progress) -> Report:
        """See Suite.run."""
        path = find(data, _FILE)
        if path is None:
            raise ConfigError(f"holds no {_FILE}[.gz]", where=str(data), expected="the layout of reference/nccl")
        report = Report("nccl")
        rows = _rows(path, report, progress)
        progress(0.4, "shipped defaults")
        errors = relative_errors([row.sample for row in rows])
        report.expressed = len(rows)
        report.matched = int((np.abs(errors) <= _TOLERANCE).sum())
        by: dict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(rows):
            by[row.judged or row.group].append(place)
        for kind, suffix in (("node", ""), ("nodes", "_multinode")):
            if not by[kind]:
                continue
            mine = [rows[place] for place in by[kind]]
            found = errors[by[kind]]
            _metrics(report, suffix, found)
            _groups(report, "" if kind == "node" else "across nodes, ", mine, found)
            _calibrated(report, suffix, mine, progress)
        for name in sorted(name for name in by if name not in ("node", "nodes")):
            report.groups[name] = measures(errors[by[name]])
        judged = by["node"] + by["nodes"]
        for place in sorted(judged, key=lambda at: -abs(errors[at]))[:_WORST]:
            row = rows[place]
            report.worst.append(
                {
                    "row": row.what, "group": row.system, "error": float(abs(errors[place])),
                    "measured_us": row.sample.time_us, "model_us": float(row.sample.time_us * (1 + errors[place])),
                }
            )  # fmt: skip
        return report


def judged_samples(path: Path) -> list[Sample]:
    """The judged rows of a file. Raises ConfigError where it is no table of measurements."""
    return [row.sample for row in _rows(path, Report("nccl"), lambda fraction, what: None) if row.judged]


def _metrics(report: Report, suffix: str, errors: np.ndarray) -> None:
    found = measures(errors)
    for name in ("mape", "median", "p90", "bias"):
        report.metrics[name + suffix] = found[name]


def _groups(report: Report, prefix: str, rows: list[_Row], errors: np.ndarray) -> None:
    """By system, collective and class of size."""
    split: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        split[f"0{row.system}"].append(place)
        split[f"1{row.sample.operation}"].append(place)
        split[f"2{row.sample.size:020d}"[:1] + size_class(row.sample.size)].append(place)
    order = sorted(split, key=lambda key: (key[0], rows[split[key][0]].sample.size if key[0] == "2" else 0, key))
    for key in order:
        report.groups[prefix + key[1:]] = measures(errors[split[key]])


def _calibrated(report: Report, suffix: str, rows: list[_Row], progress: Progress) -> None:
    """Every system fitted on its own, judged on what its fits have not seen."""
    systems: dict[str, list[Sample]] = defaultdict(list)
    for row in rows:
        systems[row.system].append(row.sample)
    found = []
    for number, (name, samples) in enumerate(sorted(systems.items())):
        progress(0.5 + 0.5 * number / len(systems), f"calibrating {name}")
        if len({(one.operation, one.size, one.system.ranks) for one in samples}) < 2 * FEWEST:
            continue
        errors = left_out_errors(samples, np.random.default_rng(_SEED))
        report.groups[f"calibrated, {name}"] = measures(errors)
        found.append(errors)
    if found:
        _metrics(report, f"{suffix}_calibrated", np.concatenate(found))


def _rows(path: Path, report: Report, progress: Progress) -> list[_Row]:
    """Every row that the model can express; the others are counted by reason."""
    reader = csv.DictReader(io.StringIO(text(path)))
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise ConfigError(f"has no column {', '.join(missing)}", where=str(path), expected=", ".join(_COLUMNS))
    progress(0.0, "reading")
    rows = []
    for number, record in enumerate(reader, 2):
        report.rows += 1
        try:
            rows.append(_row(record, number, path))
        except DistsimError as error:
            reason = f"{type(error).__name__}: {error.what}"
            report.refused[reason] = report.refused.get(reason, 0) + 1
    return rows


def _row(record: dict[str, str], number: int, path: Path) -> _Row:
    """Raises DistsimError on a row that is malformed, or that the model does not know."""
    if record["use"] != "yes":
        raise ConfigError("not judged (use is not yes)")
    name, about = record["system"], " ".join((record["system"], record.get("note") or "", record.get("source") or "")).lower()
    if "pairwise" in name:
        raise ConfigError("GPUs joined in pairs, without an NVSwitch, are not modelled")
    try:
        measured = Measured(
            operation_name(record["collective"]) or record["collective"], int(record["size_bytes"]),
            float(record["latency_us"]), int(record["gpus"]), int(record["nodes"]), record["gpu"], name, record["dtype"],
            record["impl"], number,
        )  # fmt: skip
        if not (measured.time_us > 0 and measured.size >= 0):
            raise ValueError("a time or a size below zero")
    except (ValueError, TypeError) as error:
        raise ConfigError(f"malformed row: {error}", where=f"{path}:{number}") from None
    nics = _NICS.search(name)
    network = Network(
        int(nics[1]) if nics else None,
        int(nics[2]) * 1e9 / 8 if nics else None,
        "efa" if re.search(r"\befa\b", about) else "ib",
    )
    what = f"{name}: {measured.operation} {measured.size} B on {measured.ranks}, {measured.dtype} (line {number})"
    return _Row(sample_of(measured, network=network), name, measured.impl.split(":")[0], what)
