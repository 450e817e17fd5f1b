"""What each communicating kernel of a capture does: operation, bytes, communicator, root.

Told, in this order, by the kernel's own ``args`` (PyTorch 2.2 and later), by the record_param_comms, ``nccl:`` or ``c10d::``
operation that launched it (found by containment in time on the launching thread, or by External id), by the execution trace
beside the file, and by the kernel's name. Names of the fields: PyTorch, torch/csrc/profiler/util.h.
A communicator is a process group by name and ranks; where nothing names it, a stream: NCCL in PyTorch has one per communicator.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.trace.graph import CollectiveType
from distsim.trace.kineto.capture import Capture, GpuKind

Ints = NDArray[np.int64]
#: what is known of one operation: operation, in_bytes, out_bytes, uneven, name, ranks, size, root, peer, sending, sequence
Facts = dict[str, Any]

#: bytes of an element, by the names of c10::ScalarType and of the C++ types in Input type
_ITEM = {
    "double": 8, "float": 4, "half": 2, "bfloat16": 2, "long": 8, "longint": 8, "int": 4, "short": 2, "shortint": 2, "char": 1,
    "signedchar": 1, "byte": 1, "unsignedchar": 1, "bool": 1, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1,
    "uint16": 2, "unsignedshort": 2, "uint32": 4, "unsignedint": 4, "uint64": 8, "unsignedlong": 8, "float8e4m3fn": 1,
    "float8e5m2": 1, "float8e4m3fnuz": 1, "float8e5m2fnuz": 1, "float8e8m0fnu": 1, "complexfloat": 8, "complexdouble": 16,
    "complexhalf": 4, "float64": 8, "float32": 4, "float16": 2,
}  # fmt: skip

#: the first that a name begins with, letters only; "send" and "recv" are messages
_OPERATIONS = (
    ("barrier", CollectiveType.BARRIER), ("allreducebarrier", CollectiveType.BARRIER), ("allreduce", CollectiveType.ALL_REDUCE),
    ("allgather", CollectiveType.ALL_GATHER), ("reducescatter", CollectiveType.REDUCE_SCATTER),
    ("alltoall", CollectiveType.ALL_TO_ALL), ("broadcast", CollectiveType.BROADCAST), ("reduce", CollectiveType.REDUCE),
    ("gather", CollectiveType.GATHER), ("scatter", CollectiveType.SCATTER),
)  # fmt: skip
_MESSAGES = ("send", "recv")
_NAME = "name of the kernel"
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


def operation_of(name: str) -> CollectiveType | str | None:
    """The operation that a name of PyTorch stands for; "send" or "recv" for a message; None for another name.

    >>> operation_of("nccl:_reduce_scatter_base").name, operation_of("c10d::alltoall_base_").name, operation_of("recv")
    ('REDUCE_SCATTER', 'ALL_TO_ALL', 'recv')
    """
    letters = re.sub(r"[^a-z]", "", name.lower().split(":")[-1])
    if letters.startswith(_MESSAGES):
        return letters[:4]
    if "barrier" in letters:
        return CollectiveType.BARRIER
    return next((kind for start, kind in _OPERATIONS if letters.startswith(start)), None)


def item_size(dtype: object) -> int:
    """Bytes of an element; 0 where the type is not known."""
    name = re.sub(r"[^a-z0-9]", "", str(dtype).lower().removeprefix("c10::").removeprefix("torch."))
    return _ITEM.get(name, 0) or _ITEM.get(name.removesuffix("t"), 0)


def parse_ranks(text: object, size: int = 0) -> tuple[int, ...]:
    """Ranks of a list as a capture writes it; of a long one (more than 30) only the first 29 and the last are there, and
    the rest is filled in where they are evenly spaced and ``size`` bears it out. Empty where they cannot be known.

    >>> parse_ranks("[0, 8, 16, ..., 56]", 8)
    (0, 8, 16, 24, 32, 40, 48, 56)
    """
    if isinstance(text, (list, tuple)):
        return tuple(int(one) for one in text if isinstance(one, int))
    found = [int(one) for one in re.findall(r"\d+", str(text or ""))]
    if "..." not in str(text or ""):
        return tuple(found)
    head, last = found[:-1], found[-1] if found else 0
    strides = {b - a for a, b in itertools.pairwise(head)}
    if len(strides) != 1 or not size:
        return ()
    stride = strides.pop()
    ranks = tuple(range(head[0], head[0] + stride * size, stride)) if stride else ()
    return ranks if ranks and ranks[-1] == last else ()


def facts_of_args(args: Mapping[str, Any]) -> Facts:
    """What the arguments of a kernel or of a record_param_comms say."""
    facts: Facts = {}
    name = args.get("Collective name")
    if name:
        facts["operation"] = str(name)
    item = item_size(args.get("dtype", ""))
    for side, key in (("in_bytes", "In msg nelems"), ("out_bytes", "Out msg nelems")):
        count = args.get(key)
        if item and isinstance(count, (int, float)) and count >= 0:
            facts[side] = int(count) * item
    splits = str(args.get("In split size") or "")
    parts = re.findall(r"\d+", splits)
    if parts:
        facts["uneven"] = len(set(parts)) > 1 or "..." in splits
    size = args.get("Group size")
    if isinstance(size, int) and size > 0:
        facts["size"] = size
    for key, place in (("name", "Process Group Name"), ("root", "Rank"), ("sequence", "Seq")):
        if args.get(place) not in (None, ""):
            facts[key] = str(args[place]).strip('"')  # some versions quote twice
    ranks = parse_ranks(args.get("Process Group Ranks"), facts.get("size", 0))
    start, stride = args.get("Global rank start"), args.get("Global rank stride")
    if not ranks and isinstance(start, int) and isinstance(stride, int) and start >= 0 and stride > 0 and "size" in facts:
        ranks = tuple(range(start, start + stride * facts["size"], stride))
    if ranks:
        facts["ranks"] = ranks
    for key, sending in (("Dst Rank", True), ("Src Rank", False)):
        if isinstance(args.get(key), int) and args[key] >= 0 and operation_of(str(name)) in _MESSAGES:
            facts["peer"], facts["sending"] = args[key], sending
    return facts


def facts_of_op(name: str, args: Mapping[str, Any]) -> Facts:
    """What an ``nccl:`` annotation, a ``c10d::`` operator or an old record_param_comms says by name and Input Dims."""
    facts = facts_of_args(args)
    kind = operation_of(name)
    if kind is not None and "operation" not in facts:
        facts["operation"] = name
    sizes = _tensor_bytes(args.get("Input Dims"), args.get("Input type"))
    if name.startswith("nccl:") and sizes:
        facts.setdefault("in_bytes", sum(sizes))
    if name.startswith("c10d::") and len(sizes) > 1 and ("_base" in name):  # (output, input, ...)
        facts.setdefault("in_bytes", sizes[1])
        facts.setdefault("out_bytes", sizes[0])
        small, large = sorted(sizes[:2])
        if kind in (CollectiveType.ALL_GATHER, CollectiveType.REDUCE_SCATTER) and small and large % small == 0:
            facts.setdefault("size", large // small)
    if name == "record_param_comms" and sizes:
        facts.setdefault("in_bytes", sizes[0])
    return facts


def _tensor_bytes(dims: object, types: object) -> list[int]:
    """Bytes of the leading tensors of ``Input Dims``; a list of tensors counts as one."""
    sizes: list[int] = []
    if not isinstance(dims, list) or not isinstance(types, list):
        return sizes
    for shape, kind in zip(dims, types, strict=False):
        item = item_size(kind)
        if not item or not isinstance(shape, list):
            break
        shapes = shape if shape and isinstance(shape[0], list) else [shape]
        if not all(isinstance(d, int) for one in shapes for d in one):
            break
        sizes.append(item * sum(int(np.prod(one, dtype=np.int64)) for one in shapes))
    return sizes


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
            moved[facts["sending"]] += facts.get("in_bytes", facts.get("out_bytes", 0))
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
        if kind in _MESSAGES and peer is not None and mine >= 0:
            operation[k] = CollectiveType.BROADCAST  # to the only other member: a message for which both sides must be there
            root[k] = mine if facts["sending"] else peer
            made = _pair(facts, mine, peer)
        elif facts.get("operation") == "batch":
            operation[k] = CollectiveType.ALL_TO_ALL
            peers = facts["peers"]
            made = _pair(facts, mine, peers[0]) if len(peers) == 1 and mine >= 0 else Communicator("messages", kind="batch")
        else:
            operation[k] = kind if isinstance(kind, CollectiveType) else _by_name(capture.names[int(table.name[row])])
            made = _communicator(capture, facts if "name" in facts or "ranks" in facts else streams.get(stream, facts),
                                 stream, configured)  # fmt: skip
            if operation[k] in (CollectiveType.BROADCAST, CollectiveType.REDUCE, CollectiveType.SCATTER, CollectiveType.GATHER):
                root[k] = _number(facts.get("root"))
        side = "out_bytes" if operation[k] == CollectiveType.SCATTER and "out_bytes" in facts else "in_bytes"
        size[k] = facts.get(side, facts.get("out_bytes", -1) if kind in _MESSAGES else -1)
        if operation[k] == CollectiveType.BARRIER:
            size[k] = 0
        uneven[k] = operation[k] == CollectiveType.ALL_TO_ALL and bool(facts.get("uneven", False))
        sequence[k] = _number(facts.get("sequence"))
        key = (made.name, made.ranks)
        if key not in communicators:
            communicators[key] = len(listed)
            listed.append(made)
        which[k] = communicators[key]
        if made.size > listed[which[k]].size:
            listed[which[k]] = made
    guessed = np.array([one == _NAME for one in source], np.bool_)
    return Kernels(rows, operation, size, uneven, which, root, guessed, sequence, tuple(listed), dict(Counter(source)))


def _pair(facts: Facts, mine: int, peer: int) -> Communicator:
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
        mine = {key: facts[key] for key in ("name", "ranks", "size") if key in facts}
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
        size = size if isinstance(size, int) else 0
        ranks = parse_ranks(one.get("ranks"), size)
        if not ranks and size and size == capture.world_size:
            ranks = tuple(range(size))
        found[str(one["pg_name"])] = Communicator(str(one["pg_name"]), ranks, len(ranks) or size)
    return found


def _by_name(name: str) -> CollectiveType:
    """The operation that a kernel's name stands for; a kernel that serves several (ncclDevKernel_Generic): all-to-all."""
    letters = re.sub(r"[^a-z]", "", name.lower().split("(")[0])
    return next((kind for part, kind in _KERNELS if part in letters), CollectiveType.ALL_TO_ALL)


def _number(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        return -1
