"""A file of requests as named columns of checked cells: CSV with a header, JSON lines, or Parquet; plain or gzip.

Which of them is seen from the first bytes. A cell that cannot be used is refused with file, row and column; rows are counted as
the file shows them: lines of CSV (the header is 1) and of JSON, rows of Parquet from 1.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError
from distsim.trace.files import unzip

#: numbers of tokens, priorities: beyond it is a slip, and float64 would not hold all
_MOST = 1 << 53


class Columns:
    """The cells of one file.

    cells: by name, a pyarrow array or a list, of equal lengths; None is an empty cell.
    first, unit: number and name of the file's first row, for messages.
    """

    def __init__(self, file: str, cells: dict[str, Any], rows: int, *, first: int, unit: str) -> None:
        if not rows:
            raise ConfigError("has no requests", where=file, expected="a row per request")
        self.file, self.cells, self.rows = file, cells, rows
        self._first, self._unit = first, unit

    @property
    def names(self) -> list[str]:
        """Names of the columns, in the file's order."""
        return list(self.cells)

    def place(self, row: int, name: str) -> str:
        """File, line and column, for messages; ``row`` from 0."""
        return f"{self.file}: {self._unit} {row + self._first}, column {name}"

    def need(self, names: Sequence[str]) -> None:
        """Raises ConfigError naming the first column that is missing, and the nearest that are there."""
        for name in names:
            if name not in self.cells:
                raise ConfigError(
                    f"has no column {name!r}", where=self.file, near=nearest(name, self.names),
                    expected=f"columns {', '.join(names)}", fix=f"It has {', '.join(self.names[:12])}.",
                )  # fmt: skip

    def whole(self, name: str, *, least: int = 0, default: int | None = None) -> NDArray[np.int64]:
        """Whole numbers. An empty cell is ``default``, or an error without one."""
        values = self.numbers(name, None if default is None else float(default))
        bad = np.flatnonzero((values != np.floor(values)) | (values < least) | (values >= _MOST))
        if len(bad):
            self.refuse(int(bad[0]), name, f"a whole number of at least {least}")
        return values.astype(np.int64)

    def integers(self, name: str) -> NDArray[np.int64]:
        """Whole numbers to the last digit, up to 2^62: times in ps or ns."""
        column = self._array(name)
        try:
            exact = None if _boolean(column) or column.null_count else _numpy(column.cast("int64"))
        except (ValueError, TypeError):
            exact = None
        values = self.whole(name) if exact is None else exact
        bad = np.flatnonzero((values < 0) | (values >= 1 << 62))
        if len(bad):
            self.refuse(int(bad[0]), name, "a whole number from 0 to 2^62")
        return values

    def numbers(self, name: str, default: float | None = None) -> NDArray[np.float64]:
        """Finite numbers. An empty cell is ``default``, or an error without one."""
        column = self._array(name)
        if column is not None and not _boolean(column):
            if column.null_count and default is not None:
                column = column.fill_null(str(default) if _text(column) else default)
            try:
                if column.null_count:
                    column = None
                else:
                    values = _numpy(column.cast("double", safe=False) if not _text(column) else column.cast("double"))
                    bad = np.flatnonzero(~np.isfinite(values))
                    if len(bad):
                        self.refuse(int(bad[0]), name, "a finite number")
                    return values
            except (ValueError, TypeError, NotImplementedError):
                column = None
        return np.array([self._number(row, name, default) for row in range(self.rows)])

    def texts(self, name: str) -> list[str]:
        """Cells as text; "" where empty."""
        return ["" if cell is None else str(cell) for cell in _list(self.cells[name])]

    def lists(self, name: str) -> list[list[int]]:
        """Lists of whole numbers (JSON lines and Parquet); empty where the cell is."""
        found = []
        for row, cell in enumerate(_list(self.cells[name])):
            numbers = [] if cell is None else cell
            # NOTE: bool is an int in Python, and no number in JSON
            if not isinstance(numbers, list) or not set(map(type, numbers)) <= {int}:
                self.refuse(row, name, "a list of whole numbers")
            found.append(numbers)
        return found

    def _array(self, name: str) -> Any:
        """The column as a pyarrow array; None where its cells are of several types."""
        import pyarrow as pa
        import pyarrow.compute as pc

        cells = self.cells[name]
        if isinstance(cells, list):
            try:
                cells = pa.array(cells)
            except (pa.ArrowException, OverflowError, ValueError, TypeError):
                return None
        if pa.types.is_null(cells.type):
            return None
        return pc.utf8_trim_whitespace(cells) if _text(cells) else cells

    def _number(self, row: int, name: str, default: float | None) -> float:
        """One cell, slowly: to find the one that is wrong."""
        cell = self._cells(name)[row]
        if cell is None or cell == "":
            if default is not None:
                return default
            raise ConfigError("is empty", where=self.place(row, name), expected="a number")
        try:
            value = math.nan if isinstance(cell, bool) else float(cell)
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        if not math.isfinite(value):
            self.refuse(row, name, "a finite number")
        return value

    def _cells(self, name: str) -> list[Any]:
        if name not in self._lists:
            self._lists[name] = _list(self.cells[name])
        return self._lists[name]

    @cached_property
    def _lists(self) -> dict[str, list[Any]]:
        return {}

    def refuse(self, row: int, name: str, expected: str) -> NoReturn:
        """Raises ConfigError about one cell."""
        cell = self._cells(name)[row]
        shown = repr(cell) if len(repr(cell)) <= 60 else repr(cell)[:57] + "..."
        raise ConfigError(f"{shown} cannot be used", where=self.place(row, name), expected=expected)


