"""Suite ``training``: published and measured training performance against simulated steps.

Layout of the data: every ``published_training*.csv[.gz]`` and ``vtrain_single_node*.csv[.gz]`` of the folder, with the columns
model, layers, hidden, heads, ffn_hidden, vocab, seq_len, gpu, n_gpus, dp, tp, pp, cp, ep, vpp, micro_batch, global_batch,
precision, recompute, sequence_parallel, zero_stage, network, metric, value, flops_convention and, where there are any, family,
complete and memory_gib. A row's error is (prediction - value) / value in the row's own metric. Rows whose configuration is
stated in full (``complete`` yes or nearly) make the group of their family; the others, for which something was assumed, are
reported as ``FAMILY, incomplete``.
"""

from __future__ import annotations

import csv
import io
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distsim.errors import ConfigError, DistsimError
from distsim.hardware.gpu import Gpu
from distsim.registry import register
from distsim.topology.graph import Topology
from distsim.topology.spec import build as build_topology
from distsim.training import Job, TrainSpec, of_parts, run
from distsim.validation.suite import Progress, Report, text
from distsim.validation.training_rows import Case, Row, case_of, family_of, memory_kind_of
from distsim.workload.training.graph import build as build_graph
from distsim.workload.training.memory import memory_of
from distsim.workload.training.stack import stack as stack_of
from distsim.workload.training.uncontended import step_ps

