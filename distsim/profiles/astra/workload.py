"""Issue rules: what a rank starts when something of its own has finished.

Ready nodes are looked at in id order; a node starts if its resource is free: one CPU operation, one GPU compute operation,
one communication (a collective, or a send until it has arrived) and one memory operation at a time; receives are unlimited.
"""

from distsim.kernel.jit import kernel
from distsim.profiles.astra.events import call_back
from distsim.profiles.astra.layout import *
from distsim.profiles.astra.streams import start_collective
from distsim.profiles.astra.transport import receive, send


@kernel
def heap_base(m, rank, cls):
    """First cell of the ready heap of a resource class: each has room for all nodes of that class."""
    return m[READY] + m[m[RANK] + rank * RANK_W + R_HEAP + cls]


@kernel
def make_ready(m, rank, row):
    """A node's dependencies are done."""
    b = m[RANK] + rank * RANK_W
    n = m[NODE] + (m[b + R_STATIC] + row) * NODE_W
    cls = m[n + N_CLASS]
    base = heap_base(m, rank, cls)
    i = m[b + R_READY_LEN + cls]
    m[b + R_READY_LEN + cls] = i + 1
    while i > 0:
        parent = (i - 1) >> 1
        if m[base + parent] <= row:
            break
        m[base + i] = m[base + parent]
        i = parent
    m[base + i] = row


@kernel
def pop_ready(m, rank, cls):
    """Take the ready node of lowest id of a class."""
    b = m[RANK] + rank * RANK_W
    base = heap_base(m, rank, cls)
    top = m[base]
    n = m[b + R_READY_LEN + cls] - 1
    m[b + R_READY_LEN + cls] = n
    if n > 0:
        row = m[base + n]
        i = 0
        while True:
            child = 2 * i + 1
            if child >= n:
                break
            if child + 1 < n and m[base + child + 1] < m[base + child]:
                child += 1
            if m[base + child] >= row:
                break
            m[base + i] = m[base + child]
            i = child
        m[base + i] = row
    return top


@kernel
def finish(m, rank, row):
    """Record the end of a node and release its children."""
    b = m[RANK] + rank * RANK_W
    s = m[STATE] + (m[b + R_DYNAMIC] + row) * STATE_W
    m[s + S_END] = m[NOW]
    m[b + R_LEFT] -= 1
    if m[b + R_LEFT] == 0:
        m[b + R_FINISH] = m[NOW]
        m[UNFINISHED] -= 1
    n = m[NODE] + (m[b + R_STATIC] + row) * NODE_W
    i = m[n + N_CHILD]
    end = m[n + NODE_W + N_CHILD]
    while i < end:
        child = m[m[CHILD] + i]
        c = m[STATE] + (m[b + R_DYNAMIC] + child) * STATE_W
        m[c + S_WAITING] -= 1
        if m[c + S_WAITING] == 0:
            make_ready(m, rank, child)
        i += 1


@kernel
def start_node(m, f, rank, row):
    """Start one node."""
    b = m[RANK] + rank * RANK_W
    n = m[NODE] + (m[b + R_STATIC] + row) * NODE_W
    m[m[STATE] + (m[b + R_DYNAMIC] + row) * STATE_W + S_START] = m[NOW]
    cls = m[n + N_CLASS]
    plan = m[n + N_PLAN]
    handle = rank * (1 << 32) + row
    if cls == FREE:
        if plan == NOTHING:
            finish(m, rank, row)
        else:
            receive(m, m[n + N_TAG], m[n + N_PEER], rank, m[n + N_BYTES], -1 - handle)
        return
    m[b + R_CPU + cls] = 1
    if cls != COMM:
        if cls == GPU:
            m[b + R_GPU_NS] += m[n + N_NS]
        call_back(m, rank, m[n + N_NS], NODE_DONE, handle, 0)
    elif plan == SEND:
        send(m, f, m[n + N_TAG], rank, m[n + N_PEER], m[n + N_BYTES], 0, rank, handle)
    elif m[m[PLAN] + plan * PLAN_W + P_PHASES] == 0:
        call_back(m, rank, m[n + N_NS], NODE_DONE, handle, 0)
    else:
        m[b + R_COLLECTIVE] = row
        start_collective(m, rank, plan, m[n + N_GROUP], m[n + N_TAG])


@kernel
def issue(m, f, rank):
    """Start, in id order, every ready node whose resource is free."""
    b = m[RANK] + rank * RANK_W
    while True:
        best = -1
        best_class = 0
        cls = 0
        while cls < CLASSES:
            if m[b + R_READY_LEN + cls] > 0 and (cls == FREE or m[b + R_CPU + cls] == 0):
                row = m[heap_base(m, rank, cls)]
                if best < 0 or row < best:
                    best = row
                    best_class = cls
            cls += 1
        if best < 0:
            return
        start_node(m, f, rank, pop_ready(m, rank, best_class))


@kernel
def node_done(m, f, handle):
    """A node that held a resource, or a receive, has finished."""
    rank = handle >> 32
    row = handle & ((1 << 32) - 1)
    b = m[RANK] + rank * RANK_W
    cls = m[m[NODE] + (m[b + R_STATIC] + row) * NODE_W + N_CLASS]
    if cls != FREE:
        m[b + R_CPU + cls] = 0
    finish(m, rank, row)
    issue(m, f, rank)
