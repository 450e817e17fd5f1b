"""One load put on a simulated service: does it keep the objective, and does it keep up?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from distsim.analysis.serving import ServingSummary, summary
from distsim.analysis.serving_limit import limit
from distsim.analysis.serving_slo import BOUNDS, Slo
from distsim.errors import ConfigError
from distsim.serve import ServeSpec, providers_of, read_requests, serve
from distsim.serving.iteration import IterationTimes
from distsim.serving.result import DROPPED, RequestColumns, ServingResult
from distsim.sweep.capacity import Capacity, Progress, Trial, capacity
from distsim.units import PS_PER_S

#: a service keeps up if, at the last arrival, no more than so many requests wait for admission, or such a share of all
_BEHIND, _SHARE = 10, 0.05
#: gaps between arrivals over an idle service's fastest first token, at the highest load tried
_AT_ONCE = 0.01
#: share of the time in which an idle service would be busy, at the lowest load tried
_HARDLY = 1e-3
_HIGHEST = 1e9  #: requests/s, the highest rate of an arrival process
_LONGEST = 4e6  #: seconds that arrivals may last: the clock ends at 2^62 ps, 4.6e6 s
#: arrivals over the mean latency, from which on the start of a run weighs little
_LASTING = 5.0
#: share of the slow first tokens' time, and of the time with waiting, from which on it is the reason
_WAITING = 0.5
#: relative difference between the rate asked for and the one that a run saw, from which on it is told
_OFF = 0.1
QUEUE = "the queue"
_NAMES = {"ttft": "TTFT", "tpot": "TPOT", "latency": "latency", "queueing": "queueing"}


def generated(spec: ServeSpec) -> bool:
    """Whether the requests are made, rather than read from a file."""
    from distsim.registry import names

    return spec.requests.partition(":")[0].strip() in names("arrivals")


def random(spec: ServeSpec) -> bool:
    """Whether seeds make a difference to the requests: a file that is replayed has none."""
    return generated(spec) or spec.arrivals is not None or spec.lengths is not None


def check(spec: ServeSpec) -> None:
    """Raises ConfigError for requests whose load is not free to be varied."""
    for name, value in (("concurrency", spec.concurrency), ("stretch", spec.stretch), ("qps", spec.qps)):
        if value:
            raise ConfigError(f"{name} fixes the load that is looked for", where="capacity", fix="Leave it out.")
    if (spec.arrivals or spec.requests).partition(":")[0].strip() == "static":
        raise ConfigError(
            "static arrivals come at once: there is no load to look for", where=f"requests {spec.arrivals or spec.requests}",
            expected="arrivals with a rate, such as poisson", fix="`distsim serve` tells what the service does with them.",
        )  # fmt: skip
    if spec.duration is not None and (generated(spec) or spec.arrivals is not None):
        raise ConfigError("a duration makes the number of requests follow the load", where="--duration", fix="Give --n.")


@dataclass(slots=True)
class Loads:
    """A service at any load; iteration times are remembered from run to run."""

    spec: ServeSpec
    slo: Slo | None = None
    providers: list[IterationTimes] = field(default_factory=list)
    warnings: dict[str, None] = field(default_factory=dict)  #: of all runs, each once
    refused: int = 0  #: requests that even an idle service turns away

    def __post_init__(self) -> None:
        """Raises as ``providers_of``."""
        check(self.spec)
        if not self.providers:
            self.providers = providers_of(self.spec)

    def __call__(self, load: float, seed: int) -> Trial:
        """Run it. Raises as ``serve``."""
        return self._run({"qps": load, "seed": seed}, load)

    def idle(self) -> Trial:
        """One request at a time, in a closed loop."""
        # NOTE: the rate is of no effect in a closed loop, but a process wants one
        rate = 1.0 if generated(self.spec) or self.spec.arrivals is not None else None
        trial = self._run({"qps": rate, "concurrency": 1}, 0.0)
        self.refused = trial.behind
        return replace(trial, behind=0, passed=trial.passed or (self.slo is None and trial.behind < trial.requests))

    def _run(self, changes: dict[str, object], load: float) -> Trial:
        spec = self.spec.model_copy(update=changes)
        result = serve(spec, table=read_requests(spec), providers=self.providers)
        self.warnings.update(dict.fromkeys(result.warnings))
        return trial(result, self.slo, load, self.refused)

    def find(self, seeds: Sequence[int], tolerance: float, say: Progress = lambda fraction, what: None) -> Capacity:
        """The capacity. Raises ConfigError where no load is too high."""
        say(None, "one request at a time")
        idle = self.idle()
        count, fastest, replicas = idle.requests, idle.percentiles["ttft_p0_ps"], sum(pool.replicas for pool in self.spec.pools)
        if not idle.passed:
            return capacity(self, idle, 0.0, 0.0, seeds, tolerance, say)
        ceiling = min(_HIGHEST, count * PS_PER_S / max(1.0, fastest * _AT_ONCE))
        floor = max(_HARDLY * max(1, replicas) * PS_PER_S / max(1.0, idle.latency), count / _LONGEST)
        found = capacity(self, idle, min(floor, ceiling / 4), ceiling, seeds, tolerance, say)
        if found.mean:
            self._doubt(found)
        return found

    def _doubt(self, found: Capacity) -> None:
        """Warn of answers that hang on how short the runs were, or on chance."""
        at = found.typical
        if at.span < _LASTING * at.latency / PS_PER_S:
            self.warnings[
                f"{at.requests:,} requests arrive in {at.span:.3g} s, and take {at.latency / PS_PER_S:.3g} s each: too few for "
                "a service in its stride, take more (--n)"
            ] = None
        offered = (at.requests - 1) / at.span if at.span and self.spec.sessions is None else at.load
        if abs(offered / at.load - 1) > _OFF:
            self.warnings[
                f"arrivals that are to come at {at.load:.4g} requests/s in the long run come at {offered:.4g} in the "
                f"{at.span:.3g} s of a run: take more (--n), or a process that varies faster"
            ] = None


def trial(result: ServingResult, slo: Slo | None, load: float, refused: int = 0) -> Trial:
    """The verdict on a run. refused: requests that are turned away at any load."""
    requests, found = result.requests, summary(result, slo)
    behind = max(0, _behind(requests) - refused)
    most = max(_BEHIND, math.floor(_SHARE * found.requests))
    kept = 1.0 if found.goodput is None else found.goodput.share
    met = found.goodput is None or found.goodput.met
    values = {} if slo is None else bounds(requests, slo, found.requests)
    worst = max(values, key=lambda name: values[name][0] / max(values[name][1], 1e-12), default=QUEUE)
    if met and behind > most:
        worst = QUEUE
    elif slo is not None and not met and values[worst][0] <= values[worst][1]:
        worst = " and ".join(values) + " together"
    output = requests.output[requests.done]
    steady = found.steady or found.rates
    return Trial(
        load, int(result.spec.get("seed", 0)), met and behind <= most, kept, behind, most, found.requests,
        found.rates.requests, steady.output_tokens, float(output.mean()) if len(output) else math.nan,
        found.latencies.latency.mean, _span(requests), _percentiles(found, requests), worst, values, _by(result, found, worst),
        # a run in which nothing is served lasts no time, and has no mean
        found.gpus or float(sum(row.gpus for row in result.replicas)), found.drops,
    )  # fmt: skip


def _by(result: ServingResult, found: ServingSummary, worst: str) -> str:
    """What limits, behind the bound that gives way: where most of the time to a slow first token is waiting, not what the
    iterations do, but the queue, or the KV blocks that it waits for."""
    verdict = limit(result, found)
    waits = found.finished and found.latencies.queueing.p99 >= _WAITING * found.latencies.ttft.p99
    if waits and (worst == QUEUE or worst.endswith((_NAMES["ttft"], _NAMES["queueing"]))):
        return "KV memory" if verdict.short_of_waiting >= _WAITING else "queue" if worst != QUEUE else "all replicas busy"
    return verdict.by


def _behind(requests: RequestColumns) -> int:
    """Requests that had not been admitted when the last one arrived, and those that were dropped."""
    if not len(requests):
        return 0
    last = int(requests.arrival.max())
    waiting = (requests.scheduled > last) | (requests.scheduled < 0) | (requests.status == DROPPED)
    return int(np.count_nonzero(waiting))


def bounds(requests: RequestColumns, slo: Slo, asked: int) -> dict[str, tuple[float, float]]:
    """By bound, such as ``P99 TTFT``: the value that the objective's share of the requests keep, and the bound, ps. What was
    not served takes for ever."""
    columns = {
        "ttft": requests.ttft, "tpot": requests.tpot, "latency": requests.latency,
        "queueing": requests.scheduled - requests.arrival,
    }  # fmt: skip
    place = max(1, math.ceil(slo.percentile / 100 * asked - 1e-9))
    found = {}
    for name in BOUNDS:
        bound = getattr(slo, name)
        if bound is not None:
            served = np.sort(np.asarray(columns[name])[requests.done])
            value = float(served[place - 1]) if place <= len(served) else math.inf
            found[f"P{slo.percentile:g} {_NAMES[name]}"] = (value, float(bound))
    return found


def _span(requests: RequestColumns) -> float:
    """Seconds from the first arrival to the last."""
    return (int(requests.arrival.max()) - int(requests.arrival.min())) / PS_PER_S if len(requests) else 0.0


def _percentiles(found: ServingSummary, requests: RequestColumns) -> dict[str, float]:
    first = requests.ttft[requests.done]
    spreads = found.latencies
    return {
        "ttft_p0_ps": float(first.min()) if len(first) else math.nan,
        "ttft_p50_ps": spreads.ttft.p50, "ttft_p99_ps": spreads.ttft.p99,
        "tpot_p50_ps": spreads.tpot.p50, "tpot_p99_ps": spreads.tpot.p99, "latency_p99_ps": spreads.latency.p99,
    }  # fmt: skip
