"""What a simulated service did, in figures: latencies, throughput, goodput, use of the KV cache and of the GPUs.

Percentiles are exact: of all requests, linear between neighbours, as ``numpy.percentile`` and vLLM's benchmark have them.
Times are ps, rates per second. The *steady window* leaves out how the service filled up and how it drained: from the arrival
of the request that ends the first tenth to the last arrival.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.serving_slo import Slo
from distsim.serving.result import DROPPED, UNFINISHED, ReplicaRow, RequestColumns, ServingResult
from distsim.units import PS_PER_S

#: share of the requests that fill the service up, before the steady window
_WARM = 0.1
#: fewest completions in a steady window that says anything
_FEWEST = 10

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Spread:
    """A quantity over requests. ``count`` of 0: the rest is nan."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    most: float

    @classmethod
    def of(cls, values: NDArray[Any]) -> Spread:
        """Exact percentiles of a column."""
        if not len(values):
            return cls(0, *[float("nan")] * 6)
        found = np.percentile(values, (50, 90, 95, 99, 100)).tolist()
        return cls(len(values), float(values.mean()), *found)


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of the finished requests, ps. tpot: of those with more than one token. normalised: latency per output token."""

    ttft: Spread
    tpot: Spread
    latency: Spread
    queueing: Spread
    normalised: Spread


@dataclass(frozen=True, slots=True)
class Rates:
    """Per second, over ``span_ps``."""

    span_ps: int
    arrivals: float
    requests: float
    prompt_tokens: float
    output_tokens: float


@dataclass(frozen=True, slots=True)
class Goodput:
    """share: of all requests, those that were dropped among them; met: as large as the objective's percentile asks."""

    slo: Slo
    share: float
    requests_per_s: float
    met: bool


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant's part."""

    name: str
    requests: int
    finished: int
    dropped: int
    output_tokens: int
    latencies: Latencies
    goodput: Goodput | None


@dataclass(frozen=True, slots=True)
class ServingSummary:
    """The figures of a run.

    rates: over the whole run, first arrival to end; steady: over the steady window, None where too little is in it.
    drops: by reason. gpus: held by replicas, the mean over the run. kv_mean, kv_peak: share of the KV blocks in use, the mean
    over time and replicas, the most of any replica. batch: requests of an iteration, mean over busy time. busy: share of the
    time in which replicas computed. computed: prompt tokens computed; recomputed: those of them computed again after a
    preemption or failure; cached: prompt tokens found in the prefix cache, of ``looked_up``.
    """

    requests: int
    finished: int
    dropped: int
    unfinished: int
    drops: Mapping[str, int]
    rates: Rates
    steady: Rates | None
    gpus: float
    gpu_seconds: float
    latencies: Latencies
    goodput: Goodput | None
    kv_mean: float
    kv_peak: float
    batch: float
    batch_peak: int
    busy: float
    iterations: int
    preemptions: int
    restarted: int
    computed: int
    recomputed: int
    cached: int
    looked_up: int
    tenants: tuple[Tenant, ...] = field(default=())

    @property
    def cache_hits(self) -> float:
        """Share of the prompt tokens looked up that the prefix cache held; 0 without one."""
        return self.cached / self.looked_up if self.looked_up else 0.0

    @property
    def output_tokens_per_s_gpu(self) -> float:
        """Over the whole run."""
        return self.rates.output_tokens / self.gpus if self.gpus else 0.0


def summary(result: ServingResult, slo: Slo | None = None) -> ServingSummary:
    """The figures of a run, goodput under ``slo`` among them."""
    requests = result.requests
    done = requests.done
    begin, end = span(result)
    gpu_ps = sum(row.gpus * gpu_time(result, row) for row in result.replicas)
    use = _use(result)
    computed = int(result.iterations["tokens"].sum())
    started = requests.scheduled >= 0
    needed = int((requests.prompt - requests.cached)[started].sum())
    asked = int(result.counts.get("requests", len(requests)))
    return ServingSummary(
        requests=asked, finished=int(np.count_nonzero(done)), dropped=int(np.count_nonzero(requests.status == DROPPED)),
        unfinished=int(np.count_nonzero(requests.status == UNFINISHED)) + asked - len(requests), drops=drops(requests),
        rates=rates(requests, begin, end), steady=steady_rates(requests),
        gpus=gpu_ps / result.end if result.end else float(sum(row.gpus for row in result.replicas)),
        gpu_seconds=gpu_ps / PS_PER_S, latencies=latencies(requests, done), goodput=goodput(result, slo), **use,
        preemptions=sum(row.preemptions for row in result.replicas), restarted=int(np.count_nonzero(requests.restarts)),
        iterations=int(result.iterations["count"].sum()), computed=computed, recomputed=max(0, computed - needed),
        cached=sum(row.hits for row in result.replicas), looked_up=sum(row.lookups for row in result.replicas),
        tenants=tenants(result, slo),
    )  # fmt: skip


def span(result: ServingResult) -> tuple[int, int]:
    """First arrival and end of a run, ps."""
    arrival = result.requests.arrival
    return (int(arrival.min()) if len(arrival) else 0), result.end


