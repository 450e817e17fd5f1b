"""Poisson arrivals: gaps are exponential and independent. What many independent clients make; the default.

``clip=3`` cuts every gap at 3/qps, as Vidur 0.0.2 does (mean gap (1 - e^-3)/qps, so 5 % more load than asked): for parity
only.
"""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distsim.params import Parameters
from distsim.registry import register
from distsim.serving.requests.process import Rate, needed, renewal


@register("arrivals", "poisson")
class Poisson:
    """``poisson:qps=4``."""

    class Params(Parameters):
        """Of one stream."""

        qps: Rate | None = Field(None, description="requests per second")
        clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
            None, description="longest gap, in mean gaps; 3 is Vidur's"
        )

    def __init__(self, params: Params) -> None:
        self.params = params

    @property
    def rate(self) -> float | None:
        """Mean rate: (1 - e^-clip) mean gaps pass per arrival where gaps are clipped."""
        qps, clip = self.params.qps, self.params.clip
        return qps if qps is None or clip is None else qps / -float(np.expm1(-clip))

    def at(self, qps: float) -> Self:
        """``qps`` is the nominal rate, as in the spec, where gaps are clipped."""
        return type(self)(self.params.model_copy(update={"qps": qps}))

    def times(self, n: int | None, until: int | None, rng: np.random.Generator) -> NDArray[np.int64]:
        """See ArrivalProcess."""
        mean, clip = 1 / needed(self.params.qps, "poisson"), self.params.clip

        def gaps(k: int) -> NDArray[np.float64]:
            drawn = rng.standard_exponential(k)
            return (drawn if clip is None else np.minimum(drawn, clip)) * mean

        return renewal(gaps, n, until, "poisson")
