"""A 4-ary heap of (time, rank) in two flat columns, for the event loops of the levels."""

from __future__ import annotations

from typing import Any

from distsim.kernel.jit import kernel


@kernel
def sink(times: Any, ranks: Any, size: int, time: int, rank: int) -> None:
    """Put (time, rank) into the free root of a 4-ary heap of ``size`` entries."""
    at = 0
    child = 1
    while child < size:
        best = child
        best_time = times[child]
        best_rank = ranks[child]
        stop = min(child + 4, size)
        child += 1
        while child < stop:
            if times[child] < best_time or (times[child] == best_time and ranks[child] < best_rank):
                best = child
                best_time = times[child]
                best_rank = ranks[child]
            child += 1
        if best_time > time or (best_time == time and best_rank > rank):
            break
        times[at] = best_time
        ranks[at] = best_rank
        at = best
        child = 4 * at + 1
    times[at] = time
    ranks[at] = rank


@kernel
def rise(times: Any, ranks: Any, at: int, time: int, rank: int) -> None:
    """Put (time, rank) behind the last entry of a 4-ary heap of ``at`` entries."""
    while at > 0:
        above = (at - 1) >> 2
        if times[above] < time or (times[above] == time and ranks[above] < rank):
            break
        times[at] = times[above]
        ranks[at] = ranks[above]
        at = above
    times[at] = time
    ranks[at] = rank
