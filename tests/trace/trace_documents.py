"""Random documents (the complete form of a trace) for the round-trip and parity laws."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

from hypothesis import strategies as st

from distsim.trace import chakra
from distsim.trace.document import KIND_FIELDS, KINDS, Attribute, IOInfo, Node, RankTrace
from distsim.trace.files import Located, RankFile
from distsim.trace.graph import Program

_FLOAT = st.floats(allow_nan=False, width=32)
_INTEGERS = {
    kind: st.integers(
        0 if kind.startswith(("u", "fixed")) else -(1 << bits - 1),
        (1 << (bits if kind.startswith(("u", "fixed")) else bits - 1)) - 1,
    )
    for kind in KIND_FIELDS
    for bits in [32 if kind.endswith("32") else 64]
    if kind[-2:] in ("32", "64")
}
_SCALARS: dict[str, st.SearchStrategy[Any]] = _INTEGERS | {
    "double": st.floats(allow_nan=False),
    "float": _FLOAT.map(lambda v: struct.unpack("<f", struct.pack("<f", v))[0]),
    "bool": st.booleans(),
    "string": st.text(max_size=5),
    "bytes": st.binary(max_size=5),
}
#: what a replay reads, with kinds that writers use; values stay in range of their columns
KNOWN = {
    "is_cpu_op": ("bool", "int32", "int64"),
    "num_ops": ("int64", "uint64", "double"),
    "tensor_size": ("uint64", "int64", "fixed64"),
    "comm_type": ("int64", "int32", "uint32"),
    "comm_size": ("int64", "uint64", "string"),
    "comm_priority": ("int32", "sint32"),
    "comm_tag": ("int32", "sint64"),
    "comm_src": ("int32", "uint32"),
    "comm_dst": ("int32", "sfixed32"),
    "comm_root": ("int32",),
    "pg_name": ("string", "int64", "bytes"),
    "stream": ("int64", "string"),
    "involved_dim": ("bool_list", "int32_list"),
    "duration_ps": ("int64",),
    "start_ps": ("int64",),
}


@st.composite
def known_attributes(draw: st.DrawFn) -> Attribute:
    name = draw(st.sampled_from(sorted(KNOWN)))
    kind = draw(st.sampled_from([*KNOWN[name], None]))
    number = draw(st.integers(0, 9) if name == "comm_type" else st.integers(0, 5_000_000))
    if kind is None:
        value: Any = None
    elif kind.endswith("_list"):
        value = draw(st.lists(st.booleans() if kind == "bool_list" else st.integers(0, 1), max_size=5))
    else:
        value = {"bool": bool(number % 2), "double": float(number), "string": str(number), "bytes": str(number).encode()}.get(
            kind, number
        )
    return Attribute(name, kind, value, draw(st.sampled_from(["", "", "", "a doc"])))


@st.composite
def other_attributes(draw: st.DrawFn) -> Attribute:
    kind = draw(st.sampled_from([*KINDS, None]))
    value: Any = None
    if kind is not None:
        scalar = _SCALARS[kind.removesuffix("_list")]
        value = draw(st.lists(scalar, max_size=3) if kind.endswith("_list") else scalar)
    return Attribute("x" + draw(st.text("abc_", max_size=6)), kind, value, draw(st.sampled_from(["", "doc"])))


def _unique(attributes: list[Attribute]) -> list[Attribute]:
    return list({a.name: a for a in attributes}.values())


attributes = st.lists(known_attributes() | other_attributes(), max_size=6).map(_unique)
ios = st.none() | st.builds(IOInfo, st.text(max_size=3), st.text(max_size=3), st.text(max_size=3))


@st.composite
def rank_traces(draw: st.DrawFn, dangling: bool = False) -> RankTrace:
    count = draw(st.integers(0, 6))
    ids = draw(st.lists(st.integers(0, 1 << 40), min_size=count, max_size=count, unique=True))
    if draw(st.booleans()):
        ids = list(range(count))
    pool = [*ids, 1 << 41] if dangling else ids
    deps = st.lists(st.sampled_from(pool), max_size=3) if pool else st.just([])
    nodes = [
        Node(
            number,
            draw(st.text(max_size=4)),
            draw(st.integers(1, 7)),
            draw(deps),
            draw(deps),
            draw(st.integers(0, 10**9)),
            draw(st.integers(0, 10**9)),
            draw(ios),
            draw(ios),
            draw(attributes),
        )
        for number in ids
    ]
    return RankTrace(draw(st.sampled_from(["", "0.0.4"])), draw(st.lists(other_attributes(), max_size=2).map(_unique)), nodes)


def plain(trace: RankTrace) -> Any:
    """For comparing: the order of a node's attributes says nothing."""
    nodes = [
        (
            n.id,
            n.name,
            n.type,
            n.ctrl_deps,
            n.data_deps,
            n.start_micros,
            n.duration_micros,
            n.inputs,
            n.outputs,
            n.unknown,
            sorted((a.name, a.kind or "", repr(a.value), a.doc, a.unknown) for a in n.attributes),
        )
        for n in trace.nodes
    ]
    return trace.version, sorted(repr(a) for a in trace.attributes), trace.unknown, nodes


def resolved(graph: chakra.Decoded) -> list[dict[str, Any]]:
    """Programs with text for numbers of text, so that graphs from two readers compare."""
    texts = {"name": list(graph.names), "group": list(graph.groups), "stream": list(graph.streams)}
    found = []
    for program in graph.programs:
        said = {field.name: getattr(program, field.name) for field in dataclasses.fields(Program)}
        columns = {name: None if column is None else column.tolist() for name, column in said.items()}
        for column, known in texts.items():
            columns[column] = [None if k < 0 else known[k] for k in columns[column]]
        columns["name"] = [name or None for name in columns["name"]]
        found.append(columns)
    return found


def located(files: list[bytes]) -> Located:
    return Located("t", "et", tuple(RankFile(r, f"t.{r}.et", lambda data=data: data) for r, data in enumerate(files)))  # type: ignore[misc]
