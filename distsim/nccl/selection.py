"""Which algorithm and protocol NCCL takes: the time that its tuner expects of each, and the least of them.

These are NCCL's own, unfitted expectations (``src/graph/tuning.cc``, ``ncclTopoTuneModel`` and ``ncclTopoGetAlgoTime``): they
decide as NCCL decides, and are no forecast of what is measured. :mod:`distsim.nccl.model` makes that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from distsim.errors import CollectiveError
from distsim.nccl import constants as c
from distsim.nccl.system import System

#: what NCCL has a kernel for; ``send_recv`` and all_to_all are point-to-point
OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce", "all_to_all", "send_recv")
_POINT_TO_POINT = ("all_to_all", "send_recv")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One algorithm and protocol as the tuner rates it at one size."""

    algorithm: str
    protocol: str
    latency_us: float
    rate: float  #: GB/s of the whole buffer
    time_us: float


def ring_steps(operation: str, ranks: int) -> int:
    """Steps of a ring: 2(n-1) for all_reduce, n-1 for all_gather and reduce_scatter, n for rooted ones."""
    if operation == "all_reduce":
        return 2 * (ranks - 1)
    return ranks - 1 if operation in ("all_gather", "reduce_scatter") else ranks


def net_us(system: System, algorithm: str, protocol: int, latency_us: float) -> float:
    """Latency of one hop between nodes, with ``latency_us`` of the network (twice for Simple, which also waits for a fence)."""
    row = "tree" if system.per_node == 1 and algorithm != "pat" else algorithm
    return c.HOP_US["net"][row][protocol] + latency_us * (2 if protocol == c.SIMPLE else 1)


def ring_hop_us(system: System, protocol: int) -> float:
    """Latency of one ring hop inside a node; with several nodes no less than posting to the network costs."""
    hop = c.HOP_US[system.kind.link]["ring"][protocol]
    return max(hop, c.POST_US[system.cpu] * (3 if protocol == c.SIMPLE else 1)) if system.nodes > 1 else hop


def ring_bus(system: System, protocol: int) -> float:
    """GB/s that a ring is expected to put on every link."""
    row = _row(system)
    full = _bus(system)
    if protocol == c.LL:
        return min(_ll_max(system), full / 2)
    if protocol == c.LL128:
        return min(c.LL128_SHARE * full, system.rings * system.generation.ll128_ring[row])
    return full


def tree_bus(system: System, protocol: int) -> float:
    """GB/s that a tree is expected to put on every link (its algorithm bandwidth is half of it)."""
    row = _row(system)
    bus = min(c.TREE_SHARE * _bus(system), system.rings * system.generation.tree[row])
    if protocol == c.LL:
        bus = min(bus * c.TREE_LL_PART, _ll_max(system))
    elif protocol == c.LL128:
        bus = min(bus * c.TREE_LL128[min(row, 1)], system.rings * system.generation.ll128_tree[row])
    return bus * c.PLAIN_TREE if system.nodes == 1 else bus


def nvls_bus(system: System, algorithm: str, operation: str = "all_reduce") -> float:
    """GB/s of NVLS or NVLSTree."""
    heads, generation = system.heads, system.generation
    share = 2.0 if operation == "all_reduce" else (system.per_node - 1) / system.per_node
    intra = system.head_rate * generation.nvls_share * (heads - 1) / heads * share
    if algorithm == "nvls":
        return heads * (intra if system.nodes == 1 else min(intra, system.ring_net_rate * share))
    inter = system.ring_net_rate * (2 if system.nodes <= 2 else 1)
    return heads * min(intra, inter, generation.nvls_tree[_row(system)])


def _row(system: System) -> int:
    """Column of the tables by nodes."""
    return min(system.nodes, 3) - 1


def _bus(system: System) -> float:
    # NOTE: what the search finds between nodes is never faster than inside them
    return system.rings * (system.ring_rate if system.nodes <= 2 else min(system.ring_rate, system.ring_net_rate))


def _ll_max(system: System) -> float:
    generation = system.generation if system.nodes == 1 else c.GENERATIONS[c.LL_MAX_OF_CPU[system.cpu]]
    return generation.ll_max[_row(system)]


