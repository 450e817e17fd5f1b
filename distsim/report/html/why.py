"""Why a run takes as long as it does: what ``distsim explain`` finds, beside the timeline that its rows point at."""

from __future__ import annotations

from distsim.analysis.explain.findings import Explanation, explain
from distsim.analysis.explain.ranks import PARTS
from distsim.report import explain_rows as rows
from distsim.report.html.markup import escape, paragraph, table
from distsim.report.html.section import Section
from distsim.report.html.timeline import Arranged
from distsim.result import Result
from distsim.units import format_time

#: tasks at most: of more, working back from the end takes longer than one waits for a page
TASKS = 1_000_000
#: rows of the story, and sentences of a list
_TOP = 12
#: ranks that have a row of their own
_RANKS = 256
#: classes of kernels that have a row of their own
_CLASSES = 20
#: part of a rank -> head of its column
_SHORT = {
    "compute": "compute", "exposed": "exposed", "memory": "memory", "late_start": "late start",
    "stragglers": "late members", "bubble": "bubble",
    "host": "host", "dependency": "other", "ended": "ended",
}  # fmt: skip


def section(result: Result, arranged: Arranged) -> Section | None:
    """The story, what holds communication up, where ranks spend their time, slack and bounds; None where nothing ran."""
    spans = result.spans()
    if not result.makespan or not len(spans):
        return None
    if len(spans) > TASKS:
        said = f"Left out: {len(spans):,} tasks are more than a page waits for ({TASKS:,}). distsim explain FOLDER tells it."
        return Section("why", "Why", paragraph(said, "note"))
    found = explain(result)
    communications, left = rows.communications(found, _TOP)
    communications += [f"and {left} more"] if left and communications else []
    html = [
        paragraph(f"{rows.answer(found)}."), *(paragraph(f"{note[:1].upper()}{note[1:]}.", "note") for note in found.notes),
        _story(found, arranged), _sentences("Communication on the path", communications),
        _sentences("Who was waited for", rows.waited_for(found, _TOP)), _parts(found), _classes(found), _ranks(found),
        _slack(found), _bounds(found),
    ]  # fmt: skip
    return Section("why", "Why", "\n".join(filter(None, html)), {}, ("path.js",))


def _story(found: Explanation, arranged: Arranged) -> str:
    told = rows.path(found, _TOP)
    cells, keys, links = [], [], []
    for one in told:
        cells.append((one.what, format_time(one.begin_ps), format_time(one.ps), rows.percent(one.ps, found.end_ps)))
        keys.append((None, one.begin_ps, one.ps, one.ps))
        place = next((int(arranged.place[leg.row]) for leg in one.legs if leg.row >= 0), -1)
        links.append({"task": place} if place >= 0 else {})
    caption = f"The critical path as a story: {len(found.story.legs):,} legs, in order of time"
    return table(("what", "from", "takes", "share"), cells, keys=keys, links=links, caption=caption, long=0)


def _sentences(title: str, sentences: list[str]) -> str:
    items = "".join(f"<li>{escape(one)}</li>" for one in sentences)
    return f"<h3>{escape(title)}</h3><ul>{items}</ul>" if items else ""


def _parts(found: Explanation) -> str:
    told = [
        (one.said, format_time(one.mean_ps), f"{one.percent} %", format_time(one.least_ps), format_time(one.most_ps),
         f"rank {one.who}" if one.who >= 0 else "all", one.inside)
        for one in rows.parts(found)
    ]  # fmt: skip
    beside, uneven = rows.hidden(found), rows.imbalance(found)
    said = ["Idle time here goes to its cause"]
    said += [f"hidden communication (while computing): {format_time(beside)}"] if beside else []
    said += [uneven] if uneven else []
    note = paragraph(f"{'; '.join(said)}.", "note")
    head = ("part", "mean", "share", "least", "most", "most on", "of which, mean over ranks")
    caption = f"Where the time of ranks goes; parts add up to {format_time(found.result.makespan)}"
    return table(head, told, sort=False, caption=caption, long=6) + note if told else ""


def _classes(found: Explanation) -> str:
    """Computation by class of kernel."""
    each = [one.compute for one in found.ranks]
    total: dict[str, int] = {}
    for one in each:
        for name, ps in one.items():
            total[name] = total.get(name, 0) + ps
    whole, count = sum(total.values()), len(each)
    if not whole:
        return ""
    most = sorted(total.items(), key=lambda item: (-item[1], item[0]))
    cells, keys = [], []
    for name, ps in most[:_CLASSES]:
        values = [one.get(name, 0) for one in each]
        cells.append((name, rows.percent(ps, whole), *map(format_time, (ps / count, min(values), max(values)))))
        keys.append((None, ps, ps, min(values), max(values)))
    rest = sum(ps for _, ps in most[_CLASSES:])
    if rest:
        cells.append((f"{len(most) - _CLASSES} more", rows.percent(rest, whole), format_time(rest / count), "", ""))
        keys.append((None, rest, rest, 0, 0))
    return table(("class", "of compute", "mean", "least", "most"), cells, keys=keys, caption="Computation by class of kernel")


def _ranks(found: Explanation) -> str:
    """The parts of every rank."""
    there = [part for part in PARTS if any(one.parts[part] for one in found.ranks)]
    if len(found.ranks) < 2:
        return ""
    cells, keys = [], []
    for one in found.ranks[:_RANKS]:
        values = [one.parts[part] for part in there]
        values += [sum(one.hidden.values())]
        cells.append((str(one.rank), *map(format_time, values)))
        keys.append((one.rank, *values))
    more = f", the first {_RANKS} of {len(found.ranks):,}" if len(found.ranks) > _RANKS else ""
    body = table(("rank", *(_SHORT[part] for part in there), "(hidden)"), cells, keys=keys, caption=f"Every rank{more}")
    return f"<details><summary>The same for every rank{more}</summary>{body}</details>"


def _slack(found: Explanation) -> str:
    told = rows.slack(found)
    if not told:
        return ""
    body = table(("slack", "tasks", "that take"), told, sort=False, caption="How much later tasks could end")
    items = "".join(f"<li>{escape(said)}</li>" for said in rows.near(found, _TOP))
    return body + (f"<ul>{items}</ul>" if items else "")


def _bounds(found: Explanation) -> str:
    head, told = rows.bounds(found)
    return table(head, told, text=2, sort=False, caption="What it could be at best") if told else ""
