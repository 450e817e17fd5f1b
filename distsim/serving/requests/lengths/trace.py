"""Lengths of a file of requests, of any format: pairs stay pairs, so what answers go with long prompts is kept.

``trace:file=azure_conv.csv`` draws with replacement; ``pick=shuffle`` deals all pairs in a random order, then again in another,
``pick=order`` as the file has them, over and over. Files of lengths without arrivals will do.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from distsim.params import Parameters
from distsim.registry import register
from distsim.serving.requests.ranges import Tokens
from distsim.serving.requests.trace import read_rows, without_zeros


@register("lengths", "trace")
class Trace:
    """``trace:file=azure_conv.csv,pick=resample``."""

    class Params(Parameters):
        """Of one file."""

        file: str = Field(examples=["requests.csv"], description="requests in any format (docs/requests.md)")
        format: str | None = Field(None, description="its format; default: what its header says")
        pick: Literal["resample", "shuffle", "order"] = "resample"
        zero: Literal["clamp", "drop", "error"] = Field("clamp", description="rows without prompt or output tokens")

    def __init__(self, params: Params) -> None:
        self.params = params
        rows = without_zeros(read_rows(params.file, params.format), params.zero)
        self._prompt, self._output = rows.prompt, rows.output
        self.warnings = rows.warnings  #: what was mended in the file

    def pairs(self, n: int, rng: np.random.Generator) -> tuple[Tokens, Tokens]:
        """See Lengths."""
        rows = len(self._prompt)
        if self.params.pick == "resample":
            at = rng.integers(0, rows, n)
        elif self.params.pick == "order":
            at = np.arange(n) % rows
        else:
            at = np.concatenate([rng.permutation(rows) for _ in range(-(-n // rows))] or [np.empty(0, np.int64)])[:n]
        return self._prompt[at], self._output[at]
