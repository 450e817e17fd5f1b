"""Chakra's two JSON forms to and from :mod:`~distsim.trace.document`.

* **legacy**: ``{"workload_graph": [{"Id", "Name", "NodeType", "data_deps", "runtime" (us), "is_cpu_op", ...}], ...}``; keys
  that are not a node's own are attributes, whose kinds are those of JSON; ``attribute_kinds`` and ``attribute_docs`` (ours)
  say what JSON cannot.
* **protobuf-JSON**: objects one after another, first the metadata, then the nodes, each as protobuf's JSON mapping writes it.

Nothing is dropped: a key that has no place is refused by name.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from distsim.errors import TraceError
from distsim.trace.document import KIND_FIELDS, KINDS, Attribute, IOInfo, Node, RankTrace

_ENUM = ("INVALID_NODE", "METADATA_NODE", "MEM_LOAD_NODE", "MEM_STORE_NODE", "COMP_NODE", "COMM_SEND_NODE", "COMM_RECV_NODE",
         "COMM_COLL_NODE")  # fmt: skip
_LONG = ("int64", "uint64", "sint64", "fixed64", "sfixed64")
_LEGACY_NODE = ("Id", "Name", "NodeType", "ctrlDeps", "data_deps", "start_time_micros", "runtime", "inputs", "outputs",
                "attribute_kinds", "attribute_docs", "unknown_fields")  # fmt: skip
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


#: key of an attribute's value, in both spellings -> kind
_VALUE_KEYS: dict[str, str] = {}
for _kind in KIND_FIELDS:
    for _suffix, _full in (("val", _kind), ("list", _kind + "_list")):
        _VALUE_KEYS[f"{_kind}_{_suffix}"] = _VALUE_KEYS[_camel(f"{_kind}_{_suffix}")] = _full


def _value_key(kind: str) -> str:
    return _camel(kind if kind.endswith("_list") else f"{kind}_val")


def _scalar_out(kind: str, value: Any) -> Any:
    if kind == "bytes":
        return base64.b64encode(value).decode()
    if kind in ("double", "float") and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def to_json_value(kind: str, value: Any, longs_as_text: bool = False) -> Any:
    """An attribute's value as JSON holds it (bytes as base64; 64-bit integers as text where protobuf's mapping has it so)."""
    base = kind.removesuffix("_list")
    values = [_scalar_out(base, v) for v in (value if kind.endswith("_list") else [value])]
    if longs_as_text and base in _LONG:
        values = [str(v) for v in values]
    return values if kind.endswith("_list") else values[0]


def _text(value: Any) -> str:
    """The value if it is a text that files can hold. ValueError where it is none, or has half a surrogate pair."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    value.encode()
    return value


def _scalar_in(kind: str, value: Any) -> Any:
    if kind == "bytes" and isinstance(value, str):
        return base64.b64decode(value, validate=True)
    if kind in ("double", "float") and isinstance(value, int | float | str):
        return _SPECIAL[value] if value in _SPECIAL else float(value)
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "string":
        return _text(value)
    if (
        kind in KIND_FIELDS
        and kind not in ("bool", "string", "bytes")
        and isinstance(value, int | str)
        and not isinstance(value, bool)
    ):
        number = int(value)
        bits = 32 if kind.endswith("32") else 64
        unsigned = kind.startswith(("u", "fixed"))
        if not (0 if unsigned else -(1 << bits - 1)) <= number < 1 << (bits if unsigned else bits - 1):
            raise ValueError(f"{number} does not fit a {kind}")
        return number
    raise ValueError(f"{value!r} is not a {kind}")


def from_json_value(kind: str, value: Any) -> Any:
    """Inverse of :func:`to_json_value`. ValueError where the value is not of that kind."""
    if kind not in KINDS:
        raise ValueError(f"there is no attribute kind {kind!r}")
    if not kind.endswith("_list"):
        return _scalar_in(kind, value)
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is not a {kind}")
    return [_scalar_in(kind.removesuffix("_list"), v) for v in value]


# ------------------------------------------------------------------------------------------------- protobuf-JSON


def _attribute_in(data: Any) -> Attribute:
    if not isinstance(data, dict):
        raise ValueError(f"attribute {data!r} is not an object")
    attribute = Attribute("")
    for key, value in data.items():
        if key == "name":
            attribute.name = _text(value)
        elif key in ("docString", "doc_string"):
            attribute.doc = _text(value)
        elif key == "unknownFields":
            attribute.unknown = base64.b64decode(value)
        elif key in _VALUE_KEYS:
            kind = attribute.kind = _VALUE_KEYS[key]
            attribute.value = from_json_value(kind, value.get("values", []) if kind.endswith("_list") else value)
        else:
            raise ValueError(f"attribute key {key!r} is unknown")
    return attribute


