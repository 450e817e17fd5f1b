"""Chakra's protobuf to and from :mod:`~distsim.trace.document`, in plain Python and without loss.

Equal documents give equal bytes: fields in ascending order, lists packed, defaults left out, as protobuf's own writers do.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from distsim.errors import TraceError
from distsim.trace import wire as kernels
from distsim.trace.document import KIND_FIELDS, Attribute, IOInfo, Node, RankTrace

_FIELD_KINDS = {number: kind for kind, number in KIND_FIELDS.items()}
_FIXED = {"double": "<d", "float": "<f", "fixed32": "<I", "fixed64": "<Q", "sfixed32": "<i", "sfixed64": "<q"}
_ZIGZAG = ("sint32", "sint64")
_MASK = (1 << 64) - 1
varint, skip = kernels.varint.interpreted, kernels.skip.interpreted


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(field, wire type, begin of the field, begin of its payload, end). ValueError where malformed."""
    while at < end:
        begin = at
        tag, at = varint(data, at, end)
        payload = at
        if at >= 0 and tag & 7 == 2:
            _, payload = varint(data, at, end)
        at = skip(data, at, end, tag & 7) if at >= 0 else -1
        if at < 0 or tag < 8:
            raise ValueError(f"malformed field at byte {begin}")
        yield tag >> 3, tag & 7, begin, payload, at


def _scalar(kind: str, wire: int, data: bytes, at: int, end: int) -> tuple[Any, int]:
    """(value, next position) of one scalar of a kind. ValueError where the wire type does not fit."""
    if kind in _FIXED:
        size = struct.calcsize(_FIXED[kind])
        if wire != (1 if size == 8 else 5) or at + size > end:
            raise ValueError(f"a {kind} is cut or has wire type {wire}")
        return struct.unpack_from(_FIXED[kind], data, at)[0], at + size
    if wire != 0:
        raise ValueError(f"a {kind} has wire type {wire}")
    value, at = varint(data, at, end)
    if at < 0:
        raise ValueError(f"a {kind} is cut")
    if kind in _ZIGZAG:
        return ((value & _MASK) >> 1) ^ -(value & 1), at
    if kind == "bool":
        return value != 0, at
    if kind in ("uint64", "uint32"):
        return value & (_MASK if kind == "uint64" else 0xFFFFFFFF), at
    if kind == "int32":
        return ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000, at
    return value, at


def _text(kind: str, data: bytes) -> Any:
    return data if kind == "bytes" else data.decode()


def _list(kind: str, data: bytes, at: int, end: int) -> list[Any]:
    values: list[Any] = []
    for number, wire, _, payload, stop in _fields(data, at, end):
        if number != 1:
            raise ValueError(f"a {kind} list has a field {number}")
        if kind in ("string", "bytes"):
            if wire != 2:
                raise ValueError(f"a {kind} has wire type {wire}")
            values.append(_text(kind, data[payload:stop]))
        elif wire == 2:
            inner = {"<d": 1, "<Q": 1, "<q": 1, "<f": 5, "<I": 5, "<i": 5}.get(_FIXED.get(kind, ""), 0)
            while payload < stop:
                value, payload = _scalar(kind, inner, data, payload, stop)
                values.append(value)
        else:
            values.append(_scalar(kind, wire, data, payload, stop)[0])
    return values


def _attribute(data: bytes, at: int, end: int) -> Attribute:
    attribute = Attribute("")
    for number, wire, begin, payload, stop in _fields(data, at, end):
        if number in (1, 2) and wire == 2:
            text = data[payload:stop].decode()
            if number == 1:
                attribute.name = text
            else:
                attribute.doc = text
        elif number in _FIELD_KINDS:
            kind = attribute.kind = _FIELD_KINDS[number]
            if kind in ("string", "bytes"):
                if wire != 2:
                    raise ValueError(f"a {kind} has wire type {wire}")
                attribute.value = _text(kind, data[payload:stop])
            else:
                attribute.value = _scalar(kind, wire, data, payload, stop)[0]
        elif number - 1 in _FIELD_KINDS:
            kind = _FIELD_KINDS[number - 1]
            attribute.kind = kind + "_list"
            attribute.value = _list(kind, data, payload, stop)
        else:
            attribute.unknown += data[begin:stop]
    return attribute


def _io(data: bytes, at: int, end: int) -> IOInfo:
    texts = ["", "", ""]
    for number, wire, _, payload, stop in _fields(data, at, end):
        if number not in (1, 2, 3) or wire != 2:
            raise ValueError(f"an IOInfo has a field {number} of wire type {wire}")
        texts[number - 1] = data[payload:stop].decode()
    return IOInfo(*texts)


def _node(data: bytes, at: int, end: int) -> Node:
    node = Node()
    for number, wire, begin, payload, stop in _fields(data, at, end):
        if number == 10 and wire == 2:
            node.attributes.append(_attribute(data, payload, stop))
        elif number in (4, 5) and wire in (0, 2):
            deps = node.ctrl_deps if number == 4 else node.data_deps
            while payload < stop:
                value, payload = _scalar("uint64", 0, data, payload, stop)
                deps.append(value)
        elif number == 1 and wire == 0:
            node.id = _scalar("uint64", 0, data, payload, stop)[0]
        elif number == 2 and wire == 2:
            node.name = data[payload:stop].decode()
        elif number == 3 and wire == 0:
            node.type = _scalar("int32", 0, data, payload, stop)[0]
        elif number == 6 and wire == 0:
            node.start_micros = _scalar("uint64", 0, data, payload, stop)[0]
        elif number == 7 and wire == 0:
            node.duration_micros = _scalar("uint64", 0, data, payload, stop)[0]
        elif number == 8 and wire == 2:
            node.inputs = _io(data, payload, stop)
        elif number == 9 and wire == 2:
            node.outputs = _io(data, payload, stop)
        else:
            node.unknown += data[begin:stop]
    return node


