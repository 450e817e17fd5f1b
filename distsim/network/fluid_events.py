"""The event loop of the level ``fluid``: rows become due, flows end, and once an instant the rates are found again.

Waiting is an event of a row (:mod:`~distsim.network.fluid_rows`). What moves is a flow (:mod:`~distsim.network.fluid_kernel`);
rows that set out at once over one route with as many bytes are one flow.

Times are float64 ps since an epoch. Where they are ``rounded`` they are whole, and so is everything that follows.
"""

from __future__ import annotations

import math
from typing import Any

from distsim.kernel.jit import kernel
from distsim.network.event_heap import rise, sink
from distsim.network.fluid_connections import line_up
from distsim.network.fluid_heap import drop, lift, lower
from distsim.network.fluid_kernel import (
    ACTIVE,
    DIRTY,
    DUE,
    EVENTS,
    EVERYTHING,
    FINISHED,
    FRESH,
    HIGH,
    PS,
    READY,
    SPARE,
    STEPS,
    lasting,
    solve,
)  # fmt: skip
from distsim.network.fluid_rows import CHAINS, DELAY, LATENCY, MOVING, deliver, push

REBASE = 2.0**50  #: ps from the epoch (19 minutes) beyond which it is moved: whole ps are exact up to 2^53

# What ``run`` answers.
DONE = 0  #: the limit, or the end of an instant at which groups finish
TOO_LONG = 1  #: a time is beyond the horizon
GROW = 2  #: no flow slot is free
MOVE_EPOCH = 3
PAUSE = 4  #: more steps than allowed


@kernel
def soil(link: int, state: Any, dirty: Any, is_dirty: Any) -> None:
    """Note that flows have come to the link or gone."""
    if is_dirty[link] == 0:
        is_dirty[link] = 1
        dirty[state[DIRTY]] = link
        state[DIRTY] += 1


@kernel
def weigh(
    route: int, share: float, weighted: bool, cap: float, path_first: Any, path_links: Any, bandwidth: Any, latency: Any,
    shared: Any,
) -> tuple[float, float]:
    """(weight, largest rate) of one transfer of that ``share`` on a route.

    ``weighted``: the inverse of the sum of latencies in seconds; 1 on a route without latency, as SimGrid has it.
    """
    limit = cap
    wait = 0.0
    for at in range(path_first[route], path_first[route + 1]):
        link = path_links[at]
        wait += latency[link]
        if shared[link] == 0:
            limit = min(limit, bandwidth[link])
    return share * (PS / wait if weighted and wait > 0.0 else 1.0), limit


@kernel
def attach(
    flow: int, route: int, stride: int, path_first: Any, path_links: Any, state: Any, dirty: Any, is_dirty: Any, shared: Any,
    head: Any, hops: Any, node_link: Any, before: Any, after: Any,
) -> None:  # fmt: skip
    """Put a flow on the shared links of a route."""
    node = flow * stride
    for at in range(path_first[route], path_first[route + 1]):
        link = path_links[at]
        if shared[link] == 1:
            node_link[node] = link
            before[node] = -1
            after[node] = head[link]
            if head[link] >= 0:
                before[head[link]] = node
            head[link] = node
            soil(link, state, dirty, is_dirty)
            node += 1
    hops[flow] = node - flow * stride


@kernel
def detach(
    flow: int, stride: int, state: Any, dirty: Any, is_dirty: Any, head: Any, hops: Any, node_link: Any, before: Any, after: Any
) -> None:
    """Take a flow off its links."""
    for node in range(flow * stride, flow * stride + hops[flow]):
        link = node_link[node]
        if before[node] >= 0:
            after[before[node]] = after[node]
        else:
            head[link] = after[node]
        if after[node] >= 0:
            before[after[node]] = before[node]
        soil(link, state, dirty, is_dirty)


