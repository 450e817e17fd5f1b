"""A topology: hosts, switches and directed links, as arrays; immutable; it knows no ranks and no time.

Nodes 0 .. hosts-1 are the hosts (where GPUs sit), the rest are switches. Every cable is two directed links: cable ``c`` is
the links ``2 * c`` and ``2 * c + 1``, so that the reverse of a link is ``link ^ 1``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from distsim.errors import TopologyError

Paths = tuple[NDArray[np.int64], NDArray[np.int32]]


@dataclass(frozen=True, slots=True)
class Dimension:
    """One dimension of an N-dimensional composition, as ASTRA-sim has them. Dimension 0 varies fastest in host numbers."""

    kind: str  #: ring | switch | fully_connected
    size: int
    bandwidth: float  #: bytes/s of one link
    latency: int  #: ps of one hop


@dataclass(frozen=True, slots=True, eq=False)
class Topology:
    """Named nodes and directed links (L in all)."""

    name: str  #: builder or file it came from
    spec: str  #: the full specification, defaults and inferred sizes included: ``fat_tree:k=8,bandwidth=400Gbps``
    hosts: int
    node_names: tuple[str, ...]
    link_src: NDArray[np.int32]
    link_dst: NDArray[np.int32]
    link_bandwidth: NDArray[np.float64]  #: bytes/s
    link_latency: NDArray[np.int64]  #: ps
    link_domain: NDArray[np.int16]  #: index into ``domains``
    domains: tuple[str, ...]  #: names of link classes, such as nvlink, rail, spine
    #: deterministic router: (src hosts, dst hosts) -> paths of all pairs as (offsets, link ids). A host reaches itself
    #: over no link. One that offers several ways (see topology/lanes.py) also takes their numbers, a third column.
    router: Callable[..., Paths] = field(repr=False)
    dimensions: tuple[Dimension, ...] = ()  #: for N-dimensional compositions (and ring, switch, fully_connected)
    positions: NDArray[np.float64] | None = None  #: (nodes, 2) drawing coordinates, if the builder knows better than a layout
    inferred: tuple[str, ...] = ()  #: sentences on what was inferred: ``k=8 inferred from 64 ranks: 128 hosts``
    #: how host numbers nest, fastest first, where ``dimensions`` does not say (GPUs of a node, nodes): hierarchical collectives
    levels: tuple[int, ...] = ()
    bisection: float | None = None  #: bytes/s one way over the worst even split of the hosts, where a closed form is exact
    devices: tuple[str, ...] = ()  #: kinds of device at the hosts, such as h100; empty where the topology does not say
    host_device: NDArray[np.int16] | None = None  #: index into ``devices`` of every host; None: all are ``devices[0]``
    calibration: str = ""  #: file with an NCCL calibration of this cluster, used where none other is given

    @property
    def nodes(self) -> int:
        """Hosts and switches."""
        return len(self.node_names)

    @property
    def links(self) -> int:
        """Directed links."""
        return len(self.link_src)

    def device(self, host: int) -> str:
        """Kind of device at a host, "" where the topology does not say."""
        if not self.devices:
            return ""
        return self.devices[0 if self.host_device is None else int(self.host_device[host])]

    @property
    def ways(self) -> int:
        """Routes that the router offers between two hosts, at most; lanes are numbered below."""
        return int(getattr(self.router, "ways", 1))

    def paths(self, src: NDArray[np.int32], dst: NDArray[np.int32], lane: NDArray[np.int32] | None = None) -> Paths:
        """Link ids of the route of every pair (src[i], dst[i]): ``links[offsets[i]:offsets[i + 1]]`` in travel order.

        ``lane``: which of the :attr:`ways` each takes; 0 by default. Raises TopologyError on a host or lane that is not there.
        """
        src, dst = self._hosts(src), self._hosts(dst)
        if lane is None or not np.any(lane):
            return self.router(src, dst)
        ways = self.ways
        if not 0 <= lane.min() <= lane.max() < ways:
            wrong = lane[(lane < 0) | (lane >= ways)][0]
            raise TopologyError(f"there is no lane {wrong}", where=self.name, expected=f"0 to {ways - 1}")
        return self.router(src, dst, lane)

    def lanes(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int64]:
        """How many lanes of every pair are of use: 1 where it has one route, at most :attr:`ways`."""
        count = getattr(self.router, "lanes", None)
        if count is None:
            return np.ones(len(src), np.int64)
        return np.asarray(count(self._hosts(src), self._hosts(dst)), np.int64)

    def hops(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int64]:
        """Number of links on the route of every pair, without listing them where the router can count them."""
        src, dst = self._hosts(src), self._hosts(dst)
        count = getattr(self.router, "hops", None)
        return np.asarray(count(src, dst) if count else np.diff(self.router(src, dst)[0]), dtype=np.int64)

    def _hosts(self, numbers: NDArray[np.int32]) -> NDArray[np.int32]:
        """The numbers as a column. Raises TopologyError on one that is not a host."""
        column = np.asarray(numbers, dtype=np.int32)
        if len(column) and not 0 <= column.min() <= column.max() < self.hosts:
            wrong = column[(column < 0) | (column >= self.hosts)][0]
            raise TopologyError(f"there is no host {wrong}", where=self.name, expected=f"0 to {self.hosts - 1}")
        return column

    def link_name(self, link: int) -> str:
        """``gpu3->leaf0``."""
        return f"{self.node_names[self.link_src[link]]}->{self.node_names[self.link_dst[link]]}"
