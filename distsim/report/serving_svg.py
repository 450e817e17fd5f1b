"""Charts as SVG text: lines and bars over two axes, and strips of shades over time. No library, no scripts, equal bytes for
equal figures."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 560, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 26, 38
#: Okabe and Ito's colours, told apart by everybody
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
#: points of a line; more are thinned out, the extremes of every step kept
_POINTS = 600


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One line of a chart."""

    name: str
    x: Floats
    y: Floats


def chart(
    title: str, x: str, y: str, lines: Sequence[Line], *, log_x: bool = False, bars: bool = False, marks: Sequence[float] = (),
) -> str:  # fmt: skip
    """A chart of lines (or bars) with their names; ``marks``: vertical lines at these x. What is not finite is left out."""
    drawn = [Line(one.name, *_drawable(one, log_x)) for one in lines]
    drawn = [one for one in drawn if len(one.x)]
    if not drawn:
        return _frame(title, [f'<text x="{WIDTH / 2}" y="{HEIGHT / 2}" text-anchor="middle">nothing to draw</text>'])
    low, high = min(float(one.x.min()) for one in drawn), max(float(one.x.max()) for one in drawn)
    if high <= low:
        low, high = (low / 2, high * 2 or 1.0) if log_x else (low - 0.5, high + 0.5)
    top = max(float(one.y.max()) for one in drawn) or 1.0
    across = _scale(low, high, _LEFT, WIDTH - _RIGHT, log_x)
    up = _scale(0.0, top * 1.04, HEIGHT - _BOTTOM, _TOP, False)
    body = _grid(_decades(low, high) if log_x else _ticks(low, high), _ticks(0.0, top), across, up)
    body += [_vertical(across(mark)) for mark in marks if low <= mark <= high]
    for place, one in enumerate(drawn):
        colour = COLOURS[place % len(COLOURS)]
        body.append(_bars(one, across, up, colour) if bars else _polyline(one, across, up, colour))
        if len(drawn) > 1:
            at = _LEFT + 8 + 118 * place
            body.append(f'<text x="{at}" y="{_TOP - 8}" style="fill:{colour}">&#9632; {html.escape(one.name)}</text>')
    body.append(f'<text x="{(_LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">{html.escape(x)}</text>')
    middle = (HEIGHT - _BOTTOM + _TOP) / 2
    turned = f'transform="rotate(-90 13 {middle:.0f})" text-anchor="middle"'
    body.append(f'<text x="13" y="{middle:.0f}" {turned}>{html.escape(y)}</text>')
    return _frame(title, body)


def strips(title: str, x: str, names: Sequence[str], shares: Sequence[Floats], end: float) -> str:
    """A strip per name: the darker, the closer its share is to one, over time from 0 to ``end``."""
    height = 16
    total = _TOP + height * len(names) + _BOTTOM
    body = []
    across = _scale(0.0, end or 1.0, 120, WIDTH * 2 - _RIGHT, False)
    for place, (name, row) in enumerate(zip(names, shares, strict=True)):
        y = _TOP + height * place
        body.append(f'<text x="114" y="{y + 12}" text-anchor="end">{html.escape(name[:18])}</text>')
        wide = (across(end or 1.0) - across(0.0)) / max(1, len(row))
        for at, share in enumerate(row.tolist()):
            if share >= 0.005:
                left = across(0.0) + at * wide
                body.append(
                    f'<rect x="{left:.1f}" y="{y}" width="{wide + 0.2:.1f}" height="{height - 2}" fill="{COLOURS[0]}" '
                    f'fill-opacity="{min(1.0, share):.2f}"/>'
                )
    for tick in _ticks(0.0, end or 1.0):
        body.append(f'<text x="{across(tick):.1f}" y="{total - 20}" text-anchor="middle">{_said(tick)}</text>')
    body.append(f'<text x="{WIDTH}" y="{total - 4}" text-anchor="middle">{html.escape(x)}</text>')
    return _frame(title, body, width=2 * WIDTH, height=total)


def _drawable(line: Line, log_x: bool) -> tuple[Floats, Floats]:
    """Finite points, thinned to ``_POINTS``: of each step the lowest and the highest."""
    good = np.isfinite(line.x) & np.isfinite(line.y) & ((line.x > 0) | (not log_x))
    x, y = line.x[good], line.y[good]
    if len(x) <= _POINTS:
        return x, y
    kept = {0, len(x) - 1}
    for step in np.array_split(np.arange(len(x)), _POINTS // 2):
        kept |= {int(step[np.argmin(y[step])]), int(step[np.argmax(y[step])])}
    places = np.array(sorted(kept))
    return x[places], y[places]


def _scale(low: float, high: float, begin: float, end: float, log: bool) -> Callable[[float], float]:
    if log:
        low, high = math.log(low), math.log(high)
    rate = (end - begin) / (high - low)
    return lambda value: begin + ((math.log(value) if log else value) - low) * rate


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers."""
    step = 10.0 ** math.floor(math.log10((high - low) / 5)) if high > low else 1.0
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 of every decade where there are few, else powers of ten."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 3 else (1,)
    found = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    return [tick for tick in found if low <= tick <= high]


def _grid(x: Sequence[float], y: Sequence[float], across: Callable[[float], float], up: Callable[[float], float]) -> list[str]:
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    body = []
    for tick in x:
        at = across(tick)
        body.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        body.append(f'<text x="{at:.1f}" y="{bottom + 15}" text-anchor="middle">{_said(tick)}</text>')
    for tick in y:
        at = up(tick)
        body.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        body.append(f'<text x="{_LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{_said(tick)}</text>')
    return body


def _vertical(at: float) -> str:
    return f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>'


def _polyline(line: Line, across: Callable[[float], float], up: Callable[[float], float], colour: str) -> str:
    points = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in zip(line.x.tolist(), line.y.tolist(), strict=True))
    return f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{points}"/>'


def _bars(line: Line, across: Callable[[float], float], up: Callable[[float], float], colour: str) -> str:
    base = up(0.0)
    wide = max(1.0, 0.8 * (WIDTH - _LEFT - _RIGHT) / max(1.0, float(line.x.max() - line.x.min()) + 1))
    return "".join(
        f'<rect x="{across(x) - wide / 2:.1f}" y="{up(y):.1f}" width="{wide:.1f}" height="{base - up(y):.1f}" fill="{colour}"/>'
        for x, y in zip(line.x.tolist(), line.y.tolist(), strict=True)
    )


def _said(value: float) -> str:
    for unit, factor in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= factor:
            return f"{value / factor:.4g}{unit}"
    return f"{value:.4g}"


def _frame(title: str, body: Sequence[str], width: int = WIDTH, height: int = HEIGHT) -> str:
    return (
        f'<figure><figcaption>{html.escape(title)}</figcaption><svg viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="{html.escape(title)}">{"".join(body)}</svg></figure>'
    )
