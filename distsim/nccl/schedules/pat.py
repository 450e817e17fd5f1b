"""NCCL's PAT (parallel aggregated trees, 2.23): all_gather and reduce_scatter of one GPU per node in logarithmic steps.

Every rank's shard goes down a binomial tree of its own; all trees are alike up to a turn, so that what goes over one edge in a
step is one message: distances 1, 2, 4, ... with twice the shards each time, n-1 shards in all. reduce_scatter runs backwards.
NCCL orders the steps so that buffers stay small, which changes neither messages nor bytes.
"""

from __future__ import annotations

import numpy as np

from distsim.collectives.blocks import Layout
from distsim.collectives.schedule import Collective, Schedule
from distsim.nccl.plan import Plan
from distsim.nccl.schedules.grouping import Grouping
from distsim.nccl.schedules.pace import Paced
from distsim.nccl.schedules.ring import ROWS
from distsim.nccl.schedules.wires import Wires


def pat_schedule(plan: Plan, collective: Collective, grouping: Grouping, wires: Wires) -> Paced:
    """Rows: a join per member; then by step, part of the message and member."""
    n, backwards = collective.size, collective.operation == "reduce_scatter"
    order = np.array([node[0] for node in grouping.nodes], np.int32)
    spans = [1 << step for step in range((n - 1).bit_length())]
    counts = [min(span, n - span) for span in spans]  # shards of a message
    if backwards:
        spans, counts = spans[::-1], counts[::-1]
    shard = plan.bytes / n
    total = float(plan.time_ps - plan.base_ps)
    hop = min(float(plan.inter_hop_ps), total / len(spans))
    hops = [hop + (total - hop * len(spans)) * count / (n - 1) for count in counts]
    parts = 1
    for parts in (1, 2, 4, 8, 16, 32):
        if all(ps >= wires.inter.ps(count * shard / parts, count * shard) for ps, count in zip(hops, counts, strict=True)):
            break
        if 2 * parts * n * len(spans) > ROWS:
            break
    segments = Layout(collective, parts).sizes()[:, order]  # [part, place]
    place = np.arange(n)
    src, dst, size, blocks = [order], [order], [np.zeros(n, np.int64)], []
    waits = [np.full(n, float(plan.base_ps))]
    dep: list[list[int]] = [[] for _ in range(n)]
    for step, (span, count) in enumerate(zip(spans, counts, strict=True)):
        sender = (place + span) % n if backwards else place
        receiver = place if backwards else (place + span) % n
        # to the right go the sender's own shard and those from its left; backwards, the receiver's and those from its left
        owned = (place[:, None] - np.arange(count)) % n
        amounts = segments[:, owned].sum(axis=2)  # [part, member]
        for part in range(parts):
            blocks.append((part, owned))
            src.append(order[sender])
            dst.append(order[receiver])
            size.append(amounts[part])
            waits.append(np.full(n, hops[step]))
            for at in range(n):
                who = int(sender[at])
                rows = [who] if not step else []
                for before in range(step):
                    # the row of step ``before`` that reaches ``who``
                    mate = who if backwards else (who - spans[before]) % n
                    rows.append(n + (before * parts + part) * n + mate)
                dep.append(rows)
    ptr = np.zeros(len(dep) + 1, np.int64)
    np.cumsum([len(rows) for rows in dep], out=ptr[1:])

    def payload(row: int) -> list[int]:
        if row < n:
            return []
        number, at = divmod(row - n, n)
        part, owned = blocks[number]
        return [part * n + int(order[owner]) for owner in owned[at]]

    moved = len(dep) - n
    schedule = Schedule(
        n, np.concatenate(src).astype(np.int32), np.concatenate(dst).astype(np.int32), np.concatenate(size), ptr,
        np.array([row for rows in dep for row in rows], np.int32),
        np.concatenate([np.zeros(n, np.bool_), np.full(moved, backwards)]), payload, parts,
    )  # fmt: skip
    return Paced(schedule, np.round(np.concatenate(waits)).astype(np.int64))
