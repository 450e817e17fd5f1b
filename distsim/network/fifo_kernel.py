"""The event loop of the levels ``chunk`` and ``cut_through``: one event per link crossing.

A *slot* is a live transfer. Its next event is either "reaches the next link" (with its last byte, or with its first one where
links cut through) or "delivered". An event is kept with the link that the transfer is on: a FIFO link hands transfers over in
the order in which it took them, so only the first is in the queue and the others wait in a chain behind it. A million waiting
transfers keep the queue as small as the network.

Events go by (time, group number, row). A group's first slot stands for its start: a transfer over no link on which its roots
depend. The queue is event_queue.py.
"""

from __future__ import annotations

from typing import Any

from distsim.kernel.jit import kernel
from distsim.network.event_heap import rise, sink
from distsim.network.event_queue import (
    BUCKET_MASK,
    BUCKETS,
    CURSOR,
    DUE,
    DUE_END,
    EVENTS,
    FETCHED,
    FEW,
    HANDLED,
    NEAR,
    REVIEW,
    SHIFT,
    SIZE,
    SLOT_BITS,
    SLOT_MASK,
    advance,
    review,
)
from distsim.network.model import NEVER
from distsim.network.rounding import serialisation

UNDECIDED = -1  #: end of the route of a transfer that has not chosen one
TOO_LONG = -1  #: run: a time left the range of the clock


@kernel
def admit(
    src: Any, dst: Any, size: Any, dep_ptr: Any, dep: Any, delays: Any, pair: Any, path_first: Any,
    choices: int, base: int, room: int, seat: int, group: int, number: int, mark: Any,
    hop: Any, last: Any, waits: Any, behind: Any, beside: Any, when: Any, load: Any, delay: Any, tail_in: Any,
    rank: Any, first: Any, owner: Any, src_end: Any, dst_end: Any, dependents: Any, host: Any, host_end: Any,
) -> int:  # fmt: skip
    """Fill slots base ... base + T + 1 (start, T transfers, sentinel), the dependents from ``room`` and the hosts from
    ``seat`` on. Rows depend on earlier rows. Returns the number of host seats used (the first is nobody's).

    A row that will choose among ``choices`` routes has the first of them for ``hop``, and UNDECIDED for ``last``."""
    rows = len(src)
    seats = 1
    for slot in range(base, base + rows + 2):
        first[slot] = 0
        behind[slot] = -1
        owner[slot] = group
        rank[slot] = number << SLOT_BITS | slot
    hop[base] = 1
    last[base] = 1
    waits[base] = 0
    src_end[base] = seat
    dst_end[base] = seat
    delay[base] = 0
    load[base] = 0
    for row in range(rows):
        slot = base + 1 + row
        hop[slot] = path_first[pair[row]]
        last[slot] = path_first[pair[row] + 1]
        if choices > 1 and hop[slot] < last[slot]:
            hop[slot] = pair[row]
            last[slot] = UNDECIDED
        load[slot] = size[row]
        delay[slot] = delays[row]
        tail_in[slot] = 0
        for side in range(2):
            which = dst[row] if side else src[row]
            if mark[which] < 0:
                mark[which] = seat + seats
                host[seat + seats] = which
                seats += 1
        src_end[slot] = mark[src[row]]
        dst_end[slot] = mark[dst[row]]
        begin = dep_ptr[row]
        end = dep_ptr[row + 1]
        if begin == end:
            waits[slot] = 1
            first[base] += 1
        else:
            waits[slot] = end - begin
            for at in range(begin, end):
                first[base + 1 + dep[at]] += 1
    for index in range(seat + 1, seat + seats):
        mark[host[index]] = -1
        host_end[index] = 0
    # Counting sort: first[s] becomes the end of s's dependents, and, filled from the back, their beginning.
    total = room
    for slot in range(base, base + rows + 2):
        total += first[slot]
        first[slot] = total
    for row in range(rows - 1, -1, -1):
        slot = base + 1 + row
        begin = dep_ptr[row]
        end = dep_ptr[row + 1]
        if begin == end:
            first[base] -= 1
            dependents[first[base]] = slot
        for at in range(begin, end):
            before = base + 1 + dep[at]
            first[before] -= 1
            dependents[first[before]] = slot
    return seats


