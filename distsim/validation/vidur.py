"""Suite ``vidur``: runs of Vidur, to be met request for request.

Layout of the data: every folder (at any depth) with ``result.json`` and ``requests.csv[.gz]`` is a run; the operator durations
that it used are ``tables/<model>_<device>_tp<T>_pp<P>_<network>_mt<tokens>.npz`` in ``--data`` or beside it. A run is a row. It
is matched when every request's prefill-completed and completed times are within a relative 1e-9 and its restarts are equal.

Every run is a group of its own: requests, how many matched, the largest relative error, CPU seconds of the simulation alone and
how many times faster that is than Vidur's own ``cpu_run_s`` (told, not judged).
"""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distsim.errors import ConfigError, DistsimError, UnknownNameError
from distsim.kernel.clock import Clock
from distsim.models.catalog import model
from distsim.params import text_of
from distsim.registry import lookup, register
from distsim.serving.fleet import make_scheduler
from distsim.serving.log import IterationLog
from distsim.serving.replica import Replica
from distsim.serving.request import Request
from distsim.serving.requests.table import Requests, requests_of
from distsim.serving.router import Router
from distsim.serving.service import Service
from distsim.serving.times.vidur import VidurTimes
from distsim.units import PS_PER_S
from distsim.validation.suite import Progress, Report, find, text

TOLERANCE = 1e-9  #: relative, of every time of every request
_WORST = 10

#: Vidur's policy -> ours, and its ``sched_args`` -> our options; what Vidur reads and does not use there maps to ""
_SCHEDULERS: dict[str, tuple[str, dict[str, str]]] = {
    "vllm": ("vllm_v0", {"max_tokens_in_batch": "max_tokens", "watermark_blocks_fraction": "watermark"}),
    "sarathi": ("sarathi", {"chunk_size": "chunk", "watermark_blocks_fraction": "watermark"}),
    "orca": ("orca", {"watermark_blocks_fraction": ""}),
    "faster_transformer": ("static", {"watermark_blocks_fraction": ""}),
    "lightllm": (
        "lightllm",
        {"max_tokens_in_batch": "max_tokens", "max_waiting_iters": "max_waiting_iters", "watermark_blocks_fraction": ""},
    ),
}
#: ``sched_args`` that every policy of Vidur has; num_blocks is no option but the size of the cache
_COMMON = {"batch_size_cap": "max_num_seqs", "block_size": "block", "num_blocks": ""}
#: what Vidur does and a scheduler would rather not
_QUIRKS = {"sarathi": {"forgetful": "true"}, "static": {"leaks": "true"}}
#: tokens of the longest request that Vidur generates, where a run does not say otherwise
_MAX_TOKENS = 4096
_CAP = 128  #: batch_size_cap of Vidur

#: what of a run's configuration decides its times; the rest says where its requests came from, which are recorded
_DECIDES = {"model", "device", "tp", "pp", "scheduler", "sched_args", "gsched", "replicas", "network", "max_tokens"}
_DESCRIBES = {"name", "arrival", "length", "n", "batchlog", "seed"}


@register("suite", "vidur")
class Vidur:
    """Every request's times, run by run."""

    summary = "Vidur's runs, request for request"

    def run(self, data: Path, progress: Progress) -> Report:
        """See Suite.run."""
        folders = sorted({path.parent for path in data.rglob("result.json*") if find(path.parent, "requests.csv") is not None})
        if not folders:
            raise ConfigError(
                "holds no folder with result.json and requests.csv", where=str(data),
                expected="the layout of reference/serving/vidur",
            )  # fmt: skip
        report = Report("vidur")
        requests = matched = 0
        slowest, worst = np.inf, 0.0
        for number, folder in enumerate(folders):
            name = str(folder.relative_to(data)) if folder != data else folder.resolve().name
            progress(number / len(folders), name)
            report.rows += 1
            try:
                run = read(folder, data)
                outcome = compare(run)
            except DistsimError as error:
                reason = f"{type(error).__name__}: {error.what}"
                report.refused[reason] = report.refused.get(reason, 0) + 1
                report.worst.append({"row": name, "group": "refused", "error": 1.0, "why": str(error)})
                continue
            report.expressed += 1
            report.groups[name] = outcome.metrics
            requests += outcome.requests
            matched += outcome.matched
            worst = max(worst, outcome.error)
            slowest = min(slowest, outcome.metrics.get("times_faster", np.inf))
            if outcome.matched == outcome.requests:
                report.matched += 1
            else:
                report.worst.append({"row": f"{name}: {outcome.what}", "group": name, "error": outcome.error, **run.unread})
        report.metrics = {
            "matched": report.matched, "matched_fraction": report.matched / report.rows,
            "requests": requests, "requests_matched": matched, "worst_error": worst,
        }  # fmt: skip
        if np.isfinite(slowest):
            report.metrics["times_faster_least"] = float(slowest)
        report.worst.sort(key=lambda row: -row["error"])
        del report.worst[_WORST:]
        return report


