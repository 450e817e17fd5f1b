"""Events by tick, first in first out within a tick; and per-rank callbacks, all of one rank and tick handled together.

Ticks that have events are kept in a binary heap; a hash table finds the list of a tick. Event lists are chains in one pool.
"""
# kernels: see distsim.kernel.jit for what they may and may not do

from distsim.kernel.jit import kernel
from distsim.profiles.astra.layout import *


@kernel
def new_event(m, kind, arg, aux):
    """A row of the event pool, filled."""
    row = m[EVENT_FREE]
    b = m[EVENT] + row * EVENT_W
    m[EVENT_FREE] = m[b]
    m[EVENT_LEFT] -= 1
    m[b + NEXT] = -1
    m[b + KIND] = kind
    m[b + ARG] = arg
    m[b + AUX] = aux
    return row


@kernel
def free_event(m, row):
    """Give a row back to the pool."""
    m[m[EVENT] + row * EVENT_W] = m[EVENT_FREE]
    m[EVENT_FREE] = row
    m[EVENT_LEFT] += 1


@kernel
def append(m, ends, row):
    """Put an event at the end of a chain. ``ends``: the cell of its first row (-1: empty), its last row is in the next."""
    if m[ends] < 0:
        m[ends] = row
    else:
        m[m[EVENT] + m[ends + 1] * EVENT_W + NEXT] = row
    m[ends + 1] = row


@kernel
def unlink(m, bucket, base, width, row):
    """Take a row out of its chain of one hash bucket. Rows of the region at ``base`` chain through their first field."""
    b = base + row * width
    if m[bucket] == row:
        m[bucket] = m[b]
        return
    other = m[bucket]
    while m[base + other * width] != row:
        other = m[base + other * width]
    m[base + other * width] = m[b]


@kernel
def push_tick(m, time, row):
    """Put a tick on the heap."""
    base = m[HEAP]
    i = m[HEAP_SIZE]
    m[HEAP_SIZE] = i + 1
    while i > 0:
        parent = (i - 1) >> 1
        if m[base + 2 * parent] <= time:
            break
        m[base + 2 * i] = m[base + 2 * parent]
        m[base + 2 * i + 1] = m[base + 2 * parent + 1]
        i = parent
    m[base + 2 * i] = time
    m[base + 2 * i + 1] = row


@kernel
def pop_tick(m):
    """Take the earliest tick off the heap; returns its row."""
    base = m[HEAP]
    top = m[base + 1]
    n = m[HEAP_SIZE] - 1
    m[HEAP_SIZE] = n
    if n > 0:
        time = m[base + 2 * n]
        row = m[base + 2 * n + 1]
        i = 0
        while True:
            child = 2 * i + 1
            if child >= n:
                break
            if child + 1 < n and m[base + 2 * child + 2] < m[base + 2 * child]:
                child += 1
            if m[base + 2 * child] >= time:
                break
            m[base + 2 * i] = m[base + 2 * child]
            m[base + 2 * i + 1] = m[base + 2 * child + 1]
            i = child
        m[base + 2 * i] = time
        m[base + 2 * i + 1] = row
    return top


@kernel
def at(m, time, kind, arg):
    """Schedule (kind, arg) at a tick, after everything that is there already."""
    bucket = m[TICK_BUCKET] + (time & (m[TICK_HASH] - 1))
    row = m[bucket]
    while row >= 0 and m[m[TICK] + row * TICK_W + T_TIME] != time:
        row = m[m[TICK] + row * TICK_W]
    event = new_event(m, kind, arg, 0)
    if row < 0:
        row = m[TICK_FREE]
        b = m[TICK] + row * TICK_W
        m[TICK_FREE] = m[b]
        m[TICK_LEFT] -= 1
        m[b] = m[bucket]
        m[bucket] = row
        m[b + T_TIME] = time
        m[b + T_HEAD] = event
        m[b + T_TAIL] = event
        push_tick(m, time, row)
    else:
        b = m[TICK] + row * TICK_W
        append(m, b + T_HEAD, event)


@kernel
def close_tick(m, row):
    """Drop an emptied tick."""
    b = m[TICK] + row * TICK_W
    bucket = m[TICK_BUCKET] + (m[b + T_TIME] & (m[TICK_HASH] - 1))
    unlink(m, bucket, m[TICK], TICK_W, row)
    m[b] = m[TICK_FREE]
    m[TICK_FREE] = row
    m[TICK_LEFT] += 1


@kernel
def call_back(m, rank, delay, kind, arg, aux):
    """Register a callback of a rank after ``delay`` ns. The first of a (rank, tick) schedules the handling of all of them."""
    time = m[NOW] + delay
    bucket = m[CALL_BUCKET] + ((time * 1021 + rank) & (m[CALL_HASH] - 1))
    row = m[bucket]
    while row >= 0:
        b = m[CALL] + row * CALL_W
        if m[b + C_TIME] == time and m[b + C_RANK] == rank:
            break
        row = m[b]
    event = new_event(m, kind, arg, aux)
    if row < 0:
        row = m[CALL_FREE]
        b = m[CALL] + row * CALL_W
        m[CALL_FREE] = m[b]
        m[CALL_LEFT] -= 1
        m[b] = m[bucket]
        m[bucket] = row
        m[b + C_RANK] = rank
        m[b + C_TIME] = time
        m[b + C_HEAD] = event
        m[b + C_TAIL] = event
        at(m, time, CALLBACKS, row)
    else:
        b = m[CALL] + row * CALL_W
        append(m, b + C_HEAD, event)


@kernel
def close_call(m, row):
    """Drop an emptied callback list."""
    b = m[CALL] + row * CALL_W
    bucket = m[CALL_BUCKET] + ((m[b + C_TIME] * 1021 + m[b + C_RANK]) & (m[CALL_HASH] - 1))
    unlink(m, bucket, m[CALL], CALL_W, row)
    m[b] = m[CALL_FREE]
    m[CALL_FREE] = row
    m[CALL_LEFT] += 1
