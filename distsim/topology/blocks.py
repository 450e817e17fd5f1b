"""A large topology seen from further away: like nodes in one block, blocks in tiers, and how many cables join them.

Hosts that share a switch of their own (an NVSwitch: a switch whose cables all lead to hosts) are a *node*; nodes on the same
switches are a block, and so, tier by tier away from the hosts, are switches of one kind above the same blocks. Of many
blocks that are alike (same tier, kind, size and blocks above) a few are kept and the rest told in one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.topology.graph import Topology
from distsim.topology.layout import levels_of
from distsim.topology.metrics import kind_of
from distsim.topology.routing import components

ROW, HIGH_ROW = 12, 6  #: blocks of a tier, about, and of one that has two tiers below; more of the same are told in one


@dataclass(frozen=True, slots=True)
class Block:
    """Nodes that are drawn as one."""

    tier: int  #: 0: hosts
    kind: str  #: of its members, as their names have it
    members: tuple[tuple[int, ...], ...]  #: the nodes (hosts with their switch, tier 0) or switches that it stands for
    stands_for: int = 1  #: blocks; more than 1 for the rest of many that are alike


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks, and the cables between them."""

    blocks: tuple[Block, ...]  #: tier by tier
    cables: dict[tuple[int, int, int], int]  #: (block, block of the same or a higher tier, domain) -> cables


def aggregate(topology: Topology) -> Blocks:
    """The blocks of a topology with switches."""
    block_of, blocks = _blocks(topology)
    ends = np.stack([block_of[topology.link_src[0::2]], block_of[topology.link_dst[0::2]]])
    joined = ends[0] != ends[1]
    low, high = ends.min(axis=0)[joined], ends.max(axis=0)[joined]
    keys, counts = np.unique(np.stack([low, high, topology.link_domain[0::2][joined]]), axis=1, return_counts=True)
    cables = {(int(a), int(b), int(c)): int(n) for (a, b, c), n in zip(keys.T, counts, strict=True)}
    return _folded(blocks, cables)


def _blocks(topology: Topology) -> tuple[NDArray[np.int64], list[Block]]:
    """The block of every node, and the blocks in the order of tiers and of their first members."""
    hosts, names = topology.hosts, topology.node_names
    src, dst = topology.link_src, topology.link_dst
    outward = np.bincount(src, weights=dst >= hosts, minlength=topology.nodes)
    private = (np.arange(topology.nodes) >= hosts) & (outward == 0)
    inside = private[src] | private[dst]
    atom = components(topology.nodes, src[inside], dst[inside])
    neighbours: list[set[int]] = [set() for _ in names]
    for one, other in zip(src.tolist(), dst.tolist(), strict=True):
        neighbours[one].add(other)
    atoms: dict[int, list[int]] = {}
    above: dict[int, set[int]] = {}
    for node in [*range(hosts), *np.flatnonzero(private).tolist()]:
        at = int(atom[node])
        atoms.setdefault(at, []).append(node)
        above.setdefault(at, set()).update(n for n in neighbours[node] if n >= hosts and not private[n])
    found: dict[object, list[tuple[int, ...]]] = {}
    for at, nodes in atoms.items():
        shape = (kind_of(names[nodes[0]]), len(nodes), frozenset(above[at]))
        found.setdefault((0, shape), []).append(tuple(nodes))
    block_of = np.full(topology.nodes, -1, np.int64)
    blocks: list[Block] = []

    def keep(tier: int, kind: str, members: Iterable[tuple[int, ...]]) -> None:
        block = Block(tier, kind, tuple(members))
        for member in block.members:
            block_of[list(member)] = len(blocks)
        blocks.append(block)

    for members in found.values():
        keep(0, kind_of(names[members[0][0]]), members)
    level = levels_of(topology)
    for tier in range(1, int(level.max()) + 1):
        groups: dict[object, list[int]] = {}
        for switch in np.flatnonzero((level == tier) & ~private & (np.arange(topology.nodes) >= hosts)).tolist():
            below = frozenset(int(block_of[n]) for n in neighbours[switch] if level[n] < tier)
            groups.setdefault((kind_of(names[switch]), below), []).append(switch)
        for group in groups.values():
            keep(tier, kind_of(names[group[0]]), ((switch,) for switch in group))
    return block_of, blocks


def _folded(blocks: list[Block], cables: dict[tuple[int, int, int], int]) -> Blocks:
    """The same with no more blocks in a tier than can be looked at."""
    parents: list[set[int]] = [set() for _ in blocks]
    for low, high, _ in cables:
        if blocks[low].tier < blocks[high].tier:
            parents[low].add(high)
    stands = list(range(len(blocks)))  # the block that each is told in
    whole = [1] * len(blocks)
    for tier in range(max(block.tier for block in blocks), -1, -1):
        alike: dict[object, list[int]] = {}
        for number, block in enumerate(blocks):
            if block.tier == tier:
                over = frozenset(stands[parent] for parent in parents[number])
                shape = (block.kind, len(block.members), len(block.members[0]))
                # NOTE: what hangs on a block that stands for many is told in one, whatever its size
                many = any(whole[parent] > 1 for parent in over)
                alike.setdefault((over, block.kind if many else shape, many), []).append(number)
        room = max(2, (ROW if tier < 2 else HIGH_ROW) // max(1, len(alike)))
        for (_, _, many), group in ((key, group) for key, group in alike.items() if isinstance(key, tuple)):
            rest = group if many else group[room - 1 :] if len(group) > room else []
            for number in rest:
                stands[number] = rest[0]
            if len(rest) > 1:
                whole[rest[0]] = len(rest)
    kept = [number for number in range(len(blocks)) if stands[number] == number]
    told: dict[int, list[tuple[int, ...]]] = {number: [] for number in kept}
    for number, place in enumerate(stands):
        told[place].extend(blocks[number].members)
    position = {number: place for place, number in enumerate(kept)}
    counts: Counter[tuple[int, int, int]] = Counter()
    for (low, high, domain), count in cables.items():
        one, other = position[stands[low]], position[stands[high]]
        if one != other:
            counts[min(one, other), max(one, other), domain] += count
    return Blocks(
        tuple(Block(blocks[n].tier, blocks[n].kind, tuple(told[n]), whole[n]) for n in kept),
        dict(counts),
    )
