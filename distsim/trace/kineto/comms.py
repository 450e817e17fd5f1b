"""What each communicating kernel of a capture does: operation, bytes, communicator, root.

Told, in this order, by the kernel's own ``args`` (PyTorch 2.2 and later), by the record_param_comms, ``nccl:`` or ``c10d::``
operation that launched it (found by containment in time on the launching thread, or by External id), by the execution trace
beside the file, and by the kernel's name.
A communicator is a process group by name and ranks; where nothing names it, a stream: NCCL in PyTorch has one per communicator.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.trace.graph import CollectiveType
from distsim.trace.kineto.capture import Capture, GpuKind
from distsim.trace.kineto.facts import MESSAGES, MOST_RANKS, Facts, facts_of_args, facts_of_op, operation_of, parse_ranks

Ints = NDArray[np.int64]
_NAME = "name of the kernel"
_ROOTED = (CollectiveType.BROADCAST, CollectiveType.REDUCE, CollectiveType.SCATTER, CollectiveType.GATHER)
_SCATTER, _BARRIER = CollectiveType.SCATTER, CollectiveType.BARRIER
#: what NCCL's kernels are called after; SendRecv moves an all-to-all, or messages
_KERNELS = (
    ("allreduce", CollectiveType.ALL_REDUCE), ("allgather", CollectiveType.ALL_GATHER),
    ("reducescatter", CollectiveType.REDUCE_SCATTER), ("broadcast", CollectiveType.BROADCAST),
    ("alltoall", CollectiveType.ALL_TO_ALL), ("sendrecv", CollectiveType.ALL_TO_ALL), ("reduce", CollectiveType.REDUCE),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Communicator:
    """Who takes part, as one capture tells it."""

    name: str
    ranks: tuple[int, ...] = ()  #: of the whole job, in the communicator's order; empty: not told
    size: int = 0  #: 0: not told
    kind: str = "group"  #: group; pair (for messages); stream (that nothing else names); batch (of messages to several)


@dataclass(frozen=True, slots=True, eq=False)
class Kernels:
    """The communicating kernels of one capture, in order of their starts."""

    row: Ints  #: of Capture.kernels
    operation: NDArray[np.int8]  #: CollectiveType
    bytes: Ints  #: per-rank input; -1: not told
    uneven: NDArray[np.bool_]  #: the parts that it sends differ in size, or may
    communicator: NDArray[np.int32]  #: index into ``communicators``
    root: NDArray[np.int32]  #: source of a message, as rank of the whole job; of a rooted collective: index in its group; -1
    guessed: NDArray[np.bool_]  #: nothing but the kernel's name tells the operation
    sequence: Ints  #: number of the operation on its communicator; -1: not told
    communicators: tuple[Communicator, ...]
    told_by: Mapping[str, int]  #: what the operation is known from -> kernels

    def __len__(self) -> int:
        return len(self.row)


def identify(capture: Capture, told: Mapping[int, Facts] | None = None, rank: int | None = None) -> Kernels:
    """The communicating kernels of a capture.

    Args:
        rank: whose capture it is; default: what it says itself.
        told: facts of the execution trace, by row of ``capture.ops`` (:func:`execution_trace.link`).
    """
    table = capture.kernels
    rows = np.flatnonzero(table.kind == GpuKind.COMMUNICATION)
    chains = _Chains(capture)
    found = [_facts(capture, chains, row, told or {}) for row in rows.tolist()]
    mine = capture.rank if rank is None else rank
    return _columns(capture, mine, rows, [facts for facts, _ in found], [source for _, source in found])


class _Chains:
    """Which host operations contain an instant of a thread, the innermost first."""

    def __init__(self, capture: Capture) -> None:
        ops, calls, kernels = capture.ops, capture.calls, capture.kernels
        self._end = ops.end_ps.tolist()
        self._parent = [-1] * len(ops)
        self._rows: dict[int, tuple[list[int], NDArray[np.int64]]] = {}
        self._by_external = {number: row for row, number in enumerate(ops.external.tolist()) if number >= 0}
        self._last: dict[int, list[int]] = {}  #: issue times of communicating kernels, by thread
        for thread in np.unique(ops.thread).tolist():
            rows = np.flatnonzero(ops.thread == thread)
            self._rows[thread] = rows.tolist(), ops.start_ps[rows]
            stack: list[int] = []
            for row, end in zip(rows.tolist(), ops.end_ps[rows].tolist(), strict=True):
                while stack and self._end[stack[-1]] < end:
                    stack.pop()
                self._parent[row] = stack[-1] if stack else -1
                stack.append(row)
        launches = kernels.launch[(kernels.kind == GpuKind.COMMUNICATION) & (kernels.launch >= 0)]
        for thread in np.unique(calls.thread[launches]).tolist():
            self._last[thread] = np.unique(calls.start_ps[launches[calls.thread[launches] == thread]]).tolist()

    def at(self, thread: int, time: int) -> list[int]:
        """Rows of Capture.ops that contain an instant."""
        if thread not in self._rows:
            return []
        rows, starts = self._rows[thread]
        place = int(np.searchsorted(starts, time, side="right")) - 1
        return self._up(rows[place], time) if place >= 0 else []

    def named(self, external: int) -> list[int]:
        """The row with this External id and those around it."""
        row = self._by_external.get(external, -1)
        return self._up(row, -1) if row >= 0 else []

    def before(self, thread: int, time: int) -> list[int]:
        """Rows that ended between the thread's previous communicating launch and this one: what a batch was made of."""
        if thread not in self._rows:
            return []
        rows, starts = self._rows[thread]
        issued = self._last.get(thread, [])
        place = int(np.searchsorted(np.array(issued, np.int64), time)) - 1
        first = int(np.searchsorted(starts, issued[place], side="right")) if place >= 0 else 0
        return [row for row in rows[first : int(np.searchsorted(starts, time))] if self._end[row] <= time]

    def _up(self, row: int, time: int) -> list[int]:
        found = []
        while row >= 0:
            if self._end[row] >= time:
                found.append(row)
            row = self._parent[row]
        return found


