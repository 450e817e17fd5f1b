"""Measured collectives: what nccl-tests prints, and tables in CSV.

nccl-tests (2.0 to 2.17): comment lines name ranks, hosts and devices, a header names the columns, then one line per size;
the out-of-place half is read. Several runs may follow one another in one file.

CSV: a header with ``size_bytes`` (or size, bytes), ``latency_us`` (or time_us, time), ``collective`` (or operation), ``gpus``
(or ranks, nranks); optional: ``nodes``, ``gpu``, ``system``, ``dtype`` (or type), ``impl`` (only NCCL is kept, where it is
asked for), ``use`` (rows with ``no`` are dropped).
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import statistics
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from distsim.errors import ConfigError

_NAMES = {
    "all_reduce": ("allreduce",),
    "all_gather": ("allgather",),
    "reduce_scatter": ("reducescatter",),
    "all_to_all": ("alltoall",),
    "send_recv": ("sendrecv",),
    "broadcast": ("broadcast", "bcast"),
    "reduce": ("reduce",),
}
_COLUMNS = {
    "size": ("size_bytes", "size", "bytes"),
    "time": ("latency_us", "time_us", "time"),
    "operation": ("collective", "operation", "op"),
    "ranks": ("gpus", "ranks", "nranks"),
    "nodes": ("nodes",),
    "gpu": ("gpu", "device"),
    "system": ("system",),
    "dtype": ("dtype", "type"),
    "impl": ("impl",),
    "use": ("use",),
}
_REQUIRED = ("size", "time", "operation", "ranks")
_RANK = re.compile(r"#\s+Rank\s+(\d+)\b.*?\bon\s+(\S+)\s+device\s+\S+\s+\[[^\]]*\]\s*(.*)")
_TEST = re.compile(r"\b(\w+)_perf\b")


@dataclass(frozen=True, slots=True)
class Measured:
    """One row. ``size`` is NCCL's nBytes; ranks 0, operation and gpu "" where the file does not say."""

    operation: str
    size: int
    time_us: float
    ranks: int
    nodes: int
    gpu: str = ""
    system: str = ""
    dtype: str = ""
    impl: str = "NCCL"
    line: int = 0


def operation_name(text: str) -> str:
    """The operation that a spelling means, "" for none: ``alltoall``, ``AllReduce``, ``all_gather_perf``."""
    plain = re.sub(r"[^a-z]", "", text.lower()).removesuffix("perf")
    return next((name for name, spellings in _NAMES.items() if plain in spellings), "")


def read_rows(path: str | Path) -> list[Measured]:
    """Every row of a file, nccl-tests' text or CSV, plain or gzip.

    Raises: ConfigError where it cannot be read, is neither, or a row is malformed.
    """
    where = str(path)
    try:
        raw = Path(path).read_bytes()
        text = (gzip.decompress(raw) if where.endswith(".gz") else raw).decode()
    except OSError as error:
        raise ConfigError(f"cannot read: {error.strerror or error}", where=where) from None
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read: {error}", where=where) from None
    first = next((line for line in text.splitlines() if line.strip()), "")
    rows = _csv(text, where) if "," in first and not first.lstrip().startswith("#") else _text(text, where)
    if not rows:
        raise ConfigError("holds no measurements", where=where, expected="the output of nccl-tests, or CSV with a header")
    return rows


def read_measured(path: str | Path, operation: str, members: int) -> dict[int, float]:
    """Buffer in bytes -> median us of one operation by NCCL on so many ranks.

    Raises: ConfigError where the file holds nothing about it.
    """
    rows = [one for one in read_rows(path) if one.impl.upper() in ("NCCL", "RCCL")]
    found: dict[int, list[float]] = {}
    for one in rows:
        if (one.operation or operation) == operation and (one.ranks or members) == members:
            found.setdefault(one.size, []).append(one.time_us)
    if not found:
        held = sorted({f"{one.operation} on {one.ranks}" for one in rows})
        raise ConfigError(
            f"holds no {operation} on {members} ranks",
            where=str(path),
            expected=f"one of {', '.join(held[:8])}" if held else "",
        )
    return {size: statistics.median(times) for size, times in sorted(found.items())}


