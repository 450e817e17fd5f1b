"""Max-min shares of the level ``fluid``: who is touched, the water level of each, when each will be through.

A *flow* is what moves over one route since one instant: one transfer, or several alike. Its *nodes* ``flow * stride ...``
stand for the links that it shares, one each; the nodes on a link form a list. Water-filling (Bertsekas and Gallager, Data
Networks, 6.5.2) raises the level of all flows together; the link with the smallest share per flow fills up first and stops its
flows there. Shares of the other links only grow by that, so a stale entry of the heap of shares is found out, and put back,
when it comes up.

A solve takes in only flows whose rates can change: see :func:`solve`. Nothing that happens in one component (flows that share
links, directly or over others) changes a bit of another one.
"""

from __future__ import annotations

import math
from typing import Any

from distsim.kernel.jit import kernel
from distsim.network.event_heap import rise, sink
from distsim.network.fluid_heap import lift, lower
from distsim.network.model import LONGEST

#: relative; a share that is off another by less is the same share: what is left of 1,000 subtractions in float64 is 1e-13 off
TIE = 2.0**-40
#: relative; a time that is above a whole picosecond by less is that picosecond
WHOLE = 2.0**-44
#: seconds -> ps
PS = 1e12

# What is kept in ``state`` from one call to the next.
EVENTS = 0  #: entries of the heap of events
ACTIVE = 1  #: flows that move
DIRTY = 2  #: links where flows have come or gone since the last solve
EVERYTHING = 3  #: 1: all flows have to be solved
HIGH = 4  #: flow slots ever used
SPARE = 5  #: 1 + first of the free ones below; ``member`` chains them
STAMP = 6
FINISHED = 7  #: groups in ``done``
SOLVES = 8
STEPS = 9  #: elementary steps, roughly: nodes and rows looked at
DELIVERED = 10  #: rows, ever; what stands for the start of a group does not count
READY = 11  #: connections whose next row can begin to move in this instant
DUE = 12  #: rows whose first byte could move, ever
FRESH = 13  #: flows that have come since the last solve
STATE = 14  #: length

WAS = 2  #: a link that stopped flows at the last solve, all of them in this one
TRIES = 8  #: how often a solve takes in more flows before it takes in all


@kernel
def lasting(remaining: float, size: float, rate: float, rounded: bool) -> float:
    """ps that ``remaining`` of ``size`` bytes take; whole ones, upwards, where ``rounded``."""
    exact = remaining * PS / rate
    if not rounded:
        return exact
    if exact >= LONGEST:
        return float(LONGEST)
    # NOTE: all the bytes at one rate are an idle path, where every level gives the same ps; else float64 has lost some digits.
    below = math.floor(exact)
    if remaining < size and exact - below <= exact * WHOLE:
        return max(1.0, float(below))
    return max(1.0, float(math.ceil(exact)))


@kernel
def floor_of(
    state: Any, lowest: Any, stride: int, dirty: Any, head: Any, after: Any, weight: Any, unit: Any, limit: Any, rate: Any,
    bandwidth: Any,
) -> float:  # fmt: skip
    """The level below which nothing changes: filling up from 0 takes the same course as at the last solve until it comes to the
    level of a flow that has left, or until a link that flows have come to is full."""
    least = lowest[0]
    for at in range(state[DIRTY]):
        link = dirty[at]
        fresh = False
        total = 0.0
        node = head[link]
        while node >= 0:
            flow = node // stride
            total += weight[flow]
            if rate[flow] == 0.0:
                fresh = True
                least = min(least, limit[flow] / unit[flow])
            node = after[node]
        if not fresh:
            continue
        # From below: those that stop sooner leave more to the others.
        level = bandwidth[link] / total
        for _ in range(3):
            rest = total
            room = bandwidth[link]
            node = head[link]
            while node >= 0:
                flow = node // stride
                if 0.0 < rate[flow] < level * unit[flow]:
                    room -= rate[flow] * weight[flow] / unit[flow]
                    rest -= weight[flow]
                node = after[node]
            if rest <= total * TIE:
                break
            level = max(level, room / rest)
        least = min(least, level)
    return float(least * (1.0 - 4.0 * TIE))