def _facts(capture: Capture, chains: _Chains, row: int, told: Mapping[int, Facts]) -> tuple[Facts, str]:
    """All that is known of a kernel, and what told the operation."""
    table, ops = capture.kernels, capture.ops
    own = facts_of_args(table.args.get(row, {}))
    launch = int(table.launch[row])
    around: list[int] = []
    if launch >= 0:
        around = chains.at(int(capture.calls.thread[launch]), int(capture.calls.start_ps[launch]))
    if not around and table.external[row] != table.correlation[row]:
        around = chains.named(int(table.external[row]))
    traced: Facts = {}
    host: Facts = {}
    for op in around:  # the innermost first
        for key, value in told.get(op, {}).items():
            traced.setdefault(key, value)
        for key, value in facts_of_op(capture.names[int(ops.name[op])], ops.args[op]).items():
            host.setdefault(key, value)
    facts = {**traced, **host, **own}
    for source, part in (("kernel", own), ("host operation", host), ("execution trace", traced)):
        if operation_of(str(part.get("operation", ""))) is not None:
            return facts, source
    if launch >= 0:
        batch = _batch(capture, chains, launch)
        if batch:
            return {**facts, **batch}, "batch of messages"
    return facts, _NAME


def _batch(capture: Capture, chains: _Chains, launch: int) -> Facts:
    """Sends and receives that were collected before and set out together in one kernel."""
    ops = capture.ops
    peers: set[int] = set()
    moved = {True: 0, False: 0}
    name: Any = None
    for op in chains.before(int(capture.calls.thread[launch]), int(capture.calls.start_ps[launch])):
        facts = facts_of_args(ops.args[op])
        if "peer" in facts:
            peers.add(facts["peer"])
            moved[facts["sending"]] += facts["in_bytes"] if "in_bytes" in facts else facts.get("out_bytes", 0)
            name = facts.get("name", name)
    if not peers:
        return {}
    found: Facts = {"operation": "batch", "peers": tuple(sorted(peers)), "in_bytes": 2 * max(moved.values())}
    return {**found, "name": name} if name is not None else found