def tree_correction(protocol: int, size: float, *, smooth: bool = False) -> float:
    """What a tree reaches of its bandwidth at a size: NCCL's table, or interpolated between its entries."""
    table = c.TREE_CORRECTION[protocol]
    place = max(0.0, math.log2(max(size, 1) / 64))
    at = min(int(place), len(table) - 1)
    if not smooth or at == len(table) - 1:
        return table[at] if place < len(table) else 1.0
    return table[at] + (place - at) * (table[at + 1] - table[at])


def tree_depth(nodes: int) -> int:
    """Hops between nodes on one way of a tree, as the tuner counts them."""
    return nodes.bit_length() - 1


@dataclass(frozen=True, slots=True)
class _Rating:
    """What the tuner knows of a candidate before it knows the size."""

    algorithm: str
    protocol: int
    latency_us: float
    rate: float  #: GB/s of the whole buffer; a tree's is corrected by size
    plateau: float = 1.0  #: what multiplies the latency from ``plateau_bytes`` on
    plateau_bytes: float = math.inf

    def at(self, size: int) -> Candidate:
        """The candidate at a size."""
        latency = self.latency_us * (self.plateau if size >= self.plateau_bytes else 1.0)
        rate = self.rate * (tree_correction(self.protocol, size) if self.algorithm == "tree" else 1.0)
        return Candidate(self.algorithm, c.PROTOCOLS[self.protocol], latency, rate, latency + size / (1000 * rate))


def candidates(operation: str, size: int, system: System) -> list[Candidate]:
    """Every algorithm and protocol that is enabled, as the tuner rates it for ``size`` bytes (NCCL's nBytes).

    Raises: CollectiveError where NCCL has no such operation.
    """
    if operation in _POINT_TO_POINT:
        return [_point_to_point(operation, size, system)]
    return [one.at(size) for one in _ratings(operation, system)]


@lru_cache(maxsize=4096)
def _ratings(operation: str, system: System) -> tuple[_Rating, ...]:
    """Everything that is enabled."""
    if operation not in OPERATIONS:
        raise CollectiveError(f"NCCL has no {operation}", where="nccl", expected=f"one of {', '.join(OPERATIONS)}")
    found = [_ring(operation, system, protocol) for protocol in range(3)]
    if not system.even:
        return tuple(found)
    if operation == "all_reduce":
        found += [_tree(system, protocol) for protocol in range(3)]
        if system.has_nvls and (system.nodes == 1 or system.collnet):
            found.append(_nvls("nvls", operation, system))
        if system.has_nvls and system.nodes > 1:
            found.append(_nvls("nvls_tree", operation, system))
        if system.collnet and system.nodes > 1:
            found += [_collnet(name, system) for name in ("collnet_direct", "collnet_chain")]
    elif operation in ("all_gather", "reduce_scatter"):
        if system.has_nvls and system.nodes == 1:
            found.append(_nvls("nvls", operation, system))
        if system.per_node == 1:
            found.append(_pat(system))
    return tuple(found)


def choose(operation: str, size: int, system: System, algorithm: str = "", protocol: str = "") -> Candidate:
    """The candidate that NCCL takes: the least expected time, the first of equals.

    Args:
        algorithm, protocol: only these, as NCCL_ALGO and NCCL_PROTO; "" = any.

    Raises: CollectiveError where nothing is left.
    """
    able = candidates(operation, size, system)
    left = [one for one in able if algorithm in ("", one.algorithm) and protocol in ("", one.protocol)]
    if not left:
        raise CollectiveError(
            f"NCCL has no {operation} by {algorithm or 'any algorithm'} and {protocol or 'any protocol'} on {system.ranks} "
            f"ranks and {system.nodes} nodes of {system.gpu}",
            expected=f"one of {', '.join(f'{one.algorithm}/{one.protocol}' for one in able)}",
        )
    return min(left, key=lambda one: one.time_us)


