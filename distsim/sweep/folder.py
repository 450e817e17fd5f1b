"""The folder of a study: ``journal.jsonl``, ``study.yaml``, ``results.parquet``, ``summary.json``, ``pareto.html``.

Each file is written to a temporary name and renamed. Equal findings give equal bytes, whatever ran them and in what order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distsim.errors import ConfigError
from distsim.sweep.findings import Findings
from distsim.sweep.page import page

JOURNAL = "journal.jsonl"
SCHEMA = 1


def prepare(folder: str) -> Path:
    """Make the folder, or take the one of an earlier run. Raises ConfigError where it holds something else."""
    target = Path(os.path.realpath(folder))
    if target.is_dir() and any(target.iterdir()) and not (target / JOURNAL).is_file():
        raise ConfigError("is a folder that holds no study", where=folder, fix="Name another folder with -o.")
    if target.exists() and not target.is_dir():
        raise ConfigError("is a file", where=folder, expected="a folder for the study")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot be made: {error.strerror or error}", where=folder) from None
    for left in target.glob(".*.part"):  # of a run that was killed while it wrote; the journal's lock keeps others out
        left.unlink(missing_ok=True)
    return target


def write(folder: Path, found: Findings, study: str) -> None:
    """Write everything but the journal. ``study``: the text of its file."""
    _whole(folder / "study.yaml", lambda part: _text(part, study))
    _whole(folder / "summary.json", lambda part: _text(part, json.dumps(found.document(), indent=1) + "\n"))
    _whole(folder / "pareto.html", lambda part: _text(part, page(found)))
    _whole(folder / "results.parquet", lambda part: _parquet(part, found))


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _whole(path: Path, write_to: Callable[[Path], None]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write_to(part)
        os.replace(part, path)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror or error}", where=str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def _parquet(path: Path, found: Findings) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = dict.fromkeys(name for row in found.rows for name in row if name != "failed")
    columns = {name: _column(name, [row.get(name) for row in found.rows]) for name in (*names, "failed")}
    reasons: Mapping[str, Any] = found.document()
    said = json.dumps({key: reasons[key] for key in ("points", "run", "refused", "failed", "objectives", "reasons")})
    metadata = {"distsim.table": "sweep", "distsim.schema": str(SCHEMA), "distsim.study": found.key, "distsim.counts": said}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path, compression="zstd")


def _column(name: str, values: list[Any]) -> Any:
    """Whole numbers as int64, mixed with others as float64; truth values; everything else as text."""
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if name == "failed" or not kinds:
        return pa.array(values, pa.string())
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int} and all(value is None or -(1 << 63) <= value < 1 << 63 for value in values):
        return pa.array(values, pa.int64())
    if kinds <= {int, float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([None if value is None else str(value) for value in values], pa.string())
