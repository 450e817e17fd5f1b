"""The fabric between servers, and the part of a route that crosses it: what a routing policy may choose.

Links of a scale-up network (domains ``nvlink...``, ``xgmi...``) are no fabric: two GPUs that these join talk over them, and no
traffic between servers passes them but where the topology's own router sends it over them first (PXN, to the GPU on the right
rail) or last. Between the first and the last link of the fabric any route is as good as the topology's own that

- has as many links of every domain, so that a dragonfly's global cables stay as few and a tree is climbed no higher; where the
  topology's own router counts nothing but hops (tori and other compositions, graphs from files), as many links,
- has no scale-up link, and passes hosts only if the topology's own passes some.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.topology.graph import Paths, Topology

SCALE_UP = ("nvlink", "xgmi")  #: how the domains of scale-up links begin: NVLink and NVSwitch, AMD's Infinity Fabric

_Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Crossings:
    """The topology's own routes of some pairs, and of those that cross the fabric in one piece, this piece."""

    paths: Paths
    rows: _Numbers  #: pairs that cross the fabric; the columns below are of these
    first: _Numbers  #: where the piece begins among the links of ``paths``
    steps: _Numbers  #: its links
    entry: NDArray[np.int32]  #: node where it begins
    exit: NDArray[np.int32]  #: node where it ends
    through_hosts: NDArray[np.bool_]  #: whether hosts lie on it
    shape: _Numbers  #: (pairs, classes): links of every class


class Fabric:
    """What of a topology is fabric, and which of its links count as alike."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        outside = np.array([not name.startswith(SCALE_UP) for name in topology.domains], np.bool_)
        self.outside: NDArray[np.bool_] = outside[topology.link_domain]  #: links of the fabric
        self.by_hops = bool(topology.dimensions) or bool(getattr(topology.router, "by_hops", False))
        alike = np.zeros(len(outside), np.int64) if self.by_hops else np.maximum(np.cumsum(outside) - 1, 0)
        self.link_class: _Numbers = alike[topology.link_domain]  #: of every link
        self.classes = int(alike.max(initial=0)) + 1
        joined = self.outside & (topology.link_src < topology.hosts) & (topology.link_dst < topology.hosts)
        #: whether traffic may turn in a host that it is not meant for: where the fabric joins hosts directly, or is composed of
        #: dimensions that meet in hosts
        self.host_forwarding = bool(topology.dimensions) or bool(
            joined.any() and getattr(topology.router, "host_forwarding", True)
        )

    def crossings(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> Crossings:
        """See Crossings. Raises TopologyError where the topology has no route."""
        topology = self.topology
        offsets, links = topology.paths(src, dst)
        begin, end = offsets[:-1], offsets[1:]
        if self.outside.all():
            rows = np.flatnonzero(end > begin)
            first, last = begin[rows], end[rows] - 1
        else:
            place = np.flatnonzero(self.outside[links])
            before = np.searchsorted(place, offsets)
            rows = np.flatnonzero(before[1:] > before[:-1])
            first, last = place[before[rows]], place[before[rows + 1] - 1]
            whole = last - first + 1 == before[rows + 1] - before[rows]  # else there is a scale-up link in the midst
            rows, first, last = rows[whole], first[whole], last[whole]
        steps = last - first + 1
        hosts = _running(topology.link_dst[links] < topology.hosts)
        if self.classes == 1:
            shape = steps[:, None]
        else:
            kind = self.link_class[links]
            counts = [_running(kind == each) for each in range(self.classes)]
            shape = np.stack([count[last + 1] - count[first] for count in counts], axis=1)
        return Crossings(
            (offsets, links), rows, first, steps, topology.link_src[links[first]], topology.link_dst[links[last]],
            hosts[last] > hosts[first], shape,
        )  # fmt: skip

    def crosses(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which pairs' own routes cross the fabric at all. Raises as :meth:`crossings`."""
        offsets, links = self.topology.paths(src, dst)
        count = _running(self.outside[links])[offsets]
        return np.asarray(count[1:] > count[:-1], np.bool_)


def _running(flags: NDArray[np.bool_]) -> _Numbers:
    """How many are true before each, and in all."""
    total = np.zeros(len(flags) + 1, np.int64)
    np.cumsum(flags, out=total[1:])
    return total
