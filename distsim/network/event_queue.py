"""The queue of events of the FIFO levels: what happens next, by (time, rank).

The queue is a ring of buckets. A bucket is an unsorted list of the events of 2^shift ps; when the cursor comes to it, they are
sorted, which makes them *due*, and handled one after the other. The few that come too late for that, or lie beyond the ring,
are in a small heap: the next event is the first of those that are due or the root of the heap. The width follows the density
of events, about two to a bucket where they do not coincide; in collectives thousands may, and are sorted digit by digit. No
choice of width changes the order.
"""

from __future__ import annotations

from typing import Any

from distsim.kernel.jit import kernel
from distsim.network.event_heap import rise

SLOT_BITS = 28  #: an event's rank among those of its instant: group number << SLOT_BITS | slot
SLOT_MASK = (1 << SLOT_BITS) - 1
BUCKETS = 8192
BUCKET_MASK = BUCKETS - 1
FEW = 24  #: events of a bucket that are sorted by insertion
DIGIT = 8  #: bits; more are sorted digit by digit
DIGITS = 1 << DIGIT
REVIEW = 2048  #: events between two looks at the width of the buckets

# The state of the queue from one run to the next.
SIZE = 0  #: events in the heap
NEAR = 1  #: events in the ring
CURSOR = 2  #: time >> shift of the bucket that the heap took in last
SHIFT = 3
HANDLED = 4  #: events since the last review
REVIEWED = 5  #: when that was
DUE = 6  #: next of the events of the bucket under the cursor
DUE_END = 7  #: end of those
EVENTS = 8  #: events before the last review
FETCHED = 9  #: of no meaning: no compiler drops loads whose values are stored
STATE = 10  #: length


@kernel
def put_in_order(count: int, times: Any, ranks: Any, spare_times: Any, spare_ranks: Any, tally: Any) -> None:
    """Sort entries 0 ... count - 1 by (time, rank): few by insertion, many digit by digit, where they differ at all."""
    if count <= FEW:
        for at in range(1, count):
            time = times[at]
            rank = ranks[at]
            to = at
            while to > 0 and (times[to - 1] > time or (times[to - 1] == time and ranks[to - 1] > rank)):
                times[to] = times[to - 1]
                ranks[to] = ranks[to - 1]
                to -= 1
            times[to] = time
            ranks[to] = rank
        return
    rank_bits = 0
    time_bits = 0
    for at in range(count):
        rank_bits |= ranks[at] ^ ranks[0]
        time_bits |= times[at] ^ times[0]
    spare = False
    shift = 0
    while rank_bits > 0:
        while rank_bits & 1 == 0:
            rank_bits >>= 1
            shift += 1
        if spare:
            distribute(count, shift, spare_ranks, spare_times, spare_ranks, times, ranks, tally)
        else:
            distribute(count, shift, ranks, times, ranks, spare_times, spare_ranks, tally)
        spare = not spare
        rank_bits >>= DIGIT
        shift += DIGIT
    shift = 0
    while time_bits > 0:
        while time_bits & 1 == 0:
            time_bits >>= 1
            shift += 1
        if spare:
            distribute(count, shift, spare_times, spare_times, spare_ranks, times, ranks, tally)
        else:
            distribute(count, shift, times, times, ranks, spare_times, spare_ranks, tally)
        spare = not spare
        time_bits >>= DIGIT
        shift += DIGIT
    if spare:
        for at in range(count):
            times[at] = spare_times[at]
            ranks[at] = spare_ranks[at]


@kernel
def distribute(count: int, shift: int, keys: Any, times: Any, ranks: Any, to_times: Any, to_ranks: Any, tally: Any) -> None:
    """Copy entries in the order of one digit of their keys; those alike in it stay in order."""
    for digit in range(DIGITS):
        tally[digit] = 0
    for at in range(count):
        tally[(keys[at] >> shift) & (DIGITS - 1)] += 1
    total = 0
    for digit in range(DIGITS):
        alike = tally[digit]
        tally[digit] = total
        total += alike
    for at in range(count):
        digit = (keys[at] >> shift) & (DIGITS - 1)
        to = tally[digit]
        tally[digit] = to + 1
        to_times[to] = times[at]
        to_ranks[to] = ranks[at]


@kernel
def advance(
    state: Any, bucket: Any, times: Any, due_times: Any, due_ranks: Any, spare_times: Any, spare_ranks: Any, tally: Any,
    beside: Any, when: Any, rank: Any,
) -> None:  # fmt: skip
    """Move the cursor on to the bucket with the earliest event, or to that of the root of the heap, and make its events due."""
    cursor = state[CURSOR]
    if state[SIZE] > 0:
        stop = times[0] >> state[SHIFT]
    else:
        stop = cursor + BUCKETS
    count = 0
    if state[NEAR] > 0:
        cursor += 1
        while cursor < stop and bucket[cursor & BUCKET_MASK] == 0:
            cursor += 1
        slot = bucket[cursor & BUCKET_MASK]
        bucket[cursor & BUCKET_MASK] = 0
        while slot != 0:
            due_times[count] = when[slot]
            due_ranks[count] = rank[slot]
            count += 1
            slot = beside[slot]
        if count > 1:
            put_in_order(count, due_times, due_ranks, spare_times, spare_ranks, tally)
        state[NEAR] -= count
    elif state[SIZE] > 0:
        cursor = stop
    state[CURSOR] = cursor
    state[DUE] = 0
    state[DUE_END] = count


@kernel
def review(
    now: int, state: Any, bucket: Any, times: Any, ranks: Any, due_times: Any, due_ranks: Any, beside: Any, when: Any, rank: Any
) -> None:
    """Where buckets have become far too wide or narrow, empty the ring into the heap and go on with the right width."""
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
        for at in range(state[DUE], state[DUE_END]):
            rise(times, ranks, size, due_times[at], due_ranks[at])
            size += 1
        for at in range(BUCKETS):
            slot = bucket[at]
            bucket[at] = 0
            while slot != 0:
                rise(times, ranks, size, when[slot], rank[slot])
                size += 1
                slot = beside[slot]
        state[SIZE] = size
        state[NEAR] = 0
        state[DUE] = 0
        state[DUE_END] = 0
        state[SHIFT] = shift
        state[CURSOR] = now >> shift
