"""How much later every task could end without moving the end of the run, and which chains of tasks are nearly critical."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distsim.analysis.activity import Activities
from distsim.analysis.intervals import Ints, sums
from distsim.result import Result

#: upper bounds of the histogram, as fractions of the step
EDGES = (0.0, 0.001, 0.01, 0.1)
#: chains that work for less than this of the step are not worth a line
_WORTH = 0.002


@dataclass(frozen=True, slots=True)
class Bin:
    """Tasks that take time and have at most this slack, and more than the bin before."""

    most: float  #: fraction of the step; 1: all the rest
    tasks: int
    time_ps: int  #: that they take, summed


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """Tasks of one slack that follow on each other: the longest of these chains is as much shorter than the critical path."""

    slack_ps: int
    begin_ps: int
    end_ps: int
    work_ps: int  #: of its busiest rank
    ranks: tuple[int, ...]  #: ascending
    row: int  #: the span that takes longest
    tasks: int


@dataclass(frozen=True, slots=True, eq=False)
class Slack:
    """Per row of the span table, in ps."""

    end: Ints  #: how much later it could end
    start: Ints  #: how much later it could be issued; of a member that waits in a collective: the wait too
    bins: tuple[Bin, ...]
    chains: tuple[Chain, ...]  #: least slack first; without those that have none
    parallel: Ints  #: ranks that have tasks without slack
    exact: bool  #: all dependencies were known; else these are upper bounds


def slack(result: Result, network: Activities, top: int = 12) -> Slack:
    """Backward pass. ``top``: chains at most."""
    spans, tails = result.spans(), network.tails()
    free = result.makespan - tails - network.end
    free = np.maximum(free, 0)
    rows = network.spans
    took = network.length[:rows]
    busy = np.flatnonzero(took > 0)
    bins, before = [], -1
    for most in (*EDGES, 1.0):
        bound = int(most * result.makespan) if most < 1 else max(result.makespan, int(free.max(initial=0)))
        mine = busy[(free[busy] > before) & (free[busy] <= bound)]
        bins.append(Bin(most, len(mine), int(took[mine].sum())))
        before = bound
    parallel = np.unique(spans.rank[busy[free[busy] == 0]]).astype(np.int64)
    return Slack(
        free[:rows], free[network.begins], tuple(bins), _chains(result, network, free, tails, top), parallel, network.complete
    )  # fmt: skip


def _chains(result: Result, network: Activities, free: Ints, tails: Ints, top: int) -> tuple[Chain, ...]:
    """Follow from each activity the successor that leaves it no more slack, while that has the same."""
    spans, rows = result.spans(), network.spans
    whole = tails + network.lag + network.length
    tight = (free[network.source] == free[network.target]) & (tails[network.source] == whole[network.target])
    follows = np.arange(len(network))
    np.minimum.at(onward := np.full(len(network), len(network)), network.source[tight], network.target[tight])
    follows = np.where(onward < len(network), onward, follows)
    while True:
        further = follows[follows]
        if np.array_equal(further, follows):
            break
        follows = further
    work = np.flatnonzero((network.length[:rows] > 0) & (free[:rows] > 0))
    if not len(work):
        return ()
    stride = int(spans.rank.max()) + 1
    key, worked = sums(follows[work] * stride + spans.rank[work], network.length[work])
    root = key // stride
    edge = np.flatnonzero(np.append(True, root[1:] != root[:-1]))
    busiest = np.maximum.reduceat(worked, edge)
    keep = np.flatnonzero(busiest >= _WORTH * result.makespan)
    order = keep[np.lexsort((root[edge[keep]], -busiest[keep], free[root[edge[keep]]]))][:top]
    found = []
    for at in order.tolist():
        last = int(edge[at + 1]) if at + 1 < len(edge) else len(key)
        of = root[edge[at]]
        mine = work[follows[work] == of]
        found.append(
            Chain(
                int(free[of]), int((network.end - network.length)[mine].min()), int(network.end[mine].max()), int(busiest[at]),
                tuple((key[edge[at] : last] % stride).tolist()), int(mine[np.argmax(network.length[mine])]), len(mine),
            )
        )  # fmt: skip
    return tuple(found)
