"""NVLS: the NVSwitch adds and copies. Alone inside one node; with a double binary tree per rail between nodes (NVLSTree).

In an NVLS all_reduce every GPU is the *head* of one shard: it reads the shard added up by the switch and has the switch copy
it to all. So S bytes leave each GPU and S bytes reach it, little more than half of what a ring carries, while hosts alone
would have to move 2 (n-1) / n S. A transfer in our networks leaves a host and reaches a host; the switch between them adds
nothing. The same load on the same links is this: n-1 transfers to the heads, n-1 from each head to the others, and each of the
2 (n-1) that a GPU sends and gets carries an equal part of S. What they *mean* is proved as for any schedule; their bytes are
those of the links (``Schedule.in_network``).

all_gather and reduce_scatter have a side on which the switch saves nothing: the bytes that reach a GPU (leave it) are those of
a direct exchange, and so is the schedule; the other side of the links shows more than NVLS would put there.
"""

from __future__ import annotations

import numpy as np

from distsim.collectives.blocks import Layout, balanced
from distsim.collectives.schedule import Collective
from distsim.nccl.plan import Plan
from distsim.nccl.schedules.grouping import Grouping
from distsim.nccl.schedules.pace import Columns64, Leg, Paced, pipeline
from distsim.nccl.schedules.ring import ROWS
from distsim.nccl.schedules.rounds import START, Round, laid_out
from distsim.nccl.schedules.streaming import streaming_schedule
from distsim.nccl.schedules.tree import BUSY, FILLED, INTER, busiest, go_both_ways, node_trees
from distsim.nccl.schedules.wires import Wires

READ, TREE, COPY, JOIN = 1, INTER, 3, 4  #: kinds of rows
_ROUNDS = 256


