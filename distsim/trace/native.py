"""Reading the native ``trace.json``: validate, unroll repeats, resolve names; then to a TaskGraph or to documents."""

from __future__ import annotations

import base64
import dataclasses
import difflib
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import ValidationError

from distsim.errors import ConfigError, TraceError
from distsim.trace import groups as grouping
from distsim.trace.build import Finding, Rows
from distsim.trace.chakra_json import from_json_value
from distsim.trace.document import NODE_TYPES, OPERATIONS, Attribute, Document, IOInfo, Node, RankTrace, columns_of
from distsim.trace.graph import Group, NodeType, PeerKind, Program
from distsim.trace.native_model import IO, Attr, NodeSpec, ProgramSpec, RelativeGroup, Step, TraceSpec
from distsim.trace.native_write import time_text
from distsim.units import parse_size, parse_time

_INDEX = re.compile(r"\{(\w+)([+-]\d+)?\}")
_TYPES = {name: kind for kind, name in NODE_TYPES.items()} | {"collective": NodeType.COMM_COLL}

#: limits of what one line of text can ask for
MOST_RANKS, MOST_NODES = 1 << 24, 10_000_000

_size = functools.lru_cache(maxsize=None)(parse_size)
_time = functools.lru_cache(maxsize=None)(parse_time)


@dataclass(frozen=True, slots=True)
class Placed:
    """A node after unrolling: its name, id and dependencies (ids), and what it was written as."""

    name: str
    id: int
    after: list[int]
    spec: NodeSpec


@dataclass(slots=True)
class _Unroller:
    where: str
    names: dict[str, int] = field(default_factory=dict)
    previous: list[int] = field(default_factory=list)
    next_id: int = 0

    def walk(self, steps: list[Step], counters: dict[str, int]) -> Iterator[Placed]:
        for step in steps:
            if isinstance(step, NodeSpec):
                name = self._filled(step.name, counters)
                number = self.next_id if step.id is None else step.id
                after = self.previous if step.after is None else self._ids(step.after, counters, name or f"node {number}")
                yield Placed(name, number, after, step)
                if name:
                    self.names[name] = number
                self.previous, self.next_id = [number], number + 1
            else:
                if step.after is not None:
                    self.previous = self._ids(step.after, counters, f"repeat {step.repeat}")
                for k in range(step.repeat):
                    at = step.repeat - 1 - k if step.reverse else k
                    yield from self.walk(step.nodes, {**counters, step.index: at})

    def _filled(self, text: str, counters: dict[str, int]) -> str:
        if "{" not in text or not counters:
            return text
        return _INDEX.sub(lambda m: str(counters[m[1]] + int(m[2] or 0)) if m[1] in counters else m[0], text)

    def _ids(self, after: int | str | list[int | str], counters: dict[str, int], node: str) -> list[int]:
        ids: list[int] = []
        for item in after if isinstance(after, list) else [after]:
            if isinstance(item, int):
                ids.append(item)
                continue
            name = self._filled(item, counters)
            found = self.names.get(name)
            if found is None and name.endswith("?"):
                found = self.names.get(name[:-1])
                if found is None:
                    continue
            if found is None:
                raise TraceError(
                    f"{node} comes after {name!r}, but no node before it has that name",
                    where=self.where,
                    near=difflib.get_close_matches(name, self.names, n=3, cutoff=0.4),
                )
            ids.append(found)
        return ids


@dataclass(frozen=True, slots=True)
class Native:
    """A validated native trace: groups and rank mapping resolved, programs still to be unrolled."""

    source: str
    spec: TraceSpec
    rank_program: list[int]
    groups: tuple[Group, ...]

    def unrolled(self, index: int) -> Iterator[Placed]:
        """Nodes of a program in file order. TraceError naming program and node."""
        program = self.spec.programs[index]
        if _steps(program.nodes) > MOST_NODES:
            raise TraceError(
                "its repeats make too many nodes", where=self.label(index),
                expected=f"at most {MOST_NODES:,} nodes in a program", fix="Parquet and .et hold larger programs.",
            )  # fmt: skip
        return _Unroller(self.label(index)).walk(program.nodes, {})

    def steps(self) -> bool:
        """Whether nodes say which iteration they belong to."""
        return any(_stepped(program.nodes) for program in self.spec.programs)

    def label(self, index: int) -> str:
        """``file: program "stage0"``, for messages."""
        name = self.spec.programs[index].name
        return f'{self.source}: program "{name}"' if name else f"{self.source}: program {index}"


