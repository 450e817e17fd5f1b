"""A search as one screen of text, and as a JSON document: the plan, why it wins, what was pruned and by what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from distsim.report.table import table
from distsim.sweep.search import Limits, Search, Trial
from distsim.sweep.shown import listed, reasons, said, titled
from distsim.units import format_size

_RUNNERS_UP = 5
_LOSSES = 3  #: terms in which a runner-up loses most
_USUAL = ("tp", "pp", "dp", "cp", "ep", "vpp", "schedule", "micro_batch", "zero", "recompute")


def fields(found: Search) -> tuple[str, ...]:
    """The fields that tell plans apart: of the trials, those with more than one value, and the sizes of parallelism."""
    points = [trial.point for trial in found.trials]
    names = dict.fromkeys(name for point in points for name in point)
    several = [name for name in names if name != "sequence_parallel" and len({repr(point.get(name)) for point in points}) > 1]
    usual = [name for name in _USUAL if any(point.get(name, 1) not in (1, None, "") for point in points)]
    return tuple(dict.fromkeys([*usual, *several]))


def terms(trial: Trial, objective: str) -> dict[str, float]:
    """Where the time of a step goes, in ps: columns that end in _ps, or _fraction and _share of the step."""
    numbers = {name: value for name, value in trial.columns.items() if isinstance(value, int | float) and name != objective}
    times = {titled(name): float(value) for name, value in numbers.items() if name.endswith("_ps")}
    return times or {
        titled(name): value * trial.value for name, value in numbers.items() if name.endswith(("_fraction", "_share"))
    }


def losses(trial: Trial, best: Trial, objective: str) -> str:
    """In which terms a plan takes longer than the best, most first."""
    mine, theirs = terms(trial, objective), terms(best, objective)
    more = sorted(((mine[name] - theirs.get(name, 0.0), name) for name in mine), reverse=True)
    lost = [f"{name} +{said('_ps', delta)}" for delta, name in more[:_LOSSES] if delta > 0.001 * best.value]
    return ", ".join(lost) or "-"


def answer(found: Search, limits: Limits) -> str:
    """The first line."""
    if found.best is None:
        return "no plan in time" if found.unbounded or found.unproven else "no plan: all are refused, or need too much memory"
    best, objective = found.best, limits.objective
    proof = "proven best of its space" if found.proven else "best found, not proven"
    aside = "".join(
        f", {titled(name)} {said(name, best.columns[name])}" for name in ("mfu", limits.memory_column) if name in best.columns
    )
    plan = "the given plan" if best.number < 0 else listed(best.point, [name for name in fields(found) if name in best.point])
    return f"best {titled(objective)} {said(objective, best.value)}{aside}: {plan} ({proof})"


def text(found: Search, limits: Limits, width: int) -> str:
    """The whole report, its first line the answer."""
    lines = [answer(found, limits), *_compared(found, limits), "", *_runners_up(found, limits, width)]
    return "\n".join([*lines, *_proof(found, limits, width)])


def _compared(found: Search, limits: Limits) -> list[str]:
    """What the given plan comes to."""
    if found.against is None:
        return [f"the given plan cannot be simulated: {found.against_why}"] if found.against_why else []
    mine, best = found.against, found.best
    line = f"the given plan: {titled(limits.objective)} {said(limits.objective, mine.value)}"
    but = [f"but it {found.against_why}"] if found.against_why else []
    if best is None or best.number < 0 or (but and mine.value < best.value):
        return [f"{line}; no simulated plan of the space is faster", *but]
    faster = sum(trial.value < mine.value for trial in found.trials)
    gain = 100 * (mine.value / best.value - 1)
    lost = losses(mine, best, limits.objective)
    place = f"place {faster + 1:,} of {len(found.trials) + bool(but):,} simulated"
    return [f"{line}, {place}, {gain:.1f} % slower: {lost}", *but]


def _runners_up(found: Search, limits: Limits, width: int) -> list[str]:
    if found.best is None:
        return []
    shown = found.trials[: _RUNNERS_UP + 1]
    varied = [name for name in fields(found) if len({repr(trial.point.get(name)) for trial in shown}) > 1]
    head = ["place", *varied, titled(limits.objective), "slower"]
    rows = []
    for place, trial in enumerate(shown, 1):
        slower = f"{100 * (trial.value / found.best.value - 1):.1f} %" if place > 1 else "-"
        mark = f"{place}*" if trial.number < 0 else f"{place}"
        plan = [said(name, trial.point.get(name)) for name in varied]
        rows.append([mark, *plan, said(limits.objective, trial.value), slower])
    lines = table(head, rows, width=width)
    lines += ["  * the given plan"] if any(trial.number < 0 for trial in shown) else []
    why = [(place, losses(trial, found.best, limits.objective)) for place, trial in enumerate(shown, 1)]
    return [*lines, *(f"  place {place} loses {lost}" for place, lost in why[1:] if lost != "-"), ""]


def _proof(found: Search, limits: Limits, width: int) -> list[str]:
    """What became of every plan of the space."""
    objective = limits.objective
    refused = sum(one.count for one in found.refused)
    tried = len(found.trials) - (found.against is not None and found.against in found.trials)
    rows = [["refused by constraints, below", f"{refused:,}", ""]]
    if found.by_bound:
        smallest = f"smallest bound {said(objective, found.smallest_pruned)}"
        rows.append(["pruned: their bound is not below the best", f"{found.by_bound:,}", smallest])
    rows.append(["simulated", f"{tried:,}", "all within their bounds" if not found.false_bounds else ""])
    if found.over_memory:
        limit = f"limit {format_size(limits.memory or 0)}"
        rows.append(["simulated, need too much memory", f"{found.over_memory:,}", limit])
    if found.failed:
        rows.append(["simulated without a result", f"{found.failed:,}", found.first_failure.splitlines()[0]])
    if found.unproven:
        gain = ""
        if found.best is not None and found.smallest_unproven is not None:
            gain = f"at most {100 * (1 - found.smallest_unproven / found.best.value):.1f} % faster"
        rows.append(["not simulated, time was out", f"{found.unproven:,}", gain])
    if found.unbounded:
        rows.append(["without a bound, time was out", f"{found.unbounded:,}", ""])
    head = f"{found.size:,} plans in {found.seconds:.1f} s, of which bounds {found.seconds_bounds:.1f} s"
    lines = [head, *table(["plans", "count", "proof"], rows, width=width)]
    if found.false_bounds:
        lines.append(f"warning: {found.false_bounds:,} plans were faster than their bounds: the bounds prove nothing here")
    return lines + reasons(found.refused, width)


def document(found: Search, limits: Limits) -> dict[str, Any]:
    """Keys are stable; times in ps, memory in bytes."""

    def plan(trial: Trial | None) -> dict[str, Any] | None:
        if trial is None:
            return None
        return {"number": trial.number, "plan": _plain(trial.point), "bounds": trial.bounds, "columns": trial.columns}

    return {
        "format": "distsim-search", "answer": answer(found, limits), "objective": limits.objective, "proven": found.proven,
        "best": plan(found.best), "against": plan(found.against), "against_why": found.against_why,
        "trials": [plan(trial) for trial in found.trials], "points": found.size, "bounded": found.bounded,
        "pruned_by_bound": found.by_bound, "smallest_pruned": found.smallest_pruned, "unproven": found.unproven,
        "smallest_unproven": found.smallest_unproven, "unbounded": found.unbounded, "over_memory": found.over_memory,
        "failed": found.failed, "first_failure": found.first_failure, "false_bounds": found.false_bounds,
        "refused": [asdict(one) for one in found.refused], "limits": asdict(limits),
        "seconds": round(found.seconds, 3), "seconds_bounds": round(found.seconds_bounds, 3),
    }  # fmt: skip


def _plain(point: Mapping[str, object]) -> dict[str, object]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in point.items()}
