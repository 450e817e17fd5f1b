"""A lower bound of the step time: the longest path over all ranks when communication takes no time.

Ranks that run one program and meet alike are followed once (see :func:`_network`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.kernel.jit import kernel
from distsim.trace.graph import CollectiveType, NodeType, Program, TaskGraph
from distsim.trace.matching import Collectives, Ints, Messages, collectives, messages
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
    c, m = collectives(graph, orders), messages(graph, orders)
    network = _network(graph, c, m, graph.rank_program) or _network(graph, c, m, np.arange(graph.ranks, dtype=np.int32))
    assert network is not None
    programs, source, target, n = network
    if n == 0:
        return 0
    lengths = [np.where(p.type >= NodeType.COMM_SEND, 0, np.maximum(getattr(p, weight), 0)) for p in programs]
    weights = np.concatenate([*lengths, np.zeros(n - sum(map(len, programs)), np.int64)])
    next_ptr = np.concatenate((np.zeros(1, np.int64), np.cumsum(np.bincount(source, minlength=n))))
    after = target[np.argsort(source, kind="stable")]
    run, compiled = longest.for_work(4 * (n + len(source)))
    space = np.zeros(n, np.int64), np.zeros(n, np.int64)
    columns: list[Any] = [weights, np.bincount(target, minlength=n), next_ptr, after, *space]
    if not compiled:
        columns = [column.tolist() for column in columns]
    done = run(n, *columns)
    return int(max(columns[4])) if done == n else None


def _network(
    graph: TaskGraph, c: Collectives, m: Messages, classes: NDArray[np.int32]
) -> tuple[list[Program], Ints, Ints, int] | None:
    """What waits for what if all ranks of a class (one program each) do everything at the same time: the programs of the
    classes, edges from sources to targets, and the number of nodes: those of the programs, then one per collective.

    None where that is not so, because ranks of a class meet, or receive from, nodes of other classes. Where it is so, every
    node of a rank waits for just the nodes that its namesake on another rank of the class waits for, hence ends when it does.
    """
    count = int(classes.max(initial=-1)) + 1
    alike = np.bincount(classes, minlength=count)  # ranks of each class
    first = np.zeros(count, np.int64)
    first[classes[::-1]] = np.arange(graph.ranks)[::-1]
    programs = [graph.program(int(rank)) for rank in first]
    sizes = np.array([len(program) for program in programs], np.int64)
    base = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
    nodes = int(base[-1])
    needed = np.repeat(alike, sizes)  # for every node, how often it must appear

    held = np.isin(c.type, np.array(_SYNCHRONISING, np.int64))
    member, instance, turn = base[classes[c.rank[held]]] + c.row[held], c.instance[held], c.turn[held]
    new = np.ones(len(member), np.bool_)
    new[1:] = (instance[1:] != instance[:-1]) | (turn[1:] != turn[:-1])
    meeting = np.cumsum(new) - 1
    kind = np.minimum.reduceat(member, np.flatnonzero(new)) if len(member) else member  # a meeting by its lowest member
    present = np.unique(meeting * (nodes + 1) + member)
    kinds, kind = np.unique(kind, return_inverse=True)
    pairs = np.unique(kind[meeting] * (nodes + 1) + member)
    joined, members = pairs // (nodes + 1), pairs % (nodes + 1)
    met = np.bincount(present // (nodes + 1), minlength=len(kind))
    seen = np.bincount(member, minlength=nodes)
    if (
        len(np.unique(members)) < len(members)
        or (met != np.bincount(joined, minlength=len(kinds))[kind]).any()
        or (seen[members] != needed[members]).any()
    ):
        return None

    node = base[classes[m.rank]] + m.row
    pair = np.zeros(len(node), np.bool_)
    pair[:-1] = (m.receive[:-1] == 0) & (m.receive[1:] == 1)
    for column in (m.src, m.dst, m.tag, m.turn):
        pair[:-1] &= column[:-1] == column[1:]
    at = np.flatnonzero(pair)
    received = np.bincount(node[at + 1], minlength=nodes)
    pairs = np.unique(node[at] * (nodes + 1) + node[at + 1])
    senders, receivers = pairs // (nodes + 1), pairs % (nodes + 1)
    if len(np.unique(receivers)) < len(receivers) or (received[receivers] != needed[receivers]).any():
        return None

    # NOTE: a collective becomes one more node, at which its members' dependencies end and on which the members depend
    begins_at = np.arange(nodes)
    begins_at[members] = nodes + joined
    source = np.concatenate([*(p.dep + base[k] for k, p in enumerate(programs)), nodes + joined, senders])
    rows = [np.repeat(np.arange(len(p)), np.diff(p.dep_ptr)) + base[k] for k, p in enumerate(programs)]
    target = np.concatenate([begins_at[np.concatenate([*rows, members[:0]])], members, receivers])
    return programs, source, target, nodes + len(kinds)
