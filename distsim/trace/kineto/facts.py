"""What the profiler's words about one communicating operation say: operation, bytes, process group, root, peer.

Names of the fields: PyTorch, torch/csrc/profiler/util.h.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from distsim.trace.graph import CollectiveType

#: ranks of a job, and bytes of an operation: numbers beyond are damaged ones, and count as not told
MOST_RANKS, MOST_BYTES = 1 << 20, 1 << 50
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

#: the first that a name begins with, letters only
_OPERATIONS = (
    ("barrier", CollectiveType.BARRIER), ("allreducebarrier", CollectiveType.BARRIER), ("allreduce", CollectiveType.ALL_REDUCE),
    ("allgather", CollectiveType.ALL_GATHER), ("reducescatter", CollectiveType.REDUCE_SCATTER),
    ("alltoall", CollectiveType.ALL_TO_ALL), ("broadcast", CollectiveType.BROADCAST), ("reduce", CollectiveType.REDUCE),
    ("gather", CollectiveType.GATHER), ("scatter", CollectiveType.SCATTER),
)  # fmt: skip
#: operations between two ranks
MESSAGES = ("send", "recv")


@lru_cache(maxsize=4096)
def operation_of(name: str) -> CollectiveType | str | None:
    """The operation that a name of PyTorch stands for; "send" or "recv" for a message; None for another name.

    >>> operation_of("nccl:_reduce_scatter_base").name, operation_of("c10d::alltoall_base_").name, operation_of("recv")
    ('REDUCE_SCATTER', 'ALL_TO_ALL', 'recv')
    """
    letters = re.sub(r"[^a-z]", "", name.lower().split(":")[-1])
    if letters.startswith(MESSAGES):
        return letters[:4]
    if "barrier" in letters:
        return CollectiveType.BARRIER
    return next((kind for start, kind in _OPERATIONS if letters.startswith(start)), None)


@lru_cache(maxsize=4096)
def item_size(dtype: str) -> int:
    """Bytes of an element; 0 where the type is not known."""
    name = re.sub(r"[^a-z0-9]", "", dtype.lower().removeprefix("c10::").removeprefix("torch."))
    return _ITEM.get(name, 0) or _ITEM.get(name.removesuffix("t"), 0)


def parse_ranks(text: object, size: int = 0) -> tuple[int, ...]:
    """Ranks of a list as a capture writes it; of a long one (more than 30) only the first 29 and the last are there, and
    the rest is filled in where they are evenly spaced and ``size`` bears it out. Empty where they cannot be known.

    >>> parse_ranks("[0, 8, 16, ..., 56]", 8)
    (0, 8, 16, 24, 32, 40, 48, 56)
    """
    if isinstance(text, (list, tuple, range)):
        ranks = tuple(int(one) for one in text if isinstance(one, int))
    else:
        ranks = _parsed(str(text or ""), size)
    return ranks if all(0 <= one < MOST_RANKS for one in ranks) else ()


@lru_cache(maxsize=4096)
def _parsed(text: str, size: int) -> tuple[int, ...]:
    digits = re.findall(r"\d+", text)
    found = [int(one) if len(one) < 19 else MOST_RANKS for one in digits]
    if "..." not in text:
        return tuple(found)
    head, last = found[:-1], found[-1] if found else 0
    strides = {b - a for a, b in itertools.pairwise(head)}
    if len(strides) != 1 or not 0 < size <= MOST_RANKS:
        return ()
    stride = strides.pop()
    ranks = tuple(range(head[0], head[0] + stride * size, stride)) if stride else ()
    return ranks if ranks and ranks[-1] == last else ()


#: words that facts are made of, but for the operation's number: operations of one kind repeat them thousands of times
_WORDS = (
    "Collective name", "dtype", "In msg nelems", "Out msg nelems", "In split size", "Group size", "Process Group Name", "Rank",
    "Process Group Ranks", "Global rank start", "Global rank stride", "Dst Rank", "Src Rank",
)  # fmt: skip


def facts_of_args(args: Mapping[str, Any]) -> Facts:
    """What the arguments of a kernel or of a record_param_comms say."""
    values = tuple(map(args.get, _WORDS))
    try:
        facts = dict(_facts_of(values, tuple(map(type, values))))
    except TypeError:  # a list among them, which has no hash
        facts = _facts_of.__wrapped__(values, ())
    if args.get("Seq") not in (None, ""):
        facts["sequence"] = str(args["Seq"]).strip('"')
    return facts


@lru_cache(maxsize=4096)
def _facts_of(values: tuple[Any, ...], _types: tuple[type, ...]) -> Facts:
    """Facts of the values of ``_WORDS``; ``_types`` keep apart what is equal (1, 1.0 and True)."""
    args = dict(zip(_WORDS, values, strict=True))
    facts: Facts = {}
    name = args.get("Collective name")
    if name:
        facts["operation"] = str(name)
    item = item_size(str(args.get("dtype", "")))
    for side, key in (("in_bytes", "In msg nelems"), ("out_bytes", "Out msg nelems")):
        count = args.get(key)
        if item and isinstance(count, (int, float)) and 0 <= count * item < MOST_BYTES:
            facts[side] = int(count) * item
    splits = str(args.get("In split size") or "")
    parts = re.findall(r"\d+", splits)
    if parts:
        facts["uneven"] = len(set(parts)) > 1 or "..." in splits
    size = args.get("Group size")
    if isinstance(size, int) and 0 < size <= MOST_RANKS:
        facts["size"] = size
    for key, place in (("name", "Process Group Name"), ("root", "Rank")):
        if args.get(place) not in (None, ""):
            facts[key] = str(args[place]).strip('"')  # some versions quote twice
    ranks = parse_ranks(args.get("Process Group Ranks"), facts.get("size", 0))
    start, stride = args.get("Global rank start"), args.get("Global rank stride")
    if not ranks and isinstance(start, int) and isinstance(stride, int) and start >= 0 and stride > 0 and "size" in facts:
        ranks = parse_ranks(range(start, start + stride * facts["size"], stride))
    if ranks:
        facts["ranks"] = ranks
    for key, sending in (("Dst Rank", True), ("Src Rank", False)):
        if isinstance(args.get(key), int) and 0 <= args[key] < MOST_RANKS and operation_of(str(name)) in MESSAGES:
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
        item = item_size(str(kind))
        if not item or not isinstance(shape, list):
            break
        shapes = shape if shape and isinstance(shape[0], list) else [shape]
        if not all(isinstance(one, list) and all(isinstance(d, int) for d in one) for one in shapes):
            break
        moved = item * sum(math.prod(one) for one in shapes)
        if not 0 <= moved < MOST_BYTES:
            break
        sizes.append(moved)
    return sizes