def nearest(name: str, names: Sequence[str]) -> list[str]:
    """Of ``names``, those spelt most like ``name``, whatever the case."""
    lower = {one.lower(): one for one in names}
    return [lower[one] for one in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]


def _text(column: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def _boolean(column: Any) -> bool:
    import pyarrow as pa

    return column is None or bool(pa.types.is_boolean(column.type))


def _numpy(column: Any) -> NDArray[Any]:
    found: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return found


def _list(cells: Any) -> list[Any]:
    found: list[Any] = cells if isinstance(cells, list) else cells.to_pylist()
    return found


def load(file: str | Path) -> Columns:
    """The columns of a file. Raises ConfigError (TraceError where the gzip stream is damaged) where it cannot be read."""
    path = str(file)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=path) from None
    data = unzip(data, path)
    if data[:4] == b"PAR1":
        return _parquet(data, path)
    data = data.removeprefix(b"\xef\xbb\xbf")  # NOTE: the byte order mark that spreadsheets write
    if not data.strip():
        raise ConfigError("is empty", where=path, expected="a row per request")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ConfigError("is neither text nor Parquet", where=path, expected="CSV, JSON lines or Parquet") from None
    if text.lstrip()[0] in "{[":
        return _json_lines(text, path)
    return _csv(data, text, path)


def _csv(data: bytes, text: str, path: str) -> Columns:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    try:
        names = [name.strip() for name in next(csv.reader(io.StringIO(text)))]
    except csv.Error as error:
        raise ConfigError(f"has a header that is no line of CSV ({error})", where=path) from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"has two columns {twice[0]!r}", where=path)
    data = data.rstrip()
    if b"\n" not in data:
        raise ConfigError("has one line", where=path, expected="a header and a row per request")
    uneven: list[Any] = []

    def note(row: Any) -> str:
        uneven.append(row)
        return "skip"

    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            read_options=arrow_csv.ReadOptions(use_threads=False, column_names=names, skip_rows=1),
            parse_options=arrow_csv.ParseOptions(invalid_row_handler=note, ignore_empty_lines=False),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""],
                quoted_strings_can_be_null=True,
            ),
        )  # fmt: skip
    except pa.ArrowInvalid as error:
        raise ConfigError(f"is no CSV file ({error})", where=path) from None
    if uneven:
        first = uneven[0]
        raise ConfigError(
            f"has {first.actual_columns} cells", where=f"{path}: line {first.number}", expected=f"{first.expected_columns}"
        )
    cells = {name: table.column(name).combine_chunks() for name in names}
    return Columns(path, cells, table.num_rows, first=2, unit="line")


def _json_lines(text: str, path: str) -> Columns:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.rstrip().split("\n"), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            reason = "an empty line" if not line.strip() else f"no JSON ({error})"
            raise ConfigError(f"is {reason}", where=f"{path}: line {number}", expected="one object per line") from None
        if not isinstance(row, dict):
            raise ConfigError("is no object", where=f"{path}: line {number}", expected="one object per line")
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Columns(path, {name: [row.get(name) for row in rows] for name in names}, len(rows), first=1, unit="line")


def _parquet(data: bytes, path: str) -> Columns:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(pa.BufferReader(data), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"is no Parquet file ({error})", where=path) from None
    cells = {name: table.column(name).combine_chunks() for name in table.column_names}
    return Columns(path, cells, table.num_rows, first=1, unit="row")