@kernel
def gather(
    floor: float, state: Any, stride: int, order: Any, dirty: Any, queue: Any, found: Any, flow_seen: Any, head: Any,
    after: Any, node_link: Any, hops: Any, weight: Any, unit: Any, rate: Any, bandwidth: Any, seen: Any, left: Any, load: Any,
    level: Any, high: Any, stops: Any,
) -> tuple[int, int]:  # fmt: skip
    """List in ``found`` the flows whose rate may change, and in ``queue`` their links; returns (links, flows).

    Those are new, or at ``floor`` at least and stopped by a link (``stops``) that is dirty or has others of them. Of each link
    ``left`` is what the rest leaves, ``high`` the highest level of the rest, ``level`` that of the rest below the floor.
    """
    state[STAMP] += 1
    stamp = state[STAMP]
    active = state[ACTIVE]
    links = 0
    flows = 0
    full = state[EVERYTHING] == 1
    if not full:
        for at in range(state[DIRTY]):
            link = dirty[at]
            if head[link] >= 0:
                seen[link] = stamp
                queue[links] = link
                links += 1
        touched = links
        at = 0
        while at < links and not full:
            link = queue[at]
            if at < touched or stops[link] == 1:
                node = head[link]
                while node >= 0:
                    flow = node // stride
                    if flow_seen[flow] != stamp and (
                        rate[flow] == 0.0 or (stops[link] == 1 and rate[flow] >= floor * unit[flow])
                    ):
                        flow_seen[flow] = stamp
                        found[flows] = flow
                        flows += 1
                        for other in range(flow * stride, flow * stride + hops[flow]):
                            if seen[node_link[other]] != stamp:
                                seen[node_link[other]] = stamp
                                queue[links] = node_link[other]
                                links += 1
                    node = after[node]
            at += 1
            full = 2 * flows > active
    if full:
        state[STAMP] += 1
        stamp = state[STAMP]
        links = 0
        for at in range(active):
            flow = order[at]
            found[at] = flow
            flow_seen[flow] = stamp
            amount = weight[flow]
            for node in range(flow * stride, flow * stride + hops[flow]):
                link = node_link[node]
                if seen[link] != stamp:
                    seen[link] = stamp
                    queue[links] = link
                    links += 1
                    left[link] = bandwidth[link]
                    load[link] = 0.0
                    level[link] = 0.0
                    high[link] = 0.0
                    stops[link] = 0
                load[link] += amount
        return links, active
    kept = 0
    for at in range(links):
        link = queue[at]
        room = bandwidth[link]
        total = 0.0
        below = 0.0
        most = 0.0
        before = False
        node = head[link]
        while node >= 0:
            flow = node // stride
            if flow_seen[flow] == stamp:
                total += weight[flow]
                before = before or rate[flow] > 0.0
            else:
                reached = rate[flow] / unit[flow]
                room -= reached * weight[flow]
                most = max(most, reached)
                if reached < floor:
                    below = max(below, reached)
            node = after[node]
        if total > 0.0:
            left[link] = max(0.0, room)
            load[link] = total
            level[link] = below
            high[link] = most
            # NOTE: all that it stopped has been gathered: what is below the floor is below one of those.
            if before and stops[link] == 1:
                stops[link] = WAS
            queue[kept] = link
            kept += 1
    return kept, flows


@kernel
def stop_at(
    share: float, flow: int, stride: int, node_link: Any, hops: Any, weight: Any, flow_seen: Any, left: Any, load: Any,
    level: Any,
) -> None:  # fmt: skip
    """Take a flow that stays at this level off its links."""
    flow_seen[flow] = 0
    amount = weight[flow]
    used = share * amount
    for node in range(flow * stride, flow * stride + hops[flow]):
        link = node_link[node]
        left[link] -= used
        load[link] -= amount
        level[link] = share


@kernel
def fill(
    links: int, flows: int, stamp: int, stride: int, all_links: int, queue: Any, found: Any, shares: Any, ids: Any, head: Any,
    after: Any, node_link: Any, hops: Any, weight: Any, unit: Any, limit: Any, fresh: Any, flow_seen: Any,
    left: Any, load: Any, level: Any, high: Any, stops: Any,
) -> int:  # fmt: skip
    """Water-filling: the max-min rate of every flow listed goes to ``fresh`` (bytes/s of each of its transfers).

    Returns -1, or a link that stops flows below others which are not listed, but should be.
    """
    size = 0
    for at in range(links):
        link = queue[at]
        rise(shares, ids, size, left[link] / load[link], link)
        size += 1
    for at in range(flows):
        flow = found[at]
        if limit[flow] < math.inf:
            rise(shares, ids, size, limit[flow] / unit[flow], all_links + flow)
            size += 1
    rest = flows
    while rest > 0 and size > 0:
        share = shares[0]
        which = ids[0]
        if which >= all_links:
            flow = which - all_links
            if flow_seen[flow] == stamp:
                fresh[flow] = limit[flow]
                stop_at(share, flow, stride, node_link, hops, weight, flow_seen, left, load, level)
                rest -= 1
        elif load[which] > 0.0:
            now = left[which] / load[which]
            if now > share * (1.0 + TIE):
                sink(shares, ids, size, now, which)
                continue
            # NOTE: a link that is full at the level where others have stopped its flows is full at exactly that level: flows
            # that are alike get the same rate to the last bit, and end at once.
            if now <= level[which] * (1.0 + TIE):
                now = level[which]
            if high[which] > now * (1.0 + 4.0 * TIE):
                return int(which)
            stops[which] = 1
            room = left[which] if level[which] == 0.0 else 0.0
            amount = load[which]
            node = head[which]
            while node >= 0:
                flow = node // stride
                if flow_seen[flow] == stamp:
                    # NOTE: one weighted transfer alone gets all of a link, to the last bit: x / w * w need not be x.
                    fresh[flow] = room if room > 0.0 and amount == unit[flow] else now * unit[flow]
                    stop_at(now, flow, stride, node_link, hops, weight, flow_seen, left, load, level)
                    rest -= 1
                node = after[node]
        size -= 1
        if size > 0:
            sink(shares, ids, size, shares[size], ids[size])
    return -1


