"""Suite ``astra``: ASTRA-sim 2.x, to be met cycle for cycle.

Layout of the data: ``microbenchmarks.csv`` (one collective per row, see its header) and ``llm/<trace>/`` with ``et.tar.gz``
(or ``et.tar``, or a folder ``et``) and any number of ``result_*.json``. Every file may be gzip.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from distsim.errors import ConfigError, DistsimError
from distsim.profiles.astra.config import NETWORKS, AstraConfig, Implementation, NetworkDim
from distsim.profiles.astra.lower import job_of_collective, job_of_trace
from distsim.profiles.astra.replay import simulate
from distsim.registry import register
from distsim.trace.read import read_trace
from distsim.validation.suite import Progress, Report, find, text

_WORST = 10

#: system settings of the LLM reference runs, where a result file does not say otherwise (shared README of the reference)
_LLM = {"splits": 4, "active_chunks": 1, "endpoint_ns": 10, "local_memory_gbps": 3350.0, "peak_tflops": 989.0, "roofline": True}


@register("suite", "astra")
class Astra:
    """Exact equality: the last and the first rank to finish (micro-benchmarks), every rank's finish and exposed time (LLM)."""

    summary = "ASTRA-sim's cycles: collectives and LLM replays"

    def run(self, data: Path, progress: Progress) -> Report:
        """See Suite.run."""
        report = Report("astra")
        micro = find(data, "microbenchmarks.csv")
        traces = sorted(path for path in (data / "llm").glob("*") if path.is_dir()) if (data / "llm").is_dir() else []
        if micro is None and not traces:
            raise ConfigError(
                "holds no microbenchmarks.csv and no llm/ folder", where=str(data), expected="the layout of reference/astra"
            )
        if micro is not None:
            _micro(micro, report, progress)
        if traces:
            _llm(traces, report, progress)
        report.metrics["matched"] = report.matched
        report.metrics["matched_fraction"] = report.matched / report.rows if report.rows else 0.0
        report.worst.sort(key=lambda row: -row["error"])
        del report.worst[_WORST:]
        return report


def _score(report: Report, group: str, what: str, error: float) -> None:
    """Count one row that ran. ``error``: relative to the reference, 0 = exact."""
    matched = int(error == 0)
    report.expressed += 1
    report.matched += matched
    report.groups[group]["matched"] += matched
    if not matched:
        report.worst.append({"row": what, "group": group, "error": error})


def _refuse(report: Report, what: str, error: DistsimError) -> None:
    """Count one row that did not run."""
    reason = f"{type(error).__name__}: {error.what}"
    report.refused[reason] = report.refused.get(reason, 0) + 1
    report.worst.append({"row": what, "group": "refused", "error": 1.0, "why": str(error)})


def config_of_row(row: dict[str, str]) -> AstraConfig:
    """Configuration of a micro-benchmark row."""
    kinds, sizes = row["topology"].split("_"), row["npus_per_dim"].split("x")
    bandwidths, latencies = row["bandwidth_GBps"].split("|"), row["latency_ns"].split("|")
    dims = tuple(
        NetworkDim(NETWORKS[kind], int(size), float(bandwidth), float(latency))
        for kind, size, bandwidth, latency in zip(kinds, sizes, bandwidths, latencies, strict=True)
    )
    algorithms = tuple(Implementation.parse(name) for name in row["algorithm"].split("|"))
    return AstraConfig(
        dims, row["backend"] == "aware", {row["collective"]: algorithms}, splits=int(row["splits"]),
        active_chunks=int(row["active_chunks"]), queues_per_dim=int(row["queues_per_dim"]),
        endpoint_ns=int(row["endpoint_delay"]),
        local_memory_gbps=float(row["local_mem_bw"]), policy=row["sched"], optimization=row["coll_opt"],
    ).checked()  # fmt: skip


def _micro(path: Path, report: Report, progress: Progress) -> None:
    """Every row of the micro-benchmarks."""
    rows = list(csv.DictReader(io.StringIO(text(path))))
    report.groups["micro"] = {"rows": len(rows), "matched": 0}
    for number, row in enumerate(rows):
        progress(number / len(rows), "micro-benchmarks")
        what = (
            f"{row.get('collective')} {row.get('size_bytes')} B {row.get('algorithm')} on {row.get('topology')} "
            f"{row.get('npus_per_dim')}, {row.get('backend')}, splits {row.get('splits')} (line {number + 2})"
        )
        report.rows += 1
        try:
            try:
                config, size = config_of_row(row), int(row["size_bytes"])
                last, first = int(row["cycles"]), int(row["cycles_min"])
            except (KeyError, ValueError, TypeError) as error:
                raise ConfigError(f"malformed row: {error}", where=f"{path}:{number + 2}") from None
            done = simulate(job_of_collective(row["collective"], size, config), config).finish
        except DistsimError as error:
            _refuse(report, what, error)
            continue
        _score(report, "micro", what, max(abs(int(done.max()) - last) / last, abs(int(done.min()) - first) / first))


def _llm(traces: list[Path], report: Report, progress: Progress) -> None:
    """Every result of every trace."""
    report.groups["llm"] = {"rows": 0, "matched": 0}
    for number, folder in enumerate(traces):
        results = sorted({*folder.glob("result_*.json"), *folder.glob("result_*.json.gz")})
        workload = next((p for p in (folder / "et.tar.gz", folder / "et.tar", folder / "et") if p.exists()), folder)
        graph = None
        for path in results:
            progress(number / len(traces), f"LLM replay {folder.name}")
            report.rows += 1
            report.groups["llm"]["rows"] += 1
            what = f"{folder.name}/{path.name}"
            try:
                try:
                    reference = json.loads(text(path))
                    config = config_of_result(reference, "unaware" not in path.name)
                    finish, exposed = (
                        [v for _, v in sorted(((int(r), v) for r, v in reference[k].items()))] for k in ("per_rank", "exposed")
                    )
                except (KeyError, ValueError, TypeError, AttributeError) as error:
                    raise ConfigError(f"is not a result: {error}", where=str(path)) from None
                graph = graph or read_trace(workload)
                done = simulate(job_of_trace(graph, config), config)
            except DistsimError as error:
                _refuse(report, what, error)
                continue
            pairs = [*zip(done.finish.tolist(), finish, strict=False), *zip(done.exposed.tolist(), exposed, strict=False)]
            off = 1.0 if len(finish) != len(done.finish) else max(abs(a - b) / max(1, abs(b)) for a, b in pairs)
            _score(report, "llm", what, off)


def config_of_result(reference: dict[str, Any], aware: bool) -> AstraConfig:
    """Configuration of an LLM result file."""
    dims = tuple(
        NetworkDim(NETWORKS[kind], int(size), float(bandwidth), float(latency))
        for kind, size, bandwidth, latency in zip(
            reference["topology"], reference["npus_count"], reference["bandwidth"], reference["latency"], strict=True
        )
    )
    return replace(AstraConfig(dims, aware), **_LLM).checked()  # type: ignore[arg-type]
