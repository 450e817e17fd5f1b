"""Columns of numbers as text on a page: differences or values, byte plane by byte plane, deflated, in base64.

A page unpacks them into typed arrays (``assets/base.js``: ``unpack``). Equal columns give equal text.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import numpy as np

#: types that JavaScript has arrays for
_KINDS = {"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "float32": "f4",
          "float64": "f8"}  # fmt: skip


def packed(values: Any, *, delta: bool = False) -> dict[str, Any]:
    """``{"$": type, "n": length, "d": delta, "b": text}``.

    Args:
        values: a numpy column; of 64-bit integers only what fits 53 bits, as JavaScript's numbers are float64.
        delta: of integers, write each as its difference to the one before: smaller where they ascend.

    Raises: ValueError where integers do not fit.
    """
    column = np.ascontiguousarray(values)
    if column.dtype.kind == "b":
        column = column.astype(np.uint8)
    if column.dtype.name in ("int64", "uint64"):
        if len(column) and int(np.abs(column).max()) >= 1 << 53:
            raise ValueError("integers of more than 53 bits")
        column = column.astype(np.float64)
    kind = _KINDS[column.dtype.name]
    if delta and kind[0] != "f" and len(column):
        column = np.diff(column, prepend=column.dtype.type(0))  # wraps around, as the reader's sums do
    little = column.astype(column.dtype.newbyteorder("<"))
    planes = little.view(np.uint8).reshape(len(column), -1).T if len(column) else np.zeros((0, 0), np.uint8)
    return {"$": kind, "n": len(column), "d": int(delta and kind[0] != "f"), "b": deflated(planes.tobytes())}


def packed_json(value: Any) -> dict[str, str]:
    """Any JSON-ready value, deflated: for lists of many like texts."""
    return {"$": "json", "b": deflated(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8"))}


def narrow(values: Any) -> Any:
    """The same integers in the smallest type that holds them all."""
    column = np.asarray(values)
    low, high = (int(column.min()), int(column.max())) if len(column) else (0, 0)
    for kind in (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return column.astype(kind)
    return column


def deflated(data: bytes) -> str:
    """Bytes as base64 of a zlib stream."""
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")
