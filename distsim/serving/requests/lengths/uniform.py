"""Every length of a range is as likely as every other."""

from __future__ import annotations

import numpy as np

from distsim.registry import register
from distsim.serving.requests.ranges import RangeParameters, Tokens, drawn


@register("lengths", "uniform")
class Uniform:
    """``uniform:prompt=100-2000,output=10-500`` or ``uniform:total=1024-4096,ratio=20``."""

    class Params(RangeParameters):
        """Ranges include both ends."""

    def __init__(self, params: Params) -> None:
        self.params = params

    def pairs(self, n: int, rng: np.random.Generator) -> tuple[Tokens, Tokens]:
        """See Lengths."""
        return drawn(self.params, rng, lambda low, high, stream: stream.integers(low, high, n, endpoint=True))
