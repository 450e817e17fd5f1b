"""Messages: sends and receives paired in order per (tag, source, destination, bytes); hops over links.

Congestion-unaware: one delay, trunc(hops * latency + bytes / bandwidth), of the first dimension in which source and
destination differ. Congestion-aware: every directed link sends one message at a time, first come first served; it is busy
trunc(bytes / bandwidth), the message is at the next node after trunc(latency + bytes / bandwidth).

Folded runs have one rank: "destination" is then the distance travelled in dimension ``dim``, and links stand for all
links that play the same part.
"""

from distsim.kernel.jit import kernel
from distsim.profiles.astra.events import append, at, free_event, new_event, unlink
from distsim.profiles.astra.layout import *


@kernel
def channel(m, tag, src, dst, size):
    """The row of a channel, made if need be."""
    mask = m[CHANNEL_HASH] - 1
    bucket = m[CHANNEL_BUCKET] + ((tag * 7919 + src * 1021 + dst * 31 + size) & mask)
    row = m[bucket]
    while row >= 0:
        b = m[CHANNEL] + row * CHANNEL_W
        if m[b + CH_TAG] == tag and m[b + CH_SRC] == src and m[b + CH_DST] == dst and m[b + CH_BYTES] == size:
            return row
        row = m[b]
    row = m[CHANNEL_FREE]
    b = m[CHANNEL] + row * CHANNEL_W
    m[CHANNEL_FREE] = m[b]
    m[CHANNEL_LEFT] -= 1
    m[b] = m[bucket]
    m[bucket] = row
    m[b + CH_TAG] = tag
    m[b + CH_SRC] = src
    m[b + CH_DST] = dst
    m[b + CH_BYTES] = size
    m[b + CH_FLYING] = 0
    m[b + CH_ARRIVED] = 0
    m[b + CH_HEAD] = -1
    m[b + CH_TAIL] = -1
    return row


@kernel
def close_channel(m, row):
    """Drop a channel on which nothing flies, waits or is asked for."""
    b = m[CHANNEL] + row * CHANNEL_W
    if m[b + CH_FLYING] > 0 or m[b + CH_ARRIVED] > 0 or m[b + CH_HEAD] >= 0:
        return
    mask = m[CHANNEL_HASH] - 1
    bucket = m[CHANNEL_BUCKET] + ((m[b + CH_TAG] * 7919 + m[b + CH_SRC] * 1021 + m[b + CH_DST] * 31 + m[b + CH_BYTES]) & mask)
    unlink(m, bucket, m[CHANNEL], CHANNEL_W, row)
    m[b] = m[CHANNEL_FREE]
    m[CHANNEL_FREE] = row
    m[CHANNEL_LEFT] += 1