@kernel
def rerate(
    now: float, rounded: bool, flows: int, active: int, found: Any, order: Any, where: Any, fresh: Any, rate: Any,
    remaining: Any, length: Any, since: Any, finish: Any,
) -> None:  # fmt: skip
    """From ``now`` on the flows listed go at their fresh rates; those whose rate stays are not touched."""
    changed = 0
    for at in range(flows):
        flow = found[at]
        if fresh[flow] != rate[flow]:
            found[changed] = flow
            changed += 1
    many = 4 * changed > active
    for at in range(changed):
        flow = found[at]
        rest = remaining[flow] - rate[flow] * (now - since[flow]) / PS
        remaining[flow] = max(0.0, rest)
        since[flow] = now
        rate[flow] = fresh[flow]
        if rate[flow] > 0.0:
            finish[flow] = now + lasting(remaining[flow], length[flow], rate[flow], rounded)
        else:
            finish[flow] = math.inf
        if not many:
            lift(where[flow], order, where, finish)
            lower(where[flow], active, order, where, finish)
    if many:
        for at in range((active + 2) // 4 + 1, 0, -1):
            if at <= active:
                lower(at - 1, active, order, where, finish)


@kernel
def solve(
    now: float, rounded: bool, stride: int, all_links: int, state: Any, lowest: Any, dirty: Any, is_dirty: Any, queue: Any,
    shares: Any, ids: Any, found: Any, order: Any, where: Any, flow_seen: Any, hops: Any, weight: Any, unit: Any,
    limit: Any, length: Any, remaining: Any, rate: Any, fresh: Any, since: Any, finish: Any, node_link: Any, after: Any,
    head: Any, bandwidth: Any, seen: Any, left: Any, load: Any, level: Any, high: Any, stops: Any,
) -> None:  # fmt: skip
    """New rates, as of ``now``, for all flows whose rates what has come or gone since the last solve can change.

    The others keep theirs to the last bit. The result is max-min fair, as every flow has a link (or limit) that stops it: full,
    and nobody there has more. Those that were not gathered have it still, as nobody gathered is on that link.
    """
    # NOTE: where all will be gathered in the end, as at the start of a collective, looking for less is in vain.
    if 2 * state[FRESH] > state[ACTIVE]:
        state[EVERYTHING] = 1
    floor = 0.0
    if state[EVERYTHING] == 0:
        floor = floor_of(state, lowest, stride, dirty, head, after, weight, unit, limit, rate, bandwidth)
    tries = 0
    while True:
        links, flows = gather(
            floor, state, stride, order, dirty, queue, found, flow_seen, head, after, node_link, hops, weight, unit, rate,
            bandwidth, seen, left, load, level, high, stops,
        )  # fmt: skip
        if flows == 0:
            break
        state[STEPS] += 4 * (links + flows * stride)  # each is looked at about so often
        crossed = fill(
            links, flows, state[STAMP], stride, all_links, queue, found, shares, ids, head, after, node_link, hops, weight,
            unit, limit, fresh, flow_seen, left, load, level, high, stops,
        )  # fmt: skip
        for at in range(links):
            if stops[queue[at]] == WAS:
                stops[queue[at]] = 0 if crossed < 0 else 1
        if crossed < 0:
            break
        stops[crossed] = 1
        tries += 1
        if tries == TRIES:
            state[EVERYTHING] = 1
    for at in range(state[DIRTY]):
        is_dirty[dirty[at]] = 0
    state[DIRTY] = 0
    state[EVERYTHING] = 0
    state[FRESH] = 0
    lowest[0] = math.inf
    if flows > 0:
        state[SOLVES] += 1
        rerate(now, rounded, flows, state[ACTIVE], found, order, where, fresh, rate, remaining, length, since, finish)
