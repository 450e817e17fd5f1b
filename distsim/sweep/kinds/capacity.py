"""``kind: capacity``: a point is a service, its column the highest load that it bears (``distsim capacity``).

Fields: those of kind serving but the ones that fix the load; ``slo``, ``price``, ``seeds`` (how many), ``tolerance``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distsim.errors import ConfigError
from distsim.registry import register
from distsim.serve import ServeSpec, read_requests
from distsim.sweep.capacity import Capacity, Progress
from distsim.sweep.evaluator import Columns, Evaluator, Point
from distsim.sweep.kinds.serving import BESIDE, fields, fits, objective, priced, service
from distsim.sweep.load import Loads, check, generated, random

#: seeds, ratio of the failing load over the passing one less one, requests of a run where nothing else is said
SEEDS, TOLERANCE, REQUESTS = 3, 0.02, 2000
#: fewest requests per replica where nothing is said: the queue of each has to show
_PER_REPLICA = 500
_MOST_SEEDS = 100

_BESIDE: Mapping[str, object] = {**BESIDE, "seeds": None, "tolerance": TOLERANCE}
_FIXED = ("qps", "concurrency", "stretch")


def asked(point: Point) -> ServeSpec:
    """The service of a point, with as many requests as are wanted. Raises ConfigError, also where its load is not free."""
    spec = service(point, _BESIDE)
    check(spec)
    if spec.n is not None:
        return spec
    count = max(REQUESTS, _PER_REPLICA * sum(pool.replicas for pool in spec.pools))
    if not generated(spec):
        count = min(count, _rows(spec))
    return spec.model_copy(update={"n": count})


def _rows(spec: ServeSpec) -> int:
    """Requests of a file. Raises ConfigError."""
    # NOTE: the rate is of no effect on their number, but a process wants one
    return len(read_requests(spec.model_copy(update={"n": None, "qps": None if spec.arrivals is None else 1.0})))


def seeds(point: Point, spec: ServeSpec) -> range:
    """Seeds to run: those asked for, else three, or one where nothing is drawn. Raises ConfigError."""
    count = point.get("seeds")
    if count is None:
        count = SEEDS if random(spec) else 1
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MOST_SEEDS:
        raise ConfigError(f"{count!r} is no number of seeds", where="seeds", expected=f"1 to {_MOST_SEEDS}")
    return range(spec.seed, spec.seed + (count if random(spec) else 1))


def tolerance(point: Point) -> float:
    """Relative. Raises ConfigError."""
    said = point.get("tolerance")
    value = TOLERANCE if said is None else said
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1e-3 <= value <= 0.5:
        raise ConfigError(f"{value!r} is no tolerance", where="tolerance", expected="0.001 to 0.5")
    return float(value)


def bound(point: Point) -> Columns:
    """Refuses what cannot be a service, or has no load to look for."""
    spec = asked(point)
    fits(spec)
    objective(point)
    priced(point)
    seeds(point, spec)
    tolerance(point)
    return {}


def found(point: Point, say: Progress = lambda fraction, what: None) -> tuple[Capacity, Loads]:
    """The capacity of a point, and the service it is of. Raises as ``bound`` and ``distsim.serve.serve``."""
    bound(point)
    spec = asked(point)
    loads = Loads(spec, objective(point))
    if not random(spec) and point.get("seeds") not in (None, 1):
        loads.warnings["a file that is replayed has no randomness: one seed, whatever is asked"] = None
    if not generated(spec) and point.get("n") is None and (rows := _rows(spec)) > (spec.n or 0):
        loads.warnings[f"{spec.requests}: runs take the first {spec.n:,} of {rows:,} requests (--n for more)"] = None
    return loads.find(seeds(point, spec), tolerance(point), say), loads


def evaluate(point: Point) -> Columns:
    """Columns of one capacity."""
    answer, loads = found(point)
    return columns(answer, priced(point)) | {"warnings": len(loads.warnings)}


def cost(answer: Capacity, price: float | None) -> float | None:
    """Per million output tokens, of a service under a load of its capacity, at a price per GPU and hour; None: none to tell."""
    tokens = answer.mean * answer.typical.mean_output
    return None if price is None or not tokens > 0 else answer.typical.gpus * price / 3600 / tokens * 1e6


def columns(answer: Capacity, price: float | None) -> dict[str, Any]:
    """An answer, flat; latencies are those at the capacity."""
    at = answer.typical
    return {
        "capacity_per_s": answer.mean, "low_per_s": answer.low, "high_per_s": answer.high, "gpus": at.gpus,
        "capacity_per_s_gpu": answer.mean / at.gpus if at.gpus else None,
        "cost_per_million_output_tokens": cost(answer, price), **{
            name: value for name, value in at.percentiles.items() if name != "ttft_p0_ps" and answer.mean > 0
        }, "output_tokens_per_s": at.output_tokens if answer.mean > 0 else None, "limited_by": answer.limited_by,
        "runs": len(answer.trials),
    }  # fmt: skip


def objectives(varied: frozenset[str]) -> Mapping[str, str]:
    """Capacity against GPUs."""
    return {"capacity_per_s": "max", "gpus": "min"}


_FIELDS = {name: value for name, value in fields().items() if name not in _FIXED}

CAPACITY = register("study", "capacity")(
    Evaluator(
        "capacity", f"{__name__}:evaluate", {**_FIELDS, **_BESIDE}, ("model", "cluster", "requests"), f"{__name__}:bound",
        objectives,
    )
)  # fmt: skip
