"""Gamma-distributed gaps: burstiness in one number. cv (standard deviation / mean of a gap) 1 is Poisson, more comes in clumps,
less is more even. vLLM's benchmark and Vidur offer the same law (``burstiness`` there is 1/cv^2).
"""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distsim.params import Parameters
from distsim.registry import register
from distsim.serving.requests.process import Rate, needed, renewal


@register("arrivals", "gamma")
class Gamma:
    """``gamma:qps=4,cv=2``: shape 1/cv^2, scale cv^2/qps."""

    class Params(Parameters):
        """Of one stream."""

        qps: Rate | None = Field(None, description="requests per second")
        cv: Annotated[float, Field(ge=0.01, le=20)] = Field(
            2.0, description="standard deviation of a gap over its mean; 1 is Poisson"
        )

    def __init__(self, params: Params) -> None:
        self.params = params

    @property
    def rate(self) -> float | None:
        """Mean requests/s."""
        return self.params.qps

    def at(self, qps: float) -> Self:
        """The same burstiness at another rate."""
        return type(self)(self.params.model_copy(update={"qps": qps}))

    def times(self, n: int | None, until: int | None, rng: np.random.Generator) -> NDArray[np.int64]:
        """See ArrivalProcess."""
        mean, shape = 1 / needed(self.params.qps, "gamma"), self.params.cv**-2
        return renewal(lambda k: rng.standard_gamma(shape, k) * (mean / shape), n, until, "gamma")
