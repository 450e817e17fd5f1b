"""The shape of the native ``trace.json``: pydantic models, from which its JSON Schema is printed (``distsim trace --schema``).

Version 1. Sizes and counts are numbers or text (``"64MiB"``, ``"1.2T"``), times text (``"1.5ms"``) or nanoseconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

FORMAT = "distsim-trace/1"

Amount = Annotated[int | str, Field(description="a number, or text such as 64MiB, 1.5GB or 1.2T")]
Time = Annotated[int | str, Field(description="text such as 1.5ms or 20us, or a number of nanoseconds")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Attr(_Model):
    """An attribute that has no field of its own, kept as the source file had it."""

    name: str
    kind: str | None = Field(None, description="protobuf kind: int64, bool_list, bytes (base64) ...; none: it holds no value")
    value: Any = None
    doc: str = ""
    unknown: str = Field("", description="foreign protobuf fields, base64")


class IO(_Model):
    """Inputs or outputs of a node, as text."""

    values: str = ""
    shapes: str = ""
    types: str = ""


class NodeSpec(_Model):
    """One node. Only ``op`` is required; a node without ``after`` follows the node written before it."""

    op: str = Field(
        description="compute, load, store, send, receive, metadata, delay (a latency; it holds the stream that it names), or a "
        "collective: all_reduce, reduce_scatter, all_gather, all_to_all, broadcast, reduce, gather, scatter, barrier, "
        "reduce_scatter_block"
    )
    name: str = Field("", description="for messages and for `after`; {i} is the index of the enclosing repeat, {i-1} works too")
    id: int | None = Field(None, description="default: one more than the node before")
    after: int | str | list[int | str] | None = Field(
        None,
        description="nodes that must finish first, by id or name (the latest of that name); [] = none; 'x?' = x if it exists",
    )
    control: list[int] | None = Field(None, description="further ids to wait for: control dependencies of Chakra")
    duration: Time | None = Field(None, description="recorded duration")
    start: Time | None = Field(None, description="recorded start")
    num_ops: Amount | None = Field(None, description="floating-point operations, for a roofline")
    tensor_size: Amount | None = Field(None, description="bytes of memory traffic, for a roofline")
    cpu: bool | None = Field(None, description="runs on the host")
    bytes: Amount | None = Field(None, description="per-rank input of a collective, message of a send or receive")
    group: str | None = Field(None, description="communicator group; default: all ranks")
    peer: int | str | None = Field(
        None,
        description="other side of a send or receive: a rank, or '+1', '-2': relative to this rank (in the group, if given)",
    )
    tag: int | None = None
    priority: int | None = None
    root: int | None = Field(None, description="index of the root in the group")
    dims: list[int] | None = Field(None, description="topology dimensions that take part; default: all")
    stream: int | str | None = Field(None, description="stream of the device; default: by kind of node")
    step: str | None = Field(None, description="iteration of a captured trace that it belongs to, by name")
    attrs: list[Attr] | None = None
    inputs: IO | None = None
    outputs: IO | None = None
    unknown: str | None = Field(None, description="foreign protobuf fields, base64")


class Repeat(_Model):
    """``nodes`` written ``repeat`` times; the first node of each round without ``after`` follows the round before."""

    repeat: int = Field(ge=0)
    index: str = Field("i", description="name of the counter in {…}")
    reverse: bool = Field(False, description="count down to 0 instead of up from 0")
    after: int | str | list[int | str] | None = Field(None, description="what the first node of the first round follows")
    nodes: list[Step]


def _kind(value: Any) -> str:
    repeated = "repeat" in value if isinstance(value, dict) else isinstance(value, Repeat)
    return "repeat" if repeated else "node"


Step = Annotated[Annotated[NodeSpec, Tag("node")] | Annotated[Repeat, Tag("repeat")], Discriminator(_kind)]


class Head(_Model):
    """What the source file said about itself."""

    version: str = ""
    attrs: list[Attr] = []
    unknown: str = ""


class ProgramSpec(_Model):
    """Nodes, and the ranks that run them."""

    name: str = ""
    ranks: str | list[int] = Field("all", description='"all", "0-7", "0-62:2" (every second), "0,4,8-11", or a list')
    head: Head | None = None
    nodes: list[Step]


class RelativeGroup(_Model):
    """All ranks split into groups of ``size`` ranks that are ``stride`` apart."""

    size: int = Field(gt=0)
    stride: int = Field(1, gt=0)


class TraceSpec(_Model):
    """A whole trace."""

    format: Literal["distsim-trace/1"]
    name: str = ""
    description: str = ""
    ranks: int | None = Field(
        None, gt=0, description="number of ranks; default: one more than the highest that a program names"
    )
    groups: dict[str, RelativeGroup | list[int] | list[list[int]]] = {}
    metadata: dict[str, str] = {}
    captured: bool = Field(False, description="recorded on a real system: durations of collectives are their transfer times")
    programs: list[ProgramSpec]


def schema() -> dict[str, Any]:
    """JSON Schema of a trace file."""
    return TraceSpec.model_json_schema()
