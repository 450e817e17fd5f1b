"""Reading Chakra execution traces (``.et``) into a TaskGraph: files -> batches -> decoded columns -> shared programs.

Equal files, and files that differ from an earlier one in a few values (:mod:`~distsim.trace.template`), are decoded once.
Files are decoded in batches of some tens of megabytes, so that many small files cost one kernel call and large ones do not
have to be in memory together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.errors import TraceError
from distsim.trace import decode as decoding
from distsim.trace import wire
from distsim.trace.build import COLUMNS, Finding, program_of
from distsim.trace.files import Located, RankFile
from distsim.trace.graph import NodeType, Program
from distsim.trace.template import Change, Templates, changed

BATCH_BYTES = 32 << 20

#: stands for a program that is still to be decoded
_NOTHING = Program(**{name: np.zeros(int(name == "dep_ptr"), kind) for name, (kind, _) in COLUMNS.items()})


@dataclass(slots=True)
class Decoded:
    """Rank files in memory: distinct programs (groups and streams index ``groups`` and ``streams`` here), names, findings."""

    programs: list[Program] = field(default_factory=list)
    findings: list[list[Finding]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)  #: first message (GlobalMetadata, with its length) of each program's file
    rank_program: list[int] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    streams: dict[str, int] = field(default_factory=dict)
    unmodelled: int = 0  #: fields and attributes in the files that no column holds
    metadata: dict[str, str] = field(default_factory=dict)


def decode(located: Located, world: Mapping[str, Any]) -> Decoded:
    """Decode all rank files. ``world``: the group names that a groups file defines ("" and "0" are else all ranks).

    Raises:
        TraceError: an empty, cut or foreign file, with its name and the byte where reading stopped.
    """
    reading = _Reading(world)
    for file in located.files:
        reading.add(file)
    return reading.finish()


class _Reading:
    """Files come one by one; each distinct one gets a program, decoded in a batch or made from that of its template."""

    def __init__(self, world: Mapping[str, Any]) -> None:
        self._world = world
        self._result = Decoded()
        self._templates = Templates()
        self._batch: list[tuple[int, str, bytes]] = []  # program, label, bytes
        self._size = 0
        self._decoded: dict[bytes, int] = {}  # digest of a decoded file -> program
        self._derived: dict[tuple[int, tuple[Change, ...]], int] = {}  # (template, changes) -> program

    def add(self, file: RankFile) -> None:
        """The file of the next rank."""
        data = file.load()
        if not data:
            raise TraceError("is empty", where=file.label, expected="a Chakra trace: a GlobalMetadata, then nodes")
        fit = self._templates.fit(data)
        if fit is None:
            digest = hashlib.blake2b(data, digest_size=16).digest()
            program = self._decoded.get(digest)
            if program is None:
                program = self._decoded[digest] = self._new(file.label)
                self._templates.add(data, program)
                self._batch.append((program, file.label, data))
                self._size += len(data)
                if self._size > BATCH_BYTES:
                    self._decode_batch()
        elif not fit[1]:
            program = fit[0]
        else:
            known = self._derived.get(fit)
            program = self._derived[fit] = self._new(file.label) if known is None else known
        self._result.rank_program.append(program)

    def finish(self) -> Decoded:
        """All that was added."""
        self._templates = Templates()  # their bytes are not needed any more
        self._decode_batch()
        result = self._result
        for (template, changes), program in self._derived.items():
            result.programs[program] = changed(result.programs[template], changes, self._number)
            result.findings[program] = result.findings[template]
            result.heads[program] = result.heads[template]
        return result

    def _new(self, label: str) -> int:
        self._result.programs.append(_NOTHING)
        self._result.findings.append([])
        self._result.heads.append(b"")
        self._result.labels.append(label)
        return len(self._result.labels) - 1

    def _number(self, column: str, text: str) -> int:
        """The code of a group's or node's name."""
        if column == "name":
            return self._result.names.setdefault(text, len(self._result.names))
        if text in ("", "0") and text not in self._world:
            return -1
        return self._result.groups.setdefault(text, len(self._result.groups))

    def _decode_batch(self) -> None:
        if not self._batch:
            return
        result = self._result
        if self._batch[0][0] == 0:
            from distsim.trace.protobuf import read_metadata

            result.metadata = read_metadata(self._batch[0][2], self._batch[0][1])
        lengths = [len(data) for _, _, data in self._batch]
        ends = np.cumsum(lengths).tolist()
        begins = [end - length for end, length in zip(ends, lengths, strict=True)]
        count, compiled = wire.count_nodes.for_work(ends[-1] // 4)  # a step walks some four bytes
        whole = b"".join(data for _, _, data in self._batch)
        labels, indices = [label for _, label, _ in self._batch], [index for index, _, _ in self._batch]
        self._batch, self._size = [], 0
        data: Any = np.frombuffer(whole, np.uint8) if compiled else whole
        first = wire.metadata_end.compiled if compiled else wire.metadata_end.interpreted
        heads = [first(data, begin, end) for begin, end in zip(begins, ends, strict=True)]
        counts = [count(data, begin, end) for begin, end in zip(begins, ends, strict=True)]
        for label, begin, head, number in zip(labels, begins, heads, counts, strict=True):
            if number < 0 and head >= 0:
                raise _cut(label, -1 - number - begin)
        node_ptr = np.concatenate(([0], np.cumsum([max(number, 0) for number in counts])))
        columns, deps, strings, status = _walk(data, begins, ends, int(node_ptr[-1]), compiled)
        if status[0]:
            raise _broken(labels[status[2]], status[0], status[1] - begins[status[2]])
        result.unmodelled += status[5]
        texts = _Texts(whole, strings[0], strings[1], status[4])
        columns["name"] = texts.numbered(columns["name"], result.names)
        groups = texts.numbered(columns["group"], result.groups)
        for alias in ("", "0"):
            if alias in result.groups and alias not in self._world:
                groups[groups == result.groups[alias]] = -1
        columns["group"] = groups
        columns["stream"] = texts.numbered(columns["stream"], result.streams)
        for k, index in enumerate(indices):
            low, high = int(node_ptr[k]), int(node_ptr[k + 1])
            part = {name: c[low:high] if len(indices) == 1 else c[low:high].copy() for name, c in columns.items()}
            ptr = np.append(part.pop("dep_ptr"), columns["dep_ptr"][high])
            result.programs[index], result.findings[index] = program_of(part, ptr - ptr[0], deps[ptr[0] : ptr[-1]])
            result.heads[index] = whole[begins[k] : heads[k]]


def _walk(
    data: Any, begins: list[int], ends: list[int], nodes: int, compiled: bool
) -> tuple[dict[str, NDArray[Any]], Any, Any, Any]:
    """Run the decode kernel: columns (plus dep_ptr), dependency ids, (string offsets, lengths), status."""
    decode_kernel = decoding.decode.compiled if compiled else decoding.decode.interpreted
    kinds = {name: COLUMNS[name][0] for name in COLUMNS if name not in ("dep", "peer", "peer_kind")}
    kinds |= {"source": np.int32, "destination": np.int32}
    sizes = {name: nodes + (name == "dep_ptr") for name in kinds}
    room = len(data) // 2 + 1
    capacity = min(3 * nodes, room) + 1
    mask = (1 << (capacity * 3 // 2 + 16).bit_length()) - 1  # at most two thirds full
    if compiled:
        # NOTE: np.empty of a large array takes no memory until it is written: dep and the string table are upper bounds
        out: dict[str, Any] = {name: np.empty(sizes[name], kind) for name, kind in kinds.items()}
        deps: Any = np.empty(len(data), np.int64)
        table, at, length = np.full(mask + 1, -1, np.int32), np.empty(capacity, np.int64), np.empty(capacity, np.int32)
        status: Any = np.zeros(6, np.int64)
        constants: Any = (np.frombuffer(decoding.KEYS, np.uint8), np.array(decoding.KEY_AT), np.array(decoding.BY_LENGTH))
        first, last = np.array(begins), np.array(ends)
    else:
        out = {name: [0] * sizes[name] for name in kinds}
        deps = [0] * len(data)
        table, at, length = [-1] * (mask + 1), [0] * capacity, [0] * capacity  # type: ignore[assignment]
        status = [0] * 6
        constants = (decoding.KEYS, decoding.KEY_AT, decoding.BY_LENGTH)
        first, last = begins, ends  # type: ignore[assignment]
    o = out
    decode_kernel(
        data, len(begins), first, last, *constants, table, mask, at, length,
        o["id"], o["type"], o["dep_ptr"], deps, o["name"], o["duration_ps"], o["start_ps"], o["num_ops"], o["tensor_size"],
        o["cpu"], o["collective"], o["bytes"], o["group"], o["source"], o["destination"], o["tag"], o["priority"],
        o["root"], o["dims"], o["stream"], status,
    )  # fmt: skip
    columns: dict[str, NDArray[Any]] = {name: np.asarray(o[name], kind) for name, kind in kinds.items()}
    source, destination = columns.pop("source"), columns.pop("destination")
    sends, receives = columns["type"] == NodeType.COMM_SEND, columns["type"] == NodeType.COMM_RECV
    columns["peer"] = np.where(sends, destination, np.where(receives, source, np.int32(-1)))
    status[5] += int(np.count_nonzero((source >= 0) & ~receives) + np.count_nonzero((destination >= 0) & ~sends))
    columns["peer_kind"] = np.zeros(nodes, np.int8)
    return columns, np.array(deps[: status[3]], np.int64), (at, length), [int(s) for s in status]


class _Texts:
    """The interned strings of a batch, turned into Python strings where a column needs them."""

    def __init__(self, data: bytes, at: Any, length: Any, count: int) -> None:
        # NOTE: one character per byte; slices of it cost a third of decoding bytes one by one
        self._characters = data.decode("latin-1")
        self._at, self._length, self._count = np.asarray(at[:count], np.int64), np.asarray(length[:count], np.int64), count

    def numbered(self, column: NDArray[Any], known: dict[str, int]) -> NDArray[np.int32]:
        """The column with positions in ``known`` (which grows) for string numbers, and for the integers -2 - v."""
        codes = np.full(self._count + 1, -1, np.int32)  # the last entry serves -1
        used = np.zeros(self._count + 1, np.bool_)
        used[column[column >= -1]] = True
        wanted = np.flatnonzero(used[:-1])
        begins = self._at[wanted]
        ends = begins + self._length[wanted]
        characters = self._characters
        texts = [characters[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
        texts = [text if text.isascii() else text.encode("latin-1").decode("utf-8", "replace") for text in texts]
        codes[wanted] = [known.setdefault(text, len(known)) for text in texts]
        integers = column < -1
        result = codes[np.where(integers, -1, column)]
        for value in np.unique(column[integers]).tolist():
            result[column == value] = known.setdefault(str(-2 - value), len(known))
        return result


def _cut(label: str, at: int) -> TraceError:
    return TraceError(f"is cut short: the message at byte {at} runs over the end of the file", where=label,
                      fix="Copy it again from where it was made.")  # fmt: skip


def _broken(label: str, code: int, at: int) -> TraceError:
    if code == decoding.CUT:
        return _cut(label, at)
    if code == decoding.NOT_METADATA:
        return TraceError("is not a Chakra trace: it does not begin with a GlobalMetadata message", where=label,
                          expected="protobuf as Chakra writes it (.et), JSON (.json) or Parquet (.parquet)")  # fmt: skip
    if code == decoding.TOO_LONG:
        return TraceError(f"the node at byte {at} has a start or duration of more than 100 days", where=label)
    return TraceError(f"the node at byte {at} is not a valid protobuf message", where=label)
