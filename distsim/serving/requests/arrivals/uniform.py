"""Evenly spaced arrivals: one every 1/qps seconds, the first after one gap. No queueing but what the service makes itself."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distsim.params import Parameters
from distsim.registry import register
from distsim.serving.requests.process import Rate, done, needed
from distsim.units import PS_PER_S


@register("arrivals", "uniform")
class Uniform:
    """``uniform:qps=4``."""

    class Params(Parameters):
        """Of one stream."""

        qps: Rate | None = Field(None, description="requests per second")

    def __init__(self, params: Params) -> None:
        self.params = params

    @property
    def rate(self) -> float | None:
        """Requests/s."""
        return self.params.qps

    def at(self, qps: float) -> Self:
        """Another gap."""
        return type(self)(Uniform.Params(qps=qps))

    def times(self, n: int | None, until: int | None, rng: np.random.Generator) -> NDArray[np.int64]:
        """See ArrivalProcess; nothing is drawn. Arrival i is at (i + 1)/qps, rounded once, so that no error adds up."""
        gap = PS_PER_S / needed(self.params.qps, "uniform")
        count = min(n if n is not None else 1 << 62, int(until / gap) + 1 if until is not None else 1 << 62)
        done(count, int(count * gap), n, until, "uniform")
        times: NDArray[np.int64] = np.rint(np.arange(1, count + 1) * gap).astype(np.int64)
        return times if until is None else times[times < until]
