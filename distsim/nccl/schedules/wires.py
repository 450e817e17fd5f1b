"""What the links between members take of a hop's time, so that a schedule only adds what NCCL takes on top.

A level either forwards with the first byte (fluid, cut_through: a transfer pays its bytes once, on the slowest link) or stores
messages (chunk: on every link).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.nccl.schedules.grouping import Grouping
from distsim.topology.graph import Topology

_PS = 1e12


@dataclass(frozen=True, slots=True)
class Wire:
    """A route."""

    latency: float = 0.0  #: ps, of all its links
    per_byte: float = 0.0  #: ps a byte on its slowest link
    stored: float = 0.0  #: ps a byte on its other links
    stores: float = 0.0  #: bytes that a level keeps at most before it forwards them: 0 with the first, inf with the last one

    def ps(self, size: float, burst: float | None = None) -> float:
        """What ``size`` bytes take on it when it is idle; with a ``burst``, what the last of so many bytes take that set out at
        once in messages of ``size``."""
        waited = min(size, self.stores) * self.stored if self.stored else 0.0
        return self.latency + (size if burst is None else burst) * self.per_byte + waited


@dataclass(frozen=True, slots=True)
class Wires:
    """The usual routes of a group; of several of a kind, the slowest."""

    intra: Wire = Wire()  #: inside a node
    inter: Wire = Wire()  #: between nodes, on one rail
    across: Wire = Wire()  #: between nodes, from rail to rail


def routes(
    topology: Topology, src: NDArray[np.int32], dst: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Latency, per_byte and stored, as in Wire, of the route of every pair of hosts. Raises TopologyError without a route."""
    offsets, links = topology.paths(src, dst)
    pair = np.repeat(np.arange(len(src)), np.diff(offsets))
    cost = _PS / topology.link_bandwidth[links]
    latency = np.zeros(len(src))
    np.add.at(latency, pair, topology.link_latency[links])
    worst = np.zeros(len(src))
    np.maximum.at(worst, pair, cost)
    return latency, worst, np.bincount(pair, weights=cost, minlength=len(src)) - worst


def wires_of(topology: Topology, hosts: NDArray[np.int32], grouping: Grouping, stores: float = 0.0) -> Wires:
    """The wires of a group whose member m sits on ``hosts[m]``, on a level that stores so many bytes."""
    nodes = grouping.nodes
    inside = [(node[i], node[(i + 1) % len(node)]) for node in nodes for i in range(len(node)) if len(node) > 1]
    neighbours = list(zip(nodes, (*nodes[1:], nodes[0]), strict=True)) if len(nodes) > 1 else []
    between = [(here[rail], there[rail]) for here, there in neighbours for rail in range(grouping.rails)]
    across = [(here[rail], there[(rail + 1) % len(there)]) for here, there in neighbours for rail in range(len(here))]
    return Wires(*(_slowest(topology, hosts, pairs, stores) for pairs in (inside, between, across)))


def _slowest(topology: Topology, hosts: NDArray[np.int32], pairs: list[tuple[int, int]], stores: float) -> Wire:
    if not pairs:
        return Wire()
    ends = hosts[np.array(pairs)]
    latency, per_byte, stored = routes(topology, ends[:, 0], ends[:, 1])
    at = int(np.argmax(per_byte + stored if stores else per_byte))
    return Wire(float(latency.max()), float(per_byte[at]), float(stored[at]) if stores else 0.0, stores)
