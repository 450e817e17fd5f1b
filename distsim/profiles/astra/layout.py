"""Layout of the flat memory that the kernels share.

``m`` is one sequence of integers: a header of scalars and region bases, then the regions. A row of a region is addressed
as ``m[BASE] + row * WIDTH + FIELD``; rows are passed around as numbers, never as addresses. Pool
regions (events, channels, chunks ...) chain their free rows through field 0.
``f`` holds the floating-point parameters.
"""

# --- header: scalars ------------------------------------------------------------------------------------------------
NOW = 0  # ns
RANKS = 1  # ranks simulated (1 when folded)
WORLD = 2  # ranks of the cluster
FOLDED = 3  # 1: rank 0 stands for all, peers are offsets
AWARE = 4  # 1: congestion-aware backend
DIMS = 5
QUEUES = 6  # queues of one rank over all dimensions
QUEUES_PER_DIM = 7
THRESHOLD = 8  # streams in flight per queue
ENDPOINT = 9  # ns
POLICY = 10  # +1 LIFO, -1 FIFO, 0 explicit priorities
MAX_PHASES = 11
MARGIN = 12  # free rows that every pool must have before an event is handled
AMBIGUOUS = 13  # folded: a tie whose order could differ between ranks was met
EVENTS_DONE = 14
HEAP_SIZE = 15
TICK_HASH = 16  # number of hash buckets of the tick table (a power of two)
CALL_HASH = 17
CHANNEL_HASH = 18
UNFINISHED = 19  # ranks still at work
GROUPS = 20
MESSAGES = 21  # messages sent
FOLD_TICK = 22  # folded: tick of the last look at ties ...
FOLD_SEEN = 23  # ... what has happened in it: 1 callbacks, 2 arrivals ...
FOLD_STREAM = 24  # ... and the stream that a message came for, -1 for none yet

# --- header: free-list heads and free counts of the pools -----------------------------------------------------------
EVENT_FREE, EVENT_LEFT = 30, 31
TICK_FREE, TICK_LEFT = 32, 33
CALL_FREE, CALL_LEFT = 34, 35
CHANNEL_FREE, CHANNEL_LEFT = 36, 37
CHUNK_FREE, CHUNK_LEFT = 38, 39
STREAM_FREE, STREAM_LEFT = 40, 41

# --- header: bases of the regions -----------------------------------------------------------------------------------
HEAP = 50  # ticks waiting, a binary heap of (tick, row)
TICK = 51
TICK_BUCKET = 52
EVENT = 53
CALL = 54
CALL_BUCKET = 55
CHANNEL = 56
CHANNEL_BUCKET = 57
CHUNK = 58
LINK = 59
RANK = 60
NODE = 61  # static columns of nodes
CHILD = 62  # children of nodes (rows of the same program)
STATE = 63  # dynamic columns of nodes
READY = 64  # ready heaps
STREAM = 65
STREAM_QUEUE = 66  # queue * 2 + backwards, per stream and phase
QUEUE = 67
ALLOCATOR = 68
PLAN = 69
PHASE = 70
DIM = 71
MEMBER = 72  # members of group instances
INSTANCE = 73  # (rank, group) -> first member, size, own index
HEADER = 80

# --- rows -----------------------------------------------------------------------------------------------------------
HEAP_W = 2
TICK_W = 4  # HASH_NEXT/free, TIME, HEAD, TAIL
CALL_W = 5  # HASH_NEXT/free, RANK, TIME, HEAD, TAIL
EVENT_W = 4  # NEXT/free, KIND, ARG, AUX
NEXT, KIND, ARG, AUX = 0, 1, 2, 3
T_TIME, T_HEAD, T_TAIL = 1, 2, 3
C_RANK, C_TIME, C_HEAD, C_TAIL = 1, 2, 3, 4

CHANNEL_W = 9  # a (tag, source, destination, bytes) on which sends and receives pair in order
CH_TAG, CH_SRC, CH_DST, CH_BYTES, CH_FLYING, CH_ARRIVED, CH_HEAD, CH_TAIL = 1, 2, 3, 4, 5, 6, 7, 8

CHUNK_W = 8  # a message in flight
K_CHANNEL, K_BYTES, K_AT, K_DST, K_DIM, K_HOPS, K_SENDER = 1, 2, 3, 4, 5, 6, 7

