"""From programs and configuration to memory: what every rank runs, as the kernels want it.

A :class:`Job` is the neutral form: per program a table of nodes in id order, per rank a program and its groups. It comes
from a trace (:func:`job_of_trace`) or is a single collective (:func:`job_of_collective`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.errors import CollectiveError, TopologyError, TraceError
from distsim.profiles.astra import layout as L  # noqa: N812
from distsim.profiles.astra.config import AstraConfig
from distsim.profiles.astra.memory import Memory, Spans
from distsim.profiles.astra.plans import Plans
from distsim.trace.graph import CollectiveType, NodeType, PeerKind, Program, TaskGraph


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One program in kernel form: n nodes, ordered by id."""

    nodes: NDArray[np.int64]  #: (n + 1) * NODE_W, the last row only closes N_CHILD
    children: NDArray[np.int64]  #: rows, by N_CHILD
    waiting: NDArray[np.int64]  #: number of dependencies of each row
    heaps: NDArray[np.int64]  #: CLASSES + 1: where the ready heap of each class starts, and the total
    order: NDArray[np.int64]  #: row of the trace's program that each row here is


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Everything that ranks do."""

    tables: list[Table]
    rank_table: list[int]
    plans: Plans
    members: NDArray[np.int64]  #: members of all group instances
    instances: NDArray[np.int64]  #: (ranks, groups, INSTANCE_W)
    receives: int  #: most receives of one rank


def compute_ns(program: Program, config: AstraConfig, source: str = "") -> NDArray[np.int64]:
    """Nanoseconds of every node that takes a time of its own.

    Roofline on: trunc(num_ops / min(memory bandwidth * num_ops / tensor_size, peak)) for GPU compute. Otherwise the
    recorded duration in whole microseconds, where zero (or none) becomes 1 ns. Raises TraceError for compute on no data.
    """
    recorded = np.maximum(program.duration_ps, 0) // 1_000_000 * 1000
    recorded[recorded == 0] = 1
    memory = (program.type == NodeType.MEM_LOAD) | (program.type == NodeType.MEM_STORE)
    size = np.maximum(program.tensor_size, 0).astype(np.float64)
    bandwidth, peak = config.local_memory_gbps * 1e9, config.peak_tflops * 1e12
    if memory.any():
        recorded = np.where(memory & (program.tensor_size > 0), (size / bandwidth * 1e9).astype(np.int64), recorded)
    if not config.roofline:
        return recorded
    modelled = (program.type == NodeType.COMP) & ~program.cpu
    ops = np.maximum(program.num_ops, 0).astype(np.float64)
    empty = modelled & (size == 0) & (ops > 0)
    if empty.any():
        row = int(np.flatnonzero(empty)[0])
        raise TraceError(
            f"node {int(program.id[row])} computes {int(program.num_ops[row])} operations on a tensor_size of 0 bytes",
            where=source, fix="Give its tensor_size, or switch roofline-enabled off to use recorded durations.",
        )  # fmt: skip
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.minimum(bandwidth * (ops / size), peak)
        seconds = np.where(ops > 0, ops / rate, size / bandwidth)
    return np.where(modelled, (seconds * 1e9).astype(np.int64), recorded)


def _table(graph: TaskGraph, rank: int, config: AstraConfig, plans: Plans) -> Table:
    """Kernel form of the program of a rank."""
    program = graph.program(rank)
    n = len(program)
    order = np.arange(n) if np.all(program.id[1:] > program.id[:-1]) else np.argsort(program.id, kind="stable")
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    kind = program.type[order]
    nodes = np.zeros((n + 1, L.NODE_W), dtype=np.int64)
    nodes[:n, L.N_CLASS] = np.select(
        [kind == NodeType.COMP, (kind == NodeType.COMM_COLL) | (kind == NodeType.COMM_SEND),
         (kind == NodeType.MEM_LOAD) | (kind == NodeType.MEM_STORE)],
        [np.where(program.cpu[order], L.CPU, L.GPU), L.COMM, L.MEM], L.FREE,
    )  # fmt: skip
    nodes[:n, L.N_NS] = compute_ns(program, config, f"{graph.source}: rank {rank}")[order]
    nodes[:n, L.N_PLAN] = L.NOTHING
    nodes[:n, L.N_GROUP] = program.group[order]
    nodes[:n, L.N_BYTES] = program.bytes[order]
    tag = np.where(program.tag[order] == -1, 0, program.tag[order])
    nodes[:n, L.N_TAG] = np.where(kind == NodeType.COMM_COLL, np.maximum(program.priority[order], 0), tag)
    for wanted, plan in ((NodeType.COMM_SEND, L.SEND), (NodeType.COMM_RECV, L.RECEIVE)):
        rows = np.flatnonzero(kind == wanted)
        nodes[rows, L.N_PLAN] = plan
        for row in rows.tolist():
            peer = graph.peer(rank, int(order[row]))
            if peer == rank:
                raise TraceError(
                    f"node {int(program.id[order[row]])} sends to its own rank", where=f"{graph.source}: rank {rank}"
                )
            if nodes[row, L.N_BYTES] <= 0:
                raise TraceError(
                    f"node {int(program.id[order[row]])} moves {int(nodes[row, L.N_BYTES])} bytes",
                    where=f"{graph.source}: rank {rank}", expected="comm_size of at least 1 byte",
                )  # fmt: skip
            nodes[row, L.N_PEER] = peer
    _plan_collectives(graph, rank, order, np.flatnonzero(kind == NodeType.COMM_COLL), nodes, plans)
    waiting = np.diff(program.dep_ptr)[order]
    child = np.repeat(place, np.diff(program.dep_ptr))
    parent = place[program.dep]
    by_parent = np.lexsort((child, parent)) if len(parent) and np.any(parent[1:] < parent[:-1]) else np.arange(len(parent))
    nodes[:, L.N_CHILD] = np.searchsorted(parent[by_parent], np.arange(n + 1))
    heaps = np.concatenate(([0], np.cumsum([np.count_nonzero(nodes[:n, L.N_CLASS] == c) for c in range(L.CLASSES)])))
    return Table(nodes.ravel(), child[by_parent], waiting, heaps, order)


def _plan_collectives(
    graph: TaskGraph, rank: int, order: NDArray[np.int64], rows: NDArray[np.int64], nodes: NDArray[np.int64], plans: Plans
) -> None:
    """Give every collective its plan; equal ones share it."""
    if not len(rows):
        return
    program, ranks = graph.program(rank), graph.ranks
    picked = order[rows]
    keys = np.stack([program.collective[picked], program.bytes[picked], program.group[picked], program.dims[picked]], axis=1)
    unique, inverse = np.unique(keys.astype(np.int64), axis=0, return_inverse=True)
    inverse = inverse.ravel()
    chosen = []
    for i, (kind, size, group, dims) in enumerate(unique.tolist()):
        where = f"{graph.source}: rank {rank}, node {int(program.id[picked[int(np.argmax(inverse == i))]])}"
        operation = CollectiveType(kind).name.lower() if kind >= 0 else "collective without comm_type"
        operation = operation.removesuffix("_block")
        count = len(graph.members(rank, group)) if group >= 0 else ranks
        if count < 2:
            raise CollectiveError(
                f"{operation} in a group of one rank",
                where=where,
                fix="Drop the node, or widen the group (ASTRA-sim never ends here).",
            )
        try:
            chosen.append(
                plans.recorded() if operation == "broadcast"
                else plans.plan(operation, size, 0 if count == ranks else count, dims if count == ranks else -1)
            )  # fmt: skip
        except CollectiveError as error:
            raise CollectiveError(error.what, where=where, expected=error.expected, fix=error.fix) from None
    nodes[rows, L.N_PLAN] = np.array(chosen)[inverse]


def job_of_trace(graph: TaskGraph, config: AstraConfig) -> Job:
    """The job of a replay. Raises TraceError, CollectiveError, TopologyError."""
    if graph.ranks != config.ranks:
        raise TopologyError(
            f"the trace has {graph.ranks} ranks but the network has {config.ranks}", where=graph.source,
            fix="The profile, as ASTRA-sim, wants one rank per network endpoint: change npus_count or --topo.",
        )  # fmt: skip
    plans = Plans(config)
    tables: list[Table] = []
    made: dict[tuple[int, ...], int] = {}
    rank_table = []
    groups = max(1, len(graph.groups))
    instances = np.zeros((graph.ranks, groups, L.INSTANCE_W), dtype=np.int64)
    members: list[int] = []
    placed: dict[tuple[int, ...], int] = {}
    receives = 0
    used: dict[int, list[int]] = {}
    for rank in range(graph.ranks):
        number = int(graph.rank_program[rank])
        program = graph.programs[number]
        if number not in used:
            used[number] = [int(g) for g in np.unique(program.group[program.type == NodeType.COMM_COLL]) if g >= 0]
        sizes = [len(graph.members(rank, g)) for g in used[number]]
        p2p = (program.type == NodeType.COMM_SEND) | (program.type == NodeType.COMM_RECV)
        relative = bool(np.any(program.peer_kind[p2p] != PeerKind.RANK))
        key = (number, rank if relative else -1, *sizes)
        if key not in made:
            made[key] = len(tables)
            tables.append(_table(graph, rank, config, plans))
        rank_table.append(made[key])
        receives = max(receives, int(np.count_nonzero(program.type == NodeType.COMM_RECV)))
        for group in used[number]:
            ring = graph.members(rank, group)
            if ring not in placed:
                placed[ring] = len(members)
                members.extend(ring)
            instances[rank, group] = placed[ring], len(ring), ring.index(rank)
    return Job(tables, rank_table, plans, np.array(members or [0], dtype=np.int64), instances, receives)


def job_of_collective(operation: str, size: int, config: AstraConfig, group: tuple[int, ...] = ()) -> Job:
    """All ranks (or the members of ``group``) run one collective at time 0."""
    plans = Plans(config)
    whole = not group or len(group) == config.ranks
    if group and (len(set(group)) != len(group) or not all(0 <= r < config.ranks for r in group)):
        raise CollectiveError(f"group {list(group)} is not a set of ranks between 0 and {config.ranks - 1}")
    if len(group) == 1:
        raise CollectiveError(f"{operation} in a group of one rank")
    node = np.zeros((2, L.NODE_W), dtype=np.int64)
    node[0, L.N_CLASS], node[0, L.N_GROUP], node[0, L.N_BYTES] = L.COMM, 0 if group else -1, size
    node[0, L.N_PLAN] = plans.plan(operation, size, 0 if whole else len(group))
    one = Table(node.ravel(), np.zeros(0, np.int64), np.zeros(1, np.int64), np.array([0, 0, 0, 1, 1, 1]), np.zeros(1, np.int64))
    none = Table(
        np.zeros(L.NODE_W, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(6, np.int64), np.zeros(0, np.int64)
    )
    instances = np.zeros((config.ranks, 1, L.INSTANCE_W), dtype=np.int64)
    for index, rank in enumerate(group):
        instances[rank, 0] = 0, len(group), index
    rank_table = [0 if not group or rank in set(group) else 1 for rank in range(config.ranks)]
    return Job([one, none], rank_table, plans, np.array(group or (0,), dtype=np.int64), instances, 0)


_NETWORK = {"ring": L.RING_NET, "switch": L.SWITCH_NET, "fully_connected": L.FULL_NET}


def link_count(kind: str, ranks: int, size: int) -> int:
    """Directed links of one dimension."""
    return ranks * size if kind == "fully_connected" else 2 * ranks


def memory_of(
    job: Job, config: AstraConfig, *, folded: bool, room: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.float64], Spans]:
    """(m, f, spans) for the kernels. ``room`` multiplies the pools (after a run that asked to GROW)."""
    world = config.ranks
    ranks = 1 if folded else world
    memory = Memory()
    scalars = memory.scalars
    dims = len(config.dims)
    threshold = -(-config.active_chunks // config.queues_per_dim)
    queues = dims * config.queues_per_dim
    groups = job.instances.shape[1]
    scalars |= {
        L.RANKS: ranks, L.WORLD: world, L.FOLDED: int(folded), L.AWARE: int(config.aware), L.DIMS: dims, L.QUEUES: queues,
        L.QUEUES_PER_DIM: config.queues_per_dim, L.THRESHOLD: threshold, L.ENDPOINT: config.endpoint_ns,
        L.POLICY: {"LIFO": 1, "FIFO": -1, "EXPLICIT": 0}[config.policy], L.MAX_PHASES: job.plans.max_phases, L.GROUPS: groups,
        L.FOLD_TICK: -1,
    }  # fmt: skip
    # one event wakes at most one rank, which then sends to all peers of all its running streams, twice over
    margin = 64 + 8 * job.plans.max_parallel * threshold * queues + 4 * job.receives + 2 * job.plans.max_chunks
    scalars[L.MARGIN] = margin
    pool = room * (2 * margin + 16 * ranks + 1024)
    memory.region(L.HEAP, np.zeros(pool * L.HEAP_W, dtype=np.int64))
    for name in ("event", "tick", "call", "channel", "chunk"):
        memory.pool(name, pool)
    memory.pool("stream", ranks * 2 * job.plans.max_chunks + 1)
    memory.hash(L.TICK_BUCKET, L.TICK_HASH, pool)
    memory.hash(L.CALL_BUCKET, L.CALL_HASH, pool)
    memory.hash(L.CHANNEL_BUCKET, L.CHANNEL_HASH, pool)
    memory.region(L.STREAM_QUEUE, np.zeros((ranks * 2 * job.plans.max_chunks + 1) * job.plans.max_phases, dtype=np.int64))
    queue = np.zeros((ranks * queues, L.QUEUE_W), dtype=np.int64)
    queue[:, L.Q_HEAD] = -1
    memory.region(L.QUEUE, queue.ravel())
    memory.region(L.ALLOCATOR, np.zeros(ranks * dims * L.ALLOCATOR_W, dtype=np.int64))
    plan_rows, phase_rows = job.plans.tables()
    memory.region(L.PLAN, plan_rows)
    memory.region(L.PHASE, phase_rows)
    _dimensions(config, memory, folded)
    memory.region(L.MEMBER, job.members)
    # group instances, and behind them the counters of streams per (rank, group)
    counters = np.zeros(ranks * groups, dtype=np.int64)
    memory.region(L.INSTANCE, np.concatenate((job.instances[:ranks].ravel(), counters)))
    _programs(job, memory, ranks)
    m, spans = memory.build()
    f = [config.local_memory_gbps]
    for dim in config.dims:
        f += [dim.bandwidth * 2**30 / 1e9, dim.latency]
    return m, np.array(f, dtype=np.float64), spans


def _dimensions(config: AstraConfig, memory: Memory, folded: bool) -> None:
    """Dimensions and links; one row more for rings over all ranks."""
    world, stride, links, rows = config.ranks, 1, 0, []
    for dim in config.dims:
        rows.append((_NETWORK[dim.kind], dim.size, stride, links))
        links += link_count(dim.kind, 1 if folded else world, dim.size)
        stride *= dim.size
    rows.append((L.SWITCH_NET, world, 1, 0))
    memory.region(L.DIM, np.array(rows, dtype=np.int64).ravel())
    link = np.zeros((links if config.aware else 0, L.LINK_W), dtype=np.int64)
    link[:, [L.L_HEAD, L.L_TAIL]] = -1
    link[:, L.L_LAST] = -2
    memory.region(L.LINK, link.ravel())


def _programs(job: Job, memory: Memory, ranks: int) -> None:
    """Static node tables, once each; dynamic columns and ready heaps per rank."""
    static, child_at, at = [], 0, 0
    starts = []
    for table in job.tables:
        nodes = table.nodes.reshape(-1, L.NODE_W).copy()
        nodes[:, L.N_CHILD] += child_at
        static.append(nodes)
        starts.append(at)
        at += len(nodes)
        child_at += len(table.children)
    memory.region(L.NODE, np.concatenate(static).ravel())
    memory.region(L.CHILD, np.concatenate([t.children for t in job.tables]).astype(np.int64))
    rows = np.zeros((ranks, L.RANK_W), dtype=np.int64)
    dynamic = heap = unfinished = 0
    for rank in range(ranks):
        table = job.tables[job.rank_table[rank]]
        n = len(table.waiting)
        row = rows[rank]
        row[L.R_LEFT], row[L.R_STATIC], row[L.R_DYNAMIC] = n, starts[job.rank_table[rank]], dynamic
        row[L.R_HEAP : L.R_HEAP + L.CLASSES] = heap + table.heaps[:-1]
        unfinished += n > 0
        dynamic += n
        heap += n
    memory.scalars[L.UNFINISHED] = unfinished
    state = np.zeros((dynamic, L.STATE_W), dtype=np.int64)
    state[:, [L.S_START, L.S_END]] = -1
    ready = np.zeros(heap, dtype=np.int64)
    for rank in range(ranks):
        table = job.tables[job.rank_table[rank]]
        row = rows[rank]
        n = len(table.waiting)
        state[row[L.R_DYNAMIC] : row[L.R_DYNAMIC] + n, L.S_WAITING] = table.waiting
        free = np.flatnonzero(table.waiting == 0)
        cls = table.nodes.reshape(-1, L.NODE_W)[free, L.N_CLASS]
        for c in range(L.CLASSES):
            first = free[cls == c]  # ascending, hence a heap
            row[L.R_READY_LEN + c] = len(first)
            ready[row[L.R_HEAP + c] : row[L.R_HEAP + c] + len(first)] = first
    memory.region(L.RANK, rows.ravel())
    memory.region(L.STATE, state.ravel())
    memory.region(L.READY, ready)
