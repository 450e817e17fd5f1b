"""Random: any replica, each as likely."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distsim.params import Parameters
from distsim.registry import register
from distsim.serving.replica import Replica
from distsim.serving.request import Request


@register("router", "random")
class Random:
    """A replica drawn uniformly from those that take requests, whatever its load."""

    class Params(Parameters):
        """None."""

    def __init__(self, params: Params, rng: np.random.Generator) -> None:
        self._rng = rng

    def route(self, request: Request, replicas: Sequence[Replica]) -> Replica:
        """See distsim.serving.router.Router."""
        return replicas[int(self._rng.integers(len(replicas)))]
