"""Columns in the units that a person would say; and a study or a search as one screen of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distsim.report.table import table
from distsim.sweep.findings import Findings
from distsim.sweep.points import Refused
from distsim.units import format_size, format_time

_ROWS = 20  #: rows of a table on the terminal; the files hold all


def said(column: str, value: Any) -> str:
    """A value with its unit, which the end of its column's name says.

    >>> said("step_ps", 812_400_000_000), said("memory_bytes", 1 << 36), said("idle_fraction", 0.127), said("tp", 8)
    ('812.4 ms', '64 GiB', '12.7 %', '8')
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if column.endswith("_ps"):
            return format_time(value)
        if column.endswith("_bytes"):
            return format_size(value)
        if column.endswith(("_fraction", "_share")) or column in ("mfu", "hfu"):
            return f"{100 * value:.1f} %"
        return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
    return str(value)


def titled(column: str) -> str:
    """A column's name without its unit: ``step_ps`` -> step."""
    for end in ("_ps", "_bytes", "_fraction", "_share"):
        column = column.removesuffix(end)
    return column.replace("_", " ")


def listed(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """``tp=8, pp=16``."""
    return ", ".join(f"{name}={row[name]}" for name in names)


def answer(found: Findings) -> str:
    """The first line: the best point, in units."""
    if found.best is None:
        what = "all points were refused" if not found.rows else "no point gave a result"
        return f"no answer: {what}"
    row = found.rows[found.best]
    first, *others = found.objectives
    aside = "".join(f", {titled(name)} {said(name, row[name])}" for name in others)
    where = listed(row, found.varied) or f"point {row['point']}"
    return f"best {titled(first)} {said(first, row[first])}{aside} at {where} (of {len(found.rows) - found.failed:,} points)"


def text(found: Findings, width: int = 100) -> str:
    """The whole report, its first line the answer."""
    refused = sum(one.count for one in found.refused)
    counts = f"{found.size:,} points: {len(found.rows):,} run, {refused:,} refused before, {found.failed:,} failed"
    lines = [answer(found), counts]
    lines += reasons(found.refused, width)
    if found.failed:
        message = next(row["failed"] for row in found.rows if row["failed"] is not None)
        lines += ["", f"warning: {found.failed:,} points failed; the first: {message.splitlines()[0]}"]
    if found.front:
        ways = ", ".join(f"{titled(name)} {way}" for name, way in found.objectives.items())
        lines += ["", f"Pareto front ({ways}): {len(found.front)} points"]
        head = ["point", *found.varied, *(titled(name) for name in found.objectives)]
        names = ("point", *found.varied, *found.objectives)
        rows = [[said(name, found.rows[at].get(name)) for name in names] for at in found.front[:_ROWS]]
        lines += table(head, rows, width=width)
        if len(found.front) > _ROWS:
            lines.append(f"  and {len(found.front) - _ROWS} more (pareto.html shows all)")
    return "\n".join(lines)


def reasons(refused: Sequence[Refused], width: int) -> list[str]:
    """Refused points by reason."""
    if not refused:
        return []
    digits = max(len(f"{one.count:,}") for one in refused)
    lines = ["", "refused"]
    for one in refused[:_ROWS]:
        line = f"  {one.count:>{digits},}  {one.kind}: {one.reason}"
        example = "" if one.example == one.reason else f" (such as {one.example.splitlines()[0]})"
        lines.append(line + example if len(line + example) <= width else (line + example)[: width - 1] + "…")
    return lines + ([f"  and {len(refused) - _ROWS} more reasons"] if len(refused) > _ROWS else [])
