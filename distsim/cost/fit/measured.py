"""Measured GEMMs from CSV or Parquet: columns m, n, k and latency_us, perhaps dtype and system."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError

COLUMNS = ("m", "n", "k", "latency_us")
_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "fp8_block": "fp8", "nvfp4": "fp4"}
_MOST = 1 << 40  #: of m, n and k


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a file, in its order. system and dtype: "" where the file does not say; sound: rows whose figures are positive
    (m, n, k whole) numbers, the only ones to use."""

    system: list[str]
    dtype: list[str]
    shapes: NDArray[np.int64]
    seconds: NDArray[np.float64]
    sound: NDArray[np.bool_]


def read_rows(path: Path, needed: Sequence[str] = COLUMNS) -> Rows:
    """Every row of a file. Raises ConfigError where it cannot be read, or lacks a column."""
    columns = _parquet(path) if path.suffix in (".parquet", ".pq") else _csv(path)
    missing = [name for name in needed if name not in columns]
    if missing:
        raise ConfigError(f"has no column {', '.join(missing)}", where=str(path), expected=", ".join(needed))
    numbers = np.stack([_numbers(columns[name]) for name in COLUMNS], axis=1)
    count = len(numbers)
    finite = np.where(np.isfinite(numbers), numbers, 0.0)
    shapes, latency = finite[:, :3], finite[:, 3]
    sound = (shapes >= 1).all(axis=1) & (shapes < _MOST).all(axis=1) & (shapes == np.floor(shapes)).all(axis=1) & (latency > 0)
    texts = [[str(cell).strip() for cell in columns[name]] if name in columns else [""] * count for name in ("system", "dtype")]
    dtypes = [_DTYPES.get(one.lower(), one.lower()) for one in texts[1]]
    return Rows(texts[0], dtypes, np.where(sound[:, None], shapes, 1).astype(np.int64), latency * 1e-6, sound)


def _numbers(cells: Sequence[Any]) -> NDArray[np.float64]:
    """Cells as float64, nan where one is no number."""
    try:
        return np.array(cells, dtype=np.float64)
    except (TypeError, ValueError):
        return np.array([_number(cell) for cell in cells], dtype=np.float64)


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return float("nan")


def _parquet(path: Path) -> Mapping[str, Sequence[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        wanted = [name for name in pq.read_schema(path).names if name in (*COLUMNS, "system", "dtype")]
        content = pq.read_table(path, columns=wanted)
        return {name: content[name].to_pylist() for name in wanted}
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"cannot be read as Parquet: {str(error).splitlines()[0]}", where=str(path)) from None


def _csv(path: Path) -> Mapping[str, Sequence[Any]]:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text)) if row]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path), expected="CSV or Parquet") from None
    if not rows:
        raise ConfigError("is empty", where=str(path), expected=f"a header ({', '.join(COLUMNS)}) and rows")
    names = [name.strip() for name in rows[0]]
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(names):
            raise ConfigError(f"{len(row)} cells in {len(names)} columns", where=f"{path}: row {number}")
    return {name: [row[place] for row in rows[1:]] for place, name in enumerate(names)}
