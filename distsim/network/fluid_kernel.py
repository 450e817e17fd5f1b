"""Max-min shares of the level ``fluid``: who is touched, the water level of each, when each will be through.

A *flow* is what moves over one route since one instant: one transfer, or several alike. Its *nodes* ``flow * stride ...``
stand for the links that it shares, one each; the nodes on a link form a list. Water-filling (Bertsekas and Gallager, Data
Networks, 6.5.2) raises the level of all flows together; the link with the smallest share per flow fills up first and stops its
flows there. Shares of the other links only grow by that, so a stale entry of the heap of shares is found out, and put back,
when it comes up.

Nothing that happens in one component (flows that share links, directly or over others) changes a bit of another one, whichever
of them are solved together.
"""

from __future__ import annotations

import math
from typing import Any

from distsim.kernel.jit import kernel
from distsim.network.fifo_kernel import rise, sink
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
SKIP = 7  #: solves that still take in all flows at once
PATIENCE = 8  #: how many they are after the next component that is too large
FINISHED = 9  #: groups in ``done``
SOLVES = 10
STEPS = 11  #: elementary steps, roughly: nodes and rows looked at
DELIVERED = 12  #: rows, ever; what stands for the start of a group does not count
STATE = 13  #: length


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
def enlist(
    flow: int, links: int, stamp: int, stride: int, queue: Any, node_link: Any, hops: Any, weight: Any, bandwidth: Any,
    seen: Any, left: Any, load: Any, level: Any,
) -> int:  # fmt: skip
    """Add a flow's weight to its links; those not seen before go to ``queue``. Returns how many are there."""
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
        load[link] += amount
    return links


@kernel
def gather(
    state: Any, stride: int, order: Any, dirty: Any, is_dirty: Any, queue: Any, found: Any, flow_seen: Any, head: Any,
    after: Any, node_link: Any, hops: Any, weight: Any, bandwidth: Any, seen: Any, left: Any, load: Any, level: Any,
) -> tuple[int, int]:  # fmt: skip
    """List in ``found`` the flows that share links with a dirty one, directly or over others, and in ``queue`` their links;
    all flows where those are more than half of them. Returns (links, flows)."""
    state[STAMP] += 1
    stamp = state[STAMP]
    active = state[ACTIVE]
    links = 0
    flows = 0
    for at in range(state[DIRTY]):
        link = dirty[at]
        is_dirty[link] = 0
        if head[link] >= 0:
            seen[link] = stamp
            queue[links] = link
            links += 1
            left[link] = bandwidth[link]
            load[link] = 0.0
            level[link] = 0.0
    state[DIRTY] = 0
    full = state[EVERYTHING] == 1 or (links > 0 and state[SKIP] > 0)
    state[EVERYTHING] = 0
    if not full:
        at = 0
        while at < links and not full:
            node = head[queue[at]]
            at += 1
            while node >= 0:
                flow = node // stride
                if flow_seen[flow] != stamp:
                    flow_seen[flow] = stamp
                    found[flows] = flow
                    flows += 1
                    links = enlist(
                        flow, links, stamp, stride, queue, node_link, hops, weight, bandwidth, seen, left, load, level
                    )
                node = after[node]
            if 2 * flows > active:
                full = True
        # NOTE: to have gathered half of them in vain costs as much as half a solve; after that it is not tried for a while.
        if full:
            state[PATIENCE] = min(2 * state[PATIENCE] + 1, 15)
            state[SKIP] = state[PATIENCE]
        elif links > 0:
            state[PATIENCE] = 0
    elif state[SKIP] > 0:
        state[SKIP] -= 1
    if full:
        state[STAMP] += 1
        stamp = state[STAMP]
        links = 0
        for at in range(active):
            flow = order[at]
            found[at] = flow
            links = enlist(flow, links, stamp, stride, queue, node_link, hops, weight, bandwidth, seen, left, load, level)
        flows = active
    return links, flows


@kernel
def stop_at(
    share: float, flow: int, stamp: int, stride: int, node_link: Any, hops: Any, weight: Any, fixed: Any, left: Any, load: Any,
    level: Any,
) -> None:  # fmt: skip
    """Take a flow that stays at this level off its links."""
    fixed[flow] = stamp
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
    after: Any, node_link: Any, hops: Any, weight: Any, unit: Any, limit: Any, fresh: Any, fixed: Any,
    left: Any, load: Any, level: Any,
) -> None:  # fmt: skip
    """Water-filling: the max-min rate of every flow listed goes to ``fresh`` (bytes/s of each of its transfers)."""
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
            if fixed[flow] != stamp:
                fresh[flow] = limit[flow]
                stop_at(share, flow, stamp, stride, node_link, hops, weight, fixed, left, load, level)
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
            room = left[which] if level[which] == 0.0 else 0.0
            amount = load[which]
            node = head[which]
            while node >= 0:
                flow = node // stride
                if fixed[flow] != stamp:
                    # NOTE: one weighted transfer alone gets all of a link, to the last bit: x / w * w need not be x.
                    fresh[flow] = room if room > 0.0 and amount == unit[flow] else now * unit[flow]
                    stop_at(now, flow, stamp, stride, node_link, hops, weight, fixed, left, load, level)
                    rest -= 1
                node = after[node]
        size -= 1
        if size > 0:
            sink(shares, ids, size, shares[size], ids[size])


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
    now: float, rounded: bool, stride: int, all_links: int, state: Any, dirty: Any, is_dirty: Any, queue: Any, shares: Any,
    ids: Any, found: Any, order: Any, where: Any, flow_seen: Any, fixed: Any, hops: Any, weight: Any, unit: Any, limit: Any,
    length: Any, remaining: Any, rate: Any, fresh: Any, since: Any, finish: Any, node_link: Any, after: Any,
    head: Any, bandwidth: Any, seen: Any, left: Any, load: Any, level: Any,
) -> None:  # fmt: skip
    """New rates, as of ``now``, for all flows that what has come or gone since the last solve can reach."""
    links, flows = gather(
        state, stride, order, dirty, is_dirty, queue, found, flow_seen, head, after, node_link, hops, weight, bandwidth, seen,
        left, load, level,
    )  # fmt: skip
    if flows == 0:
        return
    state[SOLVES] += 1
    state[STEPS] += 4 * (links + flows * stride)  # each is looked at about so often
    fill(
        links, flows, state[STAMP], stride, all_links, queue, found, shares, ids, head, after, node_link, hops, weight, unit,
        limit, fresh, fixed, left, load, level,
    )  # fmt: skip
    rerate(now, rounded, flows, state[ACTIVE], found, order, where, fresh, rate, remaining, length, since, finish)
