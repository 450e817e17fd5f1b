"""What a host's network card can take from the host: one more link, in front of all that leave the host for the fabric.

A host with several ports, or with ports faster than its PCIe slot, injects no more than this. The link is virtual: it has no
latency, it is crossed where a route enters the fabric (over its first link, or over the first after the links inside a node),
and it is not counted among the topology's. Links inside a node (NVLink and its like) are not injected into.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from distsim.topology.fabric import SCALE_UP
from distsim.topology.graph import Paths, Topology
from distsim.topology.lanes import choices_of, part_of

_Number = TypeVar("_Number", bound=np.generic)



def with_injection(topology: Topology, bandwidth: float) -> Topology:
    """The topology with a virtual link of ``bandwidth`` bytes/s per host: host h's is ``topology.links + h``."""
    hosts = np.arange(topology.hosts)

    def longer(column: NDArray[_Number], value: float) -> NDArray[_Number]:
        return np.concatenate((column, np.full(topology.hosts, value).astype(column.dtype)))

    return dataclasses.replace(
        topology,
        link_src=np.concatenate((topology.link_src, hosts)).astype(np.int32),
        link_dst=np.concatenate((topology.link_dst, hosts)).astype(np.int32),
        link_bandwidth=longer(topology.link_bandwidth, bandwidth),
        link_latency=longer(topology.link_latency, 0),
        link_domain=longer(topology.link_domain, len(topology.domains)),
        domains=(*topology.domains, "injection"),
        router=Injected(topology),
    )


class Injected:
    """A router whose routes cross the injection link of every host from which they enter the fabric."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        inside = np.array([name.startswith(SCALE_UP) for name in topology.domains], np.bool_)
        self._inside = inside[topology.link_domain]
        self._from_host = topology.link_src < topology.hosts
        self.ways, self.part, self.chooses = topology.ways, part_of(topology), choices_of(topology) > 1

    def lanes(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int64]:
        """See :meth:`Topology.lanes`."""
        return self._topology.lanes(src, dst)

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32], lane: NDArray[np.int32] | None = None) -> Paths:
        """See :attr:`Topology.router`."""
        topology = self._topology
        offsets, links = topology.paths(src, dst, lane)
        first = np.zeros(len(links) + 1, np.bool_)
        first[offsets[:-1]] = True  # of empty routes too: those mark the next one's first, or the end
        after_node = np.concatenate(([False], self._inside[links[:-1]])) if len(links) else np.zeros(0, np.bool_)
        enters = self._from_host[links] & ~self._inside[links] & (first[:-1] | after_node)
        added = np.concatenate(([0], np.cumsum(enters)))
        made = np.empty(len(links) + added[-1], np.int32)
        place = np.arange(len(links)) + added[1:]
        made[place] = links
        made[place[enters] - 1] = topology.links + topology.link_src[links[enters]]
        return offsets + added[offsets], made