@dataclass(frozen=True, slots=True)
class Run:
    """A recorded run, ready to be simulated.

    scheduler: specification. route: replicas by row of the requests, where the router drew them; else ``router`` is its name.
    first, last: s at which Vidur ended each prefill and request, nan where it never did. cpu: s that Vidur took, nan unknown.
    unread: what of the configuration nobody understood.
    """

    times: VidurTimes
    table: Requests
    scheduler: str
    blocks: int
    replicas: int
    router: str
    route: tuple[int, ...]
    first: tuple[float, ...]
    last: tuple[float, ...]
    restarts: tuple[int, ...]
    cpu: float
    unread: dict[str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """error: the largest relative one; what: the request that it is of."""

    requests: int
    matched: int
    error: float
    what: str
    metrics: dict[str, float]


class _Recorded:
    """A router that repeats what another drew. Rows are the requests'."""

    def __init__(self, route: Sequence[int]) -> None:
        self._route = route

    def route(self, request: Request, replicas: Sequence[Replica]) -> Replica:
        """See distsim.serving.router.Router."""
        return replicas[self._route[request.row]]


def read(folder: Path, data: Path) -> Run:
    """A run's folder. Raises ConfigError, UnknownNameError in words."""
    paths = find(folder, "result.json"), find(folder, "requests.csv")
    if paths[0] is None or paths[1] is None:
        raise ConfigError("lacks result.json or requests.csv", where=str(folder))
    try:
        result = json.loads(text(paths[0]))
        config = {**result, **result["config"]} if isinstance(result["config"], dict) else result
        unread = sorted(set(result["config"]) - _DECIDES - _DESCRIBES)
        blocks = int(config.get("sched_args", {}).get("num_blocks") or result["num_blocks"])
        tp, pp, replicas = (int(config.get(key, 1)) for key in ("tp", "pp", "replicas"))
        scheduler = _scheduler(config, result)
        spec = model(str(config["model"]))
        times = VidurTimes(str(_table(config, folder, data)), spec.layers, spec.kv_heads < spec.heads, pp, tp)
        cpu = float(result.get("cpu_run_s") or "nan")
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"is not a result: {type(error).__name__} {error}", where=str(paths[0])) from None
    try:
        rows = sorted(csv.DictReader(io.StringIO(text(paths[1]))), key=lambda row: (float(row["arrived_at"]), int(row["id"])))
        table = requests_of(
            np.array([round(float(row["arrived_at"]) * PS_PER_S) for row in rows], np.int64),
            np.array([int(row["num_prefill_tokens"]) for row in rows], np.int64),
            np.array([int(row["num_decode_tokens"]) for row in rows], np.int64), source=str(paths[1]),
        )  # fmt: skip
        router = str(config.get("gsched", "round_robin"))
        drawn = router == "random"
        return Run(
            times, table, scheduler, blocks, replicas, "" if drawn else router,
            tuple(int(float(row["replica"])) for row in rows) if drawn else (),
            tuple(_seconds(row["prefill_completed_at"]) for row in rows), tuple(_seconds(row["completed_at"]) for row in rows),
            tuple(int(float(row["num_restarts"])) for row in rows), cpu,
            {"not_understood": ", ".join(unread)} if unread else {},
        )  # fmt: skip
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"malformed: {type(error).__name__} {error}", where=str(paths[1])) from None


def _seconds(cell: str) -> float:
    """A time, nan for what never came (Vidur writes 0 or nothing)."""
    return float(cell or "nan") or float("nan")


