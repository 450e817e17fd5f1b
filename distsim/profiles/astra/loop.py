"""The loop: ticks in order, events of a tick in the order of their registration."""

from distsim.kernel.jit import kernel
from distsim.profiles.astra.events import call_back, close_call, close_tick, free_event, pop_tick
from distsim.profiles.astra.layout import *
from distsim.profiles.astra.streams import end_stream, endpoint_done, next_phase, packet_received
from distsim.profiles.astra.transport import NOBODY, delivered, hop_done, link_free, next_hop
from distsim.profiles.astra.workload import issue, node_done


@kernel
def reduction_ns(f, size):
    """Two reads and a write of local memory, each truncated."""
    return 3 * int(size / f[F_MEMORY])


@kernel
def stream_event(m, f, s):
    """The endpoint is done with a packet of a stream; the stream, the collective, the node may end with it."""
    if endpoint_done(m, f, s) == 0:
        return
    b = m[STREAM] + s * STREAM_W
    p = m[PLAN] + m[b + X_PLAN] * PLAN_W
    if m[b + X_PHASE] - m[p + P_FIRST] + 1 < m[p + P_PHASES]:
        next_phase(m, s)
        return
    rank = m[b + X_RANK]
    r = m[RANK] + rank * RANK_W
    m[r + R_CHUNKS_LEFT] -= 1
    if m[r + R_CHUNKS_LEFT] == 0:
        # the rank goes on before the queue is tidied: what it starts now waits for end_stream
        node_done(m, f, rank * (1 << 32) + m[r + R_COLLECTIVE])
    end_stream(m, s)


@kernel
def callbacks(m, f, row):
    """All callbacks of a rank in this tick, those added meanwhile included."""
    while True:
        b = m[CALL] + row * CALL_W
        event = m[b + C_HEAD]
        if event < 0:
            break
        e = m[EVENT] + event * EVENT_W
        kind = m[e + KIND]
        arg = m[e + ARG]
        aux = m[e + AUX]
        m[b + C_HEAD] = m[e + NEXT]
        free_event(m, event)
        m[EVENTS_DONE] += 1
        if kind == REDUCE_THEN:
            call_back(m, m[b + C_RANK], reduction_ns(f, aux), GENERAL, arg, 0)
        elif kind == GENERAL:
            stream_event(m, f, arg)
        else:
            node_done(m, f, arg)
    close_call(m, row)


@kernel
def tell(m, f, receiver):
    """A message reaches who asked for it."""
    if receiver >= 0:
        packet_received(m, f, receiver)
    else:
        node_done(m, f, -1 - receiver)


@kernel
def seen(m, what, stream):
    """Folded: note what happens in a tick (1 callbacks, 2 a message for a stream).

    A rank's own callbacks and others' messages, or messages for two of its streams, have no order within a tick that holds
    for all ranks; messages for one stream do alike in any order.
    """
    if m[FOLD_TICK] != m[NOW]:
        m[FOLD_TICK] = m[NOW]
        m[FOLD_SEEN] = 0
        m[FOLD_STREAM] = -1
    m[FOLD_SEEN] |= what
    if m[FOLD_SEEN] == 3 or (stream >= 0 and m[FOLD_STREAM] >= 0 and m[FOLD_STREAM] != stream):
        m[AMBIGUOUS] = 1
    if stream >= 0:
        m[FOLD_STREAM] = stream


@kernel
def room(m):
    """Does every pool have the free rows that the next event may need?"""
    n = m[MARGIN]
    return m[EVENT_LEFT] > n and m[TICK_LEFT] > n and m[CALL_LEFT] > n and m[CHANNEL_LEFT] > n and m[CHUNK_LEFT] > n


@kernel
def run(m, f, fired, budget):
    """Run until all is done. ``fired``: ranks that have started (m is grown between calls); budget: events before a pause.

    Returns (why * 2^32 + ranks fired), why being DONE, GROW, STUCK, UNSURE or PAUSE.
    """
    while fired < m[RANKS]:
        if not room(m):
            return GROW * (1 << 32) + fired
        issue(m, f, fired)
        fired += 1
    while m[HEAP_SIZE] > 0:
        row = m[m[HEAP] + 1]
        m[NOW] = m[m[HEAP]]
        while True:
            if not room(m):
                return GROW * (1 << 32) + fired
            if m[AMBIGUOUS]:
                return UNSURE * (1 << 32) + fired
            t = m[TICK] + row * TICK_W
            event = m[t + T_HEAD]
            if event < 0:
                break
            e = m[EVENT] + event * EVENT_W
            kind = m[e + KIND]
            arg = m[e + ARG]
            m[t + T_HEAD] = m[e + NEXT]
            free_event(m, event)
            m[EVENTS_DONE] += 1
            if kind == CALLBACKS:
                if m[FOLDED]:
                    seen(m, 1, -1)
                callbacks(m, f, arg)
            elif kind == ARRIVAL:
                if m[AWARE] and hop_done(m, arg) == 0:
                    next_hop(m, f, arg)
                else:
                    sender = m[m[CHUNK] + arg * CHUNK_W + K_SENDER]
                    receiver = delivered(m, arg)
                    if m[FOLDED]:
                        seen(m, 2, receiver)
                    if sender >= 0:
                        node_done(m, f, sender)
                    if receiver != NOBODY:
                        tell(m, f, receiver)
            elif kind == LINK_FREE:
                link_free(m, f, arg)
            else:
                tell(m, f, arg)
        pop_tick(m)
        close_tick(m, row)
        if m[EVENTS_DONE] > budget:
            return PAUSE * (1 << 32) + fired
    return (DONE if m[UNFINISHED] == 0 else STUCK) * (1 << 32) + fired
