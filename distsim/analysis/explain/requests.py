"""Where the time of a service's requests went: waiting, prompt, generating, from the tables of its results folder.

Of every finished request: from its arrival to its first iteration it waits, from there to its first token its prompt is worked
on, then it generates. A request that lost its KV blocks and began again has that within these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError

#: cohorts of finished requests, by latency: name -> (from, to) quantiles
_COHORTS = {"all": (0.0, 1.0), "fastest half": (0.0, 0.5), "slowest 10 %": (0.9, 1.0), "slowest 1 %": (0.99, 1.0)}
#: quantile of the times between tokens that counts as undisturbed
_UNDISTURBED = 0.05


class Saved(Protocol):
    """Of :func:`distsim.report.serving_folder.load`."""

    @property
    def summary(self) -> dict[str, Any]: ...
    @property
    def requests(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Cohort:
    """Means over some finished requests, in ps; queueing + prompt + generating = latency."""

    name: str
    requests: int
    latency_ps: float
    queueing_ps: float
    prompt_ps: float
    generating_ps: float
    disturbed_ps: float  #: of generating: beyond the pace of the 5 % of requests whose tokens come fastest
    restarted: int  #: requests that lost their KV blocks and began again
    prompt_tokens: float
    output_tokens: float


@dataclass(frozen=True, slots=True)
class RequestTimes:
    """Findings about a service."""

    answer: str  #: of the run itself
    limit: Mapping[str, Any]
    cohorts: tuple[Cohort, ...]
    tenants: tuple[Cohort, ...]  #: where there are several
    finished: int
    dropped: int
    unfinished: int
    preemptions: int
    kv_peak: float  #: share of KV blocks in use at most


def request_times(saved: Saved) -> RequestTimes:
    """Raises ConfigError where no request finished."""
    table, summary = saved.requests, saved.summary

    def column(name: str) -> NDArray[Any]:
        return np.asarray(table[name].to_numpy())

    done = np.flatnonzero(column("completed_ps") >= 0)
    if not len(done):
        raise ConfigError(
            "no request finished: there is no latency to explain", fix="Let the service run longer, or at a lower load."
        )
    columns = {name: column(name)[done].astype(np.float64) for name in (
        "arrival_ps", "scheduled_ps", "first_token_ps", "completed_ps", "prompt_tokens", "output_tokens", "restarts"
    )}  # fmt: skip
    latency = columns["completed_ps"] - columns["arrival_ps"]
    steps = np.maximum(columns["output_tokens"] - 1, 0)
    generating = columns["completed_ps"] - columns["first_token_ps"]
    several = steps > 0
    pace = float(np.quantile(generating[several] / steps[several], _UNDISTURBED)) if several.any() else 0.0
    disturbed = np.maximum(generating - steps * pace, 0)
    order = np.argsort(latency, kind="stable")

    def cohort(name: str, rows: NDArray[Any]) -> Cohort:
        def mean(values: NDArray[Any]) -> float:
            return float(values[rows].mean())

        return Cohort(
            name, len(rows), mean(latency), mean(columns["scheduled_ps"] - columns["arrival_ps"]),
            mean(columns["first_token_ps"] - columns["scheduled_ps"]), mean(generating), mean(disturbed),
            int(np.count_nonzero(columns["restarts"][rows])), mean(columns["prompt_tokens"]), mean(columns["output_tokens"]),
        )  # fmt: skip

    cohorts = [
        cohort(name, order[min(int(low * len(order)), len(order) - 1) : max(int(np.ceil(high * len(order))), 1)])
        for name, (low, high) in _COHORTS.items()
    ]
    tenants = table["tenant"].combine_chunks()
    names, index = tenants.dictionary.to_pylist(), tenants.indices.to_numpy()[done]
    of_tenants = [cohort(name, np.flatnonzero(index == at)) for at, name in enumerate(names) if (index == at).any()]
    counted = summary["requests"]
    return RequestTimes(
        summary["answer"], summary["limit"], tuple(cohorts), tuple(of_tenants) if len(of_tenants) > 1 else (),
        counted["finished"], counted["dropped"], counted["unfinished"], summary["iterations"]["preemptions"],
        summary["kv"]["peak_share"] or 0.0,
    )  # fmt: skip
