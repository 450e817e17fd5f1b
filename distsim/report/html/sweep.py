"""Pages of a study: ``distsim sweep`` and ``distsim capacity -o``. Its points as a scatter with the Pareto front, side by side
as lines over their fields, and as a table; what was refused, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distsim.errors import ConfigError
from distsim.report.document import dumps
from distsim.report.html.markup import chart, escape, pairs, paragraph, table
from distsim.report.html.section import Figure, Page, Section

#: points that the page shows; results.parquet holds all
SHOWN = 5000


@dataclass(frozen=True, slots=True)
class SavedStudy:
    """What a study's folder holds. rows: of all points that were run; varied: fields with more than one value (none where an
    older distsim wrote it)."""

    summary: Mapping[str, Any]
    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    varied: tuple[str, ...]
    front: list[int]  #: places in rows
    best: int | None
    source: str  #: text of the study's file


def load(folder: str) -> SavedStudy:
    """Raises: ConfigError where it is no study's folder, or its table cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = Path(folder)
    try:
        summary = json.loads((place / "summary.json").read_text(encoding="utf-8"))
        table = pq.read_table(place / "results.parquet")
        source = (place / "study.yaml").read_text(encoding="utf-8") if (place / "study.yaml").is_file() else ""
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ConfigError(f"cannot be read: {error}", where=folder, expected="a folder written by distsim sweep") from None
    rows = table.to_pylist()
    places = {row.get("point"): at for at, row in enumerate(rows)}
    front = [places[row["point"]] for row in summary["front"] if row["point"] in places]
    best = None if summary["best"] is None else places.get(summary["best"]["point"])
    columns = tuple(name for name in table.column_names if name != "failed" or summary["failed"])
    return SavedStudy(summary, columns, rows, tuple(summary.get("varied", ())), front, best, source)


def page(folder: str, title: str = "") -> Page:
    """Raises: as :func:`load`."""
    saved = load(folder)
    summary = saved.summary
    sections = [_points(saved), _table(saved), *_refused(summary), _setup(saved)]
    name = title or summary["name"] or Path(folder).name
    return Page(name, answer(saved), tuple(one for one in sections if one is not None), tuple(figures(saved)), _warnings(saved))


def answer(saved: SavedStudy) -> str:
    """The best point, in units."""
    from distsim.sweep.shown import said, titled

    if saved.best is None:
        return f"no answer: {'no point gave a result' if saved.rows else 'all points were refused'}"
    row, objectives = saved.rows[saved.best], saved.summary["objectives"]
    first, *others = objectives
    aside = "".join(f", {titled(name)} {said(name, row[name])}" for name in others)
    where = ", ".join(f"{name} {said(name, row[name])}" for name in saved.varied) or f"point {row['point']}"
    return f"best {titled(first)} {said(first, row[first])}{aside} at {where} (of {len(saved.rows):,} points)"


def figures(saved: SavedStudy) -> list[Figure]:
    """Counts."""
    from distsim.sweep.shown import titled

    summary = saved.summary
    ways = ", ".join(f"{'least' if way == 'min' else 'most'} {titled(name)}" for name, way in summary["objectives"].items())
    return [
        Figure("points", f"{summary['points']:,}", f"{summary['run']:,} run"),
        Figure("refused before", f"{summary['refused']:,}"), Figure("failed", f"{summary['failed']:,}"),
        Figure("Pareto front", f"{len(saved.front):,}", ways),
    ]  # fmt: skip


def numeric(saved: SavedStudy) -> list[str]:
    """Columns with numbers."""
    return [
        name for name in saved.columns
        if any(isinstance(row[name], int | float) and not isinstance(row[name], bool) for row in saved.rows)
    ]  # fmt: skip


def _warnings(saved: SavedStudy) -> tuple[str, ...]:
    failed = [row for row in saved.rows if row.get("failed")]
    if not failed:
        return ()
    return (f"{len(failed):,} points failed; the first: {str(failed[0]['failed']).splitlines()[0]}",)


