"""Replaying a trace: rows of a file, mended, cut to a window and stretched, as Requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distsim.errors import ConfigError
from distsim.params import Count, Parameters
from distsim.registry import lookup, names
from distsim.serving.durations import Duration
from distsim.serving.requests.columns import Columns, load, nearest
from distsim.serving.requests.process import Rate
from distsim.serving.requests.table import Requests, requests_of
from distsim.units import PS_PER_NS, PS_PER_S, format_time, parse_time

Factor = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Order = Literal["error", "sort"]
Zero = Literal["clamp", "drop", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What a reader makes of a file, in the file's order; nothing mended yet.

    arrival: ps, None where the file has lengths only. prompt, output: tokens, 0 allowed. Columns as in Requests.
    """

    file: str
    arrival: NDArray[np.int64] | None
    prompt: NDArray[np.int64]
    output: NDArray[np.int64]
    optional: Mapping[str, NDArray[Any]] = field(default_factory=dict)  #: tenant, session, priority, deadline, after, think
    hashes: Mapping[int, Sequence[int]] = field(default_factory=dict)
    hash_block: int = 16
    names: tuple[str, ...] = ("",)
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt)

    def take(self, rows: NDArray[np.int64]) -> Rows:
        """These rows, in this order. A turn whose predecessor is left out follows none."""
        optional = {name: column[rows] for name, column in self.optional.items()}
        if "after" in optional:
            new = np.full(len(self) + 1, -1, np.int64)  # the last entry is for -1
            new[rows] = np.arange(len(rows))
            optional["after"] = new[optional["after"]]
        return replace(
            self, arrival=None if self.arrival is None else self.arrival[rows], prompt=self.prompt[rows],
            output=self.output[rows], optional=optional,
            hashes={at: self.hashes[row] for at, row in enumerate(rows.tolist()) if row in self.hashes},
        )  # fmt: skip

    def warned(self, *texts: str) -> Rows:
        """With more warnings."""
        return replace(self, warnings=(*self.warnings, *texts))


class Format(Protocol):
    """The role ``requests``: a format of files; a class of static methods, with the columns that it needs.

    columns: what a file of this format has, by which it is recognised.
    """

    columns: tuple[str, ...]

    @staticmethod
    def rows(columns: Columns) -> Rows:
        """Every row. Raises ConfigError naming file, line and column."""
        ...


class ReplayParameters(Parameters):
    """Of every format: ``azure:file=azure_conv.csv,stretch=4``."""

    file: str = Field(examples=["requests.csv"], description="plain or .gz")
    stretch: Factor | None = Field(None, description="multiplies all times between arrivals; 4 is a quarter of the load")
    qps: Rate | None = Field(None, description="rescales to this mean rate instead, requests per second")
    start: Duration | None = Field(None, description="leave out what arrives earlier in the trace")
    duration: Duration | None = Field(None, description="leave out what arrives this long after start in the trace, or later")
    limit: Count | None = Field(None, description="the first so many of what is left")
    order: Order = Field("error", description="rows out of order of arrival: refuse, or sort (counted in a warning)")
    zero: Zero = Field("clamp", description="rows with 0 prompt or output tokens: make it 1, drop (both counted), or refuse")


def read_rows(file: str, format: str | None = None) -> Rows:
    """The rows of a file in the format named, or in the one whose columns it has. Raises ConfigError."""
    columns = load(file)
    reader: type[Format] = lookup("requests", format, where=file) if format is not None else recognise(columns)
    columns.need(reader.columns)
    return reader.rows(columns)


