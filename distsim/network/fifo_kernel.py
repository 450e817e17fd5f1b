"""The event loop of the levels ``chunk`` and ``cut_through``: one event per link crossing.

A *slot* is a live transfer. Its next event is either "reaches the next link" (with its last byte, or with its first one where
links cut through) or "delivered". An event is kept with the link that the transfer is on: a FIFO link hands transfers over in
the order in which it took them, so only the first is in the queue and the others wait in a chain behind it. A million waiting
transfers keep the queue as small as the network.

Events go by (time, group number, row). A group's first slot stands for its start: a transfer over no link on which its roots
depend.

The queue is a small heap in front of a ring of buckets. A bucket is an unsorted list of the events of 2^shift ps; the heap
holds those of the bucket under the cursor and the few beyond the ring. When the heap has no more event of this bucket, the
cursor moves to the next bucket in use and the heap takes its events in. The width follows the density of events, about two
to a bucket, so that most events cost a list insertion and a heap of a handful. No choice of width changes the order.
"""

from __future__ import annotations

from typing import Any

from distsim.kernel.jit import kernel
from distsim.network.model import NEVER
from distsim.network.rounding import serialisation

SLOT_BITS = 28  #: an event's rank among those of its instant: group number << SLOT_BITS | slot
SLOT_MASK = (1 << SLOT_BITS) - 1
BUCKETS = 8192
BUCKET_MASK = BUCKETS - 1
REVIEW = 2048  #: events between two looks at the width of the buckets
UNDECIDED = -1  #: end of the route of a transfer that has not chosen one
TOO_LONG = -1  #: run: a time left the range of the clock

# The state of the queue from one run to the next.
SIZE = 0  #: events in the heap
NEAR = 1  #: events in the ring
CURSOR = 2  #: time >> shift of the bucket that the heap took in last
SHIFT = 3
HANDLED = 4  #: events since the last review
REVIEWED = 5  #: when that was
STATE = 6  #: length


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


