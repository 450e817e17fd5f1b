"""The 4-ary heap of finish times of the level ``fluid``: ``order`` holds flows, ``where`` the place of each, -1 outside."""

from __future__ import annotations

from typing import Any

from distsim.kernel.jit import kernel


@kernel
def lift(at: int, order: Any, where: Any, finish: Any) -> None:
    """Move the entry at ``at`` of the 4-ary heap of finish times up to its place."""
    flow = order[at]
    time = finish[flow]
    while at > 0:
        above = (at - 1) >> 2
        if finish[order[above]] <= time:
            break
        order[at] = order[above]
        where[order[at]] = at
        at = above
    order[at] = flow
    where[flow] = at


@kernel
def lower(at: int, size: int, order: Any, where: Any, finish: Any) -> None:
    """Move the entry at ``at`` of the heap of finish times down to its place."""
    flow = order[at]
    time = finish[flow]
    child = 4 * at + 1
    while child < size:
        best = child
        best_time = finish[order[child]]
        stop = min(child + 4, size)
        child += 1
        while child < stop:
            other = finish[order[child]]
            if other < best_time:
                best = child
                best_time = other
            child += 1
        if best_time >= time:
            break
        order[at] = order[best]
        where[order[at]] = at
        at = best
        child = 4 * at + 1
    order[at] = flow
    where[flow] = at


@kernel
def drop(flow: int, size: int, order: Any, where: Any, finish: Any) -> None:
    """Take a flow out of the heap of ``size`` finish times."""
    at = where[flow]
    where[flow] = -1
    size -= 1
    if at < size:
        moved = order[size]
        order[at] = moved
        where[moved] = at
        lift(at, order, where, finish)
        lower(where[moved], size, order, where, finish)
