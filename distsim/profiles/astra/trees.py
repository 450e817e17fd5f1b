"""Double binary trees: a state machine per stream.

Two complementary trees, numbered in order, take turns. Leaf: send up, wait, done. Inner: reduce a child, reduce the other,
send up, wait, send down twice. Root: reduce, send down.
"""

from distsim.kernel.jit import kernel
from distsim.profiles.astra.events import call_back
from distsim.profiles.astra.layout import *
from distsim.profiles.astra.rings import member
from distsim.profiles.astra.transport import receive, send

BEGIN, TO_PARENT, FROM_PARENT, END, TWO_CHILDREN, ONE_CHILD, TO_CHILDREN = 0, 1, 2, 3, 4, 5, 6
LEAF, INNER, ROOT = 0, 1, 2


@kernel
def tree_node(m, s):
    """This rank's place in the tree of the stream: (kind, parent, left, right) as ring positions, -1 for none.

    In-order numbering of a perfect tree of size-1 nodes below a root that has one child; the second tree puts the root at
    the other end. Packed into one integer: kind + 4 * (parent + 1 + 2^20 * (left + 1 + 2^20 * (right + 1))).
    """
    b = m[STREAM] + s * STREAM_W
    size = m[b + X_SIZE]
    index = m[b + X_INDEX]
    root_first = m[b + X_TREE] % 2  # trees handed out: the first (0) has its root at the end, then they alternate
    root = 0 if root_first else size - 1
    shift = 1 if root_first else 0
    top = size // 2 - 1 + shift
    if index == root:
        return ROOT + 4 * (0 + (1 << 20) * (top + 1))
    # position 1 .. size-1 in the perfect tree; its lowest set bit is half the span of its subtree
    position = index + 1 - shift
    bit = position & -position
    if position == size // 2:
        parent = root
    elif position & (bit << 1):
        parent = position - bit - 1 + shift
    else:
        parent = position + bit - 1 + shift
    if bit == 1:
        return LEAF + 4 * (parent + 1)
    left = position - (bit >> 1) - 1 + shift
    right = position + (bit >> 1) - 1 + shift
    return INNER + 4 * (parent + 1 + (1 << 20) * (left + 1 + (1 << 20) * (right + 1)))


@kernel
def tree_endpoint(m, s, reduces):
    """Hand the whole chunk to the endpoint."""
    b = m[STREAM] + s * STREAM_W
    if reduces:
        call_back(m, m[b + X_RANK], m[ENDPOINT], REDUCE_THEN, s, m[m[PHASE] + m[b + X_PHASE] * PHASE_W + F_BYTES])
    else:
        call_back(m, m[b + X_RANK], m[ENDPOINT], GENERAL, s, 0)


@kernel
def tree_receive(m, s, index):
    """Ask a tree neighbour for the chunk."""
    b = m[STREAM] + s * STREAM_W
    size = m[m[PHASE] + m[b + X_PHASE] * PHASE_W + F_BYTES]
    receive(m, m[b + X_TAG], member(m, s, index), m[b + X_RANK], size, s)


@kernel
def tree_send(m, f, s, index):
    """Send the chunk to a tree neighbour."""
    b = m[STREAM] + s * STREAM_W
    p = m[PHASE] + m[b + X_PHASE] * PHASE_W
    send(m, f, m[b + X_TAG], m[b + X_RANK], member(m, s, index), m[p + F_BYTES], m[p + F_DIM], m[b + X_RANK], -1)


@kernel
def start_tree(m, s):
    """First step of a tree stream: leaves prepare to send, the others listen to their children."""
    b = m[STREAM] + s * STREAM_W
    m[b + X_REDUCTIONS] = 0
    place = tree_node(m, s)
    kind = place & 3
    left = ((place >> 22) & ((1 << 20) - 1)) - 1
    right = (place >> 42) - 1
    if kind == LEAF:
        tree_endpoint(m, s, 0)
        m[b + X_STATE] = TO_PARENT
    elif kind == INNER:
        m[b + X_STATE] = TWO_CHILDREN
        tree_receive(m, s, left)
        tree_receive(m, s, right)
    else:
        m[b + X_STATE] = ONE_CHILD
        tree_receive(m, s, left)


@kernel
def tree_step(m, f, s, received):
    """One event of a tree stream (received: a message came; else the endpoint is done). Returns 1 when the phase ends."""
    b = m[STREAM] + s * STREAM_W
    place = tree_node(m, s)
    kind = place & 3
    parent = ((place >> 2) & ((1 << 20) - 1)) - 1
    left = ((place >> 22) & ((1 << 20) - 1)) - 1
    right = (place >> 42) - 1
    state = m[b + X_STATE]
    if kind == LEAF:
        if state == TO_PARENT:
            tree_send(m, f, s, parent)
            tree_receive(m, s, parent)
            m[b + X_STATE] = FROM_PARENT
        elif state == FROM_PARENT:
            tree_endpoint(m, s, 0)
            m[b + X_STATE] = END
        elif state == END:
            return 1
    elif kind == INNER:
        if state == TWO_CHILDREN and received:
            tree_endpoint(m, s, 1)
            m[b + X_STATE] = ONE_CHILD
        elif state == ONE_CHILD and received:
            tree_endpoint(m, s, 1)
            m[b + X_STATE] = TO_PARENT
        elif m[b + X_REDUCTIONS] < 1 and not received:
            m[b + X_REDUCTIONS] += 1
        elif state == TO_PARENT:
            m[b + X_STATE] = FROM_PARENT
            tree_send(m, f, s, parent)
            tree_receive(m, s, parent)
        elif state == FROM_PARENT and received:
            tree_endpoint(m, s, 1)
            m[b + X_STATE] = TO_CHILDREN
        elif state == TO_CHILDREN:
            tree_send(m, f, s, left)
            tree_send(m, f, s, right)
            return 1
    elif state == ONE_CHILD:
        tree_endpoint(m, s, 1)
        m[b + X_STATE] = TO_CHILDREN
    elif state == TO_CHILDREN:
        tree_send(m, f, s, left)
        return 1
    return 0
