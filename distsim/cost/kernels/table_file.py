"""Files of measured kernels, CSV or Parquet: one row per kernel, checked, as kernels with their times.

Columns (others are ignored)::

    all        latency_us, latency_ms or latency_s; dtype (or kv_cache_dtype); system (a GPU's name; or all rows are of the GPU
               that the table is given for); kind, where the other columns leave it open
    gemm       m, n, k
    grouped_gemm   groups, m, n, k
    attention  batch, q, kv (or past: kv = past + q), heads, kv_heads, head_dim (or qk_dim and v_dim); causal (1 where absent),
               window (0 where absent); a row with q = 1 and earlier tokens is decode_attention
    memory     bytes
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distsim.cost.kernel import WIDTH
from distsim.errors import ConfigError, UnknownNameError
from distsim.hardware.gpu import gpu as gpu_named

#: spellings of a column
NAMES = {
    "batch": ("batch", "batch_size"),
    "q": ("q", "seq", "seq_len", "isl"),
    "past": ("past", "step"),
    "kv": ("kv", "kv_len"),
    "heads": ("heads", "num_heads"),
    "kv_heads": ("kv_heads", "num_key_value_heads", "num_kv_heads"),
    "qk_dim": ("qk_dim", "head_dim"),
    "v_dim": ("v_dim", "head_dim"),
    "window": ("window", "window_size"),
    "dtype": ("dtype", "gemm_dtype", "kv_cache_dtype", "attn_dtype"),
    "system": ("system", "gpu"),
    "bytes": ("bytes", "size_bytes"),
}
#: column of times -> seconds of its unit
TIMES = {"latency_us": 1e-6, "latency_ms": 1e-3, "latency_s": 1.0, "seconds": 1.0}
DTYPES = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "fp8_e4m3": "fp8", "float8_e4m3fn": "fp8"}
ATTENTION = ("batch", "q", "kv", "heads", "kv_heads", "qk_dim", "v_dim", "causal", "window")
SHAPES = {
    "gemm": ("m", "n", "k"),
    "grouped_gemm": ("groups", "m", "n", "k"),
    "attention": ATTENTION,
    "attention_backward": ATTENTION,
    "decode_attention": ATTENTION,
    "memory": ("bytes",),
}
#: sizes that may be nothing
_MAY_BE_ZERO = ("past", "causal", "window")
_MOST = 1 << 50


class Measured(NamedTuple):
    """One measured kernel. system: a GPU's name, "" where the file does not say; shape as in Kernel, memory: (bytes,)."""

    system: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    seconds: float


def read(path: Path) -> list[Measured]:
    """Every row of a file. Raises ConfigError naming file, column and row."""
    columns = _parquet(path) if path.suffix in (".parquet", ".pq") else _csv(path)
    return rows_of(columns, str(path))


def rows_of(columns: Mapping[str, Sequence[Any]], where: str) -> list[Measured]:
    """Rows from columns of equal length. Raises ConfigError naming column and row (the first is row 1)."""
    time = next((name for name in TIMES if name in columns), None)
    if time is None:
        raise ConfigError("has no column of times", where=where, expected=" or ".join(TIMES))
    known = {name: next((one for one in (*NAMES.get(name, ()), name) if one in columns), None) for name in _ALL}
    kinds = _kinds(columns, known, where)
    systems: dict[str, str] = {}
    found = []
    reader = _Reader(columns, known, where)
    for row in range(len(columns[time])):
        kind = kinds[row] if isinstance(kinds, list) else kinds
        seconds = reader.number(time, row) * TIMES[time]
        if not 0 < seconds < 1e6:
            raise ConfigError(f"{columns[time][row]!r} is no time", where=reader.place(row, time), expected="a positive number")
        kind, shape = _shape(kind, reader, row)
        found.append(Measured(_system(reader, row, systems), kind, reader.dtype(row), shape, seconds))
    return found


_ALL = ("system", "dtype", "kind", "m", "n", "k", "groups", "batch", "q", "kv", "past", "heads", "kv_heads", "qk_dim", "v_dim",
        "causal", "window", "bytes")  # fmt: skip