def _metadata(data: bytes, at: int, end: int) -> RankTrace:
    trace = RankTrace()
    for number, wire, begin, payload, stop in _fields(data, at, end):
        if number == 1 and wire == 2:
            trace.version = data[payload:stop].decode()
        elif number == 2 and wire == 2:
            trace.attributes.append(_attribute(data, payload, stop))
        else:
            trace.unknown += data[begin:stop]
    return trace


def read_metadata(data: bytes, label: str) -> dict[str, str]:
    """Version and attributes of the file's GlobalMetadata, as text; empty where it has none."""
    length, at = varint(data, 0, len(data))
    if at < 0 or not 0 <= length <= len(data) - at:
        return {}
    try:
        head = _metadata(data, at, at + length)
    except ValueError:
        return {}
    values = {attribute.name: str(attribute.value) for attribute in head.attributes if attribute.kind}
    return ({"version": head.version} if head.version else {}) | values


def read_document(data: bytes, label: str) -> RankTrace:
    """Everything in one rank's ``.et`` bytes. TraceError where they are not what Chakra writes."""
    if not data:
        raise TraceError("is empty", where=label, expected="a Chakra trace: a GlobalMetadata, then nodes")
    trace: RankTrace | None = None
    at = 0
    while at < len(data):
        begin = at
        length, at = varint(data, at, len(data))
        if at < 0 or not 0 <= length <= len(data) - at:
            raise TraceError(f"is cut short: the message at byte {begin} runs over the end of the file", where=label)
        try:
            if trace is None:
                trace = _metadata(data, at, at + length)
            else:
                trace.nodes.append(_node(data, at, at + length))
        except ValueError as error:
            raise TraceError(f"the message at byte {begin} is not Chakra's ({error})", where=label) from None
        at += length
    assert trace is not None
    return trace


def _varint(value: int) -> bytes:
    value &= _MASK
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _sized(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _plain(kind: str, value: Any) -> bytes:
    """A scalar without its tag."""
    if kind in _FIXED:
        return struct.pack(_FIXED[kind], value)
    if kind in ("string", "bytes"):
        return value.encode() if isinstance(value, str) else bytes(value)
    return _varint(value << 1 ^ value >> 63 if kind in _ZIGZAG else int(value))


def _write_attribute(attribute: Attribute) -> bytes:
    out = _sized(1, attribute.name.encode()) if attribute.name else b""
    if attribute.doc:
        out += _sized(2, attribute.doc.encode())
    if attribute.kind is not None:
        kind = attribute.kind.removesuffix("_list")
        number = KIND_FIELDS[kind]
        text = kind in ("string", "bytes")
        if attribute.kind.endswith("_list"):
            if text:
                inner = b"".join(_sized(1, _plain(kind, value)) for value in attribute.value)
            else:
                packed = b"".join(_plain(kind, value) for value in attribute.value)
                inner = _sized(1, packed) if packed else b""
            out += _sized(number + 1, inner)
        elif text:
            out += _sized(number, _plain(kind, attribute.value))
        else:
            wire = {8: 1, 4: 5}.get(struct.calcsize(_FIXED[kind])) if kind in _FIXED else 0
            out += _varint(number << 3 | (wire or 0)) + _plain(kind, attribute.value)
    return out + attribute.unknown


def _write_io(io: IOInfo) -> bytes:
    return b"".join(_sized(k + 1, text.encode()) for k, text in enumerate((io.values, io.shapes, io.types)) if text)


def write_node(node: Node) -> bytes:
    """A Node message (without its length)."""
    out = b""
    if node.id:
        out += b"\x08" + _varint(node.id)
    if node.name:
        out += _sized(2, node.name.encode())
    if node.type:
        out += b"\x18" + _varint(node.type)
    for number, deps in ((4, node.ctrl_deps), (5, node.data_deps)):
        if deps:
            out += _sized(number, b"".join(map(_varint, deps)))
    if node.start_micros:
        out += b"\x30" + _varint(node.start_micros)
    if node.duration_micros:
        out += b"\x38" + _varint(node.duration_micros)
    for number, io in ((8, node.inputs), (9, node.outputs)):
        if io is not None:
            out += _sized(number, _write_io(io))
    return out + b"".join(_sized(10, _write_attribute(a)) for a in node.attributes) + node.unknown


def write_document(trace: RankTrace) -> bytes:
    """The ``.et`` bytes of one rank."""
    head = _sized(1, trace.version.encode()) if trace.version else b""
    head += b"".join(_sized(2, _write_attribute(a)) for a in trace.attributes) + trace.unknown
    messages = [head, *map(write_node, trace.nodes)]
    return b"".join(_varint(len(message)) + message for message in messages)
