"""A saved study's folder as a finding again, so that ``distsim report`` and ``distsim ui`` show it as ``study -o`` did."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from distsim.errors import ConfigError
from distsim.report.html.section import Page
from distsim.studies import shown
from distsim.studies.finding import Chart, Finding, Series, Table


def page(folder: str, title: str = "") -> Page:
    """The page of a folder of ``distsim study -o FOLDER``. Raises: as :func:`reopen`."""
    made = shown.page(reopen(folder))
    return replace(made, title=title) if title else made


def reopen(folder: str) -> Finding:
    """The finding, without the summary that its page does not show.

    Raises: ConfigError where the folder cannot be read, or an older distsim wrote it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = Path(folder)
    try:
        summary = json.loads((place / "summary.json").read_text(encoding="utf-8"))
        rows = pq.read_table(place / "results.parquet").to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ConfigError(f"cannot be read: {error}", where=folder, expected="a folder written by distsim study -o") from None
    if summary.get("format") != shown.FORMAT or "shown" not in summary:
        fix = f"Look at {place / 'page.html'}, or run it again: {summary.get('command', 'distsim study')}"
        raise ConfigError("does not hold what its page shows", where=folder, fix=fix)
    return Finding(
        summary["study"], summary["answer"], tuple(map(_table, summary["shown"]["tables"])),
        tuple(map(_chart, summary["shown"]["charts"])), rows, {}, summary["spec"], summary["command"], tuple(summary["notes"]),
        tuple(summary["warnings"]), summary["provenance"],
    )  # fmt: skip


def _table(saved: dict[str, Any]) -> Table:
    return Table(**saved | {"head": tuple(saved["head"]), "notes": tuple(saved["notes"])})


def _chart(saved: dict[str, Any]) -> Chart:
    series = tuple(Series(**one) for one in saved["series"])
    return Chart(**saved | {"series": series, "levels": tuple((name, y) for name, y in saved["levels"])})
