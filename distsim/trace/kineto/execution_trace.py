"""PyTorch's host execution traces: which operators ran in which order, on which tensors; no times.

Schemas 1.0.1 (fields of a node at its top) and 1.1.x-chakra (inputs, outputs and attrs as objects). Beside a Kineto capture of
the same run (``et_rank3.json.gz`` beside ``kineto_rank3.json.gz``) one tells what the capture may lack of its collectives:
sizes, splits, sequence numbers, process groups. An operation is the same in both by "Record function id" where the capture has
it, else the k-th annotation of a name is the k-th of that name: External ids and rf_ids are both counters.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distsim.errors import TraceError
from distsim.trace.defect import Defect
from distsim.trace.graph import CollectiveType
from distsim.trace.kineto.capture import Capture
from distsim.trace.kineto.comms import Communicator, identify
from distsim.trace.kineto.facts import Facts, facts_of_args, operation_of, parse_ranks

_HEAD = re.compile(rb'\s*\{\s*"schema"\s*:\s*"\d+\.\d+')
_PARAMS = "record_param_comms"
_GROUPS = "## process_group:init ##"
#: attributes of 1.1.x -> the profiler's words for them
_ATTRIBUTES = {
    "collective_name": "Collective name", "dtype": "dtype", "in_msg_nelems": "In msg nelems",
    "out_msg_nelems": "Out msg nelems", "in_split_size": "In split size", "out_split_size": "Out split size",
    "global_rank_start": "Global rank start", "global_rank_stride": "Global rank stride", "pg_name": "Process Group Name",
    "pg_size": "Group size", "src_rank": "Src Rank", "dst_rank": "Dst Rank", "pg_ranks": "Process Group Ranks",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Operation:
    """A communicating operation of the trace."""

    name: str  #: of the annotation, ``nccl:all_reduce``; of the record_param_comms where there is none
    function: int  #: rf_id of the annotation; -1: none
    facts: Facts  #: as comms.py has them


@dataclass(frozen=True, slots=True, eq=False)
class ExecutionTrace:
    """What is used of a host execution trace."""

    label: str
    schema: str
    nodes: int
    threads: int
    operators: Mapping[str, int]  #: name -> calls, of all operators
    operations: tuple[Operation, ...]  #: that communicate, in order of their numbers
    groups: Mapping[str, Communicator]  #: process groups by name

    def document(self) -> dict[str, Any]:
        """JSON-ready summary."""
        table: dict[tuple[str, str, int], list[int]] = defaultdict(list)
        for one in self.operations:
            kind = operation_of(str(one.facts.get("operation", one.name)))
            name = kind.name.lower() if isinstance(kind, CollectiveType) else kind or one.name
            known = self.groups.get(str(one.facts.get("name", "")))
            size = one.facts.get("size") or (known.size if known else 0)
            table[name, str(one.facts.get("name", "")), size].append(one.facts.get("in_bytes", -1))
        return {
            "format": "pytorch execution trace", "source": self.label, "schema": self.schema, "nodes": self.nodes,
            "threads": self.threads, "operators": dict(Counter(self.operators).most_common(12)),
            "groups": {name: {"ranks": list(one.ranks), "size": one.size} for name, one in self.groups.items()},
            "collectives": [
                {"operation": name, "group": group, "ranks": size, "count": len(sizes), "bytes": sum(max(s, 0) for s in sizes),
                 "largest": max(sizes), "unknown": sum(s < 0 for s in sizes)}
                for (name, group, size), sizes in table.items()
            ],
        }  # fmt: skip


def is_execution_trace(path: str) -> bool:
    """Whether a file is one, judged by its beginning."""
    try:
        with open(path, "rb") as file:
            head = file.read(1 << 12)
    except (OSError, ValueError):  # a NUL in the path
        return False
    if head[:2] == b"\x1f\x8b":
        try:
            head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, 1 << 12)
        except zlib.error:
            return False
    return _HEAD.match(head) is not None and b'"pid"' in head


def read_execution_trace(data: bytes, label: str) -> ExecutionTrace:
    """Parse one. TraceError where it is not an execution trace, or a node is malformed."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"is not JSON ({error})", where=label) from None
    nodes = document.get("nodes") if isinstance(document, dict) else None
    if not isinstance(nodes, list) or not isinstance(document.get("schema"), str):
        raise TraceError("is no PyTorch execution trace", where=label, expected='{"schema": "1.1.0-...", "nodes": [...]}')
    operators: Counter[str] = Counter()
    threads: set[int] = set()
    params: dict[int, Facts] = {}
    found: list[tuple[int, str, int]] = []  # (function, name, parent)
    alone: list[int] = []
    groups: dict[str, Communicator] = {}
    for number, node in enumerate(nodes):
        if not isinstance(node, dict) or not isinstance(node.get("name"), str) or not isinstance(node.get("id"), int):
            raise TraceError(f"node {number} has no name and id", where=label, expected="an object with both")
        name = node["name"]
        attributes = _attributes(node)
        threads.add(attributes.get("tid", 0))
        if "::" in name:
            operators[name] += 1
        if name == _PARAMS:
            facts = _facts(node, attributes)
            if facts.get("operation") and operation_of(facts["operation"]) is not None:
                params[node["id"]] = facts
                alone.append(node["id"])
        elif name.startswith("nccl:"):
            found.append((int(attributes.get("rf_id", -1)), name, int(node.get("parent", node.get("ctrl_deps", -1)) or -1)))
        elif name == _GROUPS:
            groups |= _groups(node)
    operations = []
    for function, name, parent in sorted(found):
        operations.append(Operation(name, function, params.get(parent, {"operation": name})))
        if parent in params:
            alone.remove(parent)
    operations += [Operation(str(params[one]["operation"]), -1, params[one]) for one in alone]
    return ExecutionTrace(
        label, document["schema"], len(nodes), len(threads), dict(operators), tuple(operations), groups
    )


