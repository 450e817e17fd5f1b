"""Why a run took as long as it did, on one screen."""

from __future__ import annotations

from textwrap import wrap

from distsim.analysis.explain.findings import Explanation
from distsim.report import explain_rows as rows
from distsim.report.explain_rows import answer, percent
from distsim.report.table import table
from distsim.units import format_time


def text(found: Explanation, width: int = 100, top: int = 12) -> str:
    """The screen; its first line is the answer. ``top``: rows of each section."""
    lines = [answer(found)]
    for note in found.notes:
        lines += wrap(f"note: {note}", width, subsequent_indent="  ")
    head, bounds = rows.bounds(found)
    communications, left = rows.communications(found, top)
    communications += [f"and {left} more (--json lists all)"] if left and communications else []
    sections = (
        _path(found, width, top),
        _sentences("communication on the path, and what holds it up", communications, width),
        _sentences("who was waited for", rows.waited_for(found, top), width), _parts(found, width), _slack(found, width, top),
        table(head, bounds, text=2, width=width) if bounds else [],
    )  # fmt: skip
    for section in sections:
        lines += ["", *section] if section else []
    return "\n".join(lines)


def _path(found: Explanation, width: int, top: int) -> list[str]:
    told = rows.path(found, top)
    if not told:
        return []
    lines = [f"  {'at':>9}  {'takes':>8}  {'share':>6}  critical path, {len(found.story.legs)} legs"]
    for one in told:
        lead = f"  {format_time(one.begin_ps):>9}  {format_time(one.ps):>8}  {percent(one.ps, found.end_ps):>6}  "
        lines += wrap(one.what, width, initial_indent=lead, subsequent_indent=" " * len(lead))
    return lines


def _sentences(title: str, sentences: list[str], width: int) -> list[str]:
    lines = []
    for said in sentences:
        lines += wrap(said, width, initial_indent="  ", subsequent_indent="    ")
    return [title, *lines] if lines else []


def _parts(found: Explanation, width: int) -> list[str]:
    told = rows.parts(found)
    if not told:
        return []
    title = f"rank {found.rank}" if found.rank is not None else "mean over ranks"
    lines = [f"where the time of ranks goes ({title}); parts add up to {format_time(found.result.makespan)}"]
    for one in told:
        lead = f"  {one.said:<30}{format_time(one.mean_ps):>9}  {f'{one.percent} %':>5}  "
        spread = f"{format_time(one.least_ps)} to {format_time(one.most_ps)} (rank {one.who})" if one.who >= 0 else ""
        more = "; ".join(filter(None, (spread, one.inside)))
        lines += wrap(more, width, initial_indent=lead, subsequent_indent=" " * len(lead)) or [lead]
    beside, uneven = rows.hidden(found), rows.imbalance(found)
    if beside:
        lines.append(f"  {'hidden communication':<30}{format_time(beside):>9}         under computation")
    return [line.rstrip() for line in [*lines, *([f"  {uneven}"] if uneven else [])]]


def _slack(found: Explanation, width: int, top: int) -> list[str]:
    told = rows.slack(found)
    if not told:
        return []
    lines = table(("slack (how much later a task could end)", "tasks", "that take"), told, width=width)
    for said in rows.near(found, top):
        lines += wrap(said, width, initial_indent="  ", subsequent_indent="    ")
    return lines
