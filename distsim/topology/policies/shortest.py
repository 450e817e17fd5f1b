"""Routing ``shortest``: one of the routes as good as the topology's own (topology/fabric.py) per pair, by the destination."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distsim.params import Parameters
from distsim.registry import register
from distsim.topology.equal_cost import EqualCost
from distsim.topology.graph import Paths, Topology


@register("routing", "shortest")
class Shortest:
    """One of the shortest routes: ``shortest``, ``shortest:ties=lowest``."""

    class Params(Parameters):
        """Which of several."""

        ties: Literal["spread", "lowest"] = Field(
            "spread", description="spread: by the destination's number, as D-mod-k; lowest: over the lowest link numbers"
        )

    def apply(self, topology: Topology, params: Params) -> Topology:
        """See Policy."""
        return dataclasses.replace(topology, router=ShortestRoutes(EqualCost(topology), spread=params.ties == "spread"))


class ShortestRoutes:
    """Its router."""

    def __init__(self, routes: EqualCost, *, spread: bool) -> None:
        self._routes, self._spread = routes, spread

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> Paths:
        """See :attr:`Topology.router`. Raises TopologyError when a destination cannot be reached."""
        spread = self._spread
        return self._routes.picked(src, dst, lambda rows, count, own: dst[rows] % count if spread else np.zeros_like(count))