def nvls_schedule(plan: Plan, collective: Collective, grouping: Grouping, wires: Wires) -> Paced:
    """One node. Rows by round: reads from all to all heads, joins at the heads, copies from them."""
    n, operation = collective.size, collective.operation
    both = operation == "all_reduce"
    template = Round()
    ready = {member: template.add(member, member, [], START, 0) for member in range(n)}
    if operation in ("all_reduce", "reduce_scatter"):
        ready = _read(template, grouping.nodes[0], ready)
    if operation in ("all_reduce", "all_gather"):
        _copy(template, grouping.nodes[0], ready)
    total = float(plan.time_ps - plan.base_ps)
    limit = max(1, min(32, ROWS // len(template.src)))
    loops = max(1, -(-plan.bytes // max(1, plan.channels * n * plan.chunk)))
    rounds, hop = 1, 0.0
    for rounds in sorted({min(limit, loops, 4), *(count for count in (2, 4, 8, 16, 32) if loops < count <= limit)}):
        hop = total / rounds / (1 + both)
        per_gpu = plan.bytes / rounds * (0.5 if both else (n - 1) / n)
        if hop >= wires.intra.ps(per_gpu / (n - 1), per_gpu):
            break
    segments = Layout(collective, rounds).sizes()

    def sizes(number: int, template: Round) -> Columns64:
        if both:
            return _links_share(template, n, int(segments[number].sum()))
        kind = np.array(template.kind)
        owner = np.where(kind == READ, np.array(template.dst), np.array(template.src))
        return np.where((kind == READ) | (kind == COPY), segments[number, owner], 0)

    def payload(number: int, template: Round, row: int) -> list[int]:
        return [number * n + (template.dst[row] if template.kind[row] == READ else template.src[row])]

    table = np.array([0.0, hop, 0.0, hop, 0.0])
    return laid_out(n, [template], rounds, 1, sizes, table, plan.base_ps, hop * (1 + both), payload, in_network=both)


def nvls_tree_schedule(plan: Plan, collective: Collective, grouping: Grouping, wires: Wires) -> Paced:
    """all_reduce. Rows by round: reads in every node, the trees of all rails, copies in every node."""
    rails, size = grouping.rails, collective.size
    rail_of = {member: rail for members in grouping.nodes for rail, member in enumerate(members)}
    templates, depth = [], 0
    for tree in node_trees(len(grouping.nodes)):
        template = Round()
        ready = {member: template.add(member, member, [], START, 0) for member in range(size)}
        for members in grouping.nodes:
            ready |= _read(template, members, ready)
        for rail in range(rails):
            up = [-2] * size
            for node, members in enumerate(grouping.nodes):
                up[members[rail]] = grouping.nodes[tree[node]][rail] if tree[node] >= 0 else -1
            depth = max(depth, go_both_ways(template, up, [TREE] * size, rail, ready=ready)[0])
        for members in grouping.nodes:
            _copy(template, members, ready)
        _still(template)
        templates.append(template)
    total = float(plan.time_ps - plan.base_ps)
    rate_of = busiest(templates, TREE)
    limit = max(len(templates), ROWS // len(templates[0].src))
    loops = max(1, -(-plan.bytes // max(1, plan.channels * rails * plan.chunk)))
    turns = len(templates)
    most = max(turns, min(_ROUNDS, limit) // turns * turns)
    least = min(most, -(-loops // turns) * turns)
    rounds, hops, gap = turns, [0.0, 0.0], 0.0
    for rounds in sorted({least, *(count for count in (8, 16, 32, 64, 128, 256) if least < count <= most), most}):
        whole = plan.bytes / rounds
        row = whole / max(1, 2 * (rails - 1))
        legs = [
            Leg(2 if rails > 1 else 0, plan.intra_hop_ps, wires.intra.ps(row, whole / 2), wires.intra.latency),
            Leg(
                2 * depth,
                plan.inter_hop_ps,
                wires.inter.ps(whole / rails, rate_of * turns * whole / rails),
                wires.inter.latency,
            ),
        ]
        least_gap = max(wires.intra.per_byte * whole if rails > 1 else 0.0, rate_of * wires.inter.per_byte * whole / rails)
        hops, gap = pipeline(total, legs, rounds, least_gap)
        if sum(leg.count * leg.bytes_ps for leg in legs) < total / FILLED and least_gap * rounds < total * BUSY:
            break
    else:
        return streaming_schedule(
            plan, grouping, wires, node_trees(len(grouping.nodes)), rails, ROWS, lambda pieces, place: int(pieces.sum()) // 2, 1
        )
    segments = Layout(collective, rounds).sizes()
    by_rail = np.stack([segments[:, [m[rail] for m in grouping.nodes]].sum(axis=1) for rail in range(rails)], axis=1)

    def sizes(number: int, template: Round) -> Columns64:
        found = _links_share(template, rails, int(segments[number].sum()))
        kind = np.array(template.kind)
        return np.where(kind == TREE, by_rail[number, np.array(template.rail)], found)

    def payload(number: int, template: Round, row: int) -> list[int]:
        kind = template.kind[row]
        rail = template.rail[row] if kind == TREE else rail_of[template.dst[row] if kind == READ else template.src[row]]
        return [number * size + members[rail] for members in grouping.nodes]

    table = np.array([0.0, hops[0], hops[1], hops[0], 0.0])
    return laid_out(size, templates, rounds, 1, sizes, table, plan.base_ps, gap, payload, in_network=True)


def _read(template: Round, members: tuple[int, ...], ready: dict[int, int]) -> dict[int, int]:
    """Everybody sends every other one's shard to its head. Returns the join at every head."""
    count = len(members)
    arrived: dict[int, list[int]] = {member: [ready[member]] for member in members}
    for step in range(1, count):
        for at, member in enumerate(members):
            head = members[(at + step) % count]
            arrived[head].append(template.add(member, head, [ready[member]], READ, 0, reduce=True))
    return {member: template.add(member, member, arrived[member], JOIN, 0) for member in members}


def _copy(template: Round, members: tuple[int, ...], ready: dict[int, int]) -> None:
    """Every head sends its shard to all others."""
    count = len(members)
    for step in range(1, count):
        for at, head in enumerate(members):
            template.add(head, members[(at + step) % count], [ready[head]], COPY, 0)


def _still(template: Round) -> None:
    """Joins take no time, whatever made them."""
    for row, (src, dst) in enumerate(zip(template.src, template.dst, strict=True)):
        if src == dst and template.kind[row] != START:
            template.kind[row] = JOIN


def _links_share(template: Round, count: int, whole: int) -> Columns64:
    """Bytes of reads and copies: 2 (count - 1) rows that a GPU sends share ``whole``."""
    kind = np.array(template.kind)
    carried = (kind == READ) | (kind == COPY)
    found = np.zeros(len(kind), np.int64)
    if count > 1:
        parts = balanced(whole, 2 * (count - 1))
        order: dict[int, int] = {}
        for row in np.flatnonzero(carried).tolist():
            sender = template.src[row]
            found[row] = parts[order.setdefault(sender, 0)]
            order[sender] += 1
    return found