def _columns(capture: Capture, mine: int, rows: Ints, found: Sequence[Facts], source: Sequence[str]) -> Kernels:
    """Facts as columns; communicators are numbered as they come."""
    table = capture.kernels
    communicators: dict[tuple[object, ...], int] = {}
    listed: list[Communicator] = []
    n = len(rows)
    operation, size = np.zeros(n, np.int8), np.full(n, -1, np.int64)
    uneven, which = np.zeros(n, np.bool_), np.full(n, -1, np.int32)
    root, sequence = np.full(n, -1, np.int32), np.full(n, -1, np.int64)
    configured = _configured(capture)
    streams = _streams_told(table.stream[rows], found)
    for k, (row, facts) in enumerate(zip(rows.tolist(), found, strict=True)):
        kind = operation_of(str(facts.get("operation", "")))
        peer = facts.get("peer")
        stream = int(table.stream[row])
        if kind in MESSAGES and peer is not None and mine >= 0:
            operation[k] = CollectiveType.BROADCAST  # to the only other member: a message for which both sides must be there
            root[k] = mine if facts["sending"] else peer
            made = _pair(mine, peer)
        elif facts.get("operation") == "batch":
            operation[k] = CollectiveType.ALL_TO_ALL
            peers = facts["peers"]
            made = _pair(mine, peers[0]) if len(peers) == 1 and mine >= 0 else Communicator("messages", kind="batch")
        else:
            operation[k] = kind if isinstance(kind, CollectiveType) else _by_name(capture.names[int(table.name[row])])
            made = _communicator(capture, facts if "name" in facts or "ranks" in facts else streams.get(stream, facts),
                                 stream, configured)  # fmt: skip
            if kind in _ROOTED:
                root[k] = _number(facts.get("root"), MOST_RANKS)
        sides = ("out_bytes", "in_bytes") if kind is _SCATTER else ("in_bytes", "out_bytes" if kind in MESSAGES else "")
        size[k] = 0 if kind is _BARRIER else next((facts[side] for side in sides if side in facts), -1)
        uneven[k] = bool(facts.get("uneven", False))
        sequence[k] = _number(facts.get("sequence"), 1 << 62)
        key = (made.name, made.ranks)
        if key not in communicators:
            communicators[key] = len(listed)
            listed.append(made)
        which[k] = communicators[key]
        if made.size > listed[which[k]].size:
            listed[which[k]] = made
    guessed = np.array([one == _NAME for one in source], np.bool_)
    return Kernels(rows, operation, size, uneven, which, root, guessed, sequence, tuple(listed), dict(Counter(source)))


def _pair(mine: int, peer: int) -> Communicator:
    low, high = sorted((mine, peer))
    return Communicator(f"ranks {low} and {high}", (low, high), 2, "pair")


def _communicator(capture: Capture, facts: Facts, stream: int, configured: Mapping[str, Communicator]) -> Communicator:
    """The communicator that facts tell of."""
    if "name" not in facts and "ranks" not in facts:
        device, number = capture.streams[stream]
        return Communicator(f"stream {number} of device {device}", (), facts.get("size", 0), "stream")
    name = str(facts.get("name", ""))
    known = configured.get(name)
    ranks = facts.get("ranks", ()) or (known.ranks if known else ())
    size = len(ranks) or facts.get("size", 0) or (known.size if known else 0)
    return Communicator(f"pg {name}" if name else f"ranks {','.join(map(str, ranks))}", tuple(ranks), size)


def _streams_told(stream: NDArray[np.int32], found: Sequence[Facts]) -> dict[int, Facts]:
    """Stream -> what its kernels agree on about their communicator: it serves those whose launch the file lacks."""
    told: dict[int, Facts] = {}
    apart: set[int] = set()
    for at, facts in zip(stream.tolist(), found, strict=True):
        mine: Facts = {key: facts[key] for key in ("name", "ranks", "size") if key in facts}
        if not mine or "peer" in facts or "peers" in facts:
            continue
        if at in told and any(told[at].get(key, value) != value for key, value in mine.items()):
            apart.add(at)
        told[at] = {**mine, **told.get(at, {})}
    return {at: facts for at, facts in told.items() if at not in apart}


def _configured(capture: Capture) -> dict[str, Communicator]:
    """Process groups that distributedInfo lists, by name."""
    found: dict[str, Communicator] = {}
    config = capture.distributed.get("pg_config")
    for one in config if isinstance(config, list) else []:
        if not isinstance(one, dict) or "pg_name" not in one:
            continue
        size = one.get("pg_size", one.get("group_size", 0))
        size = size if isinstance(size, int) and 0 < size <= MOST_RANKS else 0
        ranks = parse_ranks(one.get("ranks"), size)
        if not ranks and size and size == capture.world_size:
            ranks = tuple(range(size))
        found[str(one["pg_name"])] = Communicator(str(one["pg_name"]), ranks, len(ranks) or size)
    return found


def _by_name(name: str) -> CollectiveType:
    """The operation that a kernel's name stands for; a kernel that serves several (ncclDevKernel_Generic): all-to-all."""
    letters = re.sub(r"[^a-z]", "", name.lower().split("(")[0])
    return next((kind for part, kind in _KERNELS if part in letters), CollectiveType.ALL_TO_ALL)


def _number(value: object, below: int) -> int:
    """A number that a capture tells; -1 where it is none, or beyond what can be."""
    try:
        number = int(str(value))
    except ValueError:
        return -1
    return number if 0 <= number < below else -1
