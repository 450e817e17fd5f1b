"""What a topology amounts to: sizes, bisection bandwidth, distances, links by domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.topology.graph import Topology

ALL_SOURCES = 2_048  #: up to so many hosts every pair is measured, above it SAMPLE sources to all destinations
SAMPLE = 256
_PAIRS_AT_ONCE = 1 << 18
_SPECTRAL_NODES = 800  #: eigenvectors of larger graphs take too long for a summary


@dataclass(frozen=True, slots=True)
class DomainLinks:
    """All links of one domain."""

    name: str
    ends: str  #: kinds of node that its cables join: ``gpu - leaf``
    cables: int
    bandwidth: tuple[float, float]  #: bytes/s of each direction, least and most
    latency: tuple[int, int]  #: ps of one hop, least and most


@dataclass(frozen=True, slots=True)
class Metrics:
    """A topology in numbers."""

    hosts: int
    switches: int
    cables: int  #: of two directed links each
    bisection: float  #: bytes/s one way over the worst even split of the hosts
    bisection_exact: bool  #: else it is the best split that a search found: the truth is at most that
    diameter: int  #: most hops of a route between hosts
    average_hops: float  #: over ordered pairs of different hosts
    sampled: bool  #: whether diameter and average were taken over SAMPLE sources only
    domains: tuple[DomainLinks, ...]


def measure(topology: Topology) -> Metrics:
    """All metrics; about a second for the largest topologies."""
    exact = topology.bisection is not None
    diameter, average, sampled = distances(topology)
    return Metrics(
        hosts=topology.hosts,
        switches=topology.nodes - topology.hosts,
        cables=topology.links // 2,
        bisection=topology.bisection if topology.bisection is not None else bisection_found(topology),
        bisection_exact=exact,
        diameter=diameter,
        average_hops=average,
        sampled=sampled,
        domains=domain_links(topology),
    )


def domain_links(topology: Topology) -> tuple[DomainLinks, ...]:
    """The table of links, one row per domain."""
    return tuple(_domain(topology, number) for number in range(len(topology.domains)))


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 switch``, ``80 switches``.

    >>> count(1, "host"), count(1024, "host"), count(2, "switch", "switches")
    ('1 host', '1,024 hosts', '2 switches')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def size_of(topology: Topology) -> str:
    """``128 hosts, 80 switches, 384 cables``."""
    switches = count(topology.nodes - topology.hosts, "switch", "switches")
    return f"{count(topology.hosts, 'host')}, {switches}, {count(topology.links // 2, 'cable')}"


def distances(topology: Topology) -> tuple[int, float, bool]:
    """(most hops, average hops, whether sources were sampled) of the routes between different hosts."""
    hosts = topology.hosts
    sampled = hosts > ALL_SOURCES
    sources = np.unique(np.linspace(0, hosts - 1, SAMPLE).astype(np.int32)) if sampled else np.arange(hosts, dtype=np.int32)
    everyone = np.arange(hosts, dtype=np.int32)
    most, total = 0, 0
    step = max(1, _PAIRS_AT_ONCE // hosts)
    for start in range(0, len(sources), step):
        batch = sources[start : start + step]
        hops = topology.hops(np.repeat(batch, hosts), np.tile(everyone, len(batch)))
        most, total = max(most, int(hops.max())), total + int(hops.sum())
    return most, total / max(1, len(sources) * (hosts - 1)), sampled


def bisection_found(topology: Topology) -> float:
    """An upper bound of the bisection bandwidth, in bytes/s one way: the cheapest of some even splits of the hosts.

    Tried are the lower against the upper half of the host numbers, even against odd ones, and the split along the graph's
    slowest mode of vibration (Fiedler vector). Switches then change sides one by one while that makes the cut cheaper.
    """
    hosts = topology.hosts
    if hosts < 2:
        return 0.0
    number = np.arange(topology.nodes)
    orders = [number, (number % 2) * topology.nodes + number]
    if topology.nodes <= _SPECTRAL_NODES:
        orders.append(np.argsort(np.argsort(_fiedler(topology), kind="stable"), kind="stable"))
    return min(_cut(topology, _split(order[:hosts]), start) for order in orders for start in (0, 1, None))


def _split(rank: NDArray[Any]) -> NDArray[np.bool_]:
    """The upper half of the hosts by rank."""
    upper = np.zeros(len(rank), np.bool_)
    upper[np.argsort(rank, kind="stable")[len(rank) // 2 :]] = True
    return upper


def _cut(topology: Topology, upper: NDArray[np.bool_], start: int | None) -> float:
    """Bytes/s between the sides once the switches have settled, from all on side ``start`` (None: where their hosts are)."""
    side = np.concatenate([upper, np.zeros(topology.nodes - topology.hosts, np.bool_)]).astype(np.int64)
    src, dst, rate = topology.link_src, topology.link_dst, topology.link_bandwidth

    def pull() -> NDArray[np.float64]:
        """Capacity of each node towards side 1 minus that towards side 0."""
        return np.bincount(src, weights=rate * (2 * side[dst] - 1), minlength=topology.nodes).astype(np.float64)

    switch = np.arange(topology.nodes) >= topology.hosts
    side[switch] = _near_side(topology, side) if start is None else start
    for _ in range(4 * topology.nodes):
        gain = np.where(switch, pull() * (1 - 2 * side), 0.0)
        # NOTE: all that gain more than each of their neighbours move at once: no two of them share a cable, so their gains add
        rival = np.zeros(topology.nodes)
        np.maximum.at(rival, src, gain[dst])
        moves = (gain > rival) & (gain > 0)
        if not moves.any():
            moves[int(gain.argmax())] = gain.max() > 0
        if not moves.any():
            break
        side[moves] ^= 1
    return float(rate[(side[src] == 0) & (side[dst] == 1)].sum())


def _near_side(topology: Topology, side: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sides of the switches, tier by tier away from the hosts: where most of what is settled around each lies."""
    leaning = np.where(np.arange(topology.nodes) < topology.hosts, 2.0 * side - 1, 0.0)
    settled = np.arange(topology.nodes) < topology.hosts
    while not settled.all():
        pull = np.bincount(
            topology.link_src, weights=topology.link_bandwidth * leaning[topology.link_dst], minlength=topology.nodes
        )
        reached = ~settled & (np.bincount(topology.link_src, weights=settled[topology.link_dst], minlength=topology.nodes) > 0)
        if not reached.any():
            break
        leaning[reached] = np.where(pull[reached] > 0, 1.0, -1.0)
        settled |= reached
    return (leaning[topology.hosts :] > 0).astype(np.int64)


