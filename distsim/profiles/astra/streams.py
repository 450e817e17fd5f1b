"""Collectives: each is cut into chunks, each chunk is a stream that walks its phases through the queues of a rank.

A queue lets a fixed number of its streams run; the others wait by priority, equal ones in order of arrival. A phase is one
algorithm in one dimension. The k-th packet that a rank inserts decides to whom the k-th message goes, how large it is and
whether a reduction comes first; so a stream needs no packet list.
"""

from distsim.kernel.jit import kernel
from distsim.profiles.astra.events import call_back
from distsim.profiles.astra.layout import *
from distsim.profiles.astra.rings import member, message_bytes, peer_step
from distsim.profiles.astra.transport import receive, send
from distsim.profiles.astra.trees import start_tree, tree_step


@kernel
def insert_packet(m, s):
    """The next packet of a stream is handed to the endpoint: it may be sent after the endpoint delay (and a reduction)."""
    b = m[STREAM] + s * STREAM_W
    p = m[PHASE] + m[b + X_PHASE] * PHASE_W
    k = m[b + X_INSERTED]
    m[b + X_INSERTED] = k + 1
    cycle = m[p + F_CYCLE]
    operation = m[p + F_OPERATION]
    reduces = 0
    if k % cycle >= m[p + F_PARALLEL] and (operation == REDUCE_SCATTER or (operation == ALL_REDUCE and (k // cycle) % 2 == 0)):
        reduces = 1
    delay = 10 if m[p + F_LOCAL] else m[ENDPOINT]
    if reduces:
        call_back(m, m[b + X_RANK], delay, REDUCE_THEN, s, message_bytes(m, s, k))
    else:
        call_back(m, m[b + X_RANK], delay, GENERAL, s, 0)


@kernel
def try_send(m, f, s):
    """Send the next inserted packet and ask for the message that answers it. Returns 0 when there is nothing to send."""
    b = m[STREAM] + s * STREAM_W
    k = m[b + X_SENT]
    if m[b + X_INSERTED] == k or m[b + X_COUNT] == 0 or m[b + X_FREE] == 0:
        return 0
    p = m[PHASE] + m[b + X_PHASE] * PHASE_W
    step = peer_step(m, s, k)
    size = m[b + X_SIZE]
    bytes_ = message_bytes(m, s, k)
    d = m[p + F_DIM]
    rank = m[b + X_RANK]
    far = (step + size) % size
    if m[FOLDED]:
        key = (d * 64 + m[b + X_GROUP] + 1) * (1 << 24) + (
            far if m[p + F_ALGORITHM] != HALVING else step if step > 0 else -step
        )
        send(m, f, m[b + X_TAG], 0, far, bytes_, d, key, -1)
        receive(m, m[b + X_TAG], key, 0, bytes_, s)
    else:
        dst = member(m, s, (m[b + X_INDEX] + far) % size)
        if m[p + F_ALGORITHM] == HALVING:
            src = dst
        else:
            src = member(m, s, (m[b + X_INDEX] - far + size) % size)
        send(m, f, m[b + X_TAG], rank, dst, bytes_, d, rank, -1)
        receive(m, m[b + X_TAG], src, rank, bytes_, s)
    m[b + X_COUNT] -= 1
    m[b + X_SENT] = k + 1
    m[b + X_FREE] -= 1
    return 1


@kernel
def start_phase(m, s):
    """A queue lets the stream run: set up its phase and hand out the first packets."""
    b = m[STREAM] + s * STREAM_W
    m[b + X_STARTED] = 1
    p = m[PHASE] + m[b + X_PHASE] * PHASE_W
    m[b + X_INSERTED] = 0
    m[b + X_SENT] = 0
    m[b + X_FREE] = 0
    m[b + X_RECEIVED] = 0
    m[b + X_COUNT] = m[p + F_COUNT]
    if m[p + F_ALGORITHM] == TREE:
        start_tree(m, s)
        return
    i = 0
    n = m[p + F_PARALLEL]
    while i < n:
        insert_packet(m, s)
        i += 1


# --- events of a stream ---------------------------------------------------------------------------------------------


@kernel
def packet_received(m, f, s):
    """A message for the stream has come."""
    b = m[STREAM] + s * STREAM_W
    if m[m[PHASE] + m[b + X_PHASE] * PHASE_W + F_ALGORITHM] == TREE:
        tree_step(m, f, s, 1)
        return
    m[b + X_RECEIVED] += 1
    insert_packet(m, s)


@kernel
def endpoint_done(m, f, s):
    """A packet may be sent now. Returns 1 when the phase is over for this rank."""
    b = m[STREAM] + s * STREAM_W
    p = m[PHASE] + m[b + X_PHASE] * PHASE_W
    algorithm = m[p + F_ALGORITHM]
    if algorithm == TREE:
        return tree_step(m, f, s, 0)
    m[b + X_FREE] += 1
    parallel = m[p + F_PARALLEL]
    if algorithm == DIRECT and m[p + F_OPERATION] == ALL_REDUCE and m[b + X_COUNT] <= m[b + X_SIZE] - 1:
        # the second half starts when the first has come in whole
        if m[b + X_RECEIVED] < m[b + X_SIZE] - 1:
            return 0
        i = 0
        while i < parallel and try_send(m, f, s):
            i += 1
    else:
        try_send(m, f, s)
    return 1 if m[b + X_COUNT] == 0 and m[b + X_FREE] == parallel else 0


# --- queues ---------------------------------------------------------------------------------------------------------


@kernel
def enqueue(m, s, queue):
    """Put a stream into a queue of its rank: behind the running ones and those of equal or higher priority."""
    b = m[STREAM] + s * STREAM_W
    m[b + X_STARTED] = 0
    m[b + X_QUEUE] = queue
    q = m[QUEUE] + (m[b + X_RANK] * m[QUEUES] + queue) * QUEUE_W
    before = -1
    other = m[q + Q_HEAD]
    while other >= 0:
        o = m[STREAM] + other * STREAM_W
        if m[o + X_STARTED] or m[o + X_PRIORITY] >= m[b + X_PRIORITY]:
            before = other
            other = m[o + X_NEXT]
        else:
            break
    m[b + X_NEXT] = other
    if before < 0:
        m[q + Q_HEAD] = s
    else:
        m[m[STREAM] + before * STREAM_W + X_NEXT] = s


@kernel
def unqueue(m, s):
    """Take a stream out of its queue."""
    b = m[STREAM] + s * STREAM_W
    q = m[QUEUE] + (m[b + X_RANK] * m[QUEUES] + m[b + X_QUEUE]) * QUEUE_W
    if m[q + Q_HEAD] == s:
        m[q + Q_HEAD] = m[b + X_NEXT]
        return
    other = m[q + Q_HEAD]
    while m[m[STREAM] + other * STREAM_W + X_NEXT] != s:
        other = m[m[STREAM] + other * STREAM_W + X_NEXT]
    m[m[STREAM] + other * STREAM_W + X_NEXT] = m[b + X_NEXT]


@kernel
def fill_queue(m, rank, queue):
    """Let waiting streams of a queue run while it has room."""
    q = m[QUEUE] + (rank * m[QUEUES] + queue) * QUEUE_W
    s = m[q + Q_HEAD]
    i = 0
    while i < m[q + Q_RUNNING] and s >= 0:
        s = m[m[STREAM] + s * STREAM_W + X_NEXT]
        i += 1
    while s >= 0 and m[q + Q_RUNNING] < m[THRESHOLD]:
        start_phase(m, s)
        m[q + Q_RUNNING] += 1
        s = m[m[STREAM] + s * STREAM_W + X_NEXT]


@kernel
def place_in_ring(m, s):
    """Set the stream's ring (size, own position) for its phase."""
    b = m[STREAM] + s * STREAM_W
    p = m[PHASE] + m[b + X_PHASE] * PHASE_W
    m[b + X_SIZE] = m[p + F_SIZE]
    if m[b + X_FIRST] < 0:
        e = m[DIM] + m[p + F_RING] * DIM_W
        m[b + X_INDEX] = (m[b + X_RANK] // m[e + D_STRIDE]) % m[e + D_SIZE]
    packed = m[m[STREAM_QUEUE] + s * m[MAX_PHASES] + m[b + X_PHASE] - m[m[PLAN] + m[b + X_PLAN] * PLAN_W + P_FIRST]]
    m[b + X_BACKWARDS] = packed & 1
    m[b + X_TREE] = packed >> 16
    return (packed >> 1) & 32767


@kernel
def next_queue(m, rank, d, kind):
    """Queue (and direction) that the next phase in a dimension takes: round robin over all or half of its queues.

    Returns queue * 2 + backwards.
    """
    a = m[ALLOCATOR] + (rank * m[DIMS] + d) * ALLOCATOR_W
    n = m[QUEUES_PER_DIM]
    half = n // 2
    first = d * n
    if kind == ANY_QUEUE:
        i = m[a + A_ANY]
        m[a + A_ANY] = (i + 1) % n
        return (first + i) * 2 + (1 if n > 1 and i >= half else 0)
    if kind == FIRST_HALF:
        i = m[a + A_FIRST]
        m[a + A_FIRST] = (i + 1) % half if half > 0 else 0
        return (first + i) * 2
    i = m[a + A_SECOND]
    m[a + A_SECOND] = (i + 1) % (n - half)
    return (first + half + i) * 2 + 1


@kernel
def start_collective(m, rank, plan, group, explicit):
    """A rank enters a collective: all its chunks become streams, the first may run at once."""
    r = m[RANK] + rank * RANK_W
    p = m[PLAN] + plan * PLAN_W
    if m[POLICY] == 0:
        priority = explicit
    else:
        priority = m[r + R_PRIORITY]
        m[r + R_PRIORITY] += m[POLICY]
    first = -1
    index = 0
    if group >= 0:
        g = m[INSTANCE] + (rank * m[GROUPS] + group) * INSTANCE_W
        index = m[g + I_INDEX]
        if m[m[PHASE] + m[p + P_FIRST] * PHASE_W + F_LOCAL]:
            first = m[g + I_FIRST]
    chunks = m[p + P_CHUNKS]
    m[r + R_CHUNKS_LEFT] = chunks
    c = 0
    while c < chunks:
        s = m[STREAM_FREE]
        b = m[STREAM] + s * STREAM_W
        m[STREAM_FREE] = m[b]
        m[STREAM_LEFT] -= 1
        m[b + X_RANK] = rank
        m[b + X_PRIORITY] = priority
        m[b + X_PLAN] = plan
        m[b + X_PHASE] = m[p + P_FIRST]
        m[b + X_FIRST] = first
        m[b + X_INDEX] = index
        m[b + X_GROUP] = group
        if group >= 0:
            # stream numbers of group g start at (g + 1) million and are counted in the rank's own table
            counter = m[INSTANCE] + m[RANKS] * m[GROUPS] * INSTANCE_W + rank * m[GROUPS] + group
            m[b + X_TAG] = (group + 1) * 1000000 + m[counter]
            m[counter] += 1
        else:
            m[b + X_TAG] = m[r + R_STREAMS]
            m[r + R_STREAMS] += 1
        i = 0
        while i < m[p + P_PHASES]:
            e = m[PHASE] + (m[p + P_FIRST] + i) * PHASE_W
            packed = next_queue(m, rank, m[e + F_DIM], m[e + F_ALLOCATE])
            if m[e + F_ALGORITHM] == TREE:
                a = m[ALLOCATOR] + (rank * m[DIMS] + m[e + F_DIM]) * ALLOCATOR_W
                packed += (m[a + A_TREES] & 1) << 16
                m[a + A_TREES] += 1
            m[m[STREAM_QUEUE] + s * m[MAX_PHASES] + i] = packed
            i += 1
        queue = place_in_ring(m, s)
        enqueue(m, s, queue)
        fill_queue(m, rank, queue)
        c += 1


@kernel
def next_phase(m, s):
    """A stream has ended a phase that was not its last: it moves to the queue of the next one."""
    b = m[STREAM] + s * STREAM_W
    old = m[b + X_QUEUE]
    rank = m[b + X_RANK]
    unqueue(m, s)
    m[b + X_PHASE] += 1
    queue = place_in_ring(m, s)
    enqueue(m, s, queue)
    m[m[QUEUE] + (rank * m[QUEUES] + old) * QUEUE_W + Q_RUNNING] -= 1
    fill_queue(m, rank, old)
    fill_queue(m, rank, queue)


@kernel
def end_stream(m, s):
    """A stream has ended its last phase: its queue takes the next one."""
    b = m[STREAM] + s * STREAM_W
    old = m[b + X_QUEUE]
    rank = m[b + X_RANK]
    unqueue(m, s)
    m[b] = m[STREAM_FREE]
    m[STREAM_FREE] = s
    m[STREAM_LEFT] += 1
    m[m[QUEUE] + (rank * m[QUEUES] + old) * QUEUE_W + Q_RUNNING] -= 1
    fill_queue(m, rank, old)
