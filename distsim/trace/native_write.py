"""Writing the native form: nodes of documents or of a TaskGraph as its node objects, and the file around them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distsim.trace.chakra_json import io_out, to_json_value
from distsim.trace.document import COLUMN_ATTRIBUTES, NODE_TYPES, Attribute, Document, Node, RankTrace
from distsim.trace.graph import CollectiveType, NodeType, PeerKind, Program, TaskGraph

FORMAT = "distsim-trace/1"  # NOTE: also in native_model, which costs an import of pydantic
_COLLECTIVE_NAMES = {int(kind): kind.name.lower() for kind in CollectiveType}
#: columns that a native node names otherwise than Program does
_FIELDS = {"cpu": "cpu", "num_ops": "num_ops", "tensor_size": "tensor_size", "bytes": "bytes", "priority": "priority",
           "tag": "tag", "root": "root"}  # fmt: skip


def time_text(ps: int) -> str:
    """Exact text of a time: ``1500us``, ``20ns``, ``3ps``."""
    for unit, factor in (("us", 1_000_000), ("ns", 1_000)):
        if ps % factor == 0:
            return f"{ps // factor}{unit}"
    return f"{ps}ps"


def op_name(kind: int, collective: int) -> str:
    """``op`` of a node."""
    if kind == NodeType.COMM_COLL:
        return _COLLECTIVE_NAMES.get(collective, "collective")
    return NODE_TYPES.get(NodeType(kind), f"type {kind}") if 0 <= kind < len(NodeType) else f"type {kind}"


def _attr(attribute: Attribute) -> dict[str, Any]:
    out: dict[str, Any] = {"name": attribute.name}
    if attribute.kind is not None:
        out |= {"kind": attribute.kind, "value": to_json_value(attribute.kind, attribute.value)}
    if attribute.doc:
        out["doc"] = attribute.doc
    if attribute.unknown:
        out["unknown"] = base64.b64encode(attribute.unknown).decode()
    return out


def _exact(node: Node, name: str, micros: int) -> tuple[int | None, Attribute | None]:
    """(picoseconds that the node object says, attribute that this covers)."""
    for attribute in node.attributes:
        if attribute.name == name and attribute.kind == "int64" and not attribute.doc and not attribute.unknown:
            ps = int(attribute.value)
            if ps >= 0 and (ps % 1_000_000 or ps == 0) and round(ps / 1_000_000) == micros:
                return ps, attribute
            break
    return (micros * 1_000_000 if micros else None), None


def node_object(node: Node) -> dict[str, Any]:
    """A document's node as a native node. Fields hold what they can hold exactly; the rest stands in ``attrs``."""
    out: dict[str, Any] = {"op": "", "id": node.id, "after": node.data_deps}
    if node.name:
        out["name"] = node.name
    if node.ctrl_deps:
        out["control"] = node.ctrl_deps
    covered = []
    for key, exact, micros in (("start", "start_ps", node.start_micros), ("duration", "duration_ps", node.duration_micros)):
        ps, attribute = _exact(node, exact, micros)
        if ps is not None:
            out[key] = time_text(ps)
        if attribute is not None:
            covered.append(id(attribute))
    rest: list[Attribute] = []
    operation = -1
    for attribute in node.attributes:
        if id(attribute) in covered:
            continue
        field = _field_for(attribute, node.type)
        repeated = any(other.name == attribute.name for other in rest)
        if field is None or field in out or repeated or (field == "op" and operation >= 0):
            rest.append(attribute)
        elif field == "op":
            operation = int(attribute.value)
        else:
            out[field] = attribute.value
    out["op"] = op_name(node.type, operation)
    if rest:
        out["attrs"] = [_attr(attribute) for attribute in rest]
    for key, io in (("inputs", node.inputs), ("outputs", node.outputs)):
        if io is not None:
            out[key] = io_out(io)
    if node.unknown:
        out["unknown"] = base64.b64encode(node.unknown).decode()
    return out


def _field_for(attribute: Attribute, node_type: int) -> str | None:
    """The field of a native node that says exactly this attribute, if there is one."""
    name, kind, value = attribute.name, attribute.kind, attribute.value
    if attribute.doc or attribute.unknown or kind is None:
        return None
    if name == "comm_type":
        known = kind == "int64" and node_type == NodeType.COMM_COLL and value in _COLLECTIVE_NAMES
        return "op" if known else None
    if name in COLUMN_ATTRIBUTES:
        column, canonical = COLUMN_ATTRIBUTES[name]
        return _FIELDS[column] if kind == canonical and (kind == "bool" or value >= 0) else None
    if name == "pg_name" and kind == "string":
        return "group"
    if name == "stream" and kind in ("int64", "string"):
        return "stream"
    ends = {NodeType.COMM_SEND: "comm_dst", NodeType.COMM_RECV: "comm_src"}
    if kind == "int32" and value >= 0 and 0 <= node_type <= 7 and ends.get(NodeType(node_type)) == name:
        return "peer"
    return None


