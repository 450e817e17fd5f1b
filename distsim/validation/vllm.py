"""Suite ``vllm``: runs of vLLM V1, request by request, from measured kernel times.

Layout of the data: any folder with ``meta.json`` (engine arguments, KV blocks, hardware), ``requests.jsonl[.gz]`` (times of
every request) and ``profile/`` (see distsim.serving.times.profile) is a setup; the files of its requests with their token ids
(``*.jsonl.gz``, arrival order) lie in it or in a folder above it, and are told apart by their lengths.

Measured against: time to first token and latency from the client's ``arrival_time``, time per output token after the first.
Clients' times are wall-clock, the engine's monotonic: the smallest difference between ``queued_ts`` and ``arrival_time`` of a
run is the difference of the clocks (an engine that is between two iterations takes a request in at once). All errors are
shares; ``*_mean_error`` is simulated mean over measured mean less 1. Metrics are those of the worst setup.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError, DistsimError
from distsim.kernel.clock import Clock
from distsim.registry import register
from distsim.serving.fleet import make_scheduler
from distsim.serving.log import IterationLog
from distsim.serving.replica import Replica
from distsim.serving.requests.blocks import Chains
from distsim.serving.requests.table import Requests, requests_of
from distsim.serving.result import RequestColumns, request_columns
from distsim.serving.router import Router
from distsim.serving.routers.round_robin import RoundRobin
from distsim.serving.service import Service
from distsim.serving.times.profile import ProfileTimes
from distsim.units import PS_PER_S
from distsim.validation.suite import Progress, Report, find, text

#: a request is matched where its latency is within this
_TOLERANCE = 0.05
_WORST = 10
_BLOCK = 16
_WIDTH = {"auto": 2, "bfloat16": 2, "float16": 2, "half": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1}
_METRICS = ("latency_mape", "ttft_mean_error", "tpot_mean_error", "latency_mean_error")

Floats = NDArray[np.float64]
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Setup:
    """One measured run. Seconds; measured times from the first request's arrival."""

    name: str
    folder: Path
    meta: Row
    requests: Requests
    first: Floats
    last: Floats


@dataclass(frozen=True, slots=True)
class Outcome:
    """What distsim makes of a setup."""

    requests: RequestColumns
    preemptions: int
    extrapolated: int


@register("suite", "vllm")
class Vllm:
    """Mean errors of time to first token, time per output token and latency; latency of every request."""

    summary = "vLLM's measured runs, from measured kernels"

    def run(self, data: Path, progress: Progress) -> Report:
        """See Suite.run."""
        found = sorted(data.rglob("meta.json"))
        if not found:
            raise ConfigError("holds no meta.json", where=str(data), expected="the layout of reference/serving/vllm_measured")
        report = Report("vllm")
        for number, path in enumerate(found):
            name = str(path.parent.relative_to(data))
            progress(number / len(found), name)
            report.groups[name] = {"rows": 0.0}
            try:
                setup = read_setup(data, path.parent, name)
                report.rows += len(setup.requests)
                report.groups[name]["rows"] = len(setup.requests)
                _score(report, setup, simulate(setup))
            except DistsimError as error:
                reason = f"{name}: {type(error).__name__}: {error.what}"
                report.refused[reason] = report.refused.get(reason, 0) + 1
                report.worst.append({"row": name, "group": "refused", "error": 1.0, "why": str(error)})
        for metric in _METRICS:
            values = [group[metric] for group in report.groups.values() if metric in group]
            if values:
                report.metrics[metric] = max(values, key=abs)
        report.metrics["matched_fraction"] = report.matched / report.rows if report.rows else 0.0
        report.worst.sort(key=lambda row: -row["error"])
        del report.worst[_WORST:]
        return report