@kernel
def set_out(
    row: int, now: float, rounded: bool, weighted: bool, cap: float, slots: int, stride: int, path_first: Any, path_links: Any,
    open_flow: Any, state: Any, dirty: Any, is_dirty: Any, pair: Any, beside: Any, stage: Any, load: Any, todo: Any, share: Any,
    order: Any, where: Any, hops: Any, member: Any, route_of: Any, weight: Any, unit: Any, limit: Any, length: Any,
    remaining: Any, rate: Any, since: Any, finish: Any, node_link: Any, before: Any, after: Any, bandwidth: Any, latency: Any,
    shared: Any, head: Any,
) -> bool:  # fmt: skip
    """A row's bytes begin to move: it joins a flow of this instant that is alike, or is one. False: no slot is free."""
    route = pair[row]
    flow = open_flow[route] - 1
    if (
        flow >= 0 and where[flow] >= 0 and route_of[flow] == route and since[flow] == now and rate[flow] == 0.0
        and length[flow] == load[row] and remaining[flow] == todo[row] and share[member[flow]] == share[row]
    ):  # fmt: skip
        weight[flow] += unit[flow]
    else:
        if state[SPARE] > 0:
            flow = state[SPARE] - 1
            state[SPARE] = member[flow]
        elif state[HIGH] < slots:
            flow = state[HIGH]
            state[HIGH] += 1
        else:
            return False
        open_flow[route] = flow + 1
        state[FRESH] += 1
        member[flow] = -1
        route_of[flow] = route
        length[flow] = load[row]
        remaining[flow] = todo[row]
        rate[flow] = 0.0
        since[flow] = now
        unit[flow], limit[flow] = weigh(route, share[row], weighted, cap, path_first, path_links, bandwidth, latency, shared)
        weight[flow] = unit[flow]
        attach(
            flow, route, stride, path_first, path_links, state, dirty, is_dirty, shared, head, hops, node_link, before, after
        )
        finish[flow] = math.inf
        order[state[ACTIVE]] = flow
        where[flow] = state[ACTIVE]
        state[ACTIVE] += 1
        if hops[flow] == 0:
            # NOTE: no link leads to a flow that shares none: its rate is known, and solves need not find it.
            rate[flow] = limit[flow]
            if rate[flow] > 0.0:
                finish[flow] = now + lasting(remaining[flow], length[flow], rate[flow], rounded)
                lift(where[flow], order, where, finish)
    beside[row] = member[flow]
    member[flow] = row
    stage[row] = MOVING
    return True


@kernel
def divided(route: int, path_first: Any, path_links: Any, shared: Any) -> bool:
    """Whether a route has a link that flows share."""
    for at in range(path_first[route], path_first[route + 1]):  # noqa: SIM110  a kernel knows no generators
        if shared[path_links[at]] == 1:
            return True
    return False


@kernel
def hand_over(
    flow: int, now: float, rounded: bool, state: Any, connection: Any, beside: Any, stage: Any, load: Any, todo: Any,
    share: Any, ahead: Any, moving: Any, order: Any, where: Any, hops: Any, member: Any, length: Any, remaining: Any,
    rate: Any, since: Any, finish: Any,
) -> bool:  # fmt: skip
    """A flow that is through goes on with the next row of its connection, where it is of one row and there is one.

    The links are shared among as many as before, so no rate changes.
    """
    which = connection[member[flow]]
    if which < 0 or hops[flow] == 0 or ahead[which] < 0 or moving[which] > 1 or beside[member[flow]] >= 0:
        return False
    row = ahead[which]
    if share[row] != share[member[flow]]:
        return False
    ahead[which] = beside[row]
    beside[row] = -1
    stage[row] = MOVING
    member[flow] = row
    length[flow] = load[row]
    remaining[flow] = todo[row]
    since[flow] = now
    finish[flow] = now + lasting(remaining[flow], length[flow], rate[flow], rounded)
    where[flow] = state[ACTIVE]
    order[where[flow]] = flow
    state[ACTIVE] += 1
    lift(where[flow], order, where, finish)
    return True