def _stepped(steps: list[Step]) -> bool:
    return any(step.step is not None if isinstance(step, NodeSpec) else _stepped(step.nodes) for step in steps)


def _steps(steps: list[Step]) -> int:
    """Nodes after unrolling; an empty round counts as one."""
    return sum(1 if isinstance(step, NodeSpec) else step.repeat * max(1, _steps(step.nodes)) for step in steps)


def parse(data: bytes, source: str) -> Native:
    """A native trace of JSON bytes. TraceError with every place that does not fit the schema (first five)."""
    try:
        spec = TraceSpec.model_validate_json(data)
    except ValidationError as error:
        raise TraceError(_explain(error), where=source, fix="`distsim trace --schema` prints the format.") from None
    rank_program = _mapping(spec, source)
    return Native(source, spec, rank_program, tuple(_groups(spec, len(rank_program), source)))


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors()[:5]:
        place = ""
        for part in item["loc"]:
            if part not in ("node", "repeat") or place == "":
                place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
        lines.append(f"{place}: {item['msg']}" if place else item["msg"])
    more = error.error_count() - len(lines)
    return "does not fit the native format: " + "; ".join(lines) + (f"; and {more} more" if more > 0 else "")


def parse_ranks(text: str | list[int], total: int | None, where: str) -> list[int]:
    """Ranks of ``"0-7"``, ``"0-62:2"``, ``"0,4,8-11"``, ``"all"`` or a list, in order. TraceError where it is none of these."""
    if isinstance(text, list):
        return text
    if text == "all":
        return list(range(total or 1))
    ranks: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9})(?::(\d{1,9}))?)?\s*", part)
        step = int(match[3] or 1) if match else 0
        if match is None or step == 0:
            raise TraceError(
                f"{text!r} does not name ranks", where=where, expected='"all", "0-7", "0-62:2", "0,4,8-11" or a list'
            )
        named = range(int(match[1]), int(match[2] or match[1]) + 1, step)
        _check_ranks(named[-1] + 1 if named else 0, where)
        ranks += named
    return ranks


def _check_ranks(total: int, where: str) -> None:
    if total > MOST_RANKS:
        raise TraceError(f"names {total:,} ranks", where=where, expected=f"at most {MOST_RANKS:,}")


def _mapping(spec: TraceSpec, source: str) -> list[int]:
    _check_ranks(spec.ranks or 0, source)
    ranks = [parse_ranks(p.ranks, spec.ranks, f"{source}: program {p.name or k}") for k, p in enumerate(spec.programs)]
    total = spec.ranks or max((max(r, default=-1) for r in ranks), default=-1) + 1
    _check_ranks(total, source)
    if total < 1:
        raise TraceError("has no ranks", where=source, expected="a program that runs on at least one rank")
    found: list[int | None] = [None] * total
    for index, members in enumerate(ranks):
        for rank in members:
            if not 0 <= rank < total:
                raise TraceError(
                    f"program {spec.programs[index].name or index!r} runs on rank {rank}, but there are {total} ranks",
                    where=source,
                )
            if found[rank] is not None:
                raise TraceError(f"rank {rank} runs two programs", where=source, fix="Correct the programs' `ranks`.")
            found[rank] = index
    missing = [rank for rank, index in enumerate(found) if index is None]
    if missing:
        raise TraceError(
            f"no program runs on rank {missing[0]}" + (f" and {len(missing) - 1} others" if len(missing) > 1 else ""),
            where=source,
            fix="Give every rank a program.",
        )
    return [index for index in found if index is not None]


def _groups(spec: TraceSpec, ranks: int, source: str) -> Iterator[Group]:
    for name, group in spec.groups.items():
        if isinstance(group, RelativeGroup):
            yield grouping.relative(name, group.size, group.stride, ranks, source)
            continue
        instances = [g for g in group if isinstance(g, list)] or [[r for r in group if isinstance(r, int)]]
        outside = [r for instance in instances for r in instance if not 0 <= r < ranks]
        if outside:
            raise TraceError(f"group {name!r} lists rank {outside[0]}, but there are {ranks} ranks", where=source)
        yield grouping.partition(name, instances, source)


