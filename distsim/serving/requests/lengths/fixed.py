"""All requests are of one length."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from distsim.params import Parameters
from distsim.registry import register
from distsim.serving.requests.ranges import TokenCount, Tokens


@register("lengths", "fixed")
class Fixed:
    """``fixed:prompt=1024,output=128``."""

    class Params(Parameters):
        """Tokens."""

        prompt: TokenCount = Field(examples=[1024])
        output: TokenCount = Field(examples=[128])

    def __init__(self, params: Params) -> None:
        self.params = params

    def pairs(self, n: int, rng: np.random.Generator) -> tuple[Tokens, Tokens]:
        """See Lengths."""
        return np.full(n, self.params.prompt, np.int64), np.full(n, self.params.output, np.int64)
