"""The results folder of a service: ``requests``, ``iterations``, ``replicas`` and ``series`` in Parquet, ``summary.json``,
``page.html``.

Written whole or not at all; equal results give equal bytes. Units end the names of columns: ``_ps``, ``_tokens``, ``_per_s``.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distsim.analysis.serving_findings import Findings
from distsim.errors import ConfigError
from distsim.report.document import dumps
from distsim.report.folder import check_target as check
from distsim.report.folder import write_whole
from distsim.report.serving_document import FORMAT, SCHEMA, document
from distsim.report.serving_page import page
from distsim.serving.result import STATUS, RequestColumns, ServingResult

TABLES = ("requests", "iterations", "replicas", "series")
#: columns of distsim.serving.log -> their names with units
_LOG = {
    "replica": "replica", "start": "start_ps", "ps": "each_ps", "count": "count", "sequences": "generating", "kv": "kv_tokens",
    "prefills": "prompts", "tokens": "prompt_tokens", "attended": "prompt_attended_tokens", "waiting": "waiting",
    "used": "kv_blocks",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SavedService:
    """What a folder holds; the tables are pyarrow Tables."""

    summary: dict[str, Any]
    requests: Any
    iterations: Any
    replicas: Any
    series: Any


def check_target(folder: str | os.PathLike[str]) -> Path:
    """The folder to be written. Raises ConfigError if it holds anything but earlier results of a service."""
    return check(folder, FORMAT)


def save(result: ServingResult, folder: str | os.PathLike[str], found: Findings) -> Path:
    """Write the folder; earlier results there are replaced. Raises ConfigError; nothing has changed then."""
    return write_whole(folder, lambda part: _write(part, result, found), FORMAT)


def load(folder: str | os.PathLike[str]) -> SavedService:
    """Read a folder. Raises ConfigError where it is none, or of another schema."""
    import pyarrow.parquet as pq

    place = Path(folder)
    try:
        summary = json.loads((place / "summary.json").read_text(encoding="utf-8"))
        if summary.get("format") != FORMAT:
            raise ValueError("no results of a service")
        if summary["schema"] != SCHEMA:
            raise ConfigError(f"has schema {summary['schema']}", where=str(folder), expected=f"schema {SCHEMA}")
        return SavedService(summary, *(pq.read_table(place / f"{name}.parquet") for name in TABLES))
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"cannot be read: {error}", where=str(folder), expected="a folder written by distsim serve --out"
        ) from None


def _write(folder: Path, result: ServingResult, found: Findings) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = document(result, found)
    about = {"distsim.schema": str(SCHEMA), "distsim.provenance": dumps(made["provenance"], indent=None)}
    columns = {
        "requests": _requests(result.requests, found), "iterations": _iterations(result),
        "replicas": _replicas(result), "series": _series(found),
    }  # fmt: skip
    for name, table in columns.items():
        arrow = pa.table(table).replace_schema_metadata({**about, "distsim.table": name})
        pq.write_table(arrow, folder / f"{name}.parquet", compression="zstd")
    (folder / "page.html").write_text(page(result, found), encoding="utf-8")
    (folder / "summary.json").write_text(dumps(made) + "\n", encoding="utf-8")


def _requests(requests: RequestColumns, found: Findings) -> dict[str, Any]:
    """A row per request that arrived; times -1 where they never came."""
    import pyarrow as pa

    names = requests.tenants
    texts: list[str] = sorted({*requests.reason, ""})
    place = {text: at for at, text in enumerate(texts)}

    def known(column: Any, rows: Any) -> Any:
        return np.where(rows, column, -1)

    done, begun, started = requests.done, requests.scheduled >= 0, requests.first >= 0
    return {
        "request": np.arange(len(requests), dtype=np.int64), "arrival_ps": requests.arrival,
        "scheduled_ps": requests.scheduled, "first_token_ps": requests.first, "completed_ps": requests.completed,
        "prompt_tokens": requests.prompt, "output_tokens": requests.output, "cached_tokens": requests.cached,
        "restarts": requests.restarts, "replica": requests.replica.astype(np.int32), "session": requests.session,
        "tenant": pa.DictionaryArray.from_arrays(pa.array(requests.tenant.astype(np.int32)), pa.array(names, pa.string())),
        "status": pa.DictionaryArray.from_arrays(pa.array(requests.status.astype(np.int8)), pa.array(STATUS, pa.string())),
        "reason": pa.DictionaryArray.from_arrays(
            pa.array([place[text] for text in requests.reason], pa.int32()), pa.array(texts, pa.string())
        ),
        "queueing_ps": known(requests.scheduled - requests.arrival, begun), "ttft_ps": known(requests.ttft, started),
        "tpot_ps": np.where(done, requests.tpot, -1.0), "latency_ps": known(requests.latency, done),
        "longest_between_tokens_ps": found.gaps.longest,
    }  # fmt: skip


def _iterations(result: ServingResult) -> dict[str, Any]:
    """``count`` iterations of ``each_ps`` from ``start_ps``, see distsim.serving.log; by start, then replica."""
    log = result.iterations
    order = np.lexsort((log["replica"], log["start"]))
    return {name: log[column][order] for column, name in _LOG.items()}


def _replicas(result: ServingResult) -> dict[str, Any]:
    import pyarrow as pa

    text, number = pa.string(), pa.int64()
    columns = {
        "replica": ("number", number), "pool": ("pool", text), "gpu": ("gpu", text), "gpus": ("gpus", number),
        "kv_blocks": ("kv_blocks", number), "block_tokens": ("block", number), "iterations": ("iterations", number),
        "busy_ps": ("busy", number), "preemptions": ("preemptions", number), "looked_up_tokens": ("lookups", number),
        "hit_tokens": ("hits", number), "started_ps": ("started", number), "stopped_ps": ("stopped", number),
        "held_ps": ("held", number), "failures": ("failures", number), "down_ps": ("down", number),
    }  # fmt: skip
    return {name: pa.array([getattr(row, key) for row in result.replicas], kind) for name, (key, kind) in columns.items()}


def _series(found: Findings) -> dict[str, Any]:
    series = found.series
    return {
        "start_ps": series.start, "width_ps": np.full(len(series), series.width, np.int64), "queued": series.queued,
        "running": series.running, "batch": series.batch, "kv_share": series.kv, "busy_share": series.busy,
        "arrivals_per_s": series.arrivals, "completions_per_s": series.completions,
        "prompt_tokens_per_s": series.prompt_tokens, "output_tokens_per_s": series.output_tokens,
    }  # fmt: skip
