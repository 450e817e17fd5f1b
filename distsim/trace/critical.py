"""A lower bound of the step time: the longest path over all ranks when communication takes no time."""

from __future__ import annotations

from typing import Any

import numpy as np

from distsim.kernel.jit import kernel
from distsim.trace.graph import CollectiveType, NodeType, TaskGraph
from distsim.trace.matching import collectives, messages
from distsim.trace.order import program_order

#: all ranks must have come before one can leave; the others (rooted ones) hold nobody up in a lower bound
_SYNCHRONISING = (
    CollectiveType.ALL_REDUCE,
    CollectiveType.ALL_GATHER,
    CollectiveType.ALL_TO_ALL,
    CollectiveType.REDUCE_SCATTER,
    CollectiveType.REDUCE_SCATTER_BLOCK,
    CollectiveType.BARRIER,
)


@kernel
def longest(n: int, weight: Any, waiting: Any, next_ptr: Any, after: Any, end: Any, stack: Any) -> int:
    """``end[k]`` becomes the end of node k of a DAG (zeros before); returns how many ended, fewer than n on a cycle.

    ``waiting``: number of predecessors (used up); ``after[next_ptr[k]:next_ptr[k + 1]]``: successors; ``stack``: n spaces.
    """
    size = 0
    for node in range(n):
        if waiting[node] == 0:
            stack[size] = node
            size += 1
    done = 0
    while size > 0:
        size -= 1
        node = stack[size]
        done += 1
        finish = end[node] + weight[node]
        end[node] = finish
        for k in range(next_ptr[node], next_ptr[node + 1]):
            successor = after[k]
            if end[successor] < finish:
                end[successor] = finish
            waiting[successor] -= 1
            if waiting[successor] == 0:
                stack[size] = successor
                size += 1
    return done


def critical_path(graph: TaskGraph, weight: str = "duration_ps") -> int | None:
    """Longest path over all ranks in picoseconds (``weight`` "num_ops": in operations); None where the trace deadlocks.

    Only nodes that do not communicate have a length. A collective waits for all its ranks, a receive for its send. Nodes
    that do not say the weight count as 0.
    """
    orders = [program_order(program) for program in graph.programs]
    which = graph.rank_program
    sizes = np.array([len(graph.programs[p]) for p in which], np.int64)
    base = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
    nodes = int(base[-1])
    if nodes == 0:
        return 0
    c, m = collectives(graph, orders), messages(graph, orders)
    # NOTE: a collective becomes one more node, at which its members' dependencies end and on which the members depend
    held = np.isin(c.type, np.array(_SYNCHRONISING, np.int64))
    member, instance, turn = base[c.rank[held]] + c.row[held], c.instance[held], c.turn[held]
    new = np.ones(len(member), np.bool_)
    new[1:] = (instance[1:] != instance[:-1]) | (turn[1:] != turn[:-1])
    meeting = nodes + np.cumsum(new) - 1
    begins_at = np.arange(nodes)
    begins_at[member] = meeting
    rows = [np.repeat(np.arange(len(program)), np.diff(program.dep_ptr)) for program in graph.programs]
    source = np.concatenate([graph.programs[p].dep + base[rank] for rank, p in enumerate(which)])
    target = begins_at[np.concatenate([rows[p] + base[rank] for rank, p in enumerate(which)])]
    node = base[m.rank] + m.row
    pair = np.zeros(len(node), np.bool_)
    pair[:-1] = (m.receive[:-1] == 0) & (m.receive[1:] == 1)
    for column in (m.src, m.dst, m.tag, m.turn):
        pair[:-1] &= column[:-1] == column[1:]
    at = np.flatnonzero(pair)
    source, target = np.concatenate((source, meeting, node[at])), np.concatenate((target, member, node[at + 1]))

    n = nodes + int(new.sum())
    lengths = [np.where(p.type >= NodeType.COMM_SEND, 0, np.maximum(getattr(p, weight), 0)) for p in graph.programs]
    weights = np.concatenate([*(lengths[p] for p in which), np.zeros(n - nodes, np.int64)])
    next_ptr = np.concatenate((np.zeros(1, np.int64), np.cumsum(np.bincount(source, minlength=n))))
    after = target[np.argsort(source, kind="stable")]
    run, compiled = longest.for_work(4 * (n + len(source)))
    columns: list[Any] = [
        weights,
        np.bincount(target, minlength=n),
        next_ptr,
        after,
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
    ]
    if not compiled:
        columns = [column.tolist() for column in columns]
    done = run(n, *columns)
    return int(max(columns[4])) if done == n else None
