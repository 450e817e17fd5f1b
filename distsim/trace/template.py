"""SPMD families: a rank file that equals an earlier one but for a few values is that file with these values exchanged.

The rank files of a job mostly have equal lengths and differ in the names of their groups and in the ranks and tags of their
messages. The first of them, the *template*, is decoded; the others are compared with it byte by byte and only what differs is
looked at. A difference is understood if it lies in a :class:`Cell`: the name of a node, or the body of an attribute from the
table below that its node has once. A node's row is then made of the same fields in both files, all equal but this one, so
that nothing but one number in one column can differ. Every other difference sends the file to the ordinary decoder.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.trace import decode, wire
from distsim.trace.graph import NodeType, Program

#: attributes that a cell may hold -> column; a peer counts only on the side that the column ``peer`` speaks of
_COLUMN = {decode.PG_NAME: "group", decode.COMM_SRC: "peer", decode.COMM_DST: "peer", decode.COMM_TAG: "tag"}
_PEER_OF = {decode.COMM_SRC: NodeType.COMM_RECV, decode.COMM_DST: NodeType.COMM_SEND}
_TEXT = (29, 31)  # AttributeProto's string and bytes
_NAME, _TYPE, _ATTRIBUTE = 18, 24, 82  # protobuf tags of Node

_KEPT_BYTES = 32 << 20  #: of templates in memory (the latest stays in any case)
_TRIED = 4  #: templates of one length that a file is compared with, the latest first
_BLOCK = 1 << 20  #: bytes compared at a time
_PER_CHANGE = 128  #: bytes of file for each byte that may differ; with more differences decoding is the shorter way

Change = tuple["Cell", int | str]  #: a cell, and what a file holds there


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """A place where the files of a family may differ."""

    row: int
    column: str  #: of Program; "" where no column holds the value (the destination of a receive)
    begin: int  #: byte where the name or the attribute's body begins
    end: int
    which: int  #: index into decode.ATTRIBUTES; -1: the node's name
    field: int  #: kind of the attribute's value, as decode.attribute gives it


class Template:
    """A file in memory that others are compared with. ``index``: the caller's number of it."""

    def __init__(self, data: bytes, index: int) -> None:
        self.data, self.index = data, index
        self._bytes = np.frombuffer(data, np.uint8)
        self._nodes: tuple[list[int], list[int]] | None = None  # where their bodies begin and end
        self._cells: dict[int, Cell | None] = {}  # by differing byte
        self._said: dict[bytes, Any] = {}  # attribute bodies, decoded

    def changes(self, data: bytes) -> tuple[Change, ...] | None:
        """What ``data``, of the same length, holds where it differs, in order of bytes; None where that is not understood."""
        if data == self.data:
            return ()
        changes: list[Change] = []
        end = 0
        for position in self._differing(data):
            if position < end:
                continue  # in the cell before
            if position not in self._cells:
                self._cells[position] = self._cell(position)
            cell = self._cells[position]
            value = None if cell is None else self._value(cell, data[cell.begin : cell.end])
            if cell is None or value is None:
                return None
            changes.append((cell, value))
            end = cell.end
        return tuple(changes) or None

    def _differing(self, data: bytes) -> list[int]:
        """Positions of the bytes that differ; one that no cell holds, 0, where they are too many."""
        other, found = np.frombuffer(data, np.uint8), []
        for low in range(0, len(data), _BLOCK):
            found += (np.flatnonzero(self._bytes[low : low + _BLOCK] != other[low : low + _BLOCK]) + low).tolist()
            if len(found) * _PER_CHANGE > len(data) + 64 * _PER_CHANGE:
                return [0]
        return found

    def _attribute(self, body: bytes) -> Any:
        """decode.attribute of a body, remembered: (which, field, value, start, length)."""
        said = self._said.get(body)
        if said is None:
            run = decode.attribute.interpreted
            said = self._said[body] = run(body, 0, len(body), decode.KEYS, decode.KEY_AT, decode.BY_LENGTH)
        return said

    def _value(self, cell: Cell, body: bytes) -> int | str | None:
        """What these bytes say in this cell; None where they are not just another value of the same attribute and kind."""
        if cell.which < 0:
            return body.decode("utf-8", "replace")
        which, field, value, start, length = self._attribute(body)
        if which != cell.which or field != cell.field:
            return None
        if which == decode.PG_NAME:
            return body[start : start + length].decode("utf-8", "replace") if abs(field) in _TEXT else None
        return int(value) if field & 1 and 0 <= value < 1 << 31 else None

    def _cell(self, position: int) -> Cell | None:
        """The cell that holds this byte, if one does."""
        if self._nodes is None:
            self._nodes = _nodes(self.data)
        begins, ends = self._nodes
        row = bisect.bisect_right(begins, position) - 1
        if row < 0:
            return None
        fields: list[tuple[int, int, int]] = []
        kind, at, stop, varint = 0, begins[row], ends[row], wire.varint.interpreted
        while at < stop:
            tag, at = varint(self.data, at, stop)
            if at < 0:
                return None
            if tag in (_NAME, _ATTRIBUTE):
                size, at = varint(self.data, at, stop)
                if not 0 <= size <= stop - at:
                    return None
                fields.append((tag, at, at + size))
                at += size
            elif tag == _TYPE:
                kind, at = varint(self.data, at, stop)
            else:
                at = wire.skip.interpreted(self.data, at, stop, tag & 7)
            if at < 0:
                return None
        here = next((field for field in fields if field[1] <= position < field[2]), None)
        if here is None:
            return None
        tag, begin, end = here
        same = [(self._attribute(self.data[b:e]) if t == _ATTRIBUTE else (-1, 0))[:2] for t, b, e in fields if t == tag]
        which, field = (-1, 0) if tag == _NAME else self._attribute(self.data[begin:end])[:2]
        if [each[0] for each in same].count(which) > 1 or (tag == _ATTRIBUTE and which not in _COLUMN):
            return None
        column = "name" if tag == _NAME else _COLUMN[which]
        cell = Cell(row, "" if _PEER_OF.get(which, kind) != kind else column, begin, end, which, field)
        return cell if self._value(cell, self.data[begin:end]) is not None else None


