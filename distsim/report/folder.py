"""The results folder: ``spans``, ``collectives`` and ``links`` in Parquet, ``summary.json``, ``timeline.json.gz``.

It is written whole or not at all: into a sibling folder that is renamed once all files are complete. Equal results give
equal bytes; nothing in it tells when or where it was written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distsim.analysis.summary import Summary, summarise
from distsim.errors import ConfigError
from distsim.report.document import FORMAT, document, dumps
from distsim.report.timeline import write_timeline
from distsim.result import SCHEMA, Result

_TABLES = ("spans", "collectives", "links")


@dataclass(frozen=True, slots=True)
class Saved:
    """What a results folder holds; the tables are pyarrow Tables."""

    summary: dict[str, Any]
    spans: Any
    collectives: Any
    links: Any


def check_target(folder: str | os.PathLike[str], kind: str = FORMAT) -> Path:
    """The folder to be written. Raises ConfigError if it holds anything but earlier results (whose summary has ``kind`` as its
    format), or cannot be made."""
    if not os.fspath(folder):
        raise ConfigError("the folder has no name", where="--output", expected="a folder to write results to")
    target = Path(os.path.realpath(folder))
    if target.is_dir():
        if any(target.iterdir()) and not _is_results(target, kind):
            raise ConfigError(
                "is a folder that holds something else than distsim's results", where=str(folder), fix="Name another folder."
            )
    elif target.exists():
        raise ConfigError("is a file", where=str(folder), expected="a folder to write results to")
    place = target.parent
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"cannot be written: no permission in {place}", where=str(folder), fix="Name another folder.")
    return target


def save(result: Result, folder: str | os.PathLike[str], summary: Summary | None = None) -> Path:
    """Write a results folder; earlier results there are replaced.

    Args:
        summary: the findings, where they are known already.

    Raises:
        ConfigError: the folder cannot be written, or holds something else. Nothing has changed then.
    """
    check_target(folder)
    found = summary or summarise(result)
    return write_whole(folder, lambda part: _write(part, result, found))


def write_whole(folder: str | os.PathLike[str], write: Callable[[Path], None], kind: str = FORMAT) -> Path:
    """Write a folder whole or not at all: ``write`` fills one beside it, which then takes its name.

    Raises: as check_target; and where ``write`` meets an OSError.
    """
    target = check_target(folder, kind)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    try:
        part.mkdir(parents=True)
        write(part)
        if target.exists():
            target.rename(old)
        part.rename(target)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror or error}", where=str(folder)) from None
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)
    return target


def load(folder: str | os.PathLike[str]) -> Saved:
    """Read a results folder. Raises ConfigError where it is none, or of another schema."""
    import pyarrow.parquet as pq

    place = Path(folder)
    if not _is_results(place):
        raise ConfigError("is no results folder of distsim", where=str(folder), expected="a folder written by distsim run -o")
    summary = json.loads((place / "summary.json").read_text(encoding="utf-8"))
    if summary.get("schema") != SCHEMA:
        raise ConfigError(f"has schema {summary.get('schema')}", where=str(folder), expected=f"schema {SCHEMA}")
    try:
        return Saved(summary, *(pq.read_table(place / f"{name}.parquet") for name in _TABLES))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(folder)) from None


def _is_results(folder: Path, kind: str = FORMAT) -> bool:
    try:
        found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("format") == kind


def _write(folder: Path, result: Result, summary: Summary) -> None:
    import pyarrow.parquet as pq

    spans = result.spans_table()
    spans = spans.add_column(spans.schema.get_field_index("end_ps"), "since_ps", [summary.moving.since])
    for name, rows in (("spans", spans), ("collectives", result.collectives_table()), ("links", result.links_table())):
        made = rows.replace_schema_metadata({"distsim.schema": str(SCHEMA), "distsim.table": name})
        pq.write_table(made, folder / f"{name}.parquet", compression="zstd")
    write_timeline(folder / "timeline.json.gz", result, summary)
    (folder / "summary.json").write_text(dumps(document(result, summary)) + "\n", encoding="utf-8")