def values_of(placed: Placed, where: str) -> dict[str, Any]:
    """The node in terms of Program's columns (name, group and stream as text). TraceError naming the node."""
    spec = placed.spec
    at = f"{where}: node {placed.id}" + (f' ("{placed.name}")' if placed.name else "")
    said: dict[str, Any] = {"id": placed.id, "name": placed.name or None}
    said["type"], said["collective"] = _operation(spec.op, at)
    try:
        for column, amount in (("num_ops", spec.num_ops), ("tensor_size", spec.tensor_size), ("bytes", spec.bytes)):
            if amount is not None:
                said[column] = _size(amount)
        for column, time in (("duration_ps", spec.duration), ("start_ps", spec.start)):
            if time is not None:
                said[column] = _time(time)
    except ConfigError as error:
        raise TraceError(error.what, where=at, expected=error.expected) from None
    except ValueError as error:  # a number of thousands of digits
        raise TraceError(f"has an unreadable number ({error})", where=at) from None
    if spec.peer is not None:
        said["peer"], said["peer_kind"] = _peer(spec.peer, spec.group is not None, at)
    said.update(cpu=spec.cpu, group=spec.group, tag=spec.tag, priority=spec.priority, root=spec.root)
    if spec.dims is not None:
        if not all(0 <= d < 31 for d in spec.dims):
            raise TraceError(f"dims {spec.dims} are not dimensions", where=at, expected="numbers from 0 to 30")
        said["dims"] = sum(1 << d for d in set(spec.dims))
    if spec.stream is not None:
        said["stream"] = str(spec.stream)
    if spec.attrs:
        extra = columns_of(Node(placed.id, type=said["type"], attributes=[_attribute(a, at) for a in spec.attrs]))
        del extra["id"], extra["type"], extra["name"]
        said.update(extra)
    return said


def _operation(op: str, at: str) -> tuple[int, int]:
    """(NodeType, CollectiveType or -1)."""
    if op in OPERATIONS:
        return NodeType.COMM_COLL, OPERATIONS[op]
    if op in _TYPES:
        return _TYPES[op], -1
    match = re.fullmatch(r"type (\d+)", op)
    if match:
        return min(int(match[1]), 127), -1
    known = [*_TYPES, *OPERATIONS]
    raise TraceError(f"unknown op {op!r}", where=at, near=difflib.get_close_matches(op, known, n=3), expected=", ".join(known))


def _peer(peer: int | str, in_group: bool, at: str) -> tuple[int, int]:
    if isinstance(peer, int):
        return peer, PeerKind.RANK
    if not re.fullmatch(r"[+-]\d+", peer):
        raise TraceError(f"peer {peer!r} names no rank", where=at, expected="a rank number, or an offset such as '+1'")
    return int(peer), PeerKind.IN_GROUP if in_group else PeerKind.OFFSET


def _attribute(attr: Attr, at: str) -> Attribute:
    try:
        value = None if attr.kind is None else from_json_value(attr.kind, attr.value)
        return Attribute(attr.name, attr.kind, value, attr.doc, base64.b64decode(attr.unknown))
    except ValueError as error:
        raise TraceError(f"attribute {attr.name!r}: {error}", where=at) from None


def placed_object(placed: Placed) -> dict[str, Any]:
    """The node as a native node that stands alone: id and dependencies as numbers, amounts and times in canonical form."""
    spec = placed.spec
    out: dict[str, Any] = {**spec.model_dump(exclude_none=True), "id": placed.id, "after": placed.after}
    if placed.name:
        out["name"] = placed.name
    for key, amount in (("num_ops", spec.num_ops), ("tensor_size", spec.tensor_size), ("bytes", spec.bytes)):
        if amount is not None:
            out[key] = _size(amount)
    for key, time in (("start", spec.start), ("duration", spec.duration)):
        if time is not None:
            out[key] = time_text(_time(time))
    return out


@dataclass(slots=True)
class Numbering:
    """Text to index, shared by all programs of a trace."""

    names: dict[str, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    streams: dict[str, int] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)