def row_object(graph: TaskGraph, program: Program, row: int) -> dict[str, Any]:
    """A row of a TaskGraph as a native node."""
    kind = int(program.type[row])
    deps = program.dep[program.dep_ptr[row] : program.dep_ptr[row + 1]]
    out: dict[str, Any] = {"op": op_name(kind, int(program.collective[row])), "id": int(program.id[row]),
                           "after": program.id[deps].tolist()}  # fmt: skip
    if program.name[row] >= 0:
        out["name"] = graph.names[program.name[row]]
    for key, ps in (("start", int(program.start_ps[row])), ("duration", int(program.duration_ps[row]))):
        if ps >= 0:
            out[key] = time_text(ps)
    for column, missing in (("num_ops", -1), ("tensor_size", -1), ("bytes", -1), ("tag", -1), ("priority", -1), ("root", 0)):
        value = int(getattr(program, column)[row])
        if value != missing:
            out[column] = value
    if program.cpu[row]:
        out["cpu"] = True
    if program.group[row] >= 0:
        out["group"] = graph.groups[program.group[row]].name
    peer, peer_kind = int(program.peer[row]), int(program.peer_kind[row])
    if peer_kind != PeerKind.RANK:
        out["peer"] = f"{peer:+d}"
    elif peer >= 0:
        out["peer"] = peer
    if program.dims[row] >= 0:
        out["dims"] = [d for d in range(31) if int(program.dims[row]) >> d & 1]
    if program.stream[row] >= 0:
        out["stream"] = graph.streams[program.stream[row]]
    if program.step is not None and program.step[row] >= 0:
        out["step"] = graph.steps[program.step[row]]
    return out


def ranks_text(ranks: Sequence[int]) -> str:
    """``0-7``, ``0,4,8-11``: what ``parse_ranks`` reads."""
    parts: list[list[int]] = []
    for rank in sorted(ranks):
        if parts and rank == parts[-1][1] + 1:
            parts[-1][1] = rank
        else:
            parts.append([rank, rank])
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in parts)


def captured_object(graph: TaskGraph) -> dict[str, Any]:
    """What the head of a native file says of a captured trace; nothing of another."""
    return {"captured": True, "metadata": dict(graph.metadata)} if graph.captured else {}


def write(head: Mapping[str, Any], programs: Iterable[Mapping[str, Any]]) -> bytes:
    """The file: a node a line, so that people can read and compare it."""
    lines = ["{", f' "format": "{FORMAT}",']
    lines += [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    lines.append(' "programs": [')
    blocks = []
    for program in programs:
        fields = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in program.items() if key != "nodes"]
        nodes = ",\n".join(f"   {json.dumps(node)}" for node in program["nodes"])
        blocks.append("  {" + ", ".join([*fields, '"nodes": [\n' + nodes + "]"]) + "}")
    lines.append(",\n".join(blocks) + "\n ]\n}\n")
    return "\n".join(lines).encode()


def head_object(trace: RankTrace) -> dict[str, Any]:
    """``head`` of a program: what the file said about itself."""
    out: dict[str, Any] = {"version": trace.version, "attrs": [_attr(a) for a in trace.attributes]}
    if trace.unknown:
        out["unknown"] = base64.b64encode(trace.unknown).decode()
    return out


def write_document(document: Document) -> bytes:
    """The native file of a document; ranks whose files hold the same share a program."""
    from distsim.trace import protobuf

    programs: dict[bytes, tuple[dict[str, Any], list[int]]] = {}
    for rank, trace in enumerate(document):
        digest = hashlib.blake2b(protobuf.write_document(trace)).digest()
        if digest not in programs:
            body = {"head": head_object(trace), "nodes": [node_object(node) for node in trace.nodes]}
            programs[digest] = (body, [])
        programs[digest][1].append(rank)
    blocks = [{"name": f"p{k}", "ranks": ranks_text(ranks), **body} for k, (body, ranks) in enumerate(programs.values())]
    head: dict[str, Any] = {"ranks": document.ranks}
    if document.groups:
        head["groups"] = {name: list(ranks) for name, ranks in document.groups.items()}
    return write(head, blocks)