def _nodes(data: bytes) -> tuple[list[int], list[int]]:
    """Where the body of each node begins and ends, up to the first message that is cut."""
    walk, compiled = wire.messages.for_work(len(data) // 16)
    room = len(data) // 2 + 1
    if compiled:
        ends: Any = np.empty(room, np.int64)
        begins: Any = np.empty(room, np.int64)
        count = walk(np.frombuffer(data, np.uint8), 0, len(data), begins, ends)
        return begins[1:count].tolist(), ends[1:count].tolist()
    begins, ends = [0] * room, [0] * room
    count = walk(data, 0, len(data), begins, ends)
    return begins[1:count], ends[1:count]


class Templates:
    """The templates in memory: the latest ones, of some tens of megabytes in all."""

    def __init__(self) -> None:
        self._kept: list[Template] = []
        self._of_length: dict[int, list[Template]] = {}
        self._bytes = 0

    def add(self, data: bytes, index: int) -> None:
        """A new template, known by this number; the oldest ones make room for it."""
        template = Template(data, index)
        self._kept.append(template)
        self._of_length.setdefault(len(data), []).append(template)
        self._bytes += len(data)
        while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
            oldest = self._kept.pop(0)
            self._of_length[len(oldest.data)].remove(oldest)
            self._bytes -= len(oldest.data)

    def fit(self, data: bytes) -> tuple[int, tuple[Change, ...]] | None:
        """(number of a template, how the file differs from it; nothing for an equal one), or None where none fits."""
        for template in self._of_length.get(len(data), [])[: -_TRIED - 1 : -1]:
            changes = template.changes(data)
            if changes is not None:
                return template.index, changes
        return None


def changed(program: Program, changes: tuple[Change, ...], number: Callable[[str, str], int]) -> Program:
    """The program of a file that differs so from the file of ``program``. ``number(column, text)``: the code of a text."""
    places: dict[str, tuple[list[int], list[int]]] = {}
    for cell, value in changes:
        rows, values = places.setdefault(cell.column, ([], []))
        rows.append(cell.row)
        values.append(number(cell.column, value) if isinstance(value, str) else value)
    places.pop("", None)
    columns: dict[str, NDArray[Any]] = {}
    for name, (rows, values) in places.items():
        columns[name] = getattr(program, name).copy()
        columns[name][rows] = values
    return replace(program, **columns)