@kernel
def choose(route: int, choices: int, now: int, path_first: Any, path_links: Any, free: Any, claim: Any, latency: Any) -> int:
    """Of routes ``route ... route + choices - 1`` the one with the least to wait for, the first on ties: over all its links,
    what is queued there, what others have chosen it for that has not come to it yet, and latency."""
    best = route
    least = 0.0
    for other in range(route, route + choices):
        total = 0.0
        for at in range(path_first[other], path_first[other + 1]):
            link = path_links[at]
            # NOTE: whole numbers up to 2^53, where a sum of machine integers might leave their range
            total += 1.0 * max(0, free[link] - now) + 1.0 * claim[link] + 1.0 * latency[link]
        if other == route or total < least:
            best = other
            least = total
    return best


@kernel
def run(
    limit: int, cut_through: bool, some_lone: bool, choices: int, path_first: Any, path_links: Any, done: Any,
    state: Any, bucket: Any, bucket_end: Any, tally: Any, times: Any, ranks: Any, due_times: Any, due_ranks: Any,
    spare_times: Any, spare_ranks: Any,
    hop: Any, last: Any, waits: Any, behind: Any, beside: Any, when: Any, load: Any, delay: Any, tail_in: Any, rank: Any,
    first: Any, owner: Any, src_end: Any, dst_end: Any, dependents: Any, host: Any, host_end: Any,
    left: Any, free: Any, tail: Any, latency: Any, bandwidth: Any, sent: Any, busy: Any, like: Any, like_ps: Any,
    claim: Any, lone: Any,
) -> tuple[int, int]:  # fmt: skip
    """Handle events until ``limit`` or until the end of the first instant at which groups finish.

    ``claim``: ps that the transfers which chose a link, and have not joined its queue, are going to keep it busy. ``lone``: 1
    for links on which nobody waits for others; over several such in a row a transfer cuts through in any case.
    Returns (groups finished and listed in ``done`` or TOO_LONG, instant of the last event).
    """
    finished = 0
    now = 0
    size = state[SIZE]
    handled = state[HANDLED]
    shift = state[SHIFT]
    cursor = state[CURSOR]
    due = state[DUE]
    due_end = state[DUE_END]
    while True:
        if due == due_end and (size == 0 or times[0] >> shift > cursor):
            state[SIZE] = size
            advance(state, bucket, times, due_times, due_ranks, spare_times, spare_ranks, tally, beside, when, rank)
            cursor = state[CURSOR]
            due = state[DUE]
            due_end = state[DUE_END]
            if due_end > FEW:
                # NOTE: what these events are going to need is fetched here, many cache misses at a time instead of one by one
                for ahead in range(due_end):
                    at_hop = min(hop[due_ranks[ahead] & SLOT_MASK], len(path_links) - 1)  # routes of some end with the table
                    state[FETCHED] ^= tail[path_links[at_hop & SLOT_MASK] & SLOT_MASK]
        if due < due_end and (
            size == 0 or due_times[due] < times[0] or (due_times[due] == times[0] and due_ranks[due] < ranks[0])
        ):
            if due_times[due] > limit:
                break
            now = due_times[due]
            slot = due_ranks[due] & SLOT_MASK
            due += 1
        else:
            if size == 0 or times[0] > limit:
                break
            now = times[0]
            slot = ranks[0] & SLOT_MASK
            size -= 1
            if size > 0:
                sink(times, ranks, size, times[size], ranks[size])
        handled += 1
        at_hop = hop[slot] & SLOT_MASK
        follower = behind[slot]
        if follower >= 0:
            behind[slot] = -1
        else:
            link = path_links[at_hop - 1] & SLOT_MASK
            if tail[link] == slot:
                tail[link] = -1
        arrived = at_hop < last[slot]
        if arrived:
            at = 0
            end = 1
        else:
            at = first[slot] & SLOT_MASK
            end = first[slot + 1]
            host_end[src_end[slot] & SLOT_MASK] = now
            host_end[dst_end[slot] & SLOT_MASK] = now
            group = owner[slot] & SLOT_MASK
            left[group] -= 1
            if left[group] == 0:
                done[finished] = group
                finished += 1
                limit = now
        # What enters the queue: the follower on the link just left, then whatever goes on from here.
        while follower >= 0 or at < end:
            if follower >= 0:
                queued = follower & SLOT_MASK
                follower = -1
                time = when[queued]
            else:
                queued = slot
                if not arrived:
                    queued = dependents[at] & SLOT_MASK
                    waits[queued] -= 1
                    if waits[queued] > 0:
                        at += 1
                        continue
                    at_hop = hop[queued] & SLOT_MASK
                    if choices > 1 and last[queued] == UNDECIDED:
                        route = choose(at_hop, choices, now, path_first, path_links, free, claim, latency)
                        at_hop = path_first[route]
                        last[queued] = path_first[route + 1]
                        for step in range(at_hop, last[queued]):
                            chosen = path_links[step]
                            if lone[chosen] == 0:
                                claim[chosen] += serialisation(load[queued], bandwidth[chosen])
                                if claim[chosen] >= NEVER:
                                    return TOO_LONG, now
                at += 1
                end_hop = last[queued]
                if at_hop < end_hop:
                    link = path_links[at_hop] & SLOT_MASK
                    at_hop += 1
                    hop[queued] = at_hop
                    amount = load[queued]
                    if amount != like[link]:
                        like[link] = amount
                        like_ps[link] = serialisation(amount, bandwidth[link])
                    took = like_ps[link]
                    shares = not some_lone or lone[link] == 0
                    begins = now
                    if shares:
                        begins = max(now, free[link])
                        free[link] = begins + took
                        if choices > 1:
                            claim[link] -= took
                    time = begins + took
                    sent[link] += amount
                    busy[link] += took
                    if cut_through or some_lone:
                        time = max(time, tail_in[queued])
                        tail_in[queued] = time + latency[link]
                        if at_hop < end_hop and (cut_through or (not shares and lone[path_links[at_hop]] != 0)):
                            time = begins
                    time += latency[link]
                    if at_hop == end_hop:
                        time += delay[queued]
                    if time >= NEVER:
                        return TOO_LONG, now
                    when[queued] = time
                    before = tail[link]
                    if before < 0:
                        tail[link] = queued
                    elif when[before] < time or (when[before] == time and rank[before] < rank[queued]):
                        behind[before] = queued
                        tail[link] = queued
                        continue
                else:
                    time = now + delay[queued]
                    if time >= NEVER:
                        return TOO_LONG, now
                    when[queued] = time
            distance = (time >> shift) - cursor
            if 0 < distance < BUCKETS:
                place = (time >> shift) & BUCKET_MASK
                if bucket[place] == 0:
                    bucket[place] = queued
                else:
                    beside[bucket_end[place]] = queued
                bucket_end[place] = queued
                beside[queued] = 0
                state[NEAR] += 1
            else:
                rise(times, ranks, size, time, rank[queued])
                size += 1
        if handled == REVIEW:
            handled = 0
            state[EVENTS] += REVIEW
            state[SIZE] = size
            state[DUE] = due
            state[DUE_END] = due_end
            review(now, state, bucket, times, ranks, due_times, due_ranks, beside, when, rank)
            size = state[SIZE]
            shift = state[SHIFT]
            cursor = state[CURSOR]
            due = state[DUE]
            due_end = state[DUE_END]
    state[SIZE] = size
    state[HANDLED] = handled
    state[DUE] = due
    state[DUE_END] = due_end
    return finished, now
