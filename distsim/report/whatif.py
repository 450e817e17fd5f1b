"""What-if studies as text, and as one JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distsim.analysis.whatif.estimate import Recorded, shares
from distsim.analysis.whatif.levers import NOTHING, STEP, Lever
from distsim.analysis.whatif.outcome import Outcome
from distsim.report.table import table
from distsim.scenario import Knob, Scenario
from distsim.units import format_time

FORMAT = "distsim-whatif"
_UNTOLD = "the recorded run tells nothing of any knob (timed events changed it, or there is none to turn)"


def answer(settings: Mapping[str, str], found: Outcome) -> str:
    """The first line."""
    what = ", ".join(f"{name}={value}" for name, value in settings.items())
    whole = "whole capture " if found.iterations else ""
    if found.after is not None:
        return f"{what}: {whole}{_change(found.before, found.after)}{_each(found)}"
    if found.estimate.makespan is None:
        return f"{what}: no estimate: {found.estimate.reason}"
    return f"{what}: {whole}about {_change(found.before, found.estimate.makespan)} (estimated, not simulated)"


def _each(found: Outcome) -> str:
    """Steps of a captured trace, before and after."""
    if found.step is None or found.step_after is None:
        return ""
    of = f" (median of {found.iterations})" if found.iterations > 1 else ""
    change = "as before" if found.step == found.step_after else f"-> {format_time(found.step_after)}"
    return f"; step{of} {format_time(found.step)} {change}"


def _change(before: int, after: int) -> str:
    saved = before - after
    if not saved:
        return f"{format_time(before)} as before"
    ratio = f", {before / after:.3f}x as fast" if after else ""
    return f"{format_time(before)} -> {format_time(after)}, {format_time(abs(saved))} {'saved' if saved > 0 else 'lost'}{ratio}"


def text(settings: Mapping[str, str], found: Outcome, recorded: Recorded, changed: Scenario) -> str:
    """Before, estimate, re-simulated; why they differ; how to run it."""
    rows = [["before", format_time(found.before), "", ""]]
    for name, time in (("estimate", found.estimate.makespan), ("re-simulated", found.after)):
        if time is not None:
            saved = found.before - time
            part = f"{100 * saved / found.before:.2f} %" if found.before else ""
            rows.append([name, format_time(time), ("-" if saved < 0 else "") + format_time(abs(saved)), part])
    lines = [answer(settings, found), "", *table(["", "makespan", "saved", "of before"], rows)]
    if found.estimate.makespan is None:
        lines += ["", f"no estimate: {found.estimate.reason}"]
    elif found.error is not None:
        lines += ["", f"error of the estimate: {100 * found.error:+.3f} %"]
    lines += [f"  {sentence}" for sentence in found.why]
    if found.estimate.path is not None:
        kept, now = shares(recorded.path, recorded.result), shares(found.estimate.path, recorded.result)
        there = [name for name in kept if kept[name] or now[name]]
        said = ", ".join(f"{name} {format_time(round(kept[name]))} -> {format_time(round(now[name]))}" for name in there)
        lines += ["", f"on the longest path: {said}", f"estimated from {_basis(recorded)}"]
    return "\n".join([*lines, f"run it: {changed.command}"])


def _basis(recorded: Recorded) -> str:
    known = recorded.activities.complete
    edges = "the trace's dependencies" if known else "the dependencies that were binding (the trace has changed)"
    return f"{edges}, the recorded order of every stream, and each communication's time alone, or with those it met"


def levers_text(found: Sequence[Lever], recorded: Recorded) -> str:
    """A table of knobs, the one that saves most first."""
    checked = any(one.checked is not None for one in found)
    first = next((one for one in found if one.saved > 0), None)
    total = recorded.result.makespan
    said = "no knob saves anything" if found else _UNTOLD
    if first:
        said = f"{first.knob.name} saves most, {format_time(round(first.saved))} per 10 %"
    head = f"{format_time(total)}: {said}"
    rows = []
    for one in found:
        row = [one.knob.name, one.knob.value, signed(one.saved), f"{100 * one.saved / total + 0.0:.2f} %" if total else ""]
        if checked:
            off = "" if one.error is None else f"{100 * one.error:+.2f} %"
            row += [signed(one.simulated or 0.0), off + ("*" if one.reason else "")]
        rows.append(row)
    names = ["knob", "now", "saved per 10 %", "of all", *(["simulated", "off"] if checked else [])]
    flags = [f"* {one.knob.name}: {one.reason}" for one in found if one.reason]
    flags += [
        f"{one.knob.name}: a kink, another path is as long: the other way, 10 % costs {format_time(round(one.lost))}"
        for one in found if one.slope.kinked and not one.reason and one.lost > NOTHING * total
    ]  # fmt: skip
    note = (
        f"saved per 10 % more (latencies, starts: less): slope of the longest recorded path over {100 * STEP:g} %"
        + (f"; simulated: of simulations; off: of the slopes over +-{100 * STEP:g} %" if checked else "")
    )  # fmt: skip
    return "\n".join([head, "", *table(names, rows, text=2), *flags, "", note, f"from {_basis(recorded)}"])


def signed(ps: float) -> str:
    """A time that may be negative."""
    return ("-" if round(ps) < 0 else "") + format_time(abs(round(ps)))


def knobs_text(found: Sequence[Knob]) -> str:
    """A table of knobs."""
    rows = [[one.name, one.value, one.about] for one in found]
    return "\n".join(table(["knob", "now", "what"], rows, text=3, width=128))


def document(settings: Mapping[str, str], found: Outcome, recorded: Recorded, changed: Scenario) -> dict[str, Any]:
    """Keys are stable; times in ps."""
    path = found.estimate.path
    return {
        "format": FORMAT, "set": dict(settings), "answer": answer(settings, found), "before_ps": found.before,
        "estimate_ps": found.estimate.makespan, "no_estimate": found.estimate.reason or None, "simulated_ps": found.after,
        "saved_ps": None if found.after is None else found.before - found.after, "error": found.error, "why": list(found.why),
        "path_before_ps": shares(recorded.path, recorded.result),
        "path_estimate_ps": None if path is None else shares(path, recorded.result),
        "dependencies_known": recorded.activities.complete, "command": changed.command, "steps": found.iterations,
        "step_before_ps": found.step, "step_after_ps": found.step_after,
    }  # fmt: skip


def levers_document(found: Sequence[Lever], recorded: Recorded) -> dict[str, Any]:
    """Keys are stable; times in ps, slopes in ps per unit of ln(knob)."""
    return {
        "format": FORMAT, "before_ps": recorded.result.makespan, "step": STEP,
        "dependencies_known": recorded.activities.complete,
        "levers": [
            {
                "knob": one.knob.name, "value": one.knob.value, "saved_per_10_percent_ps": one.saved,
                "slope_ps": one.slope.middle, "slope_less_ps": one.slope.less, "slope_more_ps": one.slope.more,
                "simulated_slope_ps": None if one.checked is None else one.checked.middle,
                "simulated_less_ps": None if one.checked is None else one.checked.less,
                "simulated_more_ps": None if one.checked is None else one.checked.more,
                "error": one.error, "reason": one.reason,
            }
            for one in found
        ],
    }  # fmt: skip


def knobs_document(found: Sequence[Knob]) -> dict[str, Any]:
    """Keys are stable."""
    rows = [{"knob": one.name, "value": one.value, "about": one.about, "continuous": one.continuous} for one in found]
    return {"format": FORMAT, "knobs": rows}