@kernel
def admit(
    src: Any, dst: Any, size: Any, dep_ptr: Any, dep: Any, delays: Any, pair: Any, path_first: Any,
    choices: int, base: int, room: int, seat: int, group: int, mark: Any,
    hop: Any, last: Any, waits: Any, first: Any, behind: Any, beside: Any, owner: Any, src_end: Any, dst_end: Any, when: Any,
    load: Any, delay: Any, tail_in: Any, dependents: Any, host: Any, host_end: Any,
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
def advance(state: Any, bucket: Any, times: Any, ranks: Any, beside: Any, when: Any, owner: Any, number: Any) -> None:
    """Move the cursor on until the earliest event of all is the root of the heap."""
    size = state[SIZE]
    near = state[NEAR]
    cursor = state[CURSOR]
    shift = state[SHIFT]
    while near > 0 and (size == 0 or times[0] >> shift > cursor):
        cursor += 1
        if size > 0:
            stop = times[0] >> shift
            while cursor < stop and bucket[cursor & BUCKET_MASK] == 0:
                cursor += 1
        else:
            while bucket[cursor & BUCKET_MASK] == 0:
                cursor += 1
        slot = bucket[cursor & BUCKET_MASK]
        bucket[cursor & BUCKET_MASK] = 0
        while slot != 0:
            rise(times, ranks, size, when[slot], number[owner[slot]] << SLOT_BITS | slot)
            size += 1
            near -= 1
            slot = beside[slot]
    if size > 0:
        cursor = max(cursor, times[0] >> shift)
    state[SIZE] = size
    state[NEAR] = near
    state[CURSOR] = cursor


@kernel
def review(now: int, state: Any, bucket: Any, times: Any, ranks: Any, beside: Any, when: Any, owner: Any, number: Any) -> None:
    """Where buckets have become far too wide or narrow, empty the ring into the heap and go on with the right width."""
    state[HANDLED] = 0
    if now < state[REVIEWED]:
        return  # a group that was admitted in the past catches up
    gap = (now - state[REVIEWED]) // REVIEW
    state[REVIEWED] = now
    shift = 1
    while gap > 0:
        gap >>= 1
        shift += 1
    if shift > state[SHIFT] + 1 or shift < state[SHIFT] - 1:
        size = state[SIZE]
        for at in range(BUCKETS):
            slot = bucket[at]
            bucket[at] = 0
            while slot != 0:
                rise(times, ranks, size, when[slot], number[owner[slot]] << SLOT_BITS | slot)
                size += 1
                slot = beside[slot]
        state[SIZE] = size
        state[NEAR] = 0
        state[SHIFT] = shift
        state[CURSOR] = now >> shift


@kernel
def choose(
    route: int, choices: int, now: int, path_first: Any, path_links: Any, free: Any, claim: Any, latency: Any
) -> int:
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
    limit: int, cut_through: bool, choices: int, path_first: Any, path_links: Any, done: Any, state: Any, bucket: Any,
    bucket_end: Any, times: Any, ranks: Any,
    hop: Any, last: Any, waits: Any, first: Any, behind: Any, beside: Any, owner: Any, src_end: Any, dst_end: Any, when: Any,
    load: Any, delay: Any, tail_in: Any, dependents: Any, host: Any, host_end: Any, number: Any, left: Any,
    free: Any, tail: Any, claim: Any, latency: Any, bandwidth: Any, sent: Any, busy: Any, like: Any, like_ps: Any,
) -> tuple[int, int]:  # fmt: skip
    """Handle events until ``limit`` or until the end of the first instant at which groups finish.

    ``claim``: ps that the transfers which chose a link, and have not joined its queue, are going to keep it busy.
    Returns (groups finished and listed in ``done`` or TOO_LONG, instant of the last event).
    """
    finished = 0
    now = 0
    while True:
        size = state[SIZE]
        if size == 0 or times[0] >> state[SHIFT] > state[CURSOR]:
            advance(state, bucket, times, ranks, beside, when, owner, number)
            size = state[SIZE]
        if size == 0 or times[0] > limit:
            break
        now = times[0]
        state[HANDLED] += 1
        slot = ranks[0] & SLOT_MASK
        size -= 1
        if size > 0:
            sink(times, ranks, size, times[size], ranks[size])
        at_hop = hop[slot]
        follower = behind[slot]
        if follower >= 0:
            behind[slot] = -1
        elif tail[path_links[at_hop - 1]] == slot:
            tail[path_links[at_hop - 1]] = -1
        arrived = at_hop < last[slot]
        if arrived:
            at = 0
            end = 1
        else:
            at = first[slot]
            end = first[slot + 1]
            host_end[src_end[slot]] = now
            host_end[dst_end[slot]] = now
            group = owner[slot]
            left[group] -= 1
            if left[group] == 0:
                done[finished] = group
                finished += 1
                limit = now
        # What enters the queue: the follower on the link just left, then whatever goes on from here.
        while follower >= 0 or at < end:
            if follower >= 0:
                queued = follower
                follower = -1
                time = when[queued]
            else:
                queued = slot
                if not arrived:
                    queued = dependents[at]
                    waits[queued] -= 1
                    if waits[queued] > 0:
                        at += 1
                        continue
                    at_hop = hop[queued]
                    if choices > 1 and last[queued] == UNDECIDED:
                        route = choose(at_hop, choices, now, path_first, path_links, free, claim, latency)
                        at_hop = path_first[route]
                        last[queued] = path_first[route + 1]
                        for step in range(at_hop, last[queued]):
                            chosen = path_links[step]
                            claim[chosen] += serialisation(load[queued], bandwidth[chosen])
                            if claim[chosen] >= NEVER:
                                return TOO_LONG, now
                at += 1
                time = now
                link = -1
                if at_hop < last[queued]:
                    link = path_links[at_hop]
                    at_hop += 1
                    hop[queued] = at_hop
                    if free[link] > time:
                        time = free[link]
                    amount = load[queued]
                    if amount != like[link]:
                        like[link] = amount
                        like_ps[link] = serialisation(amount, bandwidth[link])
                    if choices > 1:
                        claim[link] -= like_ps[link]
                    begins = time
                    time += like_ps[link]
                    free[link] = time
                    if cut_through and tail_in[queued] > time:
                        time = tail_in[queued]
                    sent[link] += amount
                    busy[link] += like_ps[link]
                    if cut_through:
                        tail_in[queued] = time + latency[link]
                        if at_hop < last[queued]:
                            time = begins
                    time += latency[link]
                if at_hop == last[queued]:
                    time += delay[queued]
                if time >= NEVER:
                    return TOO_LONG, now
                when[queued] = time
                if link >= 0:
                    before = tail[link]
                    if before < 0:
                        tail[link] = queued
                    elif when[before] < time or (
                        when[before] == time
                        and number[owner[before]] << SLOT_BITS | before < number[owner[queued]] << SLOT_BITS | queued
                    ):
                        behind[before] = queued
                        tail[link] = queued
                        continue
            distance = (time >> state[SHIFT]) - state[CURSOR]
            if 0 < distance < BUCKETS:
                place = (time >> state[SHIFT]) & BUCKET_MASK
                if bucket[place] == 0:
                    bucket[place] = queued
                else:
                    beside[bucket_end[place]] = queued
                bucket_end[place] = queued
                beside[queued] = 0
                state[NEAR] += 1
            else:
                rise(times, ranks, size, time, number[owner[queued]] << SLOT_BITS | queued)
                size += 1
        state[SIZE] = size
        if state[HANDLED] == REVIEW:
            review(now, state, bucket, times, ranks, beside, when, owner, number)
    return finished, now
