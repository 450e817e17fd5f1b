"""A topology: hosts, switches and directed links, as arrays; immutable; it knows no ranks and no time.

Nodes 0 .. hosts-1 are the hosts (where GPUs sit), the rest are switches. Every cable is two directed links.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

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
    #: over no link.
    router: Callable[[NDArray[np.int32], NDArray[np.int32]], Paths] = field(repr=False)
    dimensions: tuple[Dimension, ...] = ()  #: for N-dimensional compositions (and ring, switch, fully_connected)
    positions: NDArray[np.float64] | None = None  #: (nodes, 2) drawing coordinates, if the builder knows better than a layout

    @property
    def nodes(self) -> int:
        """Hosts and switches."""
        return len(self.node_names)

    @property
    def links(self) -> int:
        """Directed links."""
        return len(self.link_src)

    def paths(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> Paths:
        """Link ids of the route of every pair (src[i], dst[i]): ``links[offsets[i]:offsets[i + 1]]`` in travel order."""
        return self.router(np.asarray(src, dtype=np.int32), np.asarray(dst, dtype=np.int32))