def _attributes(node: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a node by name; in schema 1.0 they are its own fields."""
    listed = node.get("attrs")
    if isinstance(listed, list):
        return {str(one["name"]): one.get("value") for one in listed if isinstance(one, dict) and "name" in one}
    return {key: node[key] for key in ("rf_id", "tid") if key in node}


def _values(node: Mapping[str, Any]) -> list[Any]:
    inputs = node.get("inputs")
    values = inputs.get("values", []) if isinstance(inputs, dict) else inputs
    return values if isinstance(values, list) else []


def _facts(node: Mapping[str, Any], attributes: Mapping[str, Any]) -> Facts:
    """What a record_param_comms says: attributes of 1.1.x, or inputs [tensors, number, group, root, name, splits, splits]."""
    args = {word: attributes[key] for key, word in _ATTRIBUTES.items() if attributes.get(key) not in (None, "")}
    facts = facts_of_args(args)
    values = _values(node)
    at = next((k for k, value in enumerate(values) if isinstance(value, str) and k > 2), -1)
    if at < 0:
        return facts
    facts.setdefault("operation", values[at])
    tensors = [value for value in values[:1] if isinstance(value, list)]
    if tensors:
        facts.setdefault("in_bytes", _bytes(tensors[0]))
    if len(values) > at + 1 and isinstance(values[at + 1], list) and values[at + 1]:
        facts.setdefault("uneven", len(set(map(str, values[at + 1]))) > 1)
    if isinstance(values[at - 1], int):
        facts.setdefault("root", values[at - 1])
    if isinstance(values[1], int):
        facts.setdefault("sequence", values[1])
    return facts


def _bytes(value: Sequence[Any]) -> int:
    """Bytes of a tensor [id, storage, offset, elements, bytes of one, device], or of a list of them."""
    if value and isinstance(value[0], list):
        return sum(_bytes(one) for one in value if isinstance(one, list))
    if len(value) >= 5 and isinstance(value[3], int) and isinstance(value[4], int):
        return value[3] * value[4]
    return 0


def _groups(node: Mapping[str, Any]) -> dict[str, Communicator]:
    """Process groups that an init node lists."""
    found = {}
    for value in _values(node):
        try:
            listed = json.loads(value) if isinstance(value, str) else []
        except ValueError:
            continue
        for one in listed if isinstance(listed, list) else []:
            if isinstance(one, dict) and "pg_name" in one:
                size = one.get("group_size", 0)
                size = size if isinstance(size, int) else 0
                ranks = parse_ranks(one.get("ranks"), size)
                found[str(one["pg_name"])] = Communicator(str(one["pg_name"]), ranks, len(ranks) or size)
    return found


def link(capture: Capture, trace: ExecutionTrace) -> dict[int, Facts] | None:
    """Facts by row of ``capture.ops``; None where the two do not agree on what was run."""
    rows: dict[str, list[int]] = defaultdict(list)
    names = [capture.names[k] for k in capture.ops.name.tolist()]
    for row in sorted(range(len(names)), key=lambda row: int(capture.ops.external[row])):
        if names[row].startswith("nccl:"):
            rows[names[row]].append(row)
    functions = {one.function: one for one in trace.operations if one.function >= 0}
    counted: dict[str, list[Operation]] = defaultdict(list)
    for one in functions.values():
        counted[one.name].append(one)
    told: dict[int, Facts] = {}
    for name, mine in rows.items():
        numbers = [capture.ops.args[row].get("Record function id") for row in mine]
        if all(isinstance(n, int) and n in functions and functions[n].name == name for n in numbers):
            pairs = [functions[int(n)] for n in numbers if n is not None]
        elif len(counted[name]) == len(mine):
            pairs = counted[name]
        else:
            return None
        for row, one in zip(mine, pairs, strict=True):
            facts = dict(one.facts)
            group = trace.groups.get(str(facts.get("name", "")))
            if group and group.ranks:
                facts.setdefault("ranks", group.ranks)
            told[row] = facts
    return told


def beside(path: str) -> str | None:
    """The execution trace that belongs to a capture by its name: ``et_rank3.json.gz`` beside ``kineto_rank3.json.gz``."""
    place = Path(path)
    if "kineto" not in place.name:
        return None
    stem = re.sub(r"\.gz$", "", place.name.replace("kineto", "et"))
    return next((str(one) for one in (place.with_name(stem), place.with_name(f"{stem}.gz")) if one.is_file()), None)


def told_beside(path: str, capture: Capture) -> tuple[dict[int, Facts] | None, list[Defect]]:
    """Facts from the execution trace beside a capture, where the capture does not tell all of its collectives itself.

    Raises: TraceError where the file beside it cannot be read.
    """
    place = beside(path)
    if place is None:
        return None, []
    known = identify(capture)
    if not len(known) or ((known.bytes >= 0).all() and all(one.kind == "pair" or one.ranks for one in known.communicators)):
        return None, []
    told = link(capture, read_execution_trace(contents(place), place))
    if told is None:
        what = "is of another run, or of another part of it: its collectives are not those of the capture; not used"
        return None, [Defect("execution trace", f"{Path(place).name} {what}", path, severity="warning", repaired=True)]
    return told, []


def contents(path: str) -> bytes:
    """Of a plain or gzip file. TraceError where it cannot be read."""
    try:
        raw = Path(path).read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(f"cannot be read ({error})", where=path) from None