class _Reader:
    """Cells by the name of what they hold, checked."""

    def __init__(self, columns: Mapping[str, Sequence[Any]], known: Mapping[str, str | None], where: str) -> None:
        self.columns, self.known, self.where = columns, known, where

    def place(self, row: int, column: str) -> str:
        return f"{self.where}: row {row + 1}, column {column}"

    def number(self, column: str, row: int) -> float:
        cell = self.columns[column][row]
        try:
            value = float(cell)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise ConfigError(f"{cell!r} is no number", where=self.place(row, column))
        return value

    def whole(self, name: str, row: int, default: int | None = None) -> int:
        column = self.known[name]
        if column is None:
            if default is None:
                spellings = " or ".join(dict.fromkeys((*NAMES.get(name, ()), name)))
                raise ConfigError(f"has no column {spellings}", where=self.where, fix="Columns: docs/compute.md, Tables.")
            return default
        value = self.number(column, row)
        least = 0 if name in _MAY_BE_ZERO else 1
        if value != int(value) or not least <= value < _MOST:
            raise ConfigError(
                f"{self.columns[column][row]!r} is no size", where=self.place(row, column),
                expected=f"a whole number of at least {least}",
            )  # fmt: skip
        return int(value)

    def dtype(self, row: int) -> str:
        column = self.known["dtype"]
        if column is None:
            raise ConfigError("has no column dtype", where=self.where, expected="dtype, or kv_cache_dtype")
        text = str(self.columns[column][row]).strip().lower()
        found = DTYPES.get(text, text)
        if found not in WIDTH:
            raise ConfigError(f"unknown data type {text!r}", where=self.place(row, column), expected=", ".join(WIDTH))
        return found


def _kinds(columns: Mapping[str, Sequence[Any]], known: Mapping[str, str | None], where: str) -> list[str] | str:
    """The column of kinds, or the one kind that the columns make."""
    if known["kind"] is not None:
        kinds = [str(cell).strip().lower() for cell in columns["kind"]]
        for row, kind in enumerate(kinds):
            if kind not in SHAPES:
                place = f"{where}: row {row + 1}, column kind"
                raise ConfigError(f"unknown kind {kind!r}", where=place, expected=", ".join(SHAPES))
        return kinds
    have = {name for name, column in known.items() if column is not None}
    if {"m", "n", "k"} <= have:
        return "grouped_gemm" if "groups" in have else "gemm"
    if {"batch", "heads"} <= have:
        return ""
    if "bytes" in have:
        return "memory"
    raise ConfigError(
        "holds no kernels that are known", where=where, expected="columns m, n, k, or batch, q, kv, heads, kv_heads, head_dim"
    )


def _shape(kind: str, reader: _Reader, row: int) -> tuple[str, tuple[int, ...]]:
    """Kind and shape of a row; "" is attention, prefill or decoding."""
    names = SHAPES[kind or "attention"]
    if names is not ATTENTION:
        return kind, tuple(reader.whole(name, row) for name in names)
    q = reader.whole("q", row)
    past = reader.whole("past", row, 0)
    kv = reader.whole("kv", row, past + q)
    if kv < q:
        raise ConfigError(f"{q} new tokens are more than {kv} in all", where=reader.place(row, reader.known["kv"] or "kv"))
    if not kind:
        kind = "decode_attention" if q == 1 and kv > 1 else "attention"
    heads, kv_heads = reader.whole("heads", row), reader.whole("kv_heads", row)
    if heads % kv_heads:
        raise ConfigError(
            f"{heads} heads do not share {kv_heads} key heads evenly", where=reader.place(row, reader.known["kv_heads"] or "")
        )
    causal = 0 if kind == "decode_attention" else reader.whole("causal", row, 1)
    window = reader.whole("window", row, 0)
    shape = (reader.whole("batch", row), q, kv, heads, kv_heads, reader.whole("qk_dim", row), reader.whole("v_dim", row))
    return kind, (*shape, min(causal, 1), window)


def _system(reader: _Reader, row: int, seen: dict[str, str]) -> str:
    column = reader.known["system"]
    if column is None:
        return ""
    text = str(reader.columns[column][row]).strip()
    if text not in seen:
        try:
            seen[text] = gpu_named(text).name
        except UnknownNameError as error:
            raise ConfigError(f"unknown GPU {text!r}", where=reader.place(row, column), near=error.near) from None
    return seen[text]


def _parquet(path: Path) -> dict[str, list[Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise ConfigError(f"cannot be read as Parquet: {error}", where=str(path)) from None
    return {name: table[name].to_pylist() for name in table.column_names if name in _READ}


def _csv(path: Path) -> dict[str, list[Any]]:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from None
    reader = csv.reader(io.StringIO(text))
    try:
        header = [name.strip() for name in next(reader)]
        columns = _transposed(header, reader, path)
    except StopIteration:
        raise ConfigError("is empty", where=str(path), expected="a header and rows") from None
    except csv.Error as error:
        raise ConfigError(f"cannot be read as CSV: {error}", where=str(path)) from None
    return columns


def _transposed(header: list[str], rows: Iterable[list[str]], path: Path) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in header}
    number = 0
    for row in rows:
        if not row:
            continue
        number += 1
        if len(row) != len(header):
            raise ConfigError(f"{len(row)} cells in {len(header)} columns", where=f"{path}: row {number}")
        for name, cell in zip(header, row, strict=True):
            columns[name].append(cell)
    return columns


#: what is worth reading of a wide file
_READ = {*TIMES, *_ALL, *(one for names in NAMES.values() for one in names)}