@kernel
def first_dim(m, src, dst):
    """First dimension in which two ranks differ."""
    d = 0
    while d < m[DIMS]:
        b = m[DIM] + d * DIM_W
        if (src // m[b + D_STRIDE]) % m[b + D_SIZE] != (dst // m[b + D_STRIDE]) % m[b + D_SIZE]:
            return d
        d += 1
    return 0


@kernel
def distance(m, src, dst, d):
    """Steps clockwise from src to dst in dimension d (folded: dst itself is that distance)."""
    if m[FOLDED]:
        return dst
    b = m[DIM] + d * DIM_W
    size = m[b + D_SIZE]
    there = (dst // m[b + D_STRIDE]) % size
    here = (src // m[b + D_STRIDE]) % size
    return (there - here + size) % size


@kernel
def hop_count(m, far, d):
    """Hops over a dimension for a clockwise distance."""
    b = m[DIM] + d * DIM_W
    kind = m[b + D_KIND]
    if kind == SWITCH_NET:
        return 2
    if kind == FULL_NET:
        return 1
    back = m[b + D_SIZE] - far
    return far if far <= back else back


@kernel
def send_on_link(m, f, link, d, chunk):
    """The link is free: it sends the chunk."""
    size = m[m[CHUNK] + chunk * CHUNK_W + K_BYTES]
    time = size / f[F_DIMS + 2 * d]
    busy = int(time)
    b = m[LINK] + link * LINK_W
    m[b + L_BUSY] = 1
    m[b + L_BYTES] += size
    m[b + L_BUSY_NS] += busy
    at(m, m[NOW] + int(f[F_DIMS + 2 * d + 1] + time), ARRIVAL, chunk)
    at(m, m[NOW] + busy, LINK_FREE, link)


@kernel
def next_hop(m, f, chunk):
    """Send a chunk over its next link, or queue it there."""
    b = m[CHUNK] + chunk * CHUNK_W
    here = m[b + K_AT]
    dst = m[b + K_DST]
    d = m[b + K_DIM]
    hops = m[b + K_HOPS]
    if m[FOLDED] == 0 and hops == 0:
        d = first_dim(m, here, dst)
        m[b + K_DIM] = d
    e = m[DIM] + d * DIM_W
    kind = m[e + D_KIND]
    links = m[e + D_LINKS]
    stride = m[e + D_STRIDE]
    size = m[e + D_SIZE]
    far = distance(m, here, dst, d)
    if m[FOLDED]:
        if kind == SWITCH_NET:
            link = links + (0 if hops == 0 else 1)
        elif kind == FULL_NET:
            link = links + far
        else:
            link = links + (0 if far <= size - far else 1)
    else:
        world = m[WORLD]
        if kind == SWITCH_NET:
            # K_HOPS 0: on the way up; 1: in the switch, on the way down to the rank that differs in this dimension only
            if hops == 0:
                link = links + here
            else:
                link = links + world + here + (((here // stride) % size + far) % size - (here // stride) % size) * stride
        elif kind == FULL_NET:
            link = links + here * size + (here // stride % size + far) % size
        else:
            link = links + (here if far <= size - far else world + here)
    k = m[LINK] + link * LINK_W
    if m[FOLDED]:
        # two chunks that reach a link in one tick, at least one of them from another rank: who is first may differ
        # between ranks (a rank's own sends are ordered)
        transit = 1 if hops > 0 else 0
        if m[k + L_LAST] >> 1 == m[NOW]:
            if transit or m[k + L_LAST] & 1:
                m[AMBIGUOUS] = 1
            transit |= m[k + L_LAST] & 1
        m[k + L_LAST] = 2 * m[NOW] + transit
    if m[k + L_BUSY]:
        event = new_event(m, d, chunk, 0)
        append(m, k + L_HEAD, event)
    else:
        send_on_link(m, f, link, d, chunk)


@kernel
def link_free(m, f, link):
    """A link has sent its message: it takes the next one waiting."""
    b = m[LINK] + link * LINK_W
    m[b + L_BUSY] = 0
    event = m[b + L_HEAD]
    if event >= 0:
        e = m[EVENT] + event * EVENT_W
        m[b + L_HEAD] = m[e + NEXT]
        d = m[e + KIND]
        chunk = m[e + ARG]
        free_event(m, event)
        send_on_link(m, f, link, d, chunk)


@kernel
def hop_done(m, chunk):
    """A chunk is at its next node; returns 1 when that is its destination."""
    b = m[CHUNK] + chunk * CHUNK_W
    d = m[b + K_DIM]
    e = m[DIM] + d * DIM_W
    kind = m[e + D_KIND]
    size = m[e + D_SIZE]
    m[b + K_HOPS] += 1
    here = m[b + K_AT]
    dst = m[b + K_DST]
    if m[FOLDED]:
        far = dst
        if kind == SWITCH_NET:
            return 1 if m[b + K_HOPS] == 2 else 0
        if kind == FULL_NET:
            return 1
        return 1 if m[b + K_HOPS] == (far if far <= size - far else size - far) else 0
    stride = m[e + D_STRIDE]
    index = (here // stride) % size
    far = distance(m, here, dst, d)
    if kind == SWITCH_NET:
        if m[b + K_HOPS] < 2:
            return 0
        here += ((index + far) % size - index) * stride
    elif kind == FULL_NET:
        here += ((index + far) % size - index) * stride
    elif far <= size - far:
        here += ((index + 1) % size - index) * stride
    else:
        here += ((index + size - 1) % size - index) * stride
    m[b + K_AT] = here
    if here == dst:
        return 1
    if kind != RING_NET or distance(m, here, dst, d) == 0:
        m[b + K_HOPS] = 0  # this dimension is done; the next one starts
    return 0


@kernel
def send(m, f, tag, src, dst, size, d, key, sender):
    """Start a message. ``key`` names the source in the channel (src itself; the part it plays when folded).

    sender: node row that is told on arrival, or -1.
    """
    target = 0 if m[FOLDED] else dst
    row = channel(m, tag, key, target, size)
    m[m[CHANNEL] + row * CHANNEL_W + CH_FLYING] += 1
    m[MESSAGES] += 1
    chunk = m[CHUNK_FREE]
    b = m[CHUNK] + chunk * CHUNK_W
    m[CHUNK_FREE] = m[b]
    m[CHUNK_LEFT] -= 1
    m[b + K_CHANNEL] = row
    m[b + K_BYTES] = size
    m[b + K_AT] = src
    m[b + K_DST] = dst
    m[b + K_DIM] = d
    m[b + K_HOPS] = 0
    m[b + K_SENDER] = sender
    if m[AWARE]:
        next_hop(m, f, chunk)
    else:
        if m[FOLDED] == 0:
            d = first_dim(m, src, dst)
        hops = hop_count(m, distance(m, src, dst, d), d)
        at(m, m[NOW] + int(hops * f[F_DIMS + 2 * d + 1] + size / f[F_DIMS + 2 * d]), ARRIVAL, chunk)


@kernel
def receive(m, tag, key, dst, size, receiver):
    """Ask for a message; ``receiver`` is told when it is there (in this tick, after what is scheduled, if it is already)."""
    row = channel(m, tag, key, 0 if m[FOLDED] else dst, size)
    b = m[CHANNEL] + row * CHANNEL_W
    if m[b + CH_ARRIVED] > 0:
        m[b + CH_ARRIVED] -= 1
        at(m, m[NOW], LATE_RECEIVE, receiver)
        close_channel(m, row)
    else:
        event = new_event(m, 0, receiver, 0)
        append(m, b + CH_HEAD, event)


NOBODY = -(1 << 60)


@kernel
def delivered(m, chunk):
    """A message is at its destination: returns its receiver, or NOBODY if none has asked yet. Frees the chunk."""
    b = m[CHUNK] + chunk * CHUNK_W
    row = m[b + K_CHANNEL]
    m[b] = m[CHUNK_FREE]
    m[CHUNK_FREE] = chunk
    m[CHUNK_LEFT] += 1
    c = m[CHANNEL] + row * CHANNEL_W
    m[c + CH_FLYING] -= 1
    event = m[c + CH_HEAD]
    if event < 0:
        m[c + CH_ARRIVED] += 1
        return NOBODY
    e = m[EVENT] + event * EVENT_W
    receiver = m[e + ARG]
    m[c + CH_HEAD] = m[e + NEXT]
    free_event(m, event)
    close_channel(m, row)
    return receiver
