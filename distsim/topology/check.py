"""The contract of every topology, as a check that ships with the package: run it on a builder of your own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from distsim.errors import TopologyError
from distsim.topology.graph import Topology

MOST_PAIRS = 4_096  #: routes looked at, evenly spread over all pairs


def check_topology(topology: Topology, *, domain_cost: Mapping[str, int] | None = None, host_forwarding: bool = True) -> None:
    """Raise TopologyError unless the topology keeps its contract.

    Columns agree in length and type; node names are distinct; cable ``c`` is links ``2c`` and ``2c + 1``, equal but for their
    direction; bandwidths are positive and finite. Routes start and end where asked, are connected, visit no node twice, are of
    minimal cost, as long as ``hops`` says, and the same whether asked alone or together.

    Args:
        domain_cost: cost of a hop per link domain (1 if left out) by which routes must be minimal. A dragonfly avoids a second
            global hop even where it would save local ones: ``{"global": 3}``.
        host_forwarding: whether a host may carry the traffic of others; if not, no route visits a third host.
    """
    _check_columns(topology)
    _check_cables(topology)
    _check_routes(topology, domain_cost or {}, host_forwarding)


def _require(holds: object, what: str, topology: Topology) -> None:
    if not holds:
        raise TopologyError(what, where=topology.spec)


def _check_columns(topology: Topology) -> None:
    kinds = {
        "link_src": np.int32,
        "link_dst": np.int32,
        "link_bandwidth": np.float64,
        "link_latency": np.int64,
        "link_domain": np.int16,
    }
    for name, kind in kinds.items():
        column = getattr(topology, name)
        _require(column.dtype == kind, f"{name} is {column.dtype}, not {np.dtype(kind)}", topology)
        _require(column.shape == (topology.links,), f"{name} has shape {column.shape} for {topology.links} links", topology)
    _require(1 <= topology.hosts <= topology.nodes, f"{topology.hosts} hosts among {topology.nodes} nodes", topology)
    _require(len(set(topology.node_names)) == topology.nodes, "two nodes have the same name", topology)
    if topology.positions is not None:
        _require(topology.positions.shape == (topology.nodes, 2), f"positions have shape {topology.positions.shape}", topology)
    if topology.dimensions:
        product = int(np.prod([dimension.size for dimension in topology.dimensions]))
        _require(product == topology.hosts, f"dimensions make {product} hosts, not {topology.hosts}", topology)


def _check_cables(topology: Topology) -> None:
    src, dst = topology.link_src, topology.link_dst
    _require(topology.links % 2 == 0, "a cable has one direction only", topology)
    if not topology.links:
        return
    _require(min(src.min(), dst.min()) >= 0 and max(src.max(), dst.max()) < topology.nodes, "a link ends outside", topology)
    _require((src != dst).all(), "a link joins a node to itself", topology)
    _require((src[0::2] == dst[1::2]).all() and (dst[0::2] == src[1::2]).all(), "links 2c and 2c + 1 are no cable", topology)
    for name in ("link_bandwidth", "link_latency", "link_domain"):
        column = getattr(topology, name)
        _require((column[0::2] == column[1::2]).all(), f"{name} differs between the directions of a cable", topology)
    rate = topology.link_bandwidth
    _require((rate > 0).all() and np.isfinite(rate).all(), "a bandwidth is not positive and finite", topology)
    _require((topology.link_latency >= 0).all(), "a latency is negative", topology)
    used = np.unique(topology.link_domain).tolist()
    _require(used == list(range(len(topology.domains))), "link_domain and domains do not match", topology)


def _check_routes(topology: Topology, domain_cost: Mapping[str, int], host_forwarding: bool) -> None:
    hosts = topology.hosts
    pair = np.unique(np.linspace(0, hosts * hosts - 1, min(MOST_PAIRS, hosts * hosts)).astype(np.int64))
    src, dst = (pair // hosts).astype(np.int32), (pair % hosts).astype(np.int32)
    offsets, links = topology.paths(src, dst)
    _require(offsets.dtype == np.int64 and links.dtype == np.int32, "paths are not (int64 offsets, int32 links)", topology)
    lengths = np.diff(offsets)
    _require(np.array_equal(topology.hops(src, dst), lengths), "hops disagrees with paths", topology)
    prices = np.array([domain_cost.get(name, 1) for name in topology.domains], np.int64)
    cost = prices[topology.link_domain]
    cheapest = {host: _costs_to(topology, host, cost, host_forwarding) for host in np.unique(dst).tolist()}
    for row, (start, end) in enumerate(zip(src.tolist(), dst.tolist(), strict=True)):
        route = links[offsets[row] : offsets[row + 1]]
        between = f"the route {topology.node_names[start]} -> {topology.node_names[end]}"
        stops = [start, *topology.link_dst[route].tolist()]
        _require(topology.link_src[route].tolist() == stops[:-1], f"{between} is torn", topology)
        _require(stops[-1] == end, f"{between} ends at {topology.node_names[stops[-1]]}", topology)
        _require(len(set(stops)) == len(stops), f"{between} visits a node twice", topology)
        _require(host_forwarding or min(stops[1:-1], default=hosts) >= hosts, f"{between} leads through a host", topology)
        paid, least = int(cost[route].sum()), int(cheapest[end][start])
        _require(paid == least, f"{between} costs {paid}, but {least} is enough", topology)
    for row in np.linspace(0, len(src) - 1, 16).astype(int):
        alone = topology.paths(src[row : row + 1], dst[row : row + 1])[1]
        _require(np.array_equal(alone, links[offsets[row] : offsets[row + 1]]), "a route depends on its company", topology)


def _costs_to(topology: Topology, host: int, cost: NDArray[np.int64], host_forwarding: bool) -> NDArray[np.int64]:
    """Least cost from every node to ``host`` (Bellman-Ford: slow and plain, to check routers against)."""
    least = np.full(topology.nodes, np.iinfo(np.int64).max // 2)
    least[host] = 0
    links = (topology.link_dst >= topology.hosts) | (topology.link_dst == host) | host_forwarding
    src, dst, price = topology.link_src[links], topology.link_dst[links], cost[links]
    while True:
        better = least.copy()
        np.minimum.at(better, src, price + least[dst])
        if np.array_equal(better, least):
            return least
        least = better