def build_program(native: Native, index: int, numbering: Numbering) -> tuple[Program, list[Finding]]:
    """Unroll a program into columns. ``numbering.groups`` must hold the groups that the trace defines."""
    where = native.label(index)
    rows = Rows()
    steps: list[int] = []
    defined = {group.name for group in native.groups}
    for placed in native.unrolled(index):
        said = values_of(placed, where)
        for column, known in (("name", numbering.names), ("group", numbering.groups), ("stream", numbering.streams)):
            text = said.get(column)
            if text is None:
                continue
            world = column == "group" and text in ("", "0") and text not in defined
            said[column] = -1 if world else known.setdefault(text, len(known))
        rows.add([*placed.after, *(placed.spec.control or ())], said)
        step = placed.spec.step
        steps.append(-1 if step is None else numbering.steps.setdefault(step, len(numbering.steps)))
    program, findings = rows.program(where)
    if any(step >= 0 for step in steps):
        program = dataclasses.replace(program, step=np.array(steps, np.int32))
    return program, findings


def document(native: Native) -> Document:
    """The trace rank by rank, relative groups and peers made absolute."""
    groups = {group.name: group for group in native.groups}
    numbers = {g.name: {m: k for k, m in enumerate(grouping.instances(g))} for g in native.groups}

    def load(rank: int) -> RankTrace:
        index = native.rank_program[rank]
        program: ProgramSpec = native.spec.programs[index]
        where = native.label(index)
        trace = RankTrace("0.0.4")
        if program.head is not None:
            head = program.head
            trace = RankTrace(head.version, [_attribute(a, where) for a in head.attrs], [], base64.b64decode(head.unknown))

        def group_name(name: str) -> str:
            group = groups.get(name)
            members = group.members.get(rank) if group else None
            return name if group is None or members is None else grouping.instance_name(group, numbers[name][members])

        def peer_of(peer: int, kind: int, name: str | None) -> int:
            members = (
                groups[name].members.get(rank)
                if name in groups and name is not None
                else tuple(range(len(native.rank_program)))
            )
            if kind == PeerKind.IN_GROUP and members:
                return members[(members.index(rank) + peer) % len(members)]
            return peer + rank if kind == PeerKind.OFFSET else peer

        for placed in native.unrolled(index):
            trace.nodes.append(_node(placed, where, group_name, peer_of))
        return trace

    return Document(native.source, len(native.rank_program), load, grouping.files_groups(native.groups))


def _node(placed: Placed, where: str, group_name: Callable[[str], str], peer_of: Callable[[int, int, str | None], int]) -> Node:
    spec, said = placed.spec, values_of(placed, where)
    kind, operation = _operation(spec.op, where)
    match = re.fullmatch(r"type (\d+)", spec.op)
    node = Node(placed.id, placed.name, int(match[1]) if match else int(kind), list(spec.control or ()), list(placed.after))
    add = node.attributes.append
    for micros, text, exact in (("start_micros", spec.start, "start_ps"), ("duration_micros", spec.duration, "duration_ps")):
        if text is not None:
            ps = _time(text)
            setattr(node, micros, round(ps / 1_000_000))
            if ps % 1_000_000 or ps == 0:
                add(Attribute(exact, "int64", ps))
    if spec.cpu is not None:
        add(Attribute("is_cpu_op", "bool", spec.cpu))
    if spec.num_ops is not None:
        add(Attribute("num_ops", "int64", _size(spec.num_ops)))
    if spec.tensor_size is not None:
        add(Attribute("tensor_size", "uint64", _size(spec.tensor_size)))
    if operation >= 0:
        add(Attribute("comm_type", "int64", operation))
    if spec.bytes is not None:
        add(Attribute("comm_size", "int64", _size(spec.bytes)))
    if spec.group is not None:
        add(Attribute("pg_name", "string", group_name(spec.group)))
    if spec.peer is not None:
        name = "comm_dst" if kind == NodeType.COMM_SEND else "comm_src"
        add(Attribute(name, "int32", peer_of(said["peer"], said["peer_kind"], spec.group)))
    for name, value in (("comm_tag", spec.tag), ("comm_priority", spec.priority), ("comm_root", spec.root)):
        if value is not None:
            add(Attribute(name, "int32", value))
    if spec.dims is not None:
        add(Attribute("involved_dim", "bool_list", [d in spec.dims for d in range(max(spec.dims, default=-1) + 1)]))
    if spec.stream is not None:
        add(Attribute("stream", "int64" if isinstance(spec.stream, int) else "string", spec.stream))
    node.attributes += [_attribute(a, where) for a in spec.attrs or ()]
    node.inputs, node.outputs = _io(spec.inputs), _io(spec.outputs)
    node.unknown = base64.b64decode(spec.unknown or "")
    return node


def _io(io: IO | None) -> IOInfo | None:
    return None if io is None else IOInfo(io.values, io.shapes, io.types)
