"""NCCL's trees: a chain inside the node, a double binary tree between nodes, on every rail; all_reduce only.

On rail c the chain of a node runs from the GPU of rail c (its head) over c+1, c+2, ...; heads are joined by a binary tree over
the nodes. The first tree is the in-order one in which odd nodes are leaves, the second its mirror (or, for an odd number of
nodes, its shift by one), so that an inner node of one is a leaf of the other. NCCL gives half of the channels to each tree;
here the pieces of a rail take turns. A piece goes up, adding at every node, and down again from the root at once.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from distsim.collectives.blocks import Layout
from distsim.collectives.double_binary_tree import two_trees
from distsim.collectives.schedule import Collective
from distsim.nccl.plan import Plan
from distsim.nccl.schedules.grouping import Grouping
from distsim.nccl.schedules.pace import Columns64, Leg, Paced, pipeline
from distsim.nccl.schedules.ring import ROWS
from distsim.nccl.schedules.rounds import START, Round, laid_out
from distsim.nccl.schedules.streaming import streaming_schedule
from distsim.nccl.schedules.wires import Wires

INTRA, INTER = 1, 2  #: kinds of rows
_ROUNDS = 256  # at most
FILLED = 20  #: a way through the tree spends such a part of the time at most on bytes: pieces that meet wait little
BUSY = 0.6  #: share of the time up to which pieces may meet at a port without falling behind


def node_trees(nodes: int) -> list[list[int]]:
    """Parent of every node (-1: root) in both trees; one node is a tree of its own."""
    return two_trees(nodes, None) if nodes > 1 else [[-1]]


def parents(grouping: Grouping, rail: int, tree: list[int]) -> list[int]:
    """Parent of every member (-1: root) on a rail, given that of every node."""
    found = [-1] * grouping.size
    for node, members in enumerate(grouping.nodes):
        chain = [members[(rail + step) % len(members)] for step in range(len(members))]
        for above, below in pairwise(chain):
            found[below] = above
        if tree[node] >= 0:
            found[chain[0]] = grouping.nodes[tree[node]][rail]
    return found


def tree_schedule(plan: Plan, collective: Collective, grouping: Grouping, wires: Wires) -> Paced:
    """Rows by round; in it by rail, upwards from the deepest, then downwards."""
    nodes = len(grouping.nodes)
    rails = min(grouping.rails, plan.channels)
    node_of = {member: node for node, members in enumerate(grouping.nodes) for member in members}
    templates, way = [], (0, 0)
    for tree in node_trees(nodes):
        template = Round()
        for rail in range(rails):
            up = parents(grouping, rail, tree)
            kinds = [INTRA if up[m] < 0 or node_of[m] == node_of[up[m]] else INTER for m in range(grouping.size)]
            depth = go_both_ways(template, up, kinds, rail)
            way = max(way, depth)
        templates.append(template)
    total = float(plan.time_ps - plan.base_ps)
    load_i, load_x = (busiest(templates, kind) for kind in (INTRA, INTER))
    limit = max(len(templates), ROWS // max(len(template.src) for template in templates))
    chunks = max(1, -(-plan.bytes // max(1, plan.channels * plan.chunk)))
    rounds = len(templates)
    hops, gap = [0.0, 0.0], 0.0
    for rounds in _counts(chunks, len(templates), limit):
        size = plan.bytes / (rounds * rails)
        # NOTE: between nodes, a piece may meet all others that its port carries in a turn of the two trees
        met = load_x * len(templates) / rails * size
        legs = [
            Leg(2 * way[1], plan.intra_hop_ps, wires.intra.ps(size, 2 * size), wires.intra.latency),
            Leg(2 * way[0], plan.inter_hop_ps, wires.inter.ps(size, met), wires.inter.latency),
        ]
        least_gap = max(load_i * wires.intra.per_byte * size / rails, load_x * wires.inter.per_byte * size / rails)
        hops, gap = pipeline(total, legs, rounds * rails, least_gap)
        if sum(leg.count * leg.bytes_ps for leg in legs) < total / FILLED and least_gap * rounds * rails < total * BUSY:
            break
    else:
        if nodes > 1:
            return streaming_schedule(plan, grouping, wires, node_trees(nodes), rails, ROWS, _passed_on, grouping.rails - 1)
    layout = Layout(collective, rounds * rails).sizes().sum(axis=1)

    def sizes(number: int, template: Round) -> Columns64:
        carried = np.array(template.kind) != START
        return np.where(carried, layout[number * rails + np.array(template.rail)], 0)

    def payload(number: int, template: Round, row: int) -> list[int]:
        first = (number * rails + template.rail[row]) * collective.size
        return list(range(first, first + collective.size))

    table = np.array([0.0, hops[0], hops[1]])
    return laid_out(collective.size, templates, rounds, rails, sizes, table, plan.base_ps, gap, payload)


def _passed_on(pieces: Columns64, place: int) -> int:
    """Bytes that a GPU passes along the chains of its node: those of all rails but the one that it is the head of."""
    return int(pieces.sum() - (pieces[place] if place < len(pieces) else 0))


def go_both_ways(
    template: Round, up: list[int], kinds: list[int], rail: int, *, ready: dict[int, int] | None = None
) -> tuple[int, int]:
    """Adds the rows of one tree, up and down. Returns (INTER, INTRA) hops between the root and the member furthest from it.

    Args:
        template: takes the rows.
        up: parent of every member; -1 for the root, -2 for those that are not in the tree.
        kinds: of the edge between a member and its parent.
        rail: of the rows.
        ready: row that lets a member send up what it has itself; None: leaves get a START of their own. Afterwards: row that
            tells a member the result.
    """
    inside = [member for member in range(len(up)) if up[member] != -2]
    way = {member: _way(up, kinds, member) for member in inside}
    below: dict[int, list[int]] = {member: [] for member in inside}
    for member in inside:
        if up[member] >= 0:
            below[up[member]].append(member)
    arrived: dict[int, list[int]] = {member: [] for member in inside}
    for member in sorted(inside, key=lambda m: (-sum(way[m]), m)):
        if ready is not None:
            arrived[member].append(ready[member])
        elif not below[member] and up[member] >= 0:
            arrived[member].append(template.add(member, member, [], START, rail))
    for member in sorted(inside, key=lambda m: (-sum(way[m]), m)):
        above = up[member]
        if above >= 0:
            row = template.add(member, above, list(arrived[member]), kinds[member], rail, reduce=True)
            arrived[above].append(row)
    told: dict[int, list[int]] = {member: arrived[member] for member in inside if up[member] < 0}
    for member in sorted(inside, key=lambda m: (sum(way[m]), m)):
        for child in sorted(below[member], key=lambda m: (kinds[m], m)):
            told[child] = [template.add(member, child, list(told[member]), kinds[child], rail)]
    if ready is not None:
        for member in inside:
            ready[member] = told[member][0] if up[member] >= 0 else template.add(member, member, told[member], INTRA, rail)
    return max(way.values())


def _way(up: list[int], kinds: list[int], member: int) -> tuple[int, int]:
    """(INTER, INTRA) hops to the root."""
    inter = intra = 0
    while up[member] >= 0:
        inter += kinds[member] == INTER
        intra += kinds[member] == INTRA
        member = up[member]
    return inter, intra


def busiest(templates: list[Round], kind: int) -> float:
    """Most rows of a kind that one member sends in a round, or gets, on average over the templates."""
    total: dict[tuple[int, bool], int] = {}
    for template in templates:
        for src, dst, which in zip(template.src, template.dst, template.kind, strict=True):
            if which == kind:
                total[src, True] = total.get((src, True), 0) + 1
                total[dst, False] = total.get((dst, False), 0) + 1
    return max(total.values(), default=0) / len(templates)


def _counts(chunks: int, turns: int, limit: int) -> list[int]:
    """Numbers of rounds to be tried: NCCL's, then more of them where its own do not fill the pipeline; whole turns."""
    most = max(turns, min(_ROUNDS, limit) // turns * turns)
    least = min(most, -(-chunks // turns) * turns)
    return sorted({least, *(count for count in (8, 16, 32, 64, 128, 256) if least < count <= most), most})
