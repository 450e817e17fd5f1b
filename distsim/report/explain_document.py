"""Why a run took as long as it did, as a JSON document (``distsim explain --json``; keys in docs/explain.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from distsim.analysis.explain.findings import Explanation
from distsim.analysis.explain.ranks import RankTime
from distsim.analysis.explain.story import Leg, Repeat
from distsim.report.explain_rows import answer

FORMAT = "distsim-explanation"
#: version of the document's keys
SCHEMA = 1


def document(found: Explanation) -> dict[str, Any]:
    """Keys are stable within a schema; names end in their unit."""
    result, free = found.result, found.slack
    return {
        "format": FORMAT, "schema": SCHEMA, "answer": answer(found), "notes": list(found.notes),
        "makespan_ps": result.makespan, "ranks": result.ranks, "step": found.step or None, "rank": found.rank,
        "path": {
            "end_ps": found.end_ps,
            "contributions": {
                by: {one.name: one.ps for one in found.story.contributions if one.by == by}
                for by in ("kind", "class", "operation", "rank")
            },
            "told": [_told_document(one) for one in found.story.told],
        },
        "communication": [
            asdict(one) | {"load": None if one.load is None else _load_document(asdict(one.load))}
            for one in found.communications
        ],
        "latecomers": [asdict(one) for one in found.latecomers],
        "stragglers": [asdict(one) for one in found.stragglers],
        "late_starts": [asdict(one) for one in found.late_starts],
        "slack": None if free is None else {
            "exact": free.exact, "histogram": [asdict(one) for one in free.bins],
            "chains": [asdict(one) for one in free.chains], "ranks_without": free.parallel.tolist(),
        },
        "per_rank": [_rank_document(one) for one in found.ranks if found.rank in (None, one.rank)],
        "bounds": [asdict(one) for one in found.bounds],
        "spec": dict(result.spec), "provenance": dict(result.provenance),
    }  # fmt: skip


def _load_document(load: dict[str, Any]) -> dict[str, Any]:
    return {("bandwidth_bytes_per_s" if name == "bandwidth" else name): value for name, value in load.items()}


def _told_document(one: Leg | Repeat) -> dict[str, Any]:
    """A row of the story; the legs of a repetition summed by activity."""
    if isinstance(one, Repeat):
        parts: dict[str, int] = {}
        classes: dict[str, int] = {}
        for leg in one.legs:
            name = f"{leg.group} {leg.activity}".strip()
            parts[name] = parts.get(name, 0) + leg.ps
            for part, ps in leg.classes.items() if leg.activity == "compute" else ():
                classes[part] = classes.get(part, 0) + ps
        ranks = sorted({leg.rank for leg in one.legs if leg.rank >= 0})
        return {
            "begin_ps": one.begin_ps, "end_ps": one.end_ps, "repeats": one.count, "legs": len(one.legs), "ranks": ranks,
            "activities_ps": parts, "classes_ps": classes,
        }  # fmt: skip
    return {
        "begin_ps": one.begin_ps, "end_ps": one.end_ps, "repeats": 1, "legs": 1, "ranks": [one.rank] if one.rank >= 0 else [],
        "activities_ps": {f"{one.group} {one.activity}".strip(): one.ps}, "classes_ps": dict(one.classes), "tasks": one.tasks,
        "collective": one.collective if one.collective >= 0 else None, "row": one.row if one.row >= 0 else None,
    }  # fmt: skip


def _rank_document(one: RankTime) -> dict[str, Any]:
    def named(times: Mapping[tuple[str, str], int]) -> dict[str, int]:
        return {f"{group} {operation}".strip(): ps for (operation, group), ps in times.items()}

    return {
        "rank": one.rank, "represented_by": one.of, "parts_ps": one.parts, "compute_ps": dict(one.compute),
        "exposed_ps": named(one.exposed), "hidden_ps": named(one.hidden), "stragglers_ps": named(one.stragglers),
        "launches": one.launches, "host_work_ps": one.host_work,
    }  # fmt: skip