def _attribute_out(attribute: Attribute) -> dict[str, Any]:
    out: dict[str, Any] = {"name": attribute.name}
    if attribute.doc:
        out["docString"] = attribute.doc
    if attribute.kind is not None:
        value = to_json_value(attribute.kind, attribute.value, longs_as_text=True)
        out[_value_key(attribute.kind)] = {"values": value} if attribute.kind.endswith("_list") else value
    if attribute.unknown:
        out["unknownFields"] = base64.b64encode(attribute.unknown).decode()
    return out


def _io_in(data: Any) -> IOInfo:
    if not isinstance(data, dict) or set(data) - {"values", "shapes", "types"}:
        raise ValueError(f"{data!r} is not an IOInfo")
    return IOInfo(**{key: _text(value) for key, value in data.items()})


def io_out(io: IOInfo) -> dict[str, str]:
    """An IOInfo without its empty fields."""
    return {key: text for key, text in (("values", io.values), ("shapes", io.shapes), ("types", io.types)) if text}


def _micros(value: Any, node: Node, exact: str) -> int:
    """Whole microseconds; what does not fit into them goes into the attribute ``exact`` (ps)."""
    if isinstance(value, float) and not value.is_integer():
        node.attributes.append(Attribute(exact, "int64", round(value * 1_000_000)))
        return round(value)
    return int(value)


def _node_in(data: dict[str, Any]) -> Node:
    node = Node()
    for key, value in data.items():
        if key == "id":
            node.id = int(value)
        elif key == "name":
            node.name = _text(value)
        elif key == "type":
            node.type = _ENUM.index(value) if isinstance(value, str) else int(value)
        elif key in ("ctrlDeps", "ctrl_deps"):
            node.ctrl_deps = [int(v) for v in value]
        elif key in ("dataDeps", "data_deps"):
            node.data_deps = [int(v) for v in value]
        elif key in ("startTimeMicros", "start_time_micros"):
            node.start_micros = _micros(value, node, "start_ps")
        elif key in ("durationMicros", "duration_micros"):
            node.duration_micros = _micros(value, node, "duration_ps")
        elif key == "inputs":
            node.inputs = _io_in(value)
        elif key == "outputs":
            node.outputs = _io_in(value)
        elif key == "attr":
            node.attributes += map(_attribute_in, value)
        elif key == "unknownFields":
            node.unknown = base64.b64decode(value)
        else:
            raise ValueError(f"node key {key!r} is unknown")
    return node


def read_objects(objects: Iterable[Any], where: str) -> RankTrace:
    """One rank of concatenated protobuf-JSON. TraceError naming the object that is not Chakra's."""
    trace = RankTrace()
    for index, data in enumerate(objects):
        try:
            if not isinstance(data, dict):
                raise ValueError("not an object")
            if index == 0 and set(data) <= {"version", "attr", "unknownFields"}:
                trace.version = _text(data.get("version", ""))
                trace.attributes = [_attribute_in(a) for a in data.get("attr", [])]
                trace.unknown = base64.b64decode(data.get("unknownFields", ""))
            else:
                trace.nodes.append(_node_in(data))
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise TraceError(f"object {index} is not a Chakra node ({error})", where=where) from None
    return trace


def write_objects(trace: RankTrace) -> bytes:
    """One rank as concatenated protobuf-JSON."""
    head: dict[str, Any] = {"version": trace.version} if trace.version else {}
    if trace.attributes:
        head["attr"] = [_attribute_out(a) for a in trace.attributes]
    if trace.unknown:
        head["unknownFields"] = base64.b64encode(trace.unknown).decode()
    lines = [json.dumps(head)]
    for node in trace.nodes:
        out: dict[str, Any] = {"id": str(node.id)}
        if node.name:
            out["name"] = node.name
        if node.type:
            out["type"] = _ENUM[node.type] if 0 < node.type < len(_ENUM) else node.type
        for key, deps in (("ctrlDeps", node.ctrl_deps), ("dataDeps", node.data_deps)):
            if deps:
                out[key] = [str(dep) for dep in deps]
        for key, micros in (("startTimeMicros", node.start_micros), ("durationMicros", node.duration_micros)):
            if micros:
                out[key] = str(micros)
        for key, io in (("inputs", node.inputs), ("outputs", node.outputs)):
            if io is not None:
                out[key] = io_out(io)
        if node.attributes:
            out["attr"] = [_attribute_out(a) for a in node.attributes]
        if node.unknown:
            out["unknownFields"] = base64.b64encode(node.unknown).decode()
        lines.append(json.dumps(out))
    return ("\n".join(lines) + "\n").encode()


# ---------------------------------------------------------------------------------------------------------- legacy


def _natural_kind(value: Any) -> str | None:
    """The attribute kind that a JSON value is read as."""
    if value is None:
        return None
    if isinstance(value, list):
        kinds = {_natural_kind(v) for v in value} or {"int64"}
        if len(kinds) == 1:
            kind = kinds.pop()
            if kind is not None and not kind.endswith("_list"):
                return kind + "_list"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "uint64" if value >= 1 << 63 else "int64"
    if isinstance(value, float):
        return "double"
    if isinstance(value, str):
        return "string"
    raise ValueError(f"{json.dumps(value)[:60]} fits no attribute kind")