def _fiedler(topology: Topology) -> NDArray[np.float64]:
    laplacian = np.zeros((topology.nodes, topology.nodes))
    np.subtract.at(laplacian, (topology.link_src, topology.link_dst), topology.link_bandwidth / topology.link_bandwidth.max())
    np.fill_diagonal(laplacian, -laplacian.sum(axis=1))
    vector: NDArray[np.float64] = np.linalg.eigh(laplacian)[1][:, 1]
    return np.round(vector, 9)


def _domain(topology: Topology, number: int) -> DomainLinks:
    links = np.flatnonzero(topology.link_domain == number)
    rate, delay = topology.link_bandwidth[links], topology.link_latency[links]
    cables = links[0 : 2 * 4096 : 2]
    ends = zip(topology.link_src[cables].tolist(), topology.link_dst[cables].tolist(), strict=True)
    pairs = dict.fromkeys(" - ".join(kind_of(topology.node_names[node]) for node in pair) for pair in ends)
    return DomainLinks(
        name=topology.domains[number],
        ends=", ".join(pairs),
        cables=len(links) // 2,
        bandwidth=(float(rate.min()), float(rate.max())),
        latency=(int(delay.min()), int(delay.max())),
    )


def kind_of(name: str) -> str:
    """A node's kind, from its name.

    >>> kind_of("leaf12"), kind_of("agg3.1"), kind_of("dim1.switch7")
    ('leaf', 'agg', 'dim1.switch')
    """
    return name.rstrip("0123456789.") or name


def to_networkx(topology: Topology) -> Any:
    """A ``networkx.MultiDiGraph`` for people: node names, links with bandwidth (bytes/s), latency (ps), domain and link id."""
    import networkx

    graph = networkx.MultiDiGraph(name=topology.spec)
    for node, name in enumerate(topology.node_names):
        graph.add_node(name, host=node < topology.hosts)
    for link in range(topology.links):
        graph.add_edge(
            topology.node_names[topology.link_src[link]],
            topology.node_names[topology.link_dst[link]],
            link=link,
            bandwidth=float(topology.link_bandwidth[link]),
            latency=int(topology.link_latency[link]),
            domain=topology.domains[topology.link_domain[link]],
        )
    return graph
