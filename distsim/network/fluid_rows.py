"""Rows of the level ``fluid`` that do not move: they wait for dependencies, for latencies, for their delay; they are delivered.

Rows that wait for one instant are chained, so that a thousand of them are one entry of the heap of events.
"""

from __future__ import annotations

import math
from typing import Any

from distsim.kernel.jit import kernel
from distsim.network.event_heap import rise
from distsim.network.fluid_kernel import DELIVERED, EVENTS, FINISHED, STEPS
from distsim.network.rounding import serialisation

CHAINS = 64  #: instants whose chain of rows is remembered

# Stages of a row.
WAITING = 0  #: for its dependencies
LATENCY = 1  #: until its first byte would have arrived
MOVING = 2
DELAY = 3  #: until its delivery
THERE = 4  #: delivered
QUEUED = 5  #: behind other rows of its connection


@kernel
def admit(
    src: Any, dst: Any, size: Any, dep_ptr: Any, dep: Any, delays: Any, numbers: Any, base: int, room: int, seat: int,
    group: int, mark: Any, pair: Any, connection: Any, waits: Any, first: Any, beside: Any, owner: Any, src_end: Any,
    dst_end: Any, stage: Any, load: Any, todo: Any, delay: Any, due: Any, begun: Any, end: Any, share: Any, dependents: Any,
    host: Any, host_end: Any,
) -> int:  # fmt: skip
    """Fill rows base ... base + T + 1 (start, T transfers, sentinel), the dependents from ``room`` and the hosts from
    ``seat`` on. Rows depend on earlier rows. Returns the number of host seats used (the first is nobody's)."""
    rows = len(src)
    seats = 1
    for row in range(base, base + rows + 2):
        first[row] = 0
        owner[row] = group
        stage[row] = WAITING
    pair[base] = -1
    waits[base] = 0
    src_end[base] = seat
    dst_end[base] = seat
    delay[base] = 0.0
    load[base] = 0.0
    for index in range(rows):
        row = base + 1 + index
        pair[row] = numbers[index]
        connection[row] = -1
        share[row] = 1.0
        load[row] = size[index]
        todo[row] = size[index]
        delay[row] = delays[index]
        for side in range(2):
            which = dst[index] if side else src[index]
            if mark[which] < 0:
                mark[which] = seat + seats
                host[seat + seats] = which
                seats += 1
        src_end[row] = mark[src[index]]
        dst_end[row] = mark[dst[index]]
        waits[row] = max(1, dep_ptr[index + 1] - dep_ptr[index])
        if dep_ptr[index] == dep_ptr[index + 1]:
            first[base] += 1
        for at in range(dep_ptr[index], dep_ptr[index + 1]):
            first[base + 1 + dep[at]] += 1
    for index in range(seat + 1, seat + seats):
        mark[host[index]] = -1
        host_end[index] = 0.0
    # Counting sort: first[r] becomes the end of r's dependents, and, filled from the back, their beginning.
    total = room
    for row in range(base, base + rows + 2):
        total += first[row]
        first[row] = total
    for index in range(rows - 1, -1, -1):
        row = base + 1 + index
        if dep_ptr[index] == dep_ptr[index + 1]:
            first[base] -= 1
            dependents[first[base]] = row
        for at in range(dep_ptr[index], dep_ptr[index + 1]):
            before = base + 1 + dep[at]
            first[before] -= 1
            dependents[first[before]] = row
    return seats


@kernel
def push(
    time: float, row: int, state: Any, times: Any, ranks: Any, chain_time: Any, chain_end: Any, beside: Any, due: Any
) -> None:
    """Make ``row`` due at ``time``."""
    due[row] = time
    beside[row] = -1
    at = int(time) & (CHAINS - 1)
    if chain_end[at] >= 0 and chain_time[at] == time:
        beside[chain_end[at]] = row
    else:
        rise(times, ranks, state[EVENTS], time, row)
        state[EVENTS] += 1
        chain_time[at] = time
    chain_end[at] = row