def _is_natural(kind: str, value: Any) -> bool:
    """Whether a JSON value is read as this kind without being told (a list of numbers and "Infinity" is not)."""
    try:
        return _natural_kind(value) == kind
    except ValueError:
        return False


def _attributes_in(data: Mapping[str, Any], own: tuple[str, ...]) -> list[Attribute]:
    kinds, docs = data.get("attribute_kinds", {}), data.get("attribute_docs", {})
    found = []
    for key, value in data.items():
        if key not in own:
            kind = kinds.get(key) or _natural_kind(value)
            found.append(Attribute(key, kind, None if kind is None else from_json_value(kind, value), _text(docs.get(key, ""))))
    return found


def _attributes_out(attributes: list[Attribute], own: tuple[str, ...], out: dict[str, Any]) -> None:
    kinds, docs = {}, {}
    for attribute in attributes:
        if attribute.name in own or attribute.name in out or attribute.unknown:
            why = "holds fields that are not Chakra's" if attribute.unknown else "is there twice or has a reserved name"
            raise ValueError(f"attribute {attribute.name!r} {why}, which the legacy form cannot say")
        value = None if attribute.kind is None else to_json_value(attribute.kind, attribute.value)
        out[attribute.name] = value
        if attribute.kind is not None and not _is_natural(attribute.kind, value):
            kinds[attribute.name] = attribute.kind
        if attribute.doc:
            docs[attribute.name] = attribute.doc
    if kinds:
        out["attribute_kinds"] = kinds
    if docs:
        out["attribute_docs"] = docs


_LEGACY_SPELLINGS = {"ctrl_deps": "ctrlDeps", "dataDeps": "data_deps"}
_LEGACY_HEAD = ("workload_graph", "version", "attribute_kinds", "attribute_docs", "unknown_fields")


def read_legacy(data: Mapping[str, Any], where: str) -> RankTrace:
    """One rank of the legacy form. TraceError naming the node that is not one."""
    graph = data["workload_graph"]
    if not isinstance(graph, list):
        raise TraceError('"workload_graph" is not a list', where=where)
    trace = RankTrace(str(data.get("version", "")), unknown=base64.b64decode(data.get("unknown_fields", "")))
    at = "its head"
    try:
        trace.attributes = _attributes_in(data, _LEGACY_HEAD)
        for index, item in enumerate(graph):
            at = f"node {index} of workload_graph"
            item = {_LEGACY_SPELLINGS.get(key, key): value for key, value in item.items()}
            node = Node(int(item["Id"]), _text(item.get("Name") or ""), int(item["NodeType"]))
            node.ctrl_deps = [int(v) for v in item.get("ctrlDeps") or ()]
            node.data_deps = [int(v) for v in item.get("data_deps") or ()]
            node.inputs = _io_in(item["inputs"]) if "inputs" in item else None
            node.outputs = _io_in(item["outputs"]) if "outputs" in item else None
            node.unknown = base64.b64decode(item.get("unknown_fields", ""))
            node.attributes = _attributes_in(item, _LEGACY_NODE)
            node.start_micros = _micros(item.get("start_time_micros") or 0, node, "start_ps")
            node.duration_micros = _micros(item.get("runtime") or 0, node, "duration_ps")
            trace.nodes.append(node)
    except KeyError as error:
        raise TraceError(f"{at} has no {error}", where=where) from None
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise TraceError(f"{at} is not Chakra's ({error})", where=where) from None
    return trace


def write_legacy(trace: RankTrace, where: str) -> bytes:
    """One rank in the legacy form. TraceError where it holds what that form cannot say."""
    head: dict[str, Any] = {"version": trace.version} if trace.version else {}
    graph = []
    try:
        _attributes_out(trace.attributes, _LEGACY_HEAD, head)
        if trace.unknown:
            head["unknown_fields"] = base64.b64encode(trace.unknown).decode()
        for node in trace.nodes:
            out: dict[str, Any] = {"Id": node.id, "Name": node.name, "NodeType": node.type, "data_deps": node.data_deps}
            if node.ctrl_deps:
                out["ctrlDeps"] = node.ctrl_deps
            if node.duration_micros:
                out["runtime"] = node.duration_micros
            if node.start_micros:
                out["start_time_micros"] = node.start_micros
            for key, io in (("inputs", node.inputs), ("outputs", node.outputs)):
                if io is not None:
                    out[key] = io_out(io)
            if node.unknown:
                out["unknown_fields"] = base64.b64encode(node.unknown).decode()
            _attributes_out(node.attributes, _LEGACY_NODE, out)
            graph.append(out)
    except ValueError as error:
        raise TraceError(f"cannot be written in the legacy form: {error}", where=where, fix="Use --to chakra-json.") from None
    return (json.dumps({"workload_graph": graph, **head}, indent=1) + "\n").encode()
