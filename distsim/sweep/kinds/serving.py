"""``kind: serving``: a point is a service (``distsim serve``): its fields, those of its pool and deployment, flat; columns are
its latencies, rates and use. ``slo`` and ``price`` (of one GPU for an hour) add goodput and cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticUndefined

from distsim.analysis.serving import ServingSummary, summary
from distsim.analysis.serving_cost import price
from distsim.analysis.serving_limit import limit
from distsim.analysis.serving_slo import Slo
from distsim.errors import ConfigError
from distsim.registry import register
from distsim.serve import ServeSpec, serve
from distsim.serving.deployment import Deployment
from distsim.serving.fleet import Pool, scheduler_options
from distsim.serving.kv.sizes import kv_blocks
from distsim.sweep.evaluator import Columns, Evaluator, Point

#: fields that follow from others where they are left out: no default that an expression could use
_FOLLOW = ("replicas", "gpu", "kv_blocks")
#: of a point, beside the fields of the service
BESIDE: Mapping[str, object] = {"slo": None, "price": None}


def fields() -> dict[str, object]:
    """Every field of a service -> default."""
    found: dict[str, object] = {}
    for spec in (Deployment, Pool, ServeSpec):
        for name, field in spec.model_fields.items():
            if name not in ("deployment", "pools"):
                value = field.default
                found[name] = ... if value is PydanticUndefined or name in _FOLLOW else value
    return {**found, "pools": None, "disaggregate": None}


def service(point: Point, leave_out: Mapping[str, object] = BESIDE) -> ServeSpec:
    """The service of a point. Raises ConfigError."""
    return ServeSpec.of({name: value for name, value in point.items() if name not in leave_out})


def objective(point: Point) -> Slo | None:
    """The objective of a point. Raises ConfigError."""
    said = point.get("slo")
    return None if said is None else Slo.parse(str(said))


def priced(point: Point) -> float | None:
    """Per GPU and hour. Raises ConfigError for what is no price."""
    said = point.get("price")
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 < said < float("inf"):
        raise ConfigError(f"{said!r} per GPU and hour is no price", where="price", expected="a positive number")
    return float(said)


def fits(spec: ServeSpec) -> None:
    """Raises ConfigError for an unknown scheduler, OutOfMemoryError for a model that does not fit its GPUs."""
    for pool in spec.pools:
        scheduler_options(pool.scheduler)
        if pool.kv_blocks is None and pool.times.partition(":")[0] == "model":
            kv_blocks(pool.deployment)


def bound(point: Point) -> Columns:
    """Refuses what cannot be a service; there is no bound on what one does."""
    fits(service(point))
    objective(point)
    priced(point)
    return {}


def evaluate(point: Point) -> Columns:
    """Columns of one simulated service. Raises as ``distsim.serve.serve``."""
    result = serve(service(point))
    found = summary(result, objective(point))
    cost = priced(point)
    return columns(found) | {
        "limited_by": limit(result, found).by,
        "cost_per_million_output_tokens": None if cost is None else price(found, cost).per_million_output_tokens,
        "events": result.counts["events"], "warnings": len(result.warnings),
    }  # fmt: skip


def columns(found: ServingSummary) -> dict[str, Any]:
    """A summary, flat: deterministic values only."""
    steady = found.steady or found.rates
    spreads = {
        f"{name}_{rank}_ps": getattr(spread, rank)
        for name, spread in (
            ("ttft", found.latencies.ttft), ("tpot", found.latencies.tpot), ("latency", found.latencies.latency),
            ("queueing", found.latencies.queueing),
        )
        for rank in ("mean", "p50", "p99")
    }  # fmt: skip
    good = found.goodput
    return {
        "finished": found.finished, "dropped": found.dropped, "requests_per_s": found.rates.requests,
        "output_tokens_per_s": found.rates.output_tokens, "steady_output_tokens_per_s": steady.output_tokens,
        "output_tokens_per_s_gpu": found.output_tokens_per_s_gpu, "gpus": found.gpus, **spreads,
        "slo_share": None if good is None else good.share, "goodput_per_s": None if good is None else good.requests_per_s,
        "slo_met": None if good is None else good.met, "kv_share": found.kv_mean, "kv_peak_share": found.kv_peak,
        "busy_share": found.busy, "batch": found.batch, "preemptions": found.preemptions, "iterations": found.iterations,
        "cache_hit_share": found.cache_hits,
    }  # fmt: skip


def objectives(varied: frozenset[str]) -> Mapping[str, str]:
    """Output tokens per second and GPU against the time per token; goodput cannot be told without an objective."""
    return {"output_tokens_per_s_gpu": "max", "tpot_p99_ps": "min"}


SERVING = register("study", "serving")(
    Evaluator(
        "serving", f"{__name__}:evaluate", {**fields(), **BESIDE}, ("model", "cluster", "requests"), f"{__name__}:bound",
        objectives,
    )
)  # fmt: skip
