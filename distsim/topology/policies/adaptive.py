"""Routing ``adaptive``: a transfer takes, when it is released, the route on which the least is in its way.

Each pair has some candidate routes: some as good as the topology's own (topology/fabric.py), evenly apart among all, and on
request detours over random hosts' switches, as UGAL has them on dragonflies (Kim, Dally, Scott and Abts, ISCA 2008). The
levels ``chunk`` and ``cut_through`` take the candidate with the smallest sum, over its links, of what is queued there, what
has been sent its way but is not there yet, and latency; the first candidate on ties. The choice is for good: a queue that
builds up later is not avoided any more.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distsim.params import Count, Parameters
from distsim.registry import register
from distsim.topology.equal_cost import EqualCost, Own, key_of
from distsim.topology.graph import Paths, Topology
from distsim.topology.policies.spray import spaced
from distsim.topology.policies.valiant import Detours


@register("routing", "adaptive")
class Adaptive:
    """The least loaded of some routes: ``adaptive``, ``adaptive:paths=8``, ``adaptive:paths=1,detours=3``."""

    class Params(Parameters):
        """Among which routes."""

        paths: Count = Field(4, description="shortest routes to choose from")
        detours: Annotated[int, Field(ge=0)] = Field(0, description="routes over a random host's switch, besides")
        seed: Annotated[int, Field(ge=0)] = Field(0, description="which routes these are")

    def apply(self, topology: Topology, params: Params) -> Topology:
        """See Policy."""
        return dataclasses.replace(topology, router=AdaptiveRoutes(topology, params.paths, params.detours, params.seed))


class AdaptiveRoutes:
    """Its router: lane l is candidate l, the shortest ones first. See LaneRouter."""

    part = 1
    chooses = True

    def __init__(self, topology: Topology, paths: int, detours: int, seed: int) -> None:
        self._routes, self._detours = EqualCost(topology), Detours(topology, seed)
        self._paths, self.ways, self._seed = paths, paths + detours, seed

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32], lane: NDArray[np.int32] | None = None) -> Paths:
        """See :attr:`Topology.router`. Raises TopologyError when a destination cannot be reached."""
        start = (key_of(self._seed, src, dst) >> np.uint64(1)).astype(np.int64)
        if lane is None or (lane < self._paths).all():

            def pick(rows: NDArray[np.int64], count: NDArray[np.int64], own: Own) -> NDArray[np.int64]:
                return spaced(count, self._paths, start[rows] % count, None if lane is None else lane[rows])

            return self._routes.picked(src, dst, pick)
        far = np.flatnonzero(lane >= self._paths)
        near = np.flatnonzero(lane < self._paths)
        return interleaved(
            len(src), [near, far], [self(src[near], dst[near], lane[near]), self._detours(src[far], dst[far], lane[far])]
        )

    def lanes(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int64]:
        """See LaneRouter."""
        if self.ways > self._paths:
            return np.where(self._routes.fabric.crosses(src, dst), self.ways, 1).astype(np.int64)
        return np.minimum(self._routes.count(src, dst), self.ways)


def interleaved(total: int, rows: list[NDArray[np.int64]], paths: list[Paths]) -> Paths:
    """One table of paths from several, whose pairs are these rows of it.

    >>> one, two = (np.array([0, 1]), np.array([7])), (np.array([0, 2]), np.array([8, 9]))
    >>> offsets, links = interleaved(2, [np.array([1]), np.array([0])], [one, two])
    >>> offsets.tolist(), links.tolist()
    ([0, 2, 3], [8, 9, 7])
    """
    counts = np.zeros(total, np.int64)
    for some, (offsets, _) in zip(rows, paths, strict=True):
        counts[some] = np.diff(offsets)
    whole = np.concatenate(([0], np.cumsum(counts)))
    links = np.empty(whole[-1], np.int32)
    for some, (offsets, ids) in zip(rows, paths, strict=True):
        links[np.arange(len(ids)) + np.repeat(whole[some] - offsets[:-1], np.diff(offsets))] = ids
    return whole, links