LINK_W = 6
L_BUSY, L_HEAD, L_TAIL, L_BYTES, L_BUSY_NS, L_LAST = 0, 1, 2, 3, 4, 5

RANK_W = 25
R_PRIORITY, R_CPU, R_GPU, R_COMM, R_MEM, R_LEFT, R_FINISH, R_GPU_NS = 0, 1, 2, 3, 4, 5, 6, 7
R_STREAMS, R_CHUNKS_LEFT, R_COLLECTIVE, R_STATIC, R_DYNAMIC = 8, 9, 10, 11, 12
R_READY_LEN = 15  # five fields: ready nodes per resource class
R_HEAP = 20  # five fields: where the heap of that class starts in READY

NODE_W = 8
N_CLASS, N_NS, N_PLAN, N_GROUP, N_PEER, N_BYTES, N_TAG, N_CHILD = 0, 1, 2, 3, 4, 5, 6, 7
# resource classes: the first five have ready heaps
# (R_CPU + class tells whether the resource is taken, R_READY_LEN + class and R_HEAP + class are of its ready heap)
CPU, GPU, COMM, MEM, FREE = 0, 1, 2, 3, 4
CLASSES = 5
# what a COMM or FREE node does, told by its plan: >= 0 a collective, SEND, RECEIVE, NOTHING
SEND, RECEIVE, NOTHING = -1, -2, -3

STATE_W = 3
S_WAITING, S_START, S_END = 0, 1, 2

PLAN_W = 4
P_CHUNKS, P_FIRST, P_PHASES, P_NS = 0, 1, 2, 3  # P_NS: a collective that is only a recorded duration

PHASE_W = 12
(
    F_ALGORITHM, F_OPERATION, F_DIM, F_SIZE, F_BYTES, F_ALLOCATE, F_PARALLEL, F_CYCLE, F_COUNT, F_LOCAL, F_START,
    F_RING,  # row of DIM that tells the ring's positions: F_DIM, or the row behind the last for a ring over all ranks
) = range(12)  # fmt: skip
RING, DIRECT, HALVING, TREE = 0, 1, 2, 3
ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, ALL_TO_ALL = 0, 1, 2, 3
ANY_QUEUE, FIRST_HALF, SECOND_HALF = 0, 1, 2

STREAM_W = 22
(
    _FREE, X_RANK, X_PRIORITY, X_STARTED, X_NEXT, X_PHASE, X_PLAN, X_TAG, X_INSERTED, X_SENT, X_FREE, X_COUNT, X_RECEIVED,
    X_FIRST, X_SIZE, X_INDEX, X_STATE, X_REDUCTIONS, X_TREE, X_QUEUE, X_GROUP, X_BACKWARDS,
) = range(22)  # fmt: skip

QUEUE_W = 2
Q_HEAD, Q_RUNNING = 0, 1
ALLOCATOR_W = 4  # next queue, next of the first half, next of the second half, trees handed out
A_ANY, A_FIRST, A_SECOND, A_TREES = 0, 1, 2, 3

DIM_W = 4
D_KIND, D_SIZE, D_STRIDE, D_LINKS = 0, 1, 2, 3
RING_NET, SWITCH_NET, FULL_NET = 0, 1, 2

INSTANCE_W = 3
I_FIRST, I_SIZE, I_INDEX = 0, 1, 2

# --- event kinds in the tick lists ----------------------------------------------------------------------------------
CALLBACKS = 0  # ARG: row of CALL
ARRIVAL = 1  # ARG: chunk, at its next hop
LINK_FREE = 2  # ARG: link
LATE_RECEIVE = 3  # ARG: receiver: a message that had come before it was asked for
# --- kinds in the per-rank callback lists ---------------------------------------------------------------------------
REDUCE_THEN = 0  # ARG: stream, AUX: bytes to reduce, then GENERAL
GENERAL = 1  # ARG: stream
NODE_DONE = 2  # ARG: node, as rank * 2^32 + row
# --- receivers: a stream, or a node as -1 - (rank * 2^32 + row) ---------------------------------------------------------

# --- floats ---------------------------------------------------------------------------------------------------------
F_MEMORY = 0  # local memory, bytes/ns
F_DIMS = 1  # then per dimension: bytes/ns, latency in ns

# --- what run() answers ---------------------------------------------------------------------------------------------
DONE, GROW, STUCK, UNSURE, PAUSE = 0, 1, 2, 3, 4
