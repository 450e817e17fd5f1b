"""Round robin: replicas in turn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distsim.params import Parameters
from distsim.registry import register
from distsim.serving.replica import Replica
from distsim.serving.request import Request


@register("router", "round_robin")
class RoundRobin:
    """The next replica in turn, whatever its load."""

    class Params(Parameters):
        """None."""

    def __init__(self, params: Params, rng: np.random.Generator) -> None:
        self._next = 0

    def route(self, request: Request, replicas: Sequence[Replica]) -> Replica:
        """See distsim.serving.router.Router."""
        chosen = replicas[self._next % len(replicas)]
        self._next += 1
        return chosen
