"""The page of a run or a training step: what its folder holds, and what analysis finds in it."""

from __future__ import annotations

from pathlib import Path

from distsim.analysis.steps import median_ps, steps
from distsim.analysis.summary import Summary, summarise
from distsim.report.answer import answer
from distsim.report.html import breakdown, captured, communication, events, links, path, provenance, timeline, training, why
from distsim.report.html import levers as worth
from distsim.report.html.section import Figure, Page, Section
from distsim.report.html.shown import chosen
from distsim.report.reopen import reopen
from distsim.result import Result
from distsim.units import format_time


def page(folder: str, title: str = "", levers: bool = False) -> Page:
    """The page of a folder of ``distsim run -o`` or ``distsim train -o``. Raises ConfigError as reopen does."""
    result = reopen(folder)
    summary = summarise(result)
    step = training.step_of(result)
    return Page(
        title=title or Path(folder).resolve().name,
        answer=(step.answer if step else "") or answer(result, summary),
        sections=sections(result, summary, step, levers),
        figures=_figures(result, summary, step),
        warnings=(*result.warnings, *(step.warnings if step else ())),
    )


def sections(result: Result, summary: Summary, step: training.Step | None, levers: bool = False) -> tuple[Section, ...]:
    """All that there is something to say in."""
    shown = chosen(result, summary)
    arranged = timeline.arrange(result, summary, shown)
    found = (
        breakdown.section(result, summary),
        events.section(result),
        training.section(step) if step else None,
        why.section(result, arranged),
        worth.section(result) if levers else None,
        captured.section(result, summary),
        timeline.section(result, summary, shown, arranged),
        path.section(result, summary, arranged),
        communication.section(summary),
        links.section(result, summary),
        training.memory(step) if step else None,
        provenance.section(result),
    )
    return tuple(one for one in found if one is not None)


def _figures(result: Result, summary: Summary, step: training.Step | None) -> tuple[Figure, ...]:
    """The numbers of the head."""
    share = summary.breakdown.average()
    made = [_step(result)]
    made += step.figures if step else []
    made += [
        Figure("Computing", _percent(share["compute"]), "of the time, mean of ranks"),
        Figure("Exposed communication", _percent(share["exposed"]), _most_exposed(summary)),
        Figure("Idle", _percent(share["idle"]), _waiting(result, summary)),
    ]
    if summary.links:
        busiest = summary.links[0]
        made.append(Figure("Busiest link", _percent(busiest.utilisation), f"{busiest.name} ({busiest.domain})"))
    return tuple(made)


def _step(result: Result) -> Figure:
    """How long; of a captured trace, how long the GPU work of an iteration."""
    ranks = f"{result.ranks:,} rank{'s' if result.ranks > 1 else ''}"
    found = steps(result)
    if not found:
        return Figure("Step", format_time(result.makespan), ranks)
    if len(found) == 1:
        return Figure("Step", format_time(found[0].span_ps), f"{format_time(result.makespan)} with its launches, {ranks}")
    return Figure("Step", format_time(median_ps(found)), f"median of {len(found):,} in {format_time(result.makespan)}, {ranks}")


def _most_exposed(summary: Summary) -> str:
    found = [row for row in summary.traffic if row.exposed_ps]
    return f"most in {' '.join(filter(None, (found[0].group, found[0].operation)))}" if found else ""


def _waiting(result: Result, summary: Summary) -> str:
    whole = result.makespan * result.ranks
    waiting = int(summary.breakdown.waiting.sum()) / whole if whole else 0.0
    return f"{_percent(waiting)} waiting for other ranks" if waiting >= 0.0005 else ""


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