def read_setup(data: Path, folder: Path, name: str) -> Setup:
    """A run. Raises ConfigError naming file and line of what does not read, or where no file of requests fits."""
    meta = _json(folder / "meta.json", text(folder / "meta.json"))
    path = find(folder, "requests.jsonl")
    if path is None:
        raise ConfigError("holds no requests.jsonl", where=str(folder))
    rows = _lines(path)
    try:
        rows.sort(key=lambda row: float(row.get("arrival_time") or row["queued_ts"]))
        prompt, output = ([int(row[key]) for row in rows] for key in ("input_toks", "output_toks"))
        queued, first, last = (_column(rows, key) for key in ("queued_ts", "first_token_ts", "last_token_ts"))
        arrival = _column(rows, "arrival_time") if all(row.get("arrival_time") for row in rows) else queued
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"a request is malformed: {error}", where=str(path)) from None
    if not len(rows) or not np.isfinite([arrival, queued, first, last]).all():
        raise ConfigError("has no requests, or times that are none", where=str(path))
    since = arrival - arrival[0]
    zero = float((queued - since).min())  # of the engine's clock, when the first request arrived
    tokens = _tokens(data, folder, prompt, output)
    chains, hashes, unique = Chains(_BLOCK), {}, 0
    for row, ids in enumerate(tokens):
        # what is generated is nobody else's, but the request's own after a preemption
        generated = (prompt[row] + output[row]) // _BLOCK - len(ids) // _BLOCK
        hashes[row] = [*chains.of(ids), *range(unique - generated, unique)]
        unique -= generated
    table = requests_of(
        np.round(since * PS_PER_S).astype(np.int64), np.array(prompt, np.int64), np.array(output, np.int64), hashes=hashes,
        hash_block=_BLOCK, source=str(path),
    )  # fmt: skip
    return Setup(name, folder, meta, table, first - zero, last - zero)


def simulate(setup: Setup) -> Outcome:
    """The run again. Raises ConfigError where a table, the model or the KV cache cannot be told."""
    meta = setup.meta
    engine = meta.get("engine_kwargs") or {}
    tp = int(engine.get("tensor_parallel_size") or 1)
    if int(engine.get("data_parallel_size") or 1) > 1 or int(engine.get("pipeline_parallel_size") or 1) > 1:
        raise ConfigError("several data parallel or pipeline ranks", where=setup.name, expected="tensor parallelism only")
    seqs, budget = int(engine.get("max_num_seqs") or 256), int(engine.get("max_num_batched_tokens") or 2048)
    times = ProfileTimes(
        str(setup.folder / "profile"), str(meta.get("model", "")), tp=tp, max_num_seqs=seqs, link=_link(meta),
        graphs=not engine.get("enforce_eager"),
    )  # fmt: skip
    cache = meta.get("kv_cache") or {}
    options = f"max_num_seqs={seqs},max_num_batched_tokens={budget},ahead=true"
    options += f",prefix_caching={str(bool(cache.get('enable_prefix_caching', True))).lower()}"
    # NOTE: block 0 is vLLM's null block, which holds nothing (BlockPool)
    scheduler = make_scheduler(f"vllm_v1:{options}", kv_blocks(setup, times, tp) - 1, 1, _BLOCK)
    clock = Clock()
    router: Router = RoundRobin(RoundRobin.Params(), np.random.default_rng(0))
    service = Service(clock, setup.requests, router)
    service.start([Replica(0, clock, scheduler, times, IterationLog(), service.ended)])
    clock.run()
    columns = request_columns(service.requests)
    if not columns.done.all():
        raise ConfigError(f"{int((~columns.done).sum())} requests did not finish: {set(columns.reason)}", where=setup.name)
    return Outcome(columns, scheduler.preemptions, sum(times.extrapolated.values()))