@kernel
def busy_for(size: float, bandwidth: float) -> int:
    """ps that ``size`` bytes keep a link busy; none on one that is down, where they do not move."""
    return serialisation(size, bandwidth) if bandwidth > 0.0 else 0


@kernel
def lightest(route: int, choices: int, path_first: Any, path_links: Any, crowd: Any, bandwidth: Any) -> int:
    """Of ``choices`` routes from ``route`` on, the one whose most crowded link is the least crowded, the first of several."""
    best = route
    least = math.inf
    for other in range(route, route + choices):
        worst = 0.0
        for at in range(path_first[other], path_first[other + 1]):
            link = path_links[at]
            if bandwidth[link] > 0.0:
                worst = max(worst, (crowd[link] + 1) / bandwidth[link])
            else:
                worst = math.inf
        if worst < least:
            least = worst
            best = other
    return best


@kernel
def begin(
    row: int, time: float, choices: int, path_first: Any, path_links: Any, state: Any, times: Any, ranks: Any,
    chain_time: Any, chain_end: Any, pair: Any, connection: Any, beside: Any, stage: Any, load: Any, delay: Any, due: Any,
    begun: Any, bandwidth: Any, latency: Any, sent: Any, busy: Any, like: Any, like_ps: Any, crowd: Any,
) -> None:  # fmt: skip
    """The row's last dependency has been delivered at ``time``."""
    route = pair[row]
    state[STEPS] += 1
    if choices > 1:
        route = lightest(route, choices, path_first, path_links, crowd, bandwidth)
        if connection[row] >= 0:
            connection[row] += route - pair[row]
        pair[row] = route
    amount = load[row]
    wait = 0.0
    for at in range(path_first[route], path_first[route + 1]):
        link = path_links[at]
        wait += latency[link]
        if like[link] != amount:
            like[link] = amount
            like_ps[link] = busy_for(amount, bandwidth[link])
        sent[link] += int(amount)
        busy[link] += like_ps[link]
        if choices > 1:
            crowd[link] += 1
    begun[row] = time + wait
    if amount > 0.0 and path_first[route] < path_first[route + 1]:
        stage[row] = LATENCY
        time += wait
    else:
        stage[row] = DELAY
        if choices > 1:
            for at in range(path_first[route], path_first[route + 1]):
                crowd[path_links[at]] -= 1
        time += wait + delay[row]
    push(time, row, state, times, ranks, chain_time, chain_end, beside, due)


@kernel
def deliver(
    row: int, time: float, choices: int, path_first: Any, path_links: Any, done: Any, state: Any, times: Any, ranks: Any,
    chain_time: Any, chain_end: Any, pair: Any, connection: Any, waits: Any, first: Any, beside: Any, owner: Any, src_end: Any,
    dst_end: Any, stage: Any, load: Any, delay: Any, due: Any, begun: Any, end: Any, dependents: Any, host_end: Any,
    left_rows: Any, bandwidth: Any, latency: Any, sent: Any, busy: Any, like: Any, like_ps: Any, crowd: Any,
) -> None:  # fmt: skip
    """The row is delivered at ``time``; what only waited for it begins."""
    stage[row] = THERE
    if pair[row] >= 0:
        state[DELIVERED] += 1
    end[row] = time
    host_end[src_end[row]] = time
    host_end[dst_end[row]] = time
    group = owner[row]
    left_rows[group] -= 1
    if left_rows[group] == 0:
        done[state[FINISHED]] = group
        state[FINISHED] += 1
    for at in range(first[row], first[row + 1]):
        after = dependents[at]
        waits[after] -= 1
        if waits[after] == 0:
            begin(
                after, time, choices, path_first, path_links, state, times, ranks, chain_time, chain_end, pair, connection,
                beside, stage, load, delay, due, begun, bandwidth, latency, sent, busy, like, like_ps, crowd,
            )  # fmt: skip
