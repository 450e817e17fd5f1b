"""A simulated service as one JSON document: what ``distsim serve --json`` prints and ``summary.json`` of its folder holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from distsim.analysis.serving import Goodput, Latencies, Rates, Spread
from distsim.analysis.serving_findings import Findings
from distsim.analysis.serving_slo import BOUNDS
from distsim.report.serving import LATENCIES, answer
from distsim.serving.result import ReplicaRow, ServingResult

FORMAT = "distsim-serving"
#: version of the tables of a results folder and of the keys of its summary
SCHEMA = 1
#: replicas that the document lists; of more it gives the number
_REPLICAS = 64


def document(result: ServingResult, found: Findings) -> dict[str, Any]:
    """The answer as one JSON document; keys are stable within a schema version and end in their unit; null: no such figure."""
    s = found.summary
    made = {
        "format": FORMAT, "schema": SCHEMA, "answer": answer(result, found),
        "requests": {
            "asked": s.requests, "finished": s.finished, "dropped": s.dropped, "unfinished": s.unfinished,
            "dropped_by_reason": dict(s.drops), "restarted": s.restarted,
        },
        "latencies": {**latencies_of(s.latencies), "between_tokens_ps": _of(found.between),
                      "longest_between_tokens_ps": _of(found.longest)},
        "throughput": {"whole": rates_of(s.rates, s.gpus), "steady": None if s.steady is None else rates_of(s.steady, s.gpus)},
        "goodput": goodput_of(s.goodput),
        "limit": {
            "by": found.limit.by, "of": found.limit.of, "because": found.limit.because, "waiting_share": found.limit.waiting,
            "kv_short_share": found.limit.short, "kv_short_share_of_waiting": found.limit.short_of_waiting,
            "seats_taken_share": found.limit.full,
            "time_shares": None if found.limit.parts is None else dict(found.limit.parts),
        },
        "kv": {"mean_share": s.kv_mean, "peak_share": s.kv_peak},
        "prefix_cache": {"hit_tokens": s.cached, "looked_up_tokens": s.looked_up, "hit_share": s.cache_hits},
        "iterations": {
            "count": s.iterations, "batch_mean": s.batch, "batch_most": s.batch_peak, "busy_share": s.busy,
            "preemptions": s.preemptions, "prompt_tokens": s.computed, "recomputed_tokens": s.recomputed,
        },
        "gpus": s.gpus, "gpu_seconds": s.gpu_seconds,
        "price": None if found.price is None else asdict(found.price),
        "energy_estimate": None if found.energy is None else asdict(found.energy),
        "relative_error": dict(found.errors),
        "measured_relative_error": {name: {"tpot": one.tpot, "ttft": one.ttft} for name, one in found.measured.items()},
        "tiers": [asdict(one) for one in result.tallies.tiers], "swap": [asdict(one) for one in result.tallies.swaps],
        "speculation": [
            {**asdict(one), "accepted_per_step": one.accepted_per_step} for one in result.tallies.drafts
        ],
        "tenants": [
            {
                "name": one.name, "requests": one.requests, "finished": one.finished, "dropped": one.dropped,
                "output_tokens": one.output_tokens, "latencies": latencies_of(one.latencies),
                "goodput": goodput_of(one.goodput),
            }
            for one in s.tenants
        ],
        "replica_count": len(result.replicas), "replicas": [_replica(row) for row in result.replicas[:_REPLICAS]],
        "end_ps": result.end, "warnings": list(result.warnings), "counts": dict(result.counts), "spec": dict(result.spec),
        "provenance": dict(result.provenance),
    }  # fmt: skip
    return {key: _finite(value) for key, value in made.items()}


def _replica(row: ReplicaRow) -> dict[str, Any]:
    values = asdict(row)
    times = {f"{name}_ps": values.pop(name) for name in ("busy", "started", "stopped", "held", "down")}
    tokens = {"block_tokens": values.pop("block"), "hit_tokens": values.pop("hits"), "looked_up_tokens": values.pop("lookups")}
    return {**values, **tokens, **times}


def latencies_of(latencies: Latencies) -> dict[str, Any]:
    """Percentiles by name, in ps."""
    return {f"{name}_ps": _of(getattr(latencies, name)) for name in LATENCIES}


def rates_of(rates: Rates, gpus: float) -> dict[str, Any]:
    """Rates by name, per second."""
    return {
        "span_ps": rates.span_ps, "arrivals_per_s": rates.arrivals, "requests_per_s": rates.requests,
        "prompt_tokens_per_s": rates.prompt_tokens, "output_tokens_per_s": rates.output_tokens,
        "output_tokens_per_s_gpu": rates.output_tokens / gpus if gpus else 0.0,
    }  # fmt: skip


def goodput_of(found: Goodput | None) -> dict[str, Any] | None:
    """Goodput and its objective."""
    if found is None:
        return None
    slo = {f"{name}_ps": getattr(found.slo, name) for name in BOUNDS} | {"percentile": found.slo.percentile}
    return {"slo": slo, "share": found.share, "requests_per_s": found.requests_per_s, "met": found.met}


def _of(spread: Spread) -> dict[str, Any]:
    return {one.name: getattr(spread, one.name) for one in fields(Spread)}


def _finite(value: Any) -> Any:
    """The same with null for what is no number, which JSON has no word for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
