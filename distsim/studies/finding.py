"""What a study found, still without a form: the answer, tables, charts, and all rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    """A table for people. Its first ``text`` columns are words, the others numbers as text; notes stand below it.

    name: heading on a page, short; default the title.
    """

    title: str
    head: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    text: int = 1
    notes: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """One line, or cloud of points. labels: beside the points, or told when the pointer is on them."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    labels: Sequence[str] = ()
    dash: bool = False
    hue: int = 0  #: 1 to 8: colour of the page's style; 0: by its place in the chart


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines or points over two axes. Values that are not above 0 are left out of a logarithmic axis.

    x_kind, y_kind: "share" (1 is shown as 100 %), "s" (seconds), "bytes", "" (a number).
    """

    id: str  #: unique in the finding; a name in JavaScript
    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False
    x_kind: str = ""
    y_kind: str = ""
    points: bool = False  #: no lines; labels are written beside the points
    levels: tuple[tuple[str, float], ...] = ()  #: horizontal marks: name, y


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer of a study.

    rows: every point, flat, JSON-ready, columns end in their unit: what CSV and Parquet hold.
    summary: what follows from them, JSON-ready.
    spec: what was asked, complete, JSON-ready.
    """

    study: str
    answer: str
    tables: tuple[Table, ...]
    charts: tuple[Chart, ...]
    rows: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any]
    spec: Mapping[str, Any]
    command: str = ""  #: that repeats it
    notes: tuple[str, ...] = ()  #: what was taken for granted: definitions, sizes that were chosen
    warnings: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
