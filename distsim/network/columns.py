"""Storage of the network kernels: columns that grow together, in the form (lists or arrays) that the kernel form wants.

A run begins on Python lists, which the interpreter handles fastest; once the work is worth a compiler, :meth:`Columns.compile`
turns them into arrays for good. :class:`Blocks` says which rows are free, so that a long run reuses them.
"""

from __future__ import annotations

import bisect
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LINE = 64  #: bytes of a cache line, on all current x86 and most Arm processors


class Columns:
    """Named columns of equal length: Python lists at first, numpy arrays after :meth:`compile`. New rows hold zeros."""

    def __init__(self, rows: int = 0, **types: str) -> None:
        self._types = types
        self.rows = rows
        self.compiled = False
        self._values: dict[str, Any] = {name: [0] * rows for name in types}

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def all(self) -> list[Any]:
        """Every column, in the order of the declaration: what a kernel is given."""
        return list(self._values.values())

    def reserve(self, rows: int) -> None:
        """Make room for at least ``rows`` rows; what is there stays. Arrays at least double, so that growth is O(1) a row."""
        if rows <= self.rows:
            return
        if self.compiled:
            rows = max(rows, 2 * self.rows)
            self._grow(rows)
        else:
            for column in self._values.values():
                column.extend([0] * (rows - self.rows))
        self.rows = rows

    def write(self, name: str, first: int, values: NDArray[Any]) -> None:
        """Overwrite rows ``first ...`` of one column (they must be reserved)."""
        self._values[name][first : first + len(values)] = values if self.compiled else values.tolist()

    def compile(self) -> None:
        """Turn lists into arrays (of the declared types), once."""
        if not self.compiled:
            self.compiled = True
            arrays = self._arrays(self.rows)
            for name, column in self._values.items():
                arrays[name][:] = column
            self._values = arrays

    def _grow(self, rows: int) -> None:
        """Longer arrays, with what is there."""
        arrays = self._arrays(rows)
        for name, old in self._values.items():
            arrays[name][: self.rows] = old
        self._values = arrays

    def _arrays(self, rows: int) -> dict[str, Any]:
        """Arrays of zeros. NOTE: np.zeros hands out untouched pages: room that is never used costs no memory."""
        return {name: np.zeros(rows, dtype=kind) for name, kind in self._types.items()}


class Records(Columns):
    """Columns whose arrays lie interleaved in memory, row by row.

    For rows that are visited in no order, where every column of its own would be a cache miss of its own. Kernels do not see
    the difference.
    """

    def _arrays(self, rows: int) -> dict[str, Any]:
        # NOTE: wide fields first, so that all lie where their width divides; the order of the declaration stays
        placed = sorted(self._types.items(), key=lambda field: -np.dtype(field[1]).itemsize)
        widths = [np.dtype(kind).itemsize for _, kind in placed]
        offsets = [sum(widths[:at]) for at in range(len(widths))]
        layout = {"names": [name for name, _ in placed], "formats": [kind for _, kind in placed], "offsets": offsets}
        width = sum(widths)
        width = 1 << (width - 1).bit_length() if width <= _LINE else -(-width // 8) * 8
        kind = np.dtype({**layout, "itemsize": width})  # type: ignore[call-overload]
        memory = np.zeros(rows * width + _LINE, dtype=np.uint8)
        first = -memory.ctypes.data % _LINE  # NOTE: a record of up to 64 bytes lies in one cache line, not parts of two
        self._whole = memory[first : first + rows * width]
        records = self._whole.view(kind)
        return {name: records[name] for name in self._types}

    def _grow(self, rows: int) -> None:
        """As above, but bytes as they are: a copy of every column by itself would go through all of the memory every time."""
        old = self._whole
        self._values = self._arrays(rows)
        self._whole[: len(old)] = old


class Blocks:
    """Intervals of rows: handed out first fit, taken back, neighbours merged.

    >>> blocks = Blocks()
    >>> blocks.take(4), blocks.take(2), blocks.give(0, 4), blocks.take(3), blocks.take(3), blocks.end
    (0, 4, None, 0, 6, 9)
    """

    def __init__(self) -> None:
        self.end = 0  #: rows ever handed out lie below
        self._free: list[tuple[int, int]] = []  # (first, end), ascending, never touching one another

    def take(self, rows: int) -> int:
        """First row of a free interval of ``rows`` rows."""
        for at, (first, end) in enumerate(self._free):
            if end - first >= rows:
                if end - first == rows:
                    del self._free[at]
                else:
                    self._free[at] = (first + rows, end)
                return first
        first = self.end
        self.end += rows
        return first

    def give(self, first: int, rows: int) -> None:
        """Take back an interval that :meth:`take` handed out."""
        if not rows:
            return
        end = first + rows
        at = bisect.bisect(self._free, (first, end))
        if at < len(self._free) and self._free[at][0] == end:
            end = self._free.pop(at)[1]
        if at and self._free[at - 1][1] == first:
            at -= 1
            first = self._free.pop(at)[0]
        if end == self.end:
            self.end = first
        else:
            self._free.insert(at, (first, end))