def _scheduler(config: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Specification of the run's scheduler. Raises UnknownNameError; ConfigError on an argument that is not understood."""
    if config["scheduler"] not in _SCHEDULERS:
        raise UnknownNameError("Vidur scheduler", str(config["scheduler"]), _SCHEDULERS)
    name, own = _SCHEDULERS[config["scheduler"]]
    known = {**_COMMON, **own}
    given = config.get("sched_args") or {}
    for key in given:
        if key not in known:
            raise ConfigError(
                f"sched_args {key!r} of {config['scheduler']!r} is not understood", where="result.json",
                expected=f"one of {', '.join(known)}",
            )  # fmt: skip
    options: dict[str, Any] = {"max_num_seqs": _CAP, **_QUIRKS.get(name, {})}
    options |= {known[key]: value for key, value in given.items() if known[key] and value is not None}
    if name in ("orca", "static"):
        # NOTE: these two also keep to the requests that memory has slots for, which Vidur works out per stage and records
        options["max_num_seqs"] = min(int(options["max_num_seqs"]), int(result["max_batch_size"]))
        options["max_len"] = config.get("max_tokens", _MAX_TOKENS)
    return text_of(name, options)


def _table(config: Mapping[str, Any], folder: Path, data: Path) -> Path:
    """The operator durations of a run. Raises ConfigError where there is not exactly one."""
    stem = f"{config['model']}_{config['device']}_tp{config.get('tp', 1)}_pp{config.get('pp', 1)}_{config.get('network', '*')}"
    homes = (data / "tables", data.resolve().parent / "tables", folder / "tables", folder.resolve().parent / "tables")
    home = next((home for home in homes if home.is_dir()), None)
    if home is None:
        raise ConfigError("no folder 'tables'", where=str(data), expected="operator durations in it or beside it")
    found = sorted(home.glob(f"{stem}_mt*.npz"), key=_tokens)
    usual = [path for path in found if _tokens(path) == int(config.get("max_tokens", _MAX_TOKENS))] or found[-1:]
    if len(usual) > 1:
        raise ConfigError(f"{len(usual)} tables fit: {', '.join(path.name for path in usual)}", where=str(home))
    if not usual:
        near = sorted(path.name for path in home.glob(f"{config['model']}_*.npz"))[:3]
        raise ConfigError(f"no durations {stem}_mt*.npz", where=str(home), near=near)
    return usual[0]


def _tokens(path: Path) -> int:
    """Tokens that a table reaches to, by its name."""
    ending = re.search(r"_mt(\d+)$", path.stem)
    return int(ending.group(1)) if ending else 0


def prepared(run: Run, *, stepped: bool = False) -> tuple[Clock, Service]:
    """A run that only waits for its clock. Raises ConfigError, UnknownNameError for its scheduler or router."""
    clock, log = Clock(), IterationLog()
    router: Router
    if run.route:
        router = _Recorded(run.route)
    else:
        component = lookup("router", run.router)
        router = component(component.Params(), np.random.default_rng(0))
    service = Service(clock, run.table, router)
    schedulers = [make_scheduler(run.scheduler, run.blocks, run.times.stages) for _ in range(run.replicas)]
    service.start([
        Replica(number, clock, scheduler, run.times, log, service.ended, stepped) for number, scheduler in enumerate(schedulers)
    ])  # fmt: skip
    return clock, service


def compare(run: Run) -> Outcome:
    """Simulate and compare request by request. Raises ConfigError where the durations do not hold a batch."""
    clock, service = prepared(run)
    start = time.process_time()
    clock.run()
    cpu = time.process_time() - start
    matched, worst, what = 0, 0.0, ""
    for row, request in enumerate(service.requests):
        assert request is not None  # all have arrived once the clock is dry
        error = max(_off(request.first, run.first[row]), _off(request.completed, run.last[row]))
        restarts = request.restarts == run.restarts[row]
        matched += error <= TOLERANCE and restarts
        if error > worst or (not what and not restarts):
            worst = max(error, worst)
            what = f"request {row}" + ("" if restarts else f", {request.restarts} restarts instead of {run.restarts[row]}")
            what += f", {request.reason}" if request.reason else ""
    metrics = {"rows": len(run.table), "matched": matched, "worst_error": worst, "cpu_s": cpu}
    if run.cpu > 0 and cpu > 0:
        metrics |= {"vidur_cpu_s": run.cpu, "times_faster": run.cpu / cpu}
    return Outcome(len(run.table), matched, worst, what, metrics)


def _off(ours: int, theirs: float) -> float:
    """Relative error of a time, ps against s; 1 where only one of the two ever came, 0 where neither did."""
    if theirs != theirs or ours < 0:
        return float((theirs == theirs) != (ours >= 0))
    return abs(ours / PS_PER_S - theirs) / theirs
