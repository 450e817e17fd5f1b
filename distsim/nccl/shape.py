"""The closed form's parts: what one collective under one algorithm and protocol does, in NCCL's constants.

::

    time = base + intra hops x hop + inter hops x hop + transfer + ramp

Every part is continuous and never falls with size: channels count in fractions, the tree's correction is interpolated.
The form has four numbers that are not NCCL's; they are the same for all generations:

- OWN_SHARD: a ring kernel makes one pass more than it makes sends (the first of 2n - 1 or n primitives reads, the last one
  writes, both in own memory): it costs half a step of bytes. Measured at 0.37 to 0.6 on Ampere, Hopper and Blackwell.
- LINE_SHARE: LL passes lines on as they come, so that of the wait that few channels mean only half shows.
- LL_HOP: LL hops inside a node take 1.5 times what the tuner's table says, beside its base (all generations alike).
- the ramp, sqrt(bytes x bytes in the pipeline) / rate: chunks are filled and drained (see ``channels.ramp_bytes``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from distsim.nccl import constants as c
from distsim.nccl.channels import fractional_channels, ramp_bytes
from distsim.nccl.selection import (
    net_us,
    nvls_bus,
    ring_bus,
    ring_crossings,
    ring_hop_us,
    ring_steps,
    tree_bus,
    tree_correction,
    tree_depth,
)
from distsim.nccl.system import System

OWN_SHARD = 0.5
LINE_SHARE = 0.5
LL_HOP = 1.5
#: us of one more peer in a grouped point-to-point kernel (no table of NCCL's has it; measured 0.1 to 0.3)
PEER_US = 0.2


@dataclass(frozen=True, slots=True)
class Shape:
    """Parts of the closed form, in us, before any scalar.

    Attributes:
        base: paid once.
        intra_hops, intra_hop: count and cost of the hops inside nodes on the critical path; inter_hops, inter_hop: between.
        transfer: bytes over the bus rate that NCCL expects, or over the NICs where those are slower.
        ramp: filling and draining.
        moved: bytes that one rank sends; node_moved: that one node sends to others.
    """

    base: float
    intra_hops: int
    intra_hop: float
    inter_hops: int
    inter_hop: float
    transfer: float
    ramp: float
    moved: float
    node_moved: float

    def parts(self) -> tuple[float, float, float, float, float]:
        """base, intra, inter, transfer, ramp in us: what scalars multiply."""
        return self.base, self.intra_hops * self.intra_hop, self.inter_hops * self.inter_hop, self.transfer, self.ramp


def shape(operation: str, algorithm: str, protocol: str, size: float, system: System) -> Shape:
    """Parts of an operation of ``size`` bytes (NCCL's nBytes) under an algorithm and protocol."""
    at = c.PROTOCOLS.index(protocol)
    if algorithm == "p2p":
        return _point_to_point(operation, at, size, system)
    if algorithm == "ring":
        return _ring(operation, at, size, system)
    if algorithm == "tree":
        return _tree(at, size, system)
    if algorithm in ("nvls", "nvls_tree"):
        return _nvls(operation, algorithm, size, system)
    if algorithm == "pat":
        return _pat(size, system)
    return _collnet(algorithm, size, system)


def _shape(
    system: System, base: float, intra: tuple[int, float], inter: tuple[int, float], sent: float, bus: float, *,
    key: tuple[str, str], moved: float, node_moved: float, stretch: float = 1.0,
) -> Shape:  # fmt: skip
    """Put together: ``sent`` bytes at ``bus`` GB/s, no faster than the NICs carry ``node_moved``."""
    transfer = sent * stretch / (1000 * bus)
    if system.nodes > 1:
        # NOTE: divided by the scalar that it is multiplied with later: a NIC's rate is known, and not scaled
        transfer = max(transfer, node_moved / (1000 * system.net_rate) / system.generation.transfer)
    ramp = math.sqrt(sent * ramp_bytes(*key, system)) / (1000 * bus)
    return Shape(base, *intra, *inter, transfer, ramp, moved, node_moved if system.nodes > 1 else 0.0)


def _hop_between(system: System, algorithm: str, at: int) -> float:
    return net_us(system, algorithm, at, system.fabric_us)


def _ring(operation: str, at: int, size: float, system: System) -> Shape:
    n, protocol = system.ranks, c.PROTOCOLS[at]
    rooted = operation in ("broadcast", "reduce")
    steps = n - 1 if rooted else ring_steps(operation, n)
    crossings = ring_crossings(operation, system)
    hop = ring_hop_us(system, at) * (LL_HOP if at == c.LL else 1.0)
    # a rooted ring passes the whole buffer along; the others a share of it per step
    sent, moved = (size, size) if rooted else (size / n * (steps + OWN_SHARD), size / n * steps)
    stretch = 1.0
    if at == c.LL:
        stretch += LINE_SHARE * (system.channels / fractional_channels("ring", protocol, size, system) - 1)
    return _shape(
        system, c.BASE_US["ring"][at], (steps - crossings, hop), (crossings, _hop_between(system, "ring", at)), sent,
        ring_bus(system, at), key=("ring", protocol), moved=moved, node_moved=moved, stretch=stretch,
    )  # fmt: skip


def _tree(at: int, size: float, system: System) -> Shape:
    hop = c.HOP_US[system.kind.link]["tree"][at] * (LL_HOP if at == c.LL else 1.0)
    bus = tree_bus(system, at)
    # in one of the two trees a node is inner and sends half of the buffer up and twice down, in the other a leaf: half up
    node = size if system.nodes == 2 else 2 * size
    return _shape(
        system, c.BASE_US["tree"][at], (2 * (system.per_node - 1), hop),
        (2 * tree_depth(system.nodes), _hop_between(system, "tree", at)), 2 * size, bus, key=("tree", c.PROTOCOLS[at]),
        moved=2 * size, node_moved=node, stretch=1 / tree_correction(at, size, smooth=True),
    )  # fmt: skip


def _nvls(operation: str, algorithm: str, size: float, system: System) -> Shape:
    n, nodes = system.ranks, system.nodes
    moved = size * ring_steps(operation, n) / n
    bus = nvls_bus(system, algorithm, operation)
    if operation != "all_reduce":
        bus *= (n - 1) / n
    crossings = 0 if nodes == 1 else 1 if algorithm == "nvls" else 2 * tree_depth(nodes)
    return _shape(
        system, 0.0, (1, c.HOP_US["nvlink"][algorithm][c.SIMPLE]), (crossings, _hop_between(system, algorithm, c.SIMPLE)),
        moved, bus,
        key=(algorithm, "simple"), moved=moved, node_moved=size if nodes <= 2 or algorithm == "nvls" else 2 * size,
    )  # fmt: skip


def _collnet(algorithm: str, size: float, system: System) -> Shape:
    hop, per_node = c.HOP_US[system.kind.link][algorithm][c.SIMPLE], system.per_node
    base, hops = 0.0, 2 * (per_node - 1)
    if algorithm == "collnet_direct":
        base, hops = 2 * (per_node - 1) * c.COLLNET_COPY_US, 2 * min(1, per_node - 1)
    return _shape(
        system, base, (hops, hop), (1, _hop_between(system, algorithm, c.SIMPLE)), 2 * size, system.rings * system.ring_rate,
        key=(algorithm, "simple"), moved=2 * size, node_moved=size,
    )  # fmt: skip


def _pat(size: float, system: System) -> Shape:
    """One GPU per node: log2 N rounds whose network latency overlaps, and a cost per peer."""
    n = system.ranks
    rounds = math.ceil(math.log2(n))
    moved = size * (n - 1) / n
    bus = c.PAT_SHARE * ring_bus(system, c.SIMPLE)
    return _shape(
        system, c.BASE_US["pat"][c.SIMPLE] + c.PAT_PEER_US * n, (0, 0.0),
        (rounds, _hop_between(system, "pat", c.SIMPLE) / c.PAT_OVERLAP), moved, bus, key=("pat", "simple"),
        moved=moved, node_moved=moved,
    )  # fmt: skip


def _point_to_point(operation: str, at: int, size: float, system: System) -> Shape:
    n, per_node = system.ranks, system.per_node
    pair = operation == "send_recv"
    peers = 1 if pair else n - 1
    moved = size if pair else size * peers / n
    outside = 0.0 if system.nodes == 1 else size if pair else per_node * size * (n - per_node) / n
    crossings = 0 if system.nodes == 1 else 1
    # the own share is copied as well, by the same kernel; base: that of Simple, whatever the wire format
    sent = moved if pair else moved + OWN_SHARD * size / n
    return _shape(
        system, c.BASE_US["ring"][c.SIMPLE], (peers, PEER_US), (crossings, _hop_between(system, "ring", at)), sent,
        system.rings * system.ring_rate, key=("p2p", "simple"), moved=moved, node_moved=outside,
    )  # fmt: skip
