"""Who is where in a ring, and what a stream's k-th message is: plain arithmetic on counts.

Every step-wise algorithm of ASTRA-sim (ring, direct, halving-doubling) is told by the number of the message: to whom it
goes, and how large it is.
"""

from distsim.kernel.jit import kernel
from distsim.profiles.astra.layout import *


@kernel
def member(m, s, index):
    """Rank at a position of the stream's ring: a group's member, or the rank at that coordinate of the phase's dimension."""
    b = m[STREAM] + s * STREAM_W
    if m[b + X_FIRST] >= 0:
        return m[m[MEMBER] + m[b + X_FIRST] + index]
    e = m[DIM] + m[m[PHASE] + m[b + X_PHASE] * PHASE_W + F_RING] * DIM_W
    stride = m[e + D_STRIDE]
    return m[b + X_RANK] + (index - m[b + X_INDEX]) * stride


@kernel
def peer_step(m, s, k):
    """Ring steps from this rank to the one that gets its k-th message (signed: backwards is negative)."""
    b = m[STREAM] + s * STREAM_W
    p = m[PHASE] + m[b + X_PHASE] * PHASE_W
    algorithm = m[p + F_ALGORITHM]
    size = m[b + X_SIZE]
    if algorithm == HALVING:
        levels = m[p + F_CYCLE]  # parallel 1 + (levels - 1)
        if m[p + F_OPERATION] == ALL_GATHER:
            offset = size >> (k + 1) if k < levels else 0
        elif k < levels:
            offset = 1 << k
        else:
            offset = size >> (k - levels + 1)
        if offset == 0:
            return 0
        return offset if (m[b + X_INDEX] // offset) % 2 == 0 else -offset
    step = 1
    if algorithm == DIRECT:
        step = 1 + k % (size - 1)
    return -step if m[b + X_BACKWARDS] else step


@kernel
def message_bytes(m, s, k):
    """Bytes of the k-th message of a stream in its phase."""
    b = m[STREAM] + s * STREAM_W
    p = m[PHASE] + m[b + X_PHASE] * PHASE_W
    size = m[p + F_START]
    if m[p + F_ALGORITHM] != HALVING:
        return size
    levels = m[p + F_CYCLE]
    if m[p + F_OPERATION] == ALL_GATHER:
        return size << k
    if k < levels:
        return size >> k
    # ASTRA-sim doubles what its truncated halvings left
    return (size >> levels) << (k - levels + 1)