def gpu_time(result: ServingResult, row: ReplicaRow) -> int:
    """ps of a run in which a replica held its GPUs."""
    if row.held or row.started < 0:
        return row.held
    return max(0, (result.end if row.stopped < 0 else min(row.stopped, result.end)) - row.started)


def drops(requests: RequestColumns) -> dict[str, int]:
    """Dropped requests by reason, the most first."""
    counted = Counter(reason for reason in requests.reason if reason)
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def latencies(requests: RequestColumns, rows: Mask) -> Latencies:
    """Of these finished rows."""
    latency = requests.latency[rows]
    return Latencies(
        Spread.of(requests.ttft[rows]), Spread.of(requests.tpot[rows & (requests.output > 1)]), Spread.of(latency),
        Spread.of((requests.scheduled - requests.arrival)[rows]), Spread.of(latency / requests.output[rows]),
    )  # fmt: skip


def rates(requests: RequestColumns, begin: int, end: int) -> Rates:
    """Of what arrived and what finished in [begin, end]."""
    seconds = (end - begin) / PS_PER_S
    if seconds <= 0:
        return Rates(0, 0.0, 0.0, 0.0, 0.0)
    inside = requests.done & (requests.completed > begin) & (requests.completed <= end)
    arrived = int(np.count_nonzero((requests.arrival >= begin) & (requests.arrival <= end)))
    return Rates(
        end - begin, arrived / seconds, int(np.count_nonzero(inside)) / seconds, int(requests.prompt[inside].sum()) / seconds,
        int(requests.output[inside].sum()) / seconds,
    )  # fmt: skip


def steady_rates(requests: RequestColumns) -> Rates | None:
    """Over the steady window; None where nothing lasts, or fewer than ten requests end in it."""
    if not len(requests):
        return None
    arrival = np.sort(requests.arrival)
    begin, end = int(arrival[int(_WARM * (len(arrival) - 1))]), int(arrival[-1])
    ended = np.count_nonzero(requests.done & (requests.completed > begin) & (requests.completed <= end))
    return rates(requests, begin, end) if ended >= _FEWEST else None


def goodput(result: ServingResult, slo: Slo | None, rows: Mask | None = None) -> Goodput | None:
    """Under an objective, of all requests or of some rows; None without an objective."""
    if slo is None:
        return None
    requests = result.requests
    kept = slo.kept(requests)
    count, asked = len(requests), int(result.counts.get("requests", len(requests)))
    if rows is not None:
        kept, count = kept & rows, int(np.count_nonzero(rows))
        asked = count
    good = int(np.count_nonzero(kept))
    begin, end = span(result)
    share = good / asked if asked else 0.0
    seconds = (end - begin) / PS_PER_S
    return Goodput(slo, share, good / seconds if seconds > 0 else 0.0, count > 0 and share >= slo.percentile / 100 - 1e-12)


def tenants(result: ServingResult, slo: Slo | None = None) -> tuple[Tenant, ...]:
    """By tenant; empty where there is one only."""
    requests = result.requests
    if len(requests.tenants) < 2:
        return ()
    found = []
    for number, name in enumerate(requests.tenants):
        rows = requests.tenant == number
        done = rows & requests.done
        found.append(
            Tenant(
                name or f"tenant {number}", int(np.count_nonzero(rows)), int(np.count_nonzero(done)),
                int(np.count_nonzero(rows & (requests.status == DROPPED))), int(requests.output[done].sum()),
                latencies(requests, done), goodput(result, slo, rows),
            )
        )  # fmt: skip
    return tuple(found)


def held(result: ServingResult, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the iterations of a replica in order of their start, and from when until when each is the last begun, ps: with
    several stages iterations overlap, and these intervals do not."""
    log = result.iterations
    rows = np.flatnonzero(log["replica"] == number)
    rows = rows[np.argsort(log["start"][rows], kind="stable")]
    start = log["start"][rows]
    end = start + log["ps"][rows] * log["count"][rows]
    if len(rows) > 1:
        end[:-1] = np.minimum(end[:-1], start[1:])
    return rows, start, end


def _use(result: ServingResult) -> dict[str, Any]:
    """KV cache, batches and busy time of all replicas."""
    log = result.iterations
    took = log["ps"] * log["count"]
    requests = log["sequences"] + log["prefills"]
    filled = alive = 0.0
    peak, busy = 0.0, 0
    for row in result.replicas:
        there = max(0, gpu_time(result, row) - row.down)
        alive += there
        busy += row.busy
        rows, start, end = held(result, row.number)
        if len(rows) and row.kv_blocks:
            share = log["used"][rows] / row.kv_blocks
            filled += float((share * (end - start)).sum())
            peak = max(peak, float(share.max()))
    total = int(took.sum())
    return {
        "kv_mean": filled / alive if alive else 0.0, "kv_peak": peak,
        "batch": float((requests * took).sum()) / total if total else 0.0,
        "batch_peak": int(requests.max()) if len(requests) else 0, "busy": min(1.0, busy / alive) if alive else 0.0,
    }  # fmt: skip
