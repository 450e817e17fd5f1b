"""Routing ``valiant``: every pair goes over a random third host's switch, by the topology's own routes to there and on.

Valiant's trick (Valiant and Brebner, STOC 1981): any traffic pattern becomes two random ones, at twice the length. It rescues
the worst patterns of dragonflies and tori, where minimal routes pile up on one link; trees gain nothing from it, as their
shortest routes are spread already. The turn is taken at the third host's switch, or in the host where hosts are joined
directly (tori).
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distsim.params import Count, Parameters
from distsim.registry import register
from distsim.topology.equal_cost import key_of
from distsim.topology.graph import Paths, Topology
from distsim.topology.routing import ragged

PACKET = 4096  #: bytes: where there are several routes, parts are no smaller than an InfiniBand MTU


@register("routing", "valiant")
class Valiant:
    """Over random third switches: ``valiant``, ``valiant:seed=3,paths=4``."""

    class Params(Parameters):
        """Over which."""

        seed: Annotated[int, Field(ge=0)] = Field(0, description="of the third hosts")
        paths: Count = Field(1, description="third hosts of a pair, over which its traffic is divided")

    def apply(self, topology: Topology, params: Params) -> Topology:
        """See Policy."""
        return dataclasses.replace(topology, router=Detours(topology, params.seed, params.paths))


class Detours:
    """Its router; every lane has a third host of its own. See LaneRouter."""

    part = PACKET
    chooses = False

    def __init__(self, topology: Topology, seed: int, ways: int = 1) -> None:
        self._topology, self._seed, self.ways = topology, seed, ways

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32], lane: NDArray[np.int32] | None = None) -> Paths:
        """See :attr:`Topology.router`. Raises TopologyError when a destination cannot be reached."""
        topology = self._topology
        if lane is None:
            lane = np.zeros(len(src), np.int32)
        third = (key_of(self._seed, src, dst, lane) % np.uint64(topology.hosts)).astype(np.int32)
        third = np.where(src == dst, src, third)
        there, there_links = topology.paths(src, third)
        on, on_links = topology.paths(third, dst)
        counts, more = np.diff(there), np.diff(on)
        turns = np.flatnonzero((counts > 0) & (more > 0))
        # NOTE: into the third host and back over the same cable is cut off: the turn is at its switch
        back = turns[there_links[there[turns + 1] - 1] == on_links[on[turns]] ^ 1]
        skip = np.zeros(len(src), np.int64)
        skip[back] = 1
        row, step = ragged(counts + more - 2 * skip)
        first = step < (counts - skip)[row]
        links = np.empty(len(row), np.int32)
        links[first] = there_links[(there[row] + step)[first]]
        links[~first] = on_links[(on[row] + step - (counts - 2 * skip)[row])[~first]]
        return np.concatenate(([0], np.cumsum(counts + more - 2 * skip))), links

    def lanes(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int64]:
        """See LaneRouter."""
        return np.where(src == dst, 1, self.ways).astype(np.int64)
