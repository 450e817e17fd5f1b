"""Routing ``spray``: the traffic of a pair is spread evenly over all routes as good as its own, packet by packet.

Adaptive-free packet spraying as of Ultra Ethernet, Slingshot-like fabrics or NDP (Handley et al., SIGCOMM 2017): receivers
put packets back in order, and every path carries its share whatever else is going on. A row of transfers becomes one part
per path; with chunks (``--network chunk:size=64KiB``) the paths take chunks in turn, which is finer.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distsim.params import Count, Parameters, Size
from distsim.registry import register
from distsim.topology.equal_cost import EqualCost, Own
from distsim.topology.graph import Paths, Topology
from distsim.units import parse_size


@register("routing", "spray")
class Spray:
    """Evenly over all routes like the topology's own: ``spray``, ``spray:paths=8``."""

    class Params(Parameters):
        """How finely."""

        paths: Count = Field(16, description="paths of a pair, at most; of more, some evenly apart, from the topology's own on")
        packet: Size = Field("4KiB", description="what is not divided further (MTU)")

    def apply(self, topology: Topology, params: Params) -> Topology:
        """See Policy."""
        router = SprayedRoutes(EqualCost(topology), params.paths, parse_size(params.packet))
        return dataclasses.replace(topology, router=router)


class SprayedRoutes:
    """Its router. See LaneRouter."""

    chooses = False

    def __init__(self, routes: EqualCost, paths: int, packet: int) -> None:
        self._routes, self.ways, self.part = routes, paths, packet

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32], lane: NDArray[np.int32] | None = None) -> Paths:
        """See :attr:`Topology.router`; lane 0 is the topology's own. Raises TopologyError when there is no way."""

        def pick(rows: NDArray[np.int64], count: NDArray[np.int64], own: Own) -> NDArray[np.int64]:
            return spaced(count, self.ways, own(), None if lane is None else lane[rows])

        if lane is None or not lane.any():
            return self._routes.fabric.topology.paths(src, dst)
        return self._routes.picked(src, dst, pick)

    def lanes(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int64]:
        """See LaneRouter."""
        return np.minimum(self._routes.count(src, dst), self.ways)


def spaced(count: NDArray[np.int64], ways: int, start: NDArray[np.int64], lane: NDArray[np.int32] | None) -> NDArray[np.int64]:
    """Which of ``count`` routes each lane is: the first is ``start``, and the lanes are evenly apart, but for a distance that
    has no divisor in common with the count, as every other route would leave every other switch out. They begin again where
    there are fewer routes than ways.

    >>> spaced(np.array([8, 8, 8, 2]), 2, np.array([0, 0, 1, 0]), np.array([0, 1, 1, 3])).tolist()
    [0, 3, 4, 1]
    """
    apart = count // np.minimum(count, ways)
    while (common := np.gcd(apart, count) > 1).any():
        apart = apart - common
    turn = np.zeros(len(count), np.int64) if lane is None else lane % np.minimum(count, ways)
    return np.asarray((start + turn * apart) % count, np.int64)
