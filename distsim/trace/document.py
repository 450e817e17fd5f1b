"""A rank's trace with everything that its file says: the form that ``convert`` goes through, so that nothing is lost.

Slow and complete, where :mod:`~distsim.trace.chakra` is fast and keeps what a replay needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from distsim.trace.graph import CollectiveType, NodeType

#: Field numbers of AttributeProto's oneof: the scalar's, by kind; the list of a kind is one higher.
KIND_FIELDS = {
    "double": 3, "float": 5, "int32": 7, "int64": 9, "uint32": 11, "uint64": 13, "sint32": 15, "sint64": 17,
    "fixed32": 19, "fixed64": 21, "sfixed32": 23, "sfixed64": 25, "bool": 27, "string": 29, "bytes": 31,
}  # fmt: skip
#: all kinds: "int64", "int64_list", ...
KINDS = (*KIND_FIELDS, *(f"{kind}_list" for kind in KIND_FIELDS))

#: Attributes that are columns of a Program -> (column, kind that distsim writes)
COLUMN_ATTRIBUTES = {
    "is_cpu_op": ("cpu", "bool"), "num_ops": ("num_ops", "int64"), "tensor_size": ("tensor_size", "uint64"),
    "comm_type": ("collective", "int64"), "comm_size": ("bytes", "int64"), "comm_priority": ("priority", "int32"),
    "comm_tag": ("tag", "int32"), "comm_root": ("root", "int32"),
}  # fmt: skip

#: Chakra's number of each of distsim's operations, and the name of each number
OPERATIONS = {kind.name.lower(): int(kind) for kind in CollectiveType}
NODE_TYPES = {
    NodeType.METADATA: "metadata", NodeType.MEM_LOAD: "load", NodeType.MEM_STORE: "store", NodeType.COMP: "compute",
    NodeType.COMM_SEND: "send", NodeType.COMM_RECV: "receive", NodeType.DELAY: "delay",
}  # fmt: skip


@dataclass(slots=True)
class Attribute:
    """AttributeProto. ``kind`` None: it carries no value. Bytes are ``bytes``, lists are lists."""

    name: str
    kind: str | None = None
    value: Any = None
    doc: str = ""
    unknown: bytes = b""  #: protobuf fields that are not Chakra's, as they stood


@dataclass(slots=True)
class IOInfo:
    """Inputs or outputs of a node, as text."""

    values: str = ""
    shapes: str = ""
    types: str = ""


@dataclass(slots=True)
class Node:
    """Node message. Times in whole microseconds as in the file; ``attribute('duration_ps')`` is the exact one, if said."""

    id: int = 0
    name: str = ""
    type: int = 0
    ctrl_deps: list[int] = field(default_factory=list)
    data_deps: list[int] = field(default_factory=list)
    start_micros: int = 0
    duration_micros: int = 0
    inputs: IOInfo | None = None
    outputs: IOInfo | None = None
    attributes: list[Attribute] = field(default_factory=list)
    unknown: bytes = b""


@dataclass(slots=True)
class RankTrace:
    """What one rank's file holds."""

    version: str = ""
    attributes: list[Attribute] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    unknown: bytes = b""


@dataclass(frozen=True, slots=True)
class Document:
    """A whole trace; ``load(rank)`` reads one rank, so that a large trace is never in memory at once."""

    source: str
    ranks: int
    load: Callable[[int], RankTrace]
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()  #: file of each rank, for messages

    def __iter__(self) -> Iterator[RankTrace]:
        return (self.load(rank) for rank in range(self.ranks))

    def label(self, rank: int) -> str:
        """File of a rank."""
        return self.labels[rank] if self.labels else self.source


def integer(value: Any) -> int | None:
    """The whole number that an attribute means, as leniently as the kernels read it; None where it means none."""
    if isinstance(value, bool | int):
        return int(value)
    if isinstance(value, float):
        return int(value) if abs(value) < 2.0**62 else None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        digits = value.removeprefix("-")
        return int(value) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None
    return None


def columns_of(node: Node) -> dict[str, Any]:
    """What the node says in terms of Program's columns; names, groups and streams as text, a missing thing is left out."""
    said: dict[str, Any] = {"id": node.id, "type": node.type if 0 <= node.type < 127 else 127, "name": node.name or None}
    if node.duration_micros:
        said["duration_ps"] = node.duration_micros * 1_000_000
    if node.start_micros:
        said["start_ps"] = node.start_micros * 1_000_000
    for attribute in node.attributes:
        name, value = attribute.name, attribute.value
        if attribute.kind is None:
            continue
        if name == "involved_dim":
            if isinstance(value, list) and not attribute.kind.startswith(("float", "double", "string", "bytes")):
                said["dims"] = sum(1 << k for k, on in enumerate(value[:31]) if on)
            continue
        if name in ("pg_name", "stream"):
            if not isinstance(value, list):
                text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
                said["group" if name == "pg_name" else "stream"] = text
            continue
        number = integer(value)
        if number is None:
            continue
        if name in COLUMN_ATTRIBUTES:
            said[COLUMN_ATTRIBUTES[name][0]] = number
        elif name in ("duration_ps", "start_ps") and number >= 0:
            said[name] = number
        elif (name == "comm_src" and node.type == NodeType.COMM_RECV) or (
            name == "comm_dst" and node.type == NodeType.COMM_SEND
        ):
            said["peer"] = number
    if "collective" in said and not -1 <= said["collective"] < 127:
        said["collective"] = 127
    return said
