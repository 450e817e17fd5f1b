"""Short requests are many, long ones few: length low + r - 1 has probability proportional to r^-theta, r = 1, 2, ...

Bounded at both ends, so any theta from 0 (uniform) on will do. Vidur's generator is the same law over ranks, which it then
scrambles over the range.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from distsim.registry import register
from distsim.serving.requests.ranges import RangeParameters, Tokens, drawn


def zipf_ranks(count: int, theta: float, n: int, rng: np.random.Generator) -> Tokens:
    """n ranks from 0 to ``count`` - 1, rank r with probability proportional to (r + 1)^-theta."""
    weights = np.cumsum(np.arange(1, count + 1, dtype=np.float64) ** -theta)
    return np.searchsorted(weights / weights[-1], rng.random(n), side="right").astype(np.int64)


@register("lengths", "zipf")
class Zipf:
    """``zipf:theta=0.6,total=1024-4096,ratio=20`` or ``zipf:theta=1,prompt=100-8000,output=10-1000``."""

    class Params(RangeParameters):
        """Ranges include both ends."""

        theta: Annotated[float, Field(ge=0, le=10)] = Field(0.6, description="skew; 0 is uniform. 0.6 is Vidur's default")

    def __init__(self, params: Params) -> None:
        self.params = params

    def pairs(self, n: int, rng: np.random.Generator) -> tuple[Tokens, Tokens]:
        """See Lengths."""
        theta = self.params.theta
        return drawn(self.params, rng, lambda low, high, stream: low + zipf_ranks(high - low + 1, theta, n, stream))
