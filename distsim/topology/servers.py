"""Routes of clusters of servers: within a server over its own links, between servers over the rest of the network.

Without it a leaf switch that is no farther than the NVSwitch would carry what stays in the server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.topology.graph import Paths
from distsim.topology.routing import ragged


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A router over some of the links."""

    numbers: NDArray[np.int32]  #: link of the topology for every link that the router knows
    router: Any  #: with ``hops``; see :attr:`Topology.router`

    @property
    def hops(self) -> Callable[[NDArray[np.int32], NDArray[np.int32]], NDArray[np.int64]]:
        return self.router.hops  # type: ignore[no-any-return]


class ServerRouter:
    """Router: ``inside`` between hosts of one server, ``outside`` between others. No host carries the traffic of others.

    Args:
        server: a number for every host, equal where they are in one server.
        outside, inside: what finds the routes.
        by_hops: whether routes of as many hops count as equal, whatever their domains (see topology/fabric.py).
    """

    host_forwarding = False

    def __init__(self, server: NDArray[np.int32], outside: Part, inside: Part, *, by_hops: bool = False) -> None:
        self.by_hops = by_hops
        self._server = server
        self._parts = (outside, inside)

    def hops(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int64]:
        """Links between the pairs."""
        counts = np.zeros(len(src), np.int64)
        local = self._server[src] == self._server[dst]
        for inside, part in enumerate(self._parts):
            rows = np.flatnonzero(local == bool(inside))
            if len(rows):
                counts[rows] = part.hops(src[rows], dst[rows])
        return counts

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> Paths:
        """See :attr:`Topology.router`."""
        local = self._server[src] == self._server[dst]
        counts = np.zeros(len(src), np.int64)
        found = []
        for inside, part in enumerate(self._parts):
            rows = np.flatnonzero(local == bool(inside))
            if len(rows):
                offsets, links = part.router(src[rows], dst[rows])
                counts[rows] = np.diff(offsets)
                found.append((rows, part.numbers[links]))
        offsets = np.zeros(len(src) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        result = np.empty(int(offsets[-1]), np.int32)
        for rows, links in found:
            row, step = ragged(counts[rows])
            result[offsets[rows][row] + step] = links
        return offsets, result
