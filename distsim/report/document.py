"""A run as one JSON document: what ``distsim run --json`` prints and ``summary.json`` of a results folder holds."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from distsim.analysis.breakdown import PARTS
from distsim.analysis.communication import Traffic
from distsim.analysis.intervals import Ints
from distsim.analysis.summary import Summary
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
        "command": command(result.spec),
        "provenance": dict(result.provenance),
    }
    if result.representative is not None:
        made |= {"representative": result.representative.tolist(), "folded": list(result.folded)}
    made |= {"profile": dict(result.profile_figures)} if result.profile_figures else {}
    return made | ({"events": dict(result.events)} if result.events else {})


def dumps(made: Mapping[str, Any], indent: int | None = 1) -> str:
    """The text of a document; equal documents give equal text."""
    return json.dumps(made, indent=indent, ensure_ascii=False, allow_nan=False)


def command(spec: Mapping[str, Any]) -> str:
    """The command line that repeats a run: topology, network level, and every other value that is not the default."""
    from distsim.run_spec import RunSpec

    trace = spec.get("trace") or ()
    words = ["distsim", "run", *([trace] if isinstance(trace, str) else trace)]
    for name, value in spec.items():
        field = RunSpec.model_fields.get(name)
        usual = field is not None and value == field.default and name not in ("topo", "network")
        if name == "trace" or value is None or usual:
            continue
        option = f"--{name.replace('_', '-')}"
        words += [option] if value is True else [] if value is False else [option, str(value)]
    return shlex.join(words)


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