def _number(text: str, what: str, where: str) -> float:
    try:
        value = float(text)
    except (ValueError, TypeError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{what} {text!r} is not a positive number", where=where)
    return value


def _count(text: str, what: str, where: str, least: int = 1) -> int:
    try:
        value = int(text)
    except (ValueError, TypeError):
        value = least - 1
    if value < least:
        raise ConfigError(f"{what} {text!r} is not a number of at least {least}", where=where)
    return value


def _csv(text: str, where: str) -> list[Measured]:
    reader = csv.DictReader(io.StringIO(text))
    header = [name.strip() for name in reader.fieldnames or ()]
    at: dict[str, str] = {}
    for key, names in _COLUMNS.items():
        known = [name for name in names if name in header]
        if known:
            at[key] = known[0]
        elif key in _REQUIRED:
            raise ConfigError(
                f"has no column {names[0]}", where=where, expected=f"{' or '.join(names)} among {', '.join(header)}"
            )
    rows = []
    for number, record in enumerate(reader, 2):
        row = {key: (record.get(name) or "").strip() for key, name in at.items()}
        place = f"{where}:{number}"
        if row.get("use", "yes").lower() in ("no", "false", "0"):
            continue
        rows.append(_record(row, place, number))
    return rows


def _record(row: Mapping[str, str], place: str, number: int) -> Measured:
    ranks, nodes = _count(row["ranks"], "ranks", place), _count(row.get("nodes") or "1", "nodes", place)
    return Measured(
        operation_name(row["operation"]) or row["operation"], _count(row["size"], "size", place, 0),
        _number(row["time"], "time", place), ranks, nodes, row.get("gpu", ""), row.get("system", ""), row.get("dtype", ""),
        row.get("impl") or "NCCL", number,
    )  # fmt: skip


def _text(text: str, where: str) -> list[Measured]:
    # the name of the file, until a line says what runs; the longer names first: reduce is part of others
    plain = re.sub(r"[^a-z]", "", Path(where).name.lower())
    named = [name for name, spellings in _NAMES.items() if any(one in plain for one in spellings)]
    operation = named[0] if named else ""
    rows: list[Measured] = []
    columns: list[str] = []
    hosts: list[str] = []
    gpus: set[str] = set()
    fresh = True  # the next line on a rank begins another run's list
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        for match in _TEST.findall(line):
            operation = operation_name(match) or operation
        if rank := _RANK.search(line):
            if fresh:
                hosts, gpus, fresh = [], set(), False
            hosts.append(rank[2])
            gpus.add(rank[3].strip())
        elif words[:1] == ["#"] and "size" in words and "time" in words:
            columns, fresh = words[1:], True
        elif words and words[0].isdigit() and columns:
            rows.append(_line(words, columns, operation, hosts, gpus, f"{where}:{number}", number))
    return rows


def _line(
    words: list[str], columns: list[str], operation: str, hosts: Iterable[str], gpus: set[str], place: str, number: int
) -> Measured:
    """One line of the table. The first ``time`` is that of the out-of-place half."""
    if len(words) != len(columns):
        raise ConfigError(f"has {len(words)} columns", where=place, expected=f"{len(columns)}: {' '.join(columns)}")
    if len(gpus) > 1:
        raise ConfigError(f"ranks are on several kinds of GPU: {', '.join(sorted(gpus))}", where=place, expected="one")
    hosts = list(hosts)
    return Measured(
        operation, _count(words[columns.index("size")], "size", place, 0),
        _number(words[columns.index("time")], "time", place), len(hosts), len(set(hosts)) or 1, next(iter(gpus), ""),
        "", words[columns.index("type")] if "type" in columns else "", "NCCL", number,
    )  # fmt: skip
