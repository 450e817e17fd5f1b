"""Requests as a file in the plain format (formats/plain.py): what is written reads back as the same requests."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from distsim.errors import ConfigError
from distsim.serving.requests.table import Requests
from distsim.trace.files import Output


def write(requests: Requests, path: str) -> None:
    """CSV, JSON lines (``.jsonl``) or Parquet by the name's ending, ``.gz`` allowed on the first two; columns that say nothing
    are left out. The file appears whole or not at all. Raises ConfigError on another ending, prefixes in CSV, or no place.
    """
    stem = path.removesuffix(".gz")
    kinds = {".csv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}
    kind = next((kind for kind in kinds if stem.endswith(kind)), None)
    if kind is None or (kind == ".parquet" and stem != path):
        raise ConfigError("has no known ending", where=path, expected=".csv, .csv.gz, .jsonl, .jsonl.gz or .parquet")
    columns = _columns(requests)
    if kind == ".csv" and "hashes" in columns:
        raise ConfigError("CSV has no lists, and these requests share prefixes", where=path, expected=".jsonl or .parquet")
    output = Output()
    try:
        output.write(path, kinds[kind](columns))
        output.finish()
    finally:
        output.drop()


def _columns(requests: Requests) -> dict[str, list[Any]]:
    n = len(requests)
    columns: dict[str, list[Any]] = {
        "arrival_ps": requests.arrival.tolist(), "prompt": requests.prompt.tolist(), "output": requests.output.tolist(),
    }  # fmt: skip
    if requests.names != ("",):
        columns["tenant"] = [requests.names[tenant] for tenant in requests.tenant.tolist()]
    optional = {"session": -1, "priority": 0, "deadline": 0, "after": -1, "think": 0}
    for name, default in optional.items():
        column = getattr(requests, name)
        if np.any(column != default):
            columns[name + "_ps" * (name in ("deadline", "think"))] = column.tolist()
    if requests.hashes:
        columns["hashes"] = [[int(number) for number in requests.hashes.get(row, ())] for row in range(n)]
        columns["hash_block"] = [requests.hash_block] * n
    return columns


def _csv(columns: dict[str, list[Any]]) -> bytes:
    import csv

    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return file.getvalue().encode()


def _json_lines(columns: dict[str, list[Any]]) -> bytes:
    rows = (dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _parquet(columns: dict[str, list[Any]]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pa.table(columns), file)
    return file.getvalue()