def _shown(saved: SavedStudy) -> list[int]:
    """Places of the points of the page: of too many the front, the best, and an even sample of the others."""
    if len(saved.rows) <= SHOWN:
        return list(range(len(saved.rows)))
    step = -(-len(saved.rows) // SHOWN)
    return sorted({*range(0, len(saved.rows), step), *saved.front[:SHOWN], *([] if saved.best is None else [saved.best])})


def document(saved: SavedStudy) -> dict[str, Any]:
    """What the scripts draw: cells in columns."""
    shown = _shown(saved)
    place = {at: k for k, at in enumerate(shown)}
    return {
        "columns": list(saved.columns), "cells": [[saved.rows[at][name] for at in shown] for name in saved.columns],
        "front": [place[at] for at in saved.front if at in place], "best": None if saved.best is None else place[saved.best],
        "varied": list(saved.varied), "numeric": numeric(saved),
        "objectives": [[name, way] for name, way in saved.summary["objectives"].items()],
    }  # fmt: skip


def _points(saved: SavedStudy) -> Section | None:
    if not numeric(saved):
        return None
    controls = "".join(f'<label>{name} <select id="points-{name}"></select></label>' for name in ("x", "y", "colour"))
    label = "points of the study; those of the Pareto front are ringed and joined"
    html = f'<div class="controls">{controls}</div>{chart("points-chart", label, 460)}<p class="note" id="points-note"></p>'
    if len(saved.rows) > 1:
        note = "Each line is a point, each axis a field or an objective. Hover tells a point."
        html += f"<h3>Side by side</h3>{paragraph(note, 'note')}"
        html += chart("points-parallel", "lines of all points over fields and objectives", 380)
    return Section("points", "Points and the Pareto front", html, document(saved), ("study.js", "sweep.js"), charts=True)


def _table(saved: SavedStudy) -> Section:
    from distsim.sweep.shown import said

    order = [*dict.fromkeys([*([] if saved.best is None else [saved.best]), *saved.front, *_shown(saved)])][:SHOWN]
    front = set(saved.front)
    numbers, said_first = numeric(saved), (*saved.varied, *saved.summary["objectives"])
    words = [name for name in saved.columns if name in said_first and name not in numbers]
    first = [*words, *(name for name in said_first if name in numbers)]
    columns = [*first, *(name for name in saved.columns if name not in (*first, "point"))]
    rows, keys = [], []
    for at in order:
        row = saved.rows[at]
        mark = "best" if at == saved.best else "front" if at in front else ""
        rows.append([str(row["point"]), mark, *(said(name, row[name]) for name in columns)])
        keys.append([row["point"], "", *(row[name] if isinstance(row[name], int | float | str) else None for name in columns)])
    some = f"; {len(order):,} of {len(saved.rows):,}" if len(order) < len(saved.rows) else ""
    caption = f"Points: best, front, then by number{some}"
    html = table(["point", "standing", *_heads(columns)], rows, text=2 + len(words), keys=keys, caption=caption)
    return Section("table", "Table", html)


def _heads(columns: list[str]) -> list[str]:
    """Columns in words; cells have their units. Of two that would be called the same, both keep theirs."""
    from distsim.sweep.shown import titled

    words = [titled(name) for name in columns]
    return [word if words.count(word) == 1 else name.replace("_", " ") for name, word in zip(columns, words, strict=True)]


def _refused(summary: Mapping[str, Any]) -> list[Section]:
    if not summary["reasons"]:
        return []
    rows = [[one["kind"], one["reason"], one["example"], f"{one['count']:,}"] for one in summary["reasons"]]
    head = ["kind", "why", "for example", "points"]
    html = table(head, rows, text=3, long=2, caption="Refused before anything was simulated")
    return [Section("refused", "Refused", html)]


def _setup(saved: SavedStudy) -> Section:
    summary = saved.summary
    said = [("distsim", summary["distsim"]), ("study", summary["name"]), ("key", summary["key"])]
    text = saved.source or dumps(dict(summary["objectives"]))
    html = pairs(said) + '<p><button type="button" data-copy="study-file">Copy the study</button></p>'
    return Section("setup", "The study's file", html + f'<pre id="study-file">{escape(text)}</pre>')
