"""Lengths whose logarithm is normal: what prompts and answers of chat services roughly are.

Each side is told by its median and sigma (of the logarithm) or by its mean and 99th percentile:
``lognormal:prompt_median=1000,prompt_sigma=1,output_mean=200,output_p99=800``. Drawn values are rounded, to at least 1 token.

From mean m and p99 q: sigma is the smaller root of sigma^2/2 - z sigma + ln(q/m) = 0 with z = 2.326, the normal 99th
percentile; there is none where q/m > exp(z^2/2) = 14.97, which no lognormal law reaches.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from distsim.params import Parameters
from distsim.registry import register
from distsim.serving.requests.ranges import LONGEST, Tokens

_Z99 = NormalDist().inv_cdf(0.99)
_Positive = Annotated[float, Field(ge=1, le=LONGEST, allow_inf_nan=False)]
_Sigma = Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)]


def _law(side: str, median: float | None, sigma: float | None, mean: float | None, p99: float | None) -> tuple[float, float]:
    """(mu, sigma) of the logarithm. Raises ValueError."""
    if median is not None and sigma is not None and mean is None and p99 is None:
        return math.log(median), sigma
    if mean is None or p99 is None or median is not None or sigma is not None:
        raise ValueError(f"{side}: it takes {side}_median and {side}_sigma, or {side}_mean and {side}_p99")
    ratio = math.log(p99 / mean)
    if not 0 <= ratio <= _Z99**2 / 2:
        raise ValueError(
            f"{side}: a lognormal law's p99 is 1 to {math.exp(_Z99**2 / 2):.2f} times its mean, not {p99 / mean:.4g} times"
        )
    found = _Z99 - math.sqrt(_Z99**2 - 2 * ratio)
    return math.log(mean) - found**2 / 2, found


@register("lengths", "lognormal")
class Lognormal:
    """``lognormal:prompt_median=1000,prompt_sigma=1,output_median=130,output_sigma=0.9``."""

    class Params(Parameters):
        """Tokens. ``correlation`` is that of the two logarithms."""

        prompt_median: _Positive | None = None
        prompt_sigma: _Sigma | None = None
        prompt_mean: _Positive | None = None
        prompt_p99: _Positive | None = None
        output_median: _Positive | None = None
        output_sigma: _Sigma | None = None
        output_mean: _Positive | None = None
        output_p99: _Positive | None = None
        correlation: Annotated[float, Field(ge=-1, le=1)] = Field(0.0, description="of the logarithms of prompt and output")

        @model_validator(mode="after")
        def _fit(self) -> Self:
            self.laws()
            return self

        def laws(self) -> tuple[tuple[float, float], tuple[float, float]]:
            """(mu, sigma) of the prompt's and the output's logarithm."""
            return (
                _law("prompt", self.prompt_median, self.prompt_sigma, self.prompt_mean, self.prompt_p99),
                _law("output", self.output_median, self.output_sigma, self.output_mean, self.output_p99),
            )

    def __init__(self, params: Params) -> None:
        self.params = params

    def pairs(self, n: int, rng: np.random.Generator) -> tuple[Tokens, Tokens]:
        """See Lengths."""
        first, second = rng.standard_normal((n, 2)).T
        tied = self.params.correlation
        normals = (first, tied * first + math.sqrt(1 - tied**2) * second)

        def tokens(law: tuple[float, float], normal: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Tokens:
            values = np.minimum(np.exp(law[0] + law[1] * normal), LONGEST)
            return np.maximum(np.rint(values).astype(np.int64), 1)

        prompt, output = (tokens(law, normal) for law, normal in zip(self.params.laws(), normals, strict=True))
        return prompt, output