def kv_blocks(setup: Setup, times: ProfileTimes, tp: int) -> int:
    """Blocks of the run; where they were not recorded, what the memory leaves beside the weights."""
    cache, model = setup.meta.get("kv_cache") or {}, times.model
    if cache.get("num_gpu_blocks"):
        return int(cache["num_gpu_blocks"])
    engine = setup.meta.get("engine_kwargs") or {}
    memory = (setup.meta.get("hardware") or {}).get("device_total_memory_bytes")
    width = _WIDTH.get(str(engine.get("kv_cache_dtype", "auto")))
    weight = _WIDTH.get(str(engine.get("dtype", "auto")))
    if not memory or width is None or weight is None:
        raise ConfigError("neither its KV blocks nor memory and data types", where=f"{setup.name}/meta.json")
    heads = max(1, model.kv_heads // tp)
    block = 2 * heads * model.head_dim * width * model.layers * int(cache.get("block_size") or _BLOCK)
    left = float(memory) * float(cache.get("gpu_memory_utilization") or 0.9) - model.parameters * weight / tp
    if left < 2 * block:
        raise ConfigError(f"{model.name} leaves no memory for a KV cache", where=f"{setup.name}/meta.json")
    return int(left // block)


def _score(report: Report, setup: Setup, outcome: Outcome) -> None:
    """Compare a run with its reference."""
    columns = outcome.requests
    arrival = columns.arrival / PS_PER_S
    after = np.maximum(columns.output - 1, 1)
    errors = {}
    for name, measured, made in (
        ("ttft", setup.first - arrival, columns.ttft / PS_PER_S),
        ("tpot", (setup.last - setup.first) / after, columns.tpot / PS_PER_S),
        ("latency", setup.last - arrival, columns.latency / PS_PER_S),
    ):
        counts = measured > 0  # requests of one token have no time per further token
        errors[name] = np.abs(made[counts] / measured[counts] - 1)
        group = report.groups[setup.name]
        group[f"{name}_mean_error"] = float(made[counts].mean() / measured[counts].mean() - 1)
        group[f"{name}_mape"] = float(errors[name].mean())
    group["preemptions"], group["extrapolated"] = outcome.preemptions, outcome.extrapolated
    off = errors["latency"]
    report.expressed += len(off)
    report.matched += int((off <= _TOLERANCE).sum())
    group["matched"] = int((off <= _TOLERANCE).sum())
    for row in np.argsort(-off)[:_WORST]:
        what = f"{setup.name}: latency of request {row} ({columns.prompt[row]} + {columns.output[row]} tokens)"
        report.worst.append({"row": what, "group": setup.name, "error": float(off[row])})


def _tokens(data: Path, folder: Path, prompt: Sequence[int], output: Sequence[int]) -> list[list[int]]:
    """Token ids of every prompt: of the file whose requests have these lengths, nearest to the setup first."""
    above = [folder, *(parent for parent in folder.parents if parent == data or data in parent.parents)]
    tried = []
    for place in above:
        for path in sorted({*place.glob("*.jsonl"), *place.glob("*.jsonl.gz")}):
            if path.name.startswith("requests.jsonl"):
                continue
            tried.append(path.name)
            rows = _lines(path)
            if any(isinstance(row.get("arrival_time_ns"), int | float) for row in rows):
                rows.sort(key=lambda row: float(row.get("arrival_time_ns") or 0))
            if [(row.get("input_toks"), row.get("output_toks")) for row in rows] == list(zip(prompt, output, strict=True)):
                return [list(row.get("input_tok_ids") or ()) for row in rows]
    raise ConfigError(
        "no file of requests has these prompt and output lengths", where=str(folder), near=tried[:3],
        expected="a *.jsonl.gz of input_toks, output_toks, input_tok_ids, in the setup's folder or above it",
    )  # fmt: skip


def _link(meta: Row) -> str:
    """What NCCL knows that is joined as these GPUs are: PCIe 5 from compute capability 9 on or unknown, else PCIe 4."""
    capability = str((meta.get("hardware") or {}).get("device_capability") or "")
    return "l40s" if capability.startswith(("7", "8")) else "h100_pcie"


def _lines(path: Path) -> list[dict[str, Any]]:
    return [_json(Path(f"{path}:{number}"), line) for number, line in enumerate(text(path).splitlines(), 1) if line.strip()]


def _json(where: Path, content: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError as error:
        raise ConfigError(f"no JSON: {error}", where=str(where)) from None
    if not isinstance(found, dict):
        raise ConfigError("is no JSON object", where=str(where))
    return found


def _column(rows: list[dict[str, Any]], key: str) -> Floats:
    return np.array([float(row[key]) for row in rows])