def _ring(operation: str, system: System, protocol: int) -> _Rating:
    steps = ring_steps(operation, system.ranks)
    rate = ring_bus(system, protocol) * system.ranks / steps
    hop = ring_hop_us(system, protocol)
    if operation in ("broadcast", "reduce"):
        step = c.HOP_US[system.kind.link]["tree"][protocol] if protocol == c.SIMPLE else hop
        return _Rating("ring", protocol, c.BASE_US["ring"][protocol] + steps * step, rate)
    crossings = ring_crossings(operation, system)
    net = net_us(system, "ring", protocol, system.reported_us)
    latency = c.BASE_US["ring"][protocol] + (steps - crossings) * hop + crossings * net
    if protocol != c.SIMPLE or operation != "all_reduce" or system.nodes == 1:
        return _Rating("ring", protocol, latency, rate)
    plateau = c.PLATEAU_BEFORE_AMPERE if system.kind.generation == "volta" else c.PLATEAU
    return _Rating("ring", protocol, latency, rate, plateau, c.PLATEAU_BYTES * system.rings * system.ranks)


def ring_crossings(operation: str, system: System) -> int:
    """Steps of a ring that wait for the network."""
    if system.nodes == 1:
        return 0
    return 2 * (system.nodes - 1) if operation == "all_reduce" else system.nodes - 1


def _tree(system: System, protocol: int) -> _Rating:
    hop, net = c.HOP_US[system.kind.link]["tree"][protocol], net_us(system, "tree", protocol, system.reported_us)
    latency = c.BASE_US["tree"][protocol] + 2 * ((system.per_node - 1) * hop + tree_depth(system.nodes) * net)
    return _Rating("tree", protocol, latency, tree_bus(system, protocol) * 0.5)


def _nvls(algorithm: str, operation: str, system: System) -> _Rating:
    latency = c.HOP_US["nvlink"][algorithm][c.SIMPLE]
    if system.nodes > 1:
        net = net_us(system, algorithm, c.SIMPLE, system.reported_us)
        latency += net if algorithm == "nvls" else 2 * tree_depth(system.nodes) * net
    bus = nvls_bus(system, algorithm, operation)
    rate = bus * system.ranks / ring_steps(operation, system.ranks) if operation == "all_reduce" else bus
    return _Rating(algorithm, c.SIMPLE, latency, rate)


def _collnet(algorithm: str, system: System) -> _Rating:
    hop, net = c.HOP_US[system.kind.link][algorithm][c.SIMPLE], net_us(system, algorithm, c.SIMPLE, system.reported_us)
    if algorithm == "collnet_direct":
        latency = 2 * (min(1, system.per_node - 1) * hop + (system.per_node - 1) * c.COLLNET_COPY_US) + net
    else:
        latency = 2 * (system.per_node - 1) * hop + net
    return _Rating(algorithm, c.SIMPLE, latency, system.rings * system.ring_rate * 0.5)


def _pat(system: System) -> _Rating:
    net = net_us(system, "pat", c.SIMPLE, system.reported_us)
    latency = c.BASE_US["pat"][c.SIMPLE] + math.log2(system.nodes) * net / c.PAT_OVERLAP + c.PAT_PEER_US * system.ranks
    return _Rating("pat", c.SIMPLE, latency, c.PAT_SHARE * ring_bus(system, c.SIMPLE))


def _point_to_point(operation: str, size: int, system: System) -> Candidate:
    """No choice of algorithm; LL up to 16 KiB per channel and peer. Not rated by NCCL: the time is the bytes over the links."""
    peers = system.ranks if operation == "all_to_all" else 1
    small = size / peers <= p2p_channels(system) * c.P2P_LL_BYTES
    return _Rating("p2p", c.LL if small else c.SIMPLE, c.BASE_US["ring"][c.SIMPLE], system.rings * system.ring_rate).at(size)


def p2p_channels(system: System) -> int:
    """Channels of one peer: the links of NVLink (rounded down to a power of two), two per NIC between nodes."""
    if system.nodes > 1:
        return max(1, min(16, 2 * max(1, system.nics // system.per_node)))
    return 1 << (system.rings.bit_length() - 1)