@kernel
def due_flows(now: float, tolerance: float, active: int, found: Any, order: Any, finish: Any, rate: Any, length: Any) -> int:
    """List the flows that end now (or within ``tolerance`` of the time that they take) in ``found``; returns how many.

    They are the top of the heap.
    """
    count = 0
    if active > 0:
        found[0] = 0
        count = 1
    at = 0
    kept = 0
    while at < count:
        place = found[at]
        at += 1
        flow = order[place]
        if finish[flow] <= now or (finish[flow] - now) * rate[flow] <= tolerance * length[flow] * PS:
            # NOTE: entries before ``at`` have been read: the flows overwrite the places.
            for child in range(4 * place + 1, min(4 * place + 5, active)):
                if finish[order[child]] <= now or tolerance > 0.0:
                    found[count] = child
                    count += 1
            found[kept] = flow
            kept += 1
    return kept


@kernel
def take_off(count: int, state: Any, found: Any, order: Any, where: Any, finish: Any) -> None:
    """Remove the ``count`` flows in ``found`` from the heap of finish times."""
    active = state[ACTIVE]
    if 8 * count < active:
        for at in range(count):
            drop(found[at], active - at, order, where, finish)
        state[ACTIVE] = active - count
        return
    for at in range(count):
        where[found[at]] = -1
    kept = 0
    for at in range(active):
        flow = order[at]
        if where[flow] >= 0:
            order[kept] = flow
            where[flow] = kept
            kept += 1
    for at in range((kept + 2) // 4, -1, -1):
        if at < kept:
            lower(at, kept, order, where, finish)
    state[ACTIVE] = kept


@kernel
def run(
    limit: float, horizon: float, rounded: bool, tolerance: float, weighted: bool, cap: float, choices: int, allowance: int,
    slots: int, stride: int, all_links: int,
    path_first: Any, path_links: Any, open_flow: Any, done: Any, state: Any, clock: Any, lowest: Any, times: Any,
    ranks: Any, chain_time: Any, chain_end: Any,
    pair: Any, connection: Any, waits: Any, first: Any, beside: Any, owner: Any, src_end: Any, dst_end: Any, stage: Any,
    load: Any, todo: Any, delay: Any, due: Any, begun: Any, end: Any, share: Any, dependents: Any, host: Any, host_end: Any,
    number: Any, left_rows: Any,
    ahead: Any, last: Any, moving: Any, ready: Any,
    order: Any, found: Any, where: Any, flow_seen: Any, hops: Any, member: Any, route_of: Any, weight: Any,
    unit: Any, bound: Any, length: Any, remaining: Any, rate: Any, fresh: Any, since: Any, finish: Any,
    node_link: Any, before: Any, after: Any, shares: Any, ids: Any,
    bandwidth: Any, latency: Any, shared: Any, head: Any, seen: Any, left: Any, load_of: Any, level: Any, high: Any,
    stops: Any, queue: Any, dirty: Any, is_dirty: Any, sent: Any, busy: Any, like: Any, like_ps: Any, crowd: Any,
) -> int:  # fmt: skip
    """Go on until ``limit``, or to the end of the first instant at which groups finish (they are listed in ``done``).

    ``clock[0]`` is the last instant at which something happened. Rates are found when the clock is about to leave an instant:
    whatever is started in it by then is in the same solve.
    """
    while True:
        now = clock[0]
        if state[FINISHED] > 0:
            limit = now
        if state[EVENTS] == 0 or times[0] > now:
            while state[READY] > 0:
                which = ready[state[READY] - 1]
                row = ahead[which]
                following = beside[row]
                if not set_out(
                    row, now, rounded, weighted, cap, slots, stride, path_first, path_links, open_flow, state, dirty,
                    is_dirty, pair, beside, stage, load, todo, share, order, where, hops, member, route_of, weight, unit, bound,
                    length, remaining, rate, since, finish, node_link, before, after, bandwidth, latency, shared, head,
                ):  # fmt: skip
                    return GROW
                state[READY] -= 1
                ahead[which] = following
                moving[which] += 1
            if limit <= now:
                return DONE
            if (state[DIRTY] > 0 or state[EVERYTHING] > 0) and state[ACTIVE] > 0:
                solve(
                    now, rounded, stride, all_links, state, lowest, dirty, is_dirty, queue, shares, ids, found, order, where,
                    flow_seen, hops, weight, unit, bound, length, remaining, rate, fresh, since, finish, node_link, after,
                    head, bandwidth, seen, left, load_of, level, high, stops,
                )  # fmt: skip
            time = times[0] if state[EVENTS] > 0 else math.inf
            if state[ACTIVE] > 0:
                time = min(time, finish[order[0]])
            if time > limit or time == math.inf:
                return DONE
            if time >= horizon:
                return TOO_LONG
            if rounded and now > REBASE:
                return MOVE_EPOCH
            if state[STEPS] > allowance:
                return PAUSE
            now = max(now, time)
            clock[0] = now
            count = due_flows(now, tolerance, state[ACTIVE], found, order, finish, rate, length)
            if count > 0:
                take_off(count, state, found, order, where, finish)
            for at in range(count):
                flow = found[at]
                state[STEPS] += stride
                over = max(now, finish[flow]) if tolerance > 0.0 else now
                row = member[flow]
                goes_on = hand_over(
                    flow, now, rounded, state, connection, beside, stage, load, todo, share, ahead, moving, order, where, hops,
                    member, length, remaining, rate, since, finish,
                )  # fmt: skip
                if not goes_on and hops[flow] > 0:
                    lowest[0] = min(lowest[0], rate[flow] / unit[flow])
                    detach(flow, stride, state, dirty, is_dirty, head, hops, node_link, before, after)
                while row >= 0:
                    following = beside[row]
                    which = connection[row]
                    if which >= 0 and hops[flow] > 0 and not goes_on:
                        moving[which] -= 1
                        if moving[which] == 0 and ahead[which] >= 0:
                            ready[state[READY]] = which
                            state[READY] += 1
                    if choices > 1:
                        for step in range(path_first[pair[row]], path_first[pair[row] + 1]):
                            crowd[path_links[step]] -= 1
                    stage[row] = DELAY
                    push(over + delay[row], row, state, times, ranks, chain_time, chain_end, beside, due)
                    row = following
                if not goes_on:
                    member[flow] = state[SPARE]
                    state[SPARE] = flow + 1
        while state[EVENTS] > 0 and times[0] <= now:
            time = times[0]
            row = ranks[0]
            size = state[EVENTS] - 1
            state[EVENTS] = size
            if size > 0:
                sink(times, ranks, size, times[size], ranks[size])
            at = int(time) & (CHAINS - 1)
            if chain_time[at] == time:
                chain_end[at] = -1
            while row >= 0:
                following = beside[row]
                state[STEPS] += 1
                if stage[row] == LATENCY and connection[row] >= 0 and divided(pair[row], path_first, path_links, shared):
                    state[DUE] += 1
                    line_up(row, state, connection, beside, stage, due, begun, ahead, last, moving, ready)
                elif stage[row] == LATENCY:
                    if not set_out(
                        row, now, rounded, weighted, cap, slots, stride, path_first, path_links, open_flow, state, dirty,
                        is_dirty, pair, beside, stage, load, todo, share, order, where, hops, member, route_of, weight, unit,
                        bound, length, remaining, rate, since, finish, node_link, before, after, bandwidth, latency, shared,
                        head,
                    ):  # fmt: skip
                        rise(times, ranks, state[EVENTS], time, row)
                        state[EVENTS] += 1
                        return GROW
                    state[DUE] += 1
                else:
                    deliver(
                        row, time, choices, path_first, path_links, done, state, times, ranks, chain_time, chain_end, pair,
                        connection, waits, first, beside, owner, src_end, dst_end, stage, load, delay, due, begun, end,
                        dependents, host_end, left_rows, bandwidth, latency, sent, busy, like, like_ps, crowd,
                    )  # fmt: skip
                row = following
