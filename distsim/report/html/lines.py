"""Line charts of a section: described here in columns, drawn by ``assets/lines.js``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.report.html.columns import packed
from distsim.report.html.markup import chart, escape, paragraph
from distsim.units import PS_PER_S, format_time

Floats = NDArray[np.float64]
#: points of a distribution; its ends are told more finely
_POINTS = 400


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One line. hue: 1 to 8, a colour of the style sheet; 0: by its place in the chart."""

    name: str
    x: Floats
    y: Floats
    hue: int = 0
    dash: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """A chart of lines. What is not finite, or not above 0 on a logarithmic axis, is left out.

    x_kind, y_kind: "s" (seconds), "share" (0 to 1, shown in percent), "" (a number).
    """

    id: str
    title: str
    x: str
    y: str
    lines: Sequence[Line]
    x_kind: str = "s"
    y_kind: str = ""
    log_x: bool = False
    marks: Sequence[tuple[str, float]] = ()  #: vertical lines: name, x
    bars: bool = False  #: instead of lines
    height: int = 280

    @property
    def constant(self) -> bool:
        """Whether these are distributions (on a logarithmic axis) of one value each: said in words, not drawn."""
        return self.log_x and all(len(line.x) == 0 or line.x.min() == line.x.max() for line in self.lines)

    def html(self) -> str:
        """Where it will be drawn."""
        inside = chart(self.id, f"{self.title}: {', '.join(line.name for line in self.lines)}", self.height)
        if not any(len(line.x) for line in self.lines):
            inside = paragraph("nothing to draw", "note")
        elif self.constant:
            said = (f"{line.name} {self._value(float(line.x[0]))}" for line in self.lines if len(line.x))
            inside = paragraph(f"The same for all: {', '.join(said)}.", "note")
        return f"<figure><figcaption>{escape(self.title)}</figcaption>{inside}</figure>"

    def data(self) -> dict[str, Any]:
        """What ``lines.js`` draws."""
        names = ("id", "x", "y", "x_kind", "y_kind", "log_x", "bars")
        drawn = [] if self.constant else [self._line(line) for line in self.lines if len(line.x)]
        return {name: getattr(self, name) for name in names} | {
            "marks": [list(mark) for mark in self.marks], "lines": drawn,
        }  # fmt: skip

    def _value(self, x: float) -> str:
        return format_time(x * PS_PER_S) if self.x_kind == "s" else f"{x:,.6g}"

    def _line(self, line: Line) -> dict[str, Any]:
        good = np.isfinite(line.x) & np.isfinite(line.y) & ((line.x > 0) | (not self.log_x))
        return {
            "name": line.name, "hue": line.hue, "dash": line.dash,
            "points": {"x": packed(line.x[good].astype(np.float64)), "y": packed(line.y[good].astype(np.float32))},
        }  # fmt: skip


def grid(charts: Sequence[Chart]) -> str:
    """Charts beside each other as there is room."""
    return f'<div class="columns" data-lines>{"".join(one.html() for one in charts)}</div>'


def data(charts: Sequence[Chart]) -> dict[str, Any]:
    """Data of a section of such charts."""
    return {"charts": [one.data() for one in charts]}


def distribution(name: str, values: NDArray[Any], hue: int = 0, dash: bool = False) -> Line:
    """The share of values that are at most x; of many values a few hundred quantiles, closer together towards both ends."""
    ordered = np.sort(np.asarray(values, np.float64))
    if len(ordered) and ordered[0] == ordered[-1]:
        return Line(name, ordered[[0, 0]], np.array([0.0, 1.0]), hue, dash)  # an upright line
    share = (np.arange(len(ordered)) + 1) / max(1, len(ordered))
    if len(ordered) > _POINTS:
        # NOTE: quantiles even in the angle are close to each other at the ends, where tails are read off
        angle = np.linspace(0.0, np.pi, _POINTS)
        kept = np.unique(np.round((1 - np.cos(angle)) / 2 * (len(ordered) - 1)).astype(np.int64))
        ordered, share = ordered[kept], share[kept]
    return Line(name, ordered, share, hue, dash)
