"""A run as one JSON document: what ``distsim run --json`` prints and ``summary.json`` of a results folder holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from distsim.analysis.breakdown import PARTS
from distsim.analysis.communication import Traffic
from distsim.analysis.intervals import Ints
from distsim.analysis.steps import steps
from distsim.analysis.summary import Summary
from distsim.command import command_of
from distsim.report.answer import answer
from distsim.result import SCHEMA, Result

FORMAT = "distsim-results"


def document(result: Result, summary: Summary) -> dict[str, Any]:
    """Keys are stable within a schema version. Names end in their unit: ``_ps``, ``_ns``; bytes, and bytes/s for bandwidths."""
    split, average = summary.breakdown, summary.breakdown.average()
    per_rank = {part: getattr(split, part).tolist() for part in (*PARTS, "waiting", "hidden")}
    made: dict[str, Any] = {
        "format": FORMAT,
        "schema": SCHEMA,
        "answer": answer(result, summary),
        "makespan_ps": result.makespan,
        "makespan_ns": _ns(result.makespan),
        "ranks": result.ranks,
        "finish_ns": [_ns(time) for time in result.finish.tolist()],
        "breakdown": {
            "fraction": average,
            "waiting_fraction": _fraction(split.waiting, result.makespan),
            "hidden_fraction": _fraction(split.hidden, result.makespan),
            "per_rank_ps": per_rank,
        },
        "communication": [_traffic(row) for row in summary.traffic],
        "slowest_rank": summary.slowest,
        "critical_path_ps": dict(summary.critical.times),
        "links": [asdict(link) for link in summary.links],
        "domains": [asdict(domain) for domain in summary.domains],
        "warnings": list(result.warnings),
        "counts": dict(result.counts),
        "spec": dict(result.spec),
        "command": command_of(result.spec),
        "provenance": dict(result.provenance),
    }
    if found := steps(result):
        made["steps"] = [{"name": step.name, "span_ps": step.span_ps, "rank": step.rank} for step in found]
    if result.representative is not None:
        made |= {"representative": result.representative.tolist(), "folded": list(result.folded)}
    made |= {"profile": dict(result.profile_figures)} if result.profile_figures else {}
    return made | ({"events": dict(result.events)} if result.events else {})


def dumps(made: Mapping[str, Any], indent: int | None = 1) -> str:
    """The text of a document; equal documents give equal text."""
    return json.dumps(made, indent=indent, ensure_ascii=False, allow_nan=False)


def _ns(ps: int) -> int | float:
    """Nanoseconds, whole where they are."""
    return ps // 1000 if ps % 1000 == 0 else ps / 1000


def _fraction(column: Ints, makespan: int) -> float:
    whole = makespan * len(column)
    return int(column.sum()) / whole if whole else 0.0


def _traffic(row: Traffic) -> dict[str, Any]:
    """A row of the communication table; rates are named with their unit."""
    values = asdict(row)
    values["algbw_bytes_per_s"], values["busbw_bytes_per_s"] = values.pop("algbw"), values.pop("busbw")
    return values
