"""A topology some of whose links are slower, later or dead: the same nodes and links, other figures, routes around the dead.

Routes that the failure does not touch stay as they were; the others take shortest paths over what is left. A link of
bandwidth 0 is down. Routes may still cross it until they are told to avoid it: what goes there is stuck until then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from distsim.errors import PartitionError
from distsim.topology.graph import Paths, Topology
from distsim.topology.lanes import choices_of, part_of
from distsim.topology.routing import ShortestPath, ragged


def altered(
    topology: Topology, bandwidth: NDArray[np.float64], latency: NDArray[np.int64], avoid: NDArray[np.bool_],
    who: Callable[[list[int]], str] | None = None, why: str = "",
) -> Topology:  # fmt: skip
    """The topology with these links.

    Args:
        bandwidth: bytes/s of every link, 0 where it is down.
        latency: ps of every link.
        avoid: links that routes keep away from.
        who: hosts in words, for the PartitionError that asking for a route raises where none is left; default their names.
        why: what cut them, for the same.
    """
    router = Around(topology, avoid, who, why) if avoid.any() else topology.router
    return dataclasses.replace(topology, link_bandwidth=bandwidth, link_latency=latency, router=router)


class Around:
    """A router that keeps away from some links."""

    def __init__(
        self, topology: Topology, avoid: NDArray[np.bool_], who: Callable[[list[int]], str] | None = None, why: str = ""
    ) -> None:
        self._topology, self._avoid, self._why = topology, avoid, why
        self._who = who or (lambda hosts: ", ".join(topology.node_names[host] for host in hosts[:8]))
        self.part = part_of(topology)  #: see topology/lanes.py
        self.chooses = choices_of(topology) > 1
        self._left = np.flatnonzero(~avoid).astype(np.int32)  # link ids that are left
        forwarding = getattr(topology.router, "host_forwarding", None)
        if forwarding is None:  # where cables join hosts, hosts carry the traffic of others
            forwarding = bool(((topology.link_src < topology.hosts) & (topology.link_dst < topology.hosts)).any())
        self._detour = ShortestPath(
            topology.node_names, topology.hosts, topology.link_src[self._left], topology.link_dst[self._left], ties="spread",
            host_forwarding=forwarding,
        )  # fmt: skip
        self._forwarding = forwarding

    @property
    def ways(self) -> int:
        """See :attr:`Topology.ways`: as many as before; lanes that meet a failure take the route of another."""
        return self._topology.ways

    def lanes(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int64]:
        """See :meth:`Topology.lanes`."""
        return self._topology.lanes(src, dst)

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32], lane: NDArray[np.int32] | None = None) -> Paths:
        """See :attr:`Topology.router`. Raises PartitionError where a pair is cut off."""
        made = self._topology.paths(src, dst, lane)
        hit = self._avoided(made)
        ways = self._topology.ways
        if len(hit) and ways > 1:
            lanes = self.lanes(src, dst)
            first = np.zeros(len(src), np.int64) if lane is None else lane.astype(np.int64)
            for attempt in range(ways - 1):
                rows = hit[attempt < lanes[hit] - 1]
                if not len(rows):
                    break
                # NOTE: neighbours try the other lanes in other orders, so that a dead link's traffic is shared out
                others = lanes[rows] - 1
                other = (first[rows] + 1 + (src[rows].astype(np.int64) + 3 * dst[rows] + attempt) % others) % lanes[rows]
                found = self._topology.paths(src[rows], dst[rows], other.astype(np.int32))
                dead = self._avoided(found)
                good = np.ones(len(rows), np.bool_)
                good[dead] = False
                made = _replaced(made, rows[good], _rows(found, np.flatnonzero(good)))
                hit = np.setdiff1d(hit, rows[good], assume_unique=True)
        if len(hit):
            made = _replaced(made, hit, self._detours(src[hit], dst[hit]))
        return made

    def _avoided(self, paths: Paths) -> NDArray[np.int64]:
        """Which of the paths cross an avoided link."""
        offsets, links = paths
        dead = np.concatenate(([0], np.cumsum(self._avoid[links])))
        return np.flatnonzero(dead[offsets[1:]] > dead[offsets[:-1]])

    def _detours(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> Paths:
        """Shortest paths over what is left. Raises PartitionError."""
        self._refuse_cut(src, dst)
        offsets, links = self._detour(src, dst)
        return offsets, self._left[links]

    def _refuse_cut(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> None:
        """Raise where a pair has no path, naming who is cut off from whom."""
        for one in np.unique(src).tolist():
            reached = self._reached(one)
            lost = dst[(src == one) & ~reached[dst]]
            if len(lost):
                hosts = np.arange(self._topology.hosts)
                with_it, without = hosts[reached[hosts]].tolist(), hosts[~reached[hosts]].tolist()
                raise PartitionError(
                    f"{self._who([one])} cannot reach {self._who([int(lost[0])])} any more: "
                    f"{self._who(with_it)} {'is' if len(with_it) == 1 else 'are'} cut off from {self._who(without)}",
                    where=self._why,
                    fix="Leave another way between them, or let the link come back before it is missed (until, detect).",
                )

    def _reached(self, host: int) -> NDArray[np.bool_]:
        """Nodes that a host reaches over what is left."""
        src, dst = self._detour.link_src, self._detour.link_dst
        reached = np.zeros(self._topology.nodes, np.bool_)
        reached[host] = True
        while True:
            on = reached[src]
            if not self._forwarding:
                on &= (src >= self._topology.hosts) | (src == host)
            new = dst[on & ~reached[dst]]
            if not len(new):
                return reached
            reached[new] = True


def _rows(paths: Paths, rows: NDArray[np.int64]) -> Paths:
    """Some of the paths."""
    offsets, links = paths
    counts = np.diff(offsets)[rows]
    row, step = ragged(counts)
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64), links[offsets[rows[row]] + step]


def _replaced(paths: Paths, rows: NDArray[np.int64], others: Paths) -> Paths:
    """The paths, those of ``rows`` replaced."""
    counts = np.diff(paths[0])
    counts[rows] = np.diff(others[0])
    whole = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    made = np.empty(whole[-1], np.int32)
    kept = np.setdiff1d(np.arange(len(counts)), rows, assume_unique=True)
    for part, source in ((kept, _rows(paths, kept)[1]), (rows, others[1])):
        row, step = ragged(counts[part])
        made[whole[part[row]] + step] = source
    return whole, made