def picoseconds(columns: Columns, name: str, unit: int, default: float | None = None) -> NDArray[np.int64]:
    """Times of a column in units of ``unit`` ps. Raises ConfigError on what is negative or beyond 2^62 ps (53 days)."""
    if unit <= PS_PER_NS and default is None:
        times = columns.integers(name)  # to the last digit
        late = np.flatnonzero(times >= (1 << 62) // unit)
        found = times * unit
    else:
        values = columns.numbers(name, default)
        late = np.flatnonzero((values < 0) | (values * unit >= float(1 << 62)))
        found = np.rint(np.where((values < 0) | (values * unit >= float(1 << 62)), 0, values) * unit).astype(np.int64)
    if len(late):
        columns.refuse(int(late[0]), name, "a time from 0 to 53 days")
    return found


def recognise(columns: Columns) -> type[Format]:
    """The format that shares most of its columns with the file. Raises ConfigError where none shares any."""
    known: dict[str, type[Format]] = {name: lookup("requests", name) for name in names("requests")}
    shared = {name: sum(one in columns.cells for one in reader.columns) / len(reader.columns) for name, reader in known.items()}
    # ties: the format for files of one's own explains itself best
    best = max(known, key=lambda name: (shared[name], name == "plain"))
    if not shared[best]:
        wanted = [one for reader in known.values() for one in reader.columns]
        near = [found for name in columns.names[:12] for found in nearest(name, wanted)[:1]]
        raise ConfigError(
            f"has no columns of requests: {', '.join(columns.names[:12])}", where=columns.file, near=dict.fromkeys(near),
            expected="; ".join(f"{name}: {', '.join(reader.columns)}" for name, reader in known.items()),
            fix="CSV needs a header line.",
        )  # fmt: skip
    return known[best]


def without_zeros(rows: Rows, zero: Zero) -> Rows:
    """Rows with at least one token each way: the others clamped to 1 or dropped, counted. Raises ConfigError on ``error``."""
    empty = (rows.prompt < 1) | (rows.output < 1)
    count = int(empty.sum())
    if not count:
        return rows
    row = int(np.argmax(empty))
    if zero == "error":
        raise ConfigError(
            f"request {row} has {int(rows.prompt[row])} prompt and {int(rows.output[row])} output tokens", where=rows.file,
            expected="at least 1 each", fix="zero=clamp makes it 1, zero=drop leaves such rows out.",
        )  # fmt: skip
    if zero == "drop":
        left = rows.take(np.flatnonzero(~empty))
        if not len(left):
            raise ConfigError("has no request with tokens both ways", where=rows.file)
        return left.warned(f"{rows.file}: {count} requests without prompt or output tokens are left out")
    return replace(rows, prompt=np.maximum(rows.prompt, 1), output=np.maximum(rows.output, 1)).warned(
        f"{rows.file}: {count} requests without prompt or output tokens are given one"
    )


def ordered(rows: Rows, order: Order) -> Rows:
    """Rows in order of arrival; sorted, with a warning, only on ``sort``. Raises ConfigError naming the first that is early."""
    assert rows.arrival is not None
    back = np.flatnonzero(np.diff(rows.arrival) < 0)
    if not len(back):
        return rows
    row = int(back[0]) + 1
    if order == "error":
        raise ConfigError(
            f"request {row} arrives {format_time(int(rows.arrival[row - 1] - rows.arrival[row]))} before request {row - 1}",
            where=rows.file, expected="requests in order of arrival", fix="Sort the file, or read it with order=sort.",
        )  # fmt: skip
    return rows.take(np.argsort(rows.arrival, kind="stable")).warned(
        f"{rows.file}: {len(back)} requests arrive before the one above them; sorted by arrival"
    )


def windowed(rows: Rows, params: ReplayParameters) -> Rows:
    """What arrives in the window of ``start`` and ``duration``, times counted from its start; of that the first ``limit``."""
    arrival = rows.arrival
    if arrival is not None and (params.start is not None or params.duration is not None):
        start = 0 if params.start is None else parse_time(params.start)
        end = start + parse_time(params.duration) if params.duration is not None else 1 << 62
        low, high = np.searchsorted(arrival, (start, end)).tolist()
        if low == high:
            raise ConfigError(
                f"no request arrives from {format_time(start)} on" + (f" before {format_time(end)}" if params.duration else ""),
                where=rows.file, expected=f"a window between 0 and {format_time(int(arrival[-1]))}",
            )  # fmt: skip
        rows = rows.take(np.arange(low, high))
        assert rows.arrival is not None
        rows = replace(rows, arrival=rows.arrival - start)
    return rows if params.limit is None or params.limit >= len(rows) else rows.take(np.arange(params.limit))


def requests_from(rows: Rows, params: ReplayParameters) -> Requests:
    """The table, arrivals stretched."""
    assert rows.arrival is not None
    if params.stretch is not None and params.qps is not None:
        raise ConfigError("stretch and qps both say how fast arrivals come", where=rows.file, expected="one of them")
    arrival = rows.arrival
    if params.stretch is not None:
        arrival = stretched(arrival, params.stretch, rows.file)
    elif params.qps is not None:
        arrival = stretched(arrival, mean_rate(arrival, rows.file) / params.qps, rows.file)
    options = {name: value for name, value in params.model_dump(exclude_defaults=True).items() if name != "file"}
    source = ", ".join((params.file, *(f"{name}={value}" for name, value in options.items())))
    return requests_of(
        arrival, rows.prompt, rows.output, **rows.optional, hashes=rows.hashes, hash_block=rows.hash_block, names=rows.names,
        source=source, warnings=rows.warnings,
    )  # fmt: skip


def mean_rate(arrival: NDArray[np.int64], where: str) -> float:
    """Requests/s: gaps over the time that they span. Raises ConfigError where all arrive at once."""
    span = int(arrival[-1] - arrival[0]) if len(arrival) else 0
    if not span:
        raise ConfigError(f"{len(arrival)} requests arrive at one time, so they have no rate to scale", where=where)
    return (len(arrival) - 1) * PS_PER_S / span


def stretched(arrival: NDArray[np.int64], factor: float, where: str) -> NDArray[np.int64]:
    """Times ``factor``; exact where the factor is whole. Raises ConfigError beyond 2^62 ps."""
    if len(arrival) and float(arrival[-1]) * factor >= float(1 << 62):
        raise ConfigError(f"stretched {factor:g} times, arrivals go beyond 2^62 ps (53 days)", where=where)
    if float(factor).is_integer():
        return arrival * int(factor)
    scaled: NDArray[np.int64] = np.rint(arrival * factor).astype(np.int64)
    return scaled
