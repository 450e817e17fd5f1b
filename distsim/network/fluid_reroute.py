"""What becomes of rows under way at level ``fluid`` when links and routes change: see :meth:`Fluid.change`."""

from __future__ import annotations

from typing import Any

from distsim.kernel.jit import kernel
from distsim.network.fluid_events import detach, weigh
from distsim.network.fluid_heap import drop
from distsim.network.fluid_kernel import ACTIVE, PS, SPARE
from distsim.network.fluid_rows import DELAY, LATENCY, QUEUED, busy_for, lightest, push

TURNED = 6  #: stage of a row that has got another route, until all have theirs


@kernel
def same(one: int, other: int, first: Any, links: Any, new_first: Any, new_links: Any) -> bool:
    """Whether a route and a new one take the same links."""
    length = first[one + 1] - first[one]
    if new_first[other + 1] - new_first[other] != length:
        return False
    for step in range(length):  # noqa: SIM110  a kernel knows no generators
        if links[first[one] + step] != new_links[new_first[other] + step]:
            return False
    return True


@kernel
def carry_on(
    route: int, target: int, choices: int, first: Any, links: Any, new_first: Any, new_links: Any, bandwidth: Any
) -> int:
    """Which of the new routes from ``target`` on takes the links of the old one; -1: none, or one that is down where there is
    a choice."""
    for other in range(target, target + choices):
        if same(route, other, first, links, new_first, new_links):
            if choices > 1:
                for at in range(new_first[other], new_first[other + 1]):
                    if bandwidth[new_links[at]] == 0.0:
                        return -1
            return other
    return -1


@kernel
def turn_off(
    row: int, now: float, rest: float, choices: int, first: Any, links: Any, new_first: Any, new_links: Any, pair: Any,
    turn: Any, join: Any, stage: Any, todo: Any, due: Any, was: Any, bandwidth: Any, latency: Any, sent: Any,
    busy: Any, crowd: Any,
) -> None:  # fmt: skip
    """The row goes on over its new route with ``rest`` bytes: their use is moved there, and its latencies begin now."""
    old = pair[row]
    new = turn[row]
    if choices > 1:
        for at in range(first[old], first[old + 1]):
            crowd[links[at]] -= 1
        new = lightest(new, choices, new_first, new_links, crowd, bandwidth)
        if join[row] >= 0:
            join[row] += new - turn[row]
        turn[row] = new
    for at in range(first[old], first[old + 1]):
        link = links[at]
        sent[link] -= int(rest)
        busy[link] = max(0, busy[link] - busy_for(rest, was[link]))
    wait = 0.0
    for at in range(new_first[new], new_first[new + 1]):
        link = new_links[at]
        wait += latency[link]
        sent[link] += int(rest)
        busy[link] += busy_for(rest, bandwidth[link])
        if choices > 1:
            crowd[link] += 1
    todo[row] = rest
    stage[row] = TURNED
    due[row] = now + wait


@kernel
def turn_flows(
    now: float, weighted: bool, cap: float, choices: int, stride: int, first: Any, links: Any, new_first: Any, new_links: Any,
    state: Any, pair: Any, turn: Any, join: Any, beside: Any, stage: Any, todo: Any, due: Any, share: Any, moving: Any,
    order: Any, found: Any, where: Any, hops: Any, member: Any, route_of: Any, weight: Any, unit: Any, bound: Any,
    remaining: Any, rate: Any, since: Any, finish: Any, node_link: Any, before: Any, after: Any, was: Any, bandwidth: Any,
    latency: Any, shared: Any, head: Any, dirty: Any, is_dirty: Any, sent: Any, busy: Any, crowd: Any,
) -> None:  # fmt: skip
    """Flows whose route stays go on; the others leave their links."""
    active = state[ACTIVE]
    for at in range(active):
        found[at] = order[at]
    for at in range(active):
        flow = found[at]
        row = member[flow]
        kept = carry_on(pair[row], turn[row], choices, first, links, new_first, new_links, bandwidth)
        if kept >= 0:
            route_of[flow] = kept
            unit[flow], bound[flow] = weigh(kept, share[row], weighted, cap, new_first, new_links, bandwidth, latency, shared)
            weight[flow] = 0.0
            while row >= 0:
                if join[row] >= 0:
                    join[row] += kept - turn[row]
                    if hops[flow] > 0:
                        moving[join[row]] += 1
                turn[row] = kept
                weight[flow] += unit[flow]
                row = beside[row]
            continue
        rest = max(0.0, remaining[flow] - rate[flow] * (now - since[flow]) / PS)
        drop(flow, state[ACTIVE], order, where, finish)
        state[ACTIVE] -= 1
        detach(flow, stride, state, dirty, is_dirty, head, hops, node_link, before, after)
        while row >= 0:
            following = beside[row]
            turn_off(
                row, now, rest, choices, first, links, new_first, new_links, pair, turn, join, stage, todo, due, was, bandwidth,
                latency, sent, busy, crowd,
            )  # fmt: skip
            row = following
        member[flow] = state[SPARE]
        state[SPARE] = flow + 1


@kernel
def turn_waiting(
    now: float, begin: int, stop: int, choices: int, first: Any, links: Any, new_first: Any, new_links: Any, state: Any,
    times: Any, ranks: Any, chain_time: Any, chain_end: Any, pair: Any, turn: Any, connection: Any, join: Any,
    beside: Any, stage: Any, todo: Any, due: Any, was: Any, bandwidth: Any, latency: Any, sent: Any, busy: Any, crowd: Any,
) -> None:  # fmt: skip
    """Rows ``begin ... stop - 1`` whose first byte is under way, or that are behind others, on a route that is no more begin
    its latencies again; all rows that wait for an instant are put into the empty queue of events.

    What is behind others on a route that stays is due again at once, and so behind what moves, in the order of before.
    """
    for row in range(begin, stop):
        if stage[row] == LATENCY or stage[row] == QUEUED:
            kept = carry_on(pair[row], turn[row], choices, first, links, new_first, new_links, bandwidth)
            if kept >= 0:
                if join[row] >= 0:
                    join[row] += kept - turn[row]
                turn[row] = kept
                if stage[row] == QUEUED:
                    stage[row] = LATENCY
                    due[row] = now
            else:
                turn_off(
                    row, now, todo[row], choices, first, links, new_first, new_links, pair, turn, join, stage, todo, due, was,
                    bandwidth, latency, sent, busy, crowd,
                )  # fmt: skip
        if stage[row] == TURNED:
            stage[row] = LATENCY
        if stage[row] == LATENCY or stage[row] == DELAY:
            push(due[row], row, state, times, ranks, chain_time, chain_end, beside, due)
        if pair[row] >= 0:
            pair[row] = turn[row]
            connection[row] = join[row]
