"""Replicas of a service: when each computed, as a map over time, and a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from distsim.report.html.columns import packed
from distsim.report.html.markup import chart, paragraph, table
from distsim.report.html.section import Section
from distsim.report.serving_folder import SavedService
from distsim.units import PS_PER_S, format_time

#: replicas with a row of the map, and of the table
_SHOWN = 64
#: steps of the map
_STEPS = 240


def section(saved: SavedService) -> Section:
    """The section."""
    replicas = saved.replicas
    numbers = replicas["replica"].to_pylist()[:_SHOWN]
    names = [f"{number} {pool}" for number, pool in zip(numbers, replicas["pool"].to_pylist()[:_SHOWN], strict=True)]
    end = max(1, saved.summary["end_ps"])
    shares = np.array([busy(saved, number, end) for number in numbers], np.float64).reshape(len(numbers), _STEPS)
    columns = ("replica", "pool", "gpu", "gpus", "iterations", "busy_ps", "kv_blocks", "preemptions", "failures", "down_ps")
    rows = replicas.select(columns).slice(0, _SHOWN).to_pylist()
    cells = [
        [f"{row['replica']} ({row['pool']})", row["gpu"], f"{row['gpus']:,}", f"{row['iterations']:,}",
         format_time(row["busy_ps"]),
         f"{100 * row['busy_ps'] / end:.0f} %", f"{row['kv_blocks']:,}", f"{row['preemptions']:,}", f"{row['failures']:,}",
         format_time(row["down_ps"])]
        for row in rows
    ]  # fmt: skip
    keys: list[list[float | str | None]] = [
        [row["replica"], row["gpu"], row["gpus"], row["iterations"], row["busy_ps"], row["busy_ps"] / end, row["kv_blocks"],
         row["preemptions"], row["failures"], row["down_ps"]]
        for row in rows
    ]  # fmt: skip
    head = ["replica", "GPU", "GPUs", "iterations", "busy", "of the run", "KV blocks", "preemptions", "failures", "down"]
    label = "when each replica computed: a row per replica, darker where it was busier"
    html = chart("replica-map", label, 70 + 18 * len(numbers)) if numbers else ""
    html += table(head, cells, text=2, keys=keys, caption="Replicas")
    if len(replicas) > _SHOWN:
        html += paragraph(f"the first {_SHOWN} of {len(replicas):,} replicas; replicas.parquet holds all", "note")
    made: dict[str, Any] = {
        "names": names,
        "steps": _STEPS,
        "end": end / PS_PER_S,
        "shares": packed(shares.astype(np.float32).ravel()),
    }
    return Section("replicas", "Replicas", html, made, ("replicas.js",), charts=bool(numbers))


def busy(saved: SavedService, number: int, end: int) -> Any:
    """Share of each of the map's steps in which a replica had an iteration under way."""
    log = saved.iterations
    rows = np.flatnonzero(log["replica"].to_numpy() == number)
    start = log["start_ps"].to_numpy()[rows]
    order = np.argsort(start, kind="stable")
    rows, start = rows[order], start[order]
    edges = np.linspace(0, end, _STEPS + 1)
    if not len(rows):
        return np.zeros(_STEPS)
    stop = start + log["each_ps"].to_numpy()[rows] * log["count"].to_numpy()[rows]
    stop[:-1] = np.minimum(stop[:-1], start[1:])  # with several stages iterations overlap
    covered = np.concatenate(([0.0], np.cumsum(stop - start)))
    # NOTE: intervals neither overlap nor go back, so the time covered until an instant is linear between their ends
    until = np.interp(
        edges, np.stack((start, stop), axis=1).ravel(), np.repeat(covered, 2)[1:-1], left=0.0, right=float(covered[-1])
    )
    return np.diff(until) / np.diff(edges)
