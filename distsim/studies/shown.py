"""A finding as text, as one JSON document, as a page, and as a folder of tables. Equal findings give equal bytes."""

from __future__ import annotations

import csv
import io
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distsim import __version__
from distsim.errors import ConfigError
from distsim.report import table as plain
from distsim.report.document import dumps
from distsim.report.html.markup import chart as place_of
from distsim.report.html.markup import escape, pairs, paragraph
from distsim.report.html.markup import table as markup
from distsim.report.html.page import render
from distsim.report.html.section import Page, Section
from distsim.studies.finding import Chart, Finding, Series

FORMAT = "distsim-study"
#: files of a study's folder, in the order in which they are written; the last tells that it is complete
FILES = ("results.csv", "results.parquet", "page.html", "summary.json")


def text(found: Finding, width: int = 100) -> str:
    """The whole screen; its first line is the answer."""
    lines = [found.answer]
    for one in found.tables:
        lines += ["", *textwrap.wrap(one.title, width), *plain.table(one.head, one.rows, text=one.text, width=width)]
        for note in one.notes:
            lines += textwrap.wrap(f"({note})", width, initial_indent="  ", subsequent_indent="   ")
    if found.notes:
        lines.append("")
    for note in found.notes:
        lines += textwrap.wrap(note, width, initial_indent="  ", subsequent_indent="    ")
    for warning in found.warnings:
        lines += textwrap.wrap(f"warning: {warning}", width, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines)


def document(found: Finding) -> dict[str, Any]:
    """The machine-readable form."""
    return {
        "format": FORMAT, "study": found.study, "answer": found.answer, **found.summary,
        "rows": [dict(row) for row in found.rows],
        "spec": dict(found.spec), "command": found.command, "notes": list(found.notes), "warnings": list(found.warnings),
        "provenance": {"distsim": __version__, **found.provenance},
    }  # fmt: skip


def page(found: Finding) -> Page:
    """The page: charts, tables, and how it was made."""
    sections = []
    if found.charts:
        places = "".join(f"<figure><figcaption>{escape(c.title)}</figcaption>{_place(c)}</figure>" for c in found.charts)
        sections.append(
            Section(
                "charts", "Charts", f"<div data-inquiry>{places}</div>", {"charts": [_chart(one) for one in found.charts]},
                ("inquiry.js",), charts=True,
            )
        )  # fmt: skip
    for number, one in enumerate(found.tables):
        notes = "".join(paragraph(note, "note") for note in one.notes)
        heading = one.name or one.title
        html = markup(one.head, one.rows, text=one.text, caption=one.title if one.name else "") + notes
        sections.append(Section(f"table{number + 1}", heading[:1].upper() + heading[1:], html))
    sections.append(Section("rows", "All points", _rows(found.rows)))
    made = [(name, value) for name, value in found.spec.items() if value is not None]
    how = [("command", found.command), *made, *({"distsim": __version__} | dict(found.provenance)).items()]
    about = "".join(paragraph(note) for note in found.notes) + pairs([(name, _said(value)) for name, value in how if value])
    sections.append(Section("made", "How it was made", about))
    return Page(f"distsim study {found.study}", found.answer, tuple(sections), (), found.warnings)


def check_folder(folder: str) -> Path:
    """The folder to write to. Raises ConfigError where it is a file, holds things that no study wrote, or cannot be made."""
    target = Path(os.path.realpath(folder))
    if target.exists() and not target.is_dir():
        raise ConfigError("is a file", where=folder, expected="a folder, or a name that ends in .html")
    if target.is_dir():
        strange = sorted(one.name for one in target.iterdir() if one.name not in FILES and not one.name.endswith(".part"))
        if strange:
            raise ConfigError(f"holds {strange[0]!r}, which no study wrote", where=folder, fix="Name another folder with -o.")
    place = next(one for one in (target, *target.parents) if one.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"cannot be made in {place}", where=folder, expected="a folder that can be written to")
    return target


def write(found: Finding, folder: str) -> None:
    """``results.csv``, ``results.parquet``, ``page.html``, ``summary.json``; each whole or not at all. Raises ConfigError."""
    target = check_folder(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot be made: {error.strerror or error}", where=folder) from None
    short = {key: value for key, value in document(found).items() if key != "rows"}
    # what the page shows beside the rows, so that it can be made again (reopen.py)
    short["shown"] = {"tables": [asdict(one) for one in found.tables], "charts": [asdict(one) for one in found.charts]}
    making: dict[str, Callable[[Path], object]] = {
        "results.csv": lambda part: part.write_text(_csv(found.rows), encoding="utf-8"),
        "results.parquet": lambda part: _parquet(part, found),
        "page.html": lambda part: part.write_text(render(page(found)), encoding="utf-8"),
        "summary.json": lambda part: part.write_text(dumps(short) + "\n", encoding="utf-8"),
    }
    for name in FILES:
        path = target / name
        part = path.with_name(f".{name}.{os.getpid()}.part")
        try:
            making[name](part)
            os.replace(part, path)
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror or error}", where=str(path)) from None
        finally:
            part.unlink(missing_ok=True)


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, _columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _parquet(path: Path, found: Finding) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {}
    for name in _columns(found.rows):
        values = [row.get(name) for row in found.rows]
        # NOTE: a column in which whole numbers and fractions meet is one of fractions
        mixed = {type(value) for value in values if value is not None} == {int, float}
        columns[name] = pa.array([None if v is None else float(v) for v in values] if mixed else values)
    metadata = {"distsim.table": "study", "distsim.study": found.study, "distsim.version": __version__}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path, compression="zstd")


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    names = _columns(rows)
    words = sum(any(isinstance(row.get(name), str) for row in rows) for name in names)
    ordered = sorted(names, key=lambda name: not any(isinstance(row.get(name), str) for row in rows))
    return markup(ordered, [[_said(row.get(name)) for name in ordered] for row in rows], text=max(1, words))


def _said(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _place(chart: Chart) -> str:
    names = ", ".join(one.name for one in chart.series)
    return place_of(chart.id, f"{chart.title}: {names}", 360)


def _chart(chart: Chart) -> dict[str, Any]:
    """What ``inquiry.js`` draws."""
    kept = ("id", "x", "y", "log_x", "log_y", "x_kind", "y_kind", "points")
    return {name: getattr(chart, name) for name in kept} | {
        "levels": [list(level) for level in chart.levels], "series": [_series(one, chart) for one in chart.series],
    }  # fmt: skip


def _series(one: Series, chart: Chart) -> dict[str, Any]:
    pairs_of = enumerate(zip(one.x, one.y, strict=True))
    good = [k for k, (x, y) in pairs_of if (x > 0 or not chart.log_x) and (y > 0 or not chart.log_y)]
    labels = list(one.labels) or [""] * len(one.x)
    return {
        "name": one.name, "dash": one.dash, "hue": one.hue,
        "x": [one.x[k] for k in good], "y": [one.y[k] for k in good], "labels": [labels[k] for k in good],
    }  # fmt: skip


