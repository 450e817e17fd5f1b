"""Power of two choices: two replicas at random, the less loaded of them.

Rules (Mitzenmacher, "The power of two choices in randomized load balancing", IEEE TPDS 2001; Envoy's ``LEAST_REQUEST`` with
``choice_count``): ``choices`` different replicas are drawn; the one with the fewest requests, waiting or being served, is
taken, the first drawn among equals. Nearly as even as asking everybody, at the price of asking two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from distsim.params import Parameters
from distsim.registry import register
from distsim.serving.replica import Replica
from distsim.serving.request import Request
from distsim.serving.routers.least_outstanding import least_outstanding


@register("router", "power_of_two")
class PowerOfTwo:
    """The less loaded of two replicas drawn at random."""

    class Params(Parameters):
        """How many are asked."""

        choices: int = Field(2, ge=1, description="replicas drawn for each request")

    def __init__(self, params: Params, rng: np.random.Generator) -> None:
        self._choices = params.choices
        self._rng = rng

    def route(self, request: Request, replicas: Sequence[Replica]) -> Replica:
        """See distsim.serving.router.Router."""
        count = len(replicas)
        if self._choices >= count:
            return least_outstanding(replicas)
        if self._choices == 2:  # NOTE: choice() without replacement takes ten times as long
            first = int(self._rng.integers(count))
            second = int(self._rng.integers(count - 1))
            return least_outstanding((replicas[first], replicas[second + (second >= first)]))
        drawn = self._rng.choice(count, self._choices, replace=False)
        return least_outstanding([replicas[at] for at in drawn])