_FILES = ("published_training*.csv", "published_training*.csv.gz", "vtrain_single_node*.csv", "vtrain_single_node*.csv.gz")
_COLUMNS = ("id", "model", "seq_len", "gpu", "n_gpus", "metric", "value")
_TOLERANCE = 0.1  #: a row is matched within it
_WORST = 15
_ROWS_A_WORKER = 20  #: steps that make another process worth its start
#: words in a GPU's name -> the machines that it usually sits in
_MACHINES = {
    "v100": "dgx_a100:device=v100,nvlink_bandwidth=150GBps,rails=4,bandwidth=100Gbps", "a100": "dgx_a100",
    "a800": "dgx_a100:device=a800,nvlink_bandwidth=200GBps", "h100": "dgx_h100",
    "h800": "dgx_h100:device=h800,nvlink_bandwidth=200GBps", "h20": "dgx_h100:device=h20",
    "l40s": "dgx_a100:device=l40s,nvlink_bandwidth=24GBps,rails=2",  # PCIe
    "h200": "dgx_h200", "b200": "dgx_b200",
    "mi300x": "dgx_h100:device=mi300x",  # Infinity Fabric: 7 x 64 GB/s each way, and a 400 Gb/s NIC per GPU
    "b300": "dgx_b200:device=b300,bandwidth=800Gbps",
    # jobs larger than a rack take 64 of its 72 GPUs, so that powers of two stay inside
    "gb200": "gb200_nvl72:gpus_per_node=64", "gb300": "gb200_nvl72:gpus_per_node=64,device=gb300,bandwidth=800Gbps",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Predicted:
    """A row, its prediction in the row's own metric, and its memory in GiB (0 where the row tells none)."""

    row: Row
    case: Case
    value: float
    memory: float

    @property
    def error(self) -> float:
        return self.value / float(self.row["value"]) - 1.0

    @property
    def memory_error(self) -> float:
        return self.memory / float(self.row["memory_gib"]) - 1.0

    @property
    def complete(self) -> bool:
        return (self.row.get("complete") or self.row.get("config_complete") or "yes") != "no"


@register("suite", "training")
class Training:
    """Mean absolute relative error of step time, throughput or utilisation, and of memory, by family."""

    summary = "published training performance: step time and memory, by family"

    def run(self, data: Path, progress: Progress) -> Report:
        """See Suite.run."""
        report = Report("training")
        rows = list(read_rows(data))
        report.rows = len(rows)
        found: list[Predicted] = []
        for outcome, row in zip(_predictions(rows, progress), rows, strict=True):
            if isinstance(outcome, Predicted):
                found.append(outcome)
            else:
                reason = f"{family_of(row)}: {outcome}"
                report.refused[reason] = report.refused.get(reason, 0) + 1
        report.expressed = len(found)
        errors = [one.error for one in found]
        report.matched = sum(abs(error) <= _TOLERANCE for error in errors)
        report.metrics = _measures(errors)
        complete = [one.error for one in found if one.complete]
        report.metrics |= {f"{name}_complete": value for name, value in _measures(complete).items()}
        report.metrics["expressed_complete"] = len(complete) / max(1, sum(_group(row) == family_of(row) for row in rows))
        weighed = [one for one in found if one.memory > 0]
        if weighed:
            report.metrics["memory_mape"] = _measures([one.memory_error for one in weighed])["mape"]
        _groups(report, rows, found, weighed)
        for one in sorted(found, key=lambda one: -abs(one.error))[:_WORST]:
            what = f"{family_of(one.row)} {one.row['id']}: {one.row['metric']} {one.row['value']}, predicted {one.value:.4g}"
            report.worst.append({"row": what, "group": family_of(one.row), "error": abs(one.error)})
        return report


def read_rows(data: Path) -> Iterable[Row]:
    """All rows of the folder's tables. Raises ConfigError where there are none, or columns are missing."""
    paths = sorted(path for pattern in _FILES for path in data.glob(pattern))
    if not paths:
        raise ConfigError("holds no table of training runs", where=str(data), expected=" or ".join(_FILES))
    for path in paths:
        reader = csv.DictReader(io.StringIO(text(path)))
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ConfigError(f"has no column {', '.join(missing)}", where=str(path), expected=", ".join(_COLUMNS))
        yield from reader


def _predictions(rows: Sequence[Row], progress: Progress) -> list[Predicted | str]:
    """Of every row, or why there is none. Rows that share a step are simulated once; processes share out the steps."""
    cases: list[Case | str] = [_case(row) for row in rows]
    first: dict[tuple[object, ...], int] = {}
    keys: list[tuple[object, ...]] = []
    for place, (row, case) in enumerate(zip(rows, cases, strict=True)):
        keys.append(() if isinstance(case, str) else _key(row, case))
        if keys[-1]:
            first.setdefault(keys[-1], place)
    done: dict[tuple[object, ...], tuple[float, float] | str] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, max(1, len(first) // _ROWS_A_WORKER)), context) as workers:
        results = workers.map(_step, [rows[place] for place in first.values()], chunksize=4)
        for number, (key, result) in enumerate(zip(first, results, strict=True)):
            progress(number / len(first), "simulating training steps")
            done[key] = result
    found: list[Predicted | str] = []
    for row, case, key in zip(rows, cases, keys, strict=True):
        kept = case if isinstance(case, str) else done[key]
        found.append(kept if isinstance(kept, str) else _predicted(row, case, kept))  # type: ignore[arg-type]
    return found


def _case(row: Row) -> Case | str:
    """The row expressed and its metric known, or why not."""
    try:
        float(row["value"])
        case = case_of(row)
        cluster_of(row, case.gpu)
        in_metric(row, case, 1.0)
    except DistsimError as error:
        return error.what
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:  # a number that is none, or zero
        return f"malformed row: {type(error).__name__}: {error}"
    return case


def _key(row: Row, case: Case) -> tuple[object, ...]:
    """What decides the step of a row."""
    return case.model, case.plan, case.gpu.name, case.stack, cluster_of(row, case.gpu), memory_kind_of(row)


def _step(row: Row, quick: bool = False) -> tuple[float, float] | str:
    """(seconds, GiB) of a row's step, or why there is none."""
    try:
        work = job_of(row, case_of(row))
        if quick:
            graph = build_graph(work.costs)
            return step_ps(graph, work.costs) / 1e12, _gib(row, work)
        return run(work).seconds, _gib(row, work)
    except DistsimError as error:
        return error.what


def _predicted(row: Row, case: Case, step: tuple[float, float]) -> Predicted:
    return Predicted(row, case, in_metric(row, case, step[0]), step[1] if row.get("memory_gib") else 0.0)


def predict(row: Row, known: dict[tuple[object, ...], tuple[float, float]] | None = None, *, quick: bool = False) -> Predicted:
    """Simulate a row. ``known`` remembers steps that several rows share; ``quick``: the uncontended longest path instead of
    the engine. Raises ConfigError where the row cannot be expressed."""
    case = _case(row)
    if isinstance(case, str):
        raise ConfigError(case, where=f"row {row['id']}")
    key = _key(row, case)
    kept: tuple[float, float] | str | None = None if known is None else known.get(key)
    if kept is None:
        kept = _step(row, quick)
        if isinstance(kept, str):
            raise ConfigError(kept, where=f"row {row['id']}")
        if known is not None:
            known[key] = kept
    assert not isinstance(kept, str)
    return _predicted(row, case, kept)


def _gib(row: Row, work: Job) -> float:
    """Memory of the fullest stage as the row counts it."""
    memory = memory_of(work.model, work.plan, work.stack, work.gpu)
    return float(getattr(memory.worst, memory_kind_of(row))) / 2**30


def job_of(row: Row, case: Case) -> Job:
    """The row as a job for the simulator."""
    cluster = cluster_of(row, case.gpu)
    named = {"model": case.model.name, "cluster": cluster, "gpu": case.gpu.name, "stack": case.stack}
    spec = TrainSpec.model_validate({**named, "memory": "ignore", "plan": case.plan})
    return of_parts(spec, case.model, case.plan, stack_of(case.stack), case.gpu, _topology(cluster, case.plan.world))


_built: dict[tuple[str, int], Topology] = {}


def _topology(cluster: str, ranks: int) -> Topology:
    if (cluster, ranks) not in _built:
        _built.clear()  # rows of one cluster stand together
        _built[cluster, ranks] = build_topology(cluster, ranks)
    return _built[cluster, ranks]


def cluster_of(row: Row, gpu: Gpu) -> str:
    """The machines that a row's GPU and network columns describe. Raises ConfigError for a GPU of no known machine."""
    words = gpu.name.replace("-", "_").split("_")
    machine = next((_MACHINES[word] for word in words if word in _MACHINES), None)
    if machine is None:
        raise ConfigError(f"no machine with {gpu.name} is known", where=f"row {row['id']}")
    network = row.get("network") or ""
    if family_of(row) == "megatron-llama":  # its README: 4x200Gbps RDMA
        return f"{machine}:rails=4,bandwidth=200Gbps"
    if "4x HDR200" in network:  # vTrain's nodes: four NICs for eight GPUs
        return f"{machine}:rails=4,bandwidth=200Gbps"
    if "4x100 Gb/s" in network:  # Jean Zay
        return f"{machine}:rails=4,bandwidth=100Gbps"
    return machine


def in_metric(row: Row, case: Case, seconds: float) -> float:
    """A step time in the metric that the row reports. Raises ConfigError for a metric that is not known."""
    plan, model, metric = case.plan, case.model, row["metric"]
    tokens = plan.global_batch * plan.seq
    if metric == "s/iteration":
        return seconds
    if metric == "ms/iteration":
        return seconds * 1e3
    if metric == "tokens/s/GPU":
        return tokens / seconds / plan.world
    if metric == "tokens/s total":
        return tokens / seconds
    if "hw-flops" in (row.get("flops_convention") or ""):
        # Narayanan et al. (SC21), equation 3: full recomputation counted
        h, s = model.hidden, plan.seq
        flops = 96.0 * tokens * model.layers * h * h * (1 + s / (6 * h) + model.vocab / (16 * model.layers * h))
    else:
        flops = model.flops_per_token(plan.seq) * tokens
    rate = flops / seconds / plan.world
    if metric == "TFLOPs/GPU":
        return rate / 1e12
    if metric == "MFU %":
        return 100 * rate / case.gpu.rate("bf16")
    raise ConfigError(f"metric {metric!r} is not known", where=f"row {row['id']}")


def _group(row: Row) -> str:
    complete = (row.get("complete") or row.get("config_complete") or "yes") != "no"
    return family_of(row) + ("" if complete else ", incomplete")


def _measures(errors: list[float]) -> dict[str, float]:
    values = np.array(errors) if errors else np.zeros(1)
    return {"mape": float(np.abs(values).mean()), "bias": float(values.mean())}


def _groups(report: Report, rows: list[Row], found: list[Predicted], weighed: list[Predicted]) -> None:
    """By family, complete rows and incomplete ones apart; then memory."""
    counts: dict[str, int] = defaultdict(int)
    for row in rows:
        counts[_group(row)] += 1
    by: dict[str, list[float]] = defaultdict(list)
    for one in found:
        by[_group(one.row)].append(one.error)
    for name in sorted(counts):
        report.groups[name] = {"rows": counts[name], "expressed": len(by[name]), **_named(by[name])}
        if by[name] and not name.endswith(", incomplete"):
            report.metrics[f"mape_{name}"] = report.groups[name]["mape"]
    memory: dict[str, list[float]] = defaultdict(list)
    for one in weighed:
        memory[family_of(one.row)].append(one.memory_error)
    for name in sorted(memory):
        report.groups[f"memory, {name}"] = {"rows": len(memory[name]), "expressed": len(memory[name]), **_named(memory[name])}


def _named(errors: list[float]) -> Mapping[str, float]:
    return _measures(errors) if errors else {}
