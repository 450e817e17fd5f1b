"""Two runs or training steps side by side: both answers, where the difference comes from, and both timelines on one axis."""

from __future__ import annotations

from typing import Any

from distsim.analysis.difference import Difference, Pair, Part, difference
from distsim.analysis.summary import Summary, summarise
from distsim.command import command_of
from distsim.report.answer import answer
from distsim.report.html.markup import chart, escape, pairs, paragraph, table
from distsim.report.html.section import Figure, Page, Section
from distsim.report.html.sides import LETTERS, change, changed, names
from distsim.report.html.timelines import section as timelines
from distsim.report.reopen import reopen
from distsim.result import Result
from distsim.units import format_bandwidth, format_size, format_time

#: steps of the picture; the rest is one step
_STEPS = 10
_SMALL = 0.01  #: of the largest: what is smaller is no step of its own
_PARTS = {
    "compute": "compute",
    "memory": "memory",
    "host": "host",
    "idle": "idle",
    "exposed": "exposed",
    "waiting": "waiting for",
}


def page(first: str, second: str, title: str = "") -> Page:
    """The second is measured by the first. Raises ConfigError as reopen does."""
    called = names(first, second)
    runs = [(result, summarise(result)) for result in (reopen(first), reopen(second))]
    found = difference(runs[0], runs[1])
    sections = [
        _difference(found, called), changed(runs[0][0].spec, runs[1][0].spec, called), _communication(found, called),
        _compute(found, called), _links(found, called), timelines(runs, called), _answers(runs, called),
    ]  # fmt: skip
    warnings = [f"{letter}: {text}" for letter, (result, _) in zip(LETTERS, runs, strict=True) for text in result.warnings]
    return Page(
        title or " against ".join(one[3:] for one in called), said(found, called),
        tuple(one for one in sections if one is not None), _figures(runs, found), tuple(warnings),
    )  # fmt: skip


def said(found: Difference, called: tuple[str, str]) -> str:
    """The first line: which is faster, by how much, and what does most of it."""
    one, other = format_time(found.first_ps), format_time(found.second_ps)
    if found.first_ps == found.second_ps:
        lead = f"both steps take {one}"
    else:
        more = found.second_ps - found.first_ps
        word = "longer" if more > 0 else "less"
        lead = (
            f"B takes {format_time(abs(more))} {word} than A ({other} against {one}, {change(found.first_ps, found.second_ps)})"
        )
    largest = [part for part in found.parts if abs(part.more) >= 0.5][:2]
    parts = ", ".join(f"{label(part)} {signed(part.more)}" for part in largest)
    return f"{lead}: {parts}" if parts else lead


def label(part: Part) -> str:
    """``exposed dp all_gather``."""
    return " ".join(filter(None, (_PARTS[part.kind], part.group, part.operation)))


def signed(ps: float) -> str:
    """``+35.14 ms``."""
    return "±0" if abs(ps) < 0.5 else ("+" if ps > 0 else "−") + format_time(abs(ps))


def _figures(runs: list[tuple[Result, Summary]], found: Difference) -> tuple[Figure, ...]:
    averages = [summary.breakdown.average() for _, summary in runs]
    made = [
        Figure("Step A", format_time(found.first_ps), f"{runs[0][0].ranks:,} ranks"),
        Figure("Step B", format_time(found.second_ps), f"{runs[1][0].ranks:,} ranks"),
        Figure("B − A", signed(found.second_ps - found.first_ps), change(found.first_ps, found.second_ps)),
    ]
    for part, head in (("compute", "Computing"), ("exposed", "Exposed communication"), ("idle", "Idle")):
        one, other = (average[part] for average in averages)
        made.append(Figure(head, f"{100 * one:.1f} → {100 * other:.1f} %", "of the step, mean of ranks"))
    return tuple(made)


def _difference(found: Difference, called: tuple[str, str]) -> Section:
    """The picture from one step to the other, and all parts."""
    apart = [part for part in found.parts if abs(part.more) >= 0.5]
    most = max((abs(part.more) for part in apart), default=0.0)
    large = [part for part in apart[:_STEPS] if abs(part.more) >= _SMALL * most]
    steps = [(label(part), part.more) for part in large]
    if len(apart) > len(large):
        steps.append((f"{len(apart) - len(large)} more", sum(part.more for part in apart[len(large) :])))
    rows = [
        [_PARTS[part.kind], part.operation or "-", part.group or ("all" if part.operation else "-"), format_time(part.first),
         format_time(part.second), signed(part.more)]
        for part in found.parts
    ]  # fmt: skip
    keys: list[list[Any]] = [[None, None, None, part.first, part.second, part.more] for part in found.parts]
    html = chart(
        "difference-steps",
        f"from the step of A to that of B: {'; '.join(f'{name} {signed(more)}' for name, more in steps)}",
        90 + 30 * (len(steps) + 2),
    )
    html = html if steps else paragraph("No part differs.")
    html += table(("part", "operation", "group", *called, "B − A"), rows, text=3, keys=keys, caption="Parts of the steps")
    html += paragraph(
        "Means of the ranks; parts add up to the steps. Exposed: communication under way while nothing computes. Waiting: "
        "idle, because members of the operation had not come.", "note",
    )  # fmt: skip
    data = {"first": found.first_ps, "second": found.second_ps, "names": list(called), "steps": steps}
    return Section("difference", "Where the difference comes from", html, data, ("compare.js",), charts=bool(steps))


def _communication(found: Difference, called: tuple[str, str]) -> Section | None:
    if not found.traffic:
        return None
    rows, keys = [], []
    for pair in found.traffic:
        both = (pair.first, pair.second)
        rows.append([
            pair.operation, pair.group or "all",
            *(_of(pair, one) for one in ("count", "bytes", "time", "exposed", "busbw", "algorithm")),
        ])  # fmt: skip
        exposed = [one.exposed_ps if one else 0.0 for one in both]
        keys.append([None, None, *(_key(pair, one) for one in ("count", "bytes", "time_ps")), exposed[1] - exposed[0],
                     _key(pair, "busbw"), None])  # fmt: skip
    head = ("operation", "group", "count", "bytes", "time", "exposed", "busbw", "algorithm")
    html = table(head, rows, text=2, keys=keys, caption=f"{called[0]} → {called[1]}; one value: the same in both")
    return Section("communication", "Communication", html)


def _of(pair: Pair, what: str) -> str:
    """Both values of a column, or the one that they share."""
    cells = []
    for row in (pair.first, pair.second):
        if row is None:
            cells.append("none")
        elif what == "count":
            cells.append(f"{row.count:,}")
        elif what == "bytes":
            cells.append(format_size(row.bytes))
        elif what in ("time", "exposed"):
            cells.append(format_time(row.time_ps if what == "time" else row.exposed_ps))
        elif what == "busbw":
            cells.append("-" if row.busbw is None else format_bandwidth(row.busbw))
        else:
            cells.append(row.algorithm or "-")
    return cells[0] if cells[0] == cells[1] else " → ".join(cells)


def _key(pair: Pair, name: str) -> float:
    """What a column sorts by: the change."""
    one, other = (getattr(row, name) or 0.0 if row else 0.0 for row in (pair.first, pair.second))
    return float(other) - float(one) if one != other else 0.0


def _compute(found: Difference, called: tuple[str, str]) -> Section | None:
    if not found.compute:
        return None
    rows = [
        [row.name or "(no name)", format_time(row.first), format_time(row.second), signed(row.second - row.first),
         " → ".join(dict.fromkeys(f"{count:,.4g}" for count in (row.first_count, row.second_count)))]
        for row in found.compute
    ]  # fmt: skip
    keys: list[list[Any]] = [[None, row.first, row.second, row.second - row.first, row.second_count] for row in found.compute]
    head = ("computation", *called, "B − A", "tasks per rank")
    html = table(head, rows, keys=keys, caption="Computation by name, as it differs most; mean of ranks")
    return Section("computation", "Computation", html)


def _links(found: Difference, called: tuple[str, str]) -> Section | None:
    if not found.domains:
        return None

    def share(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f} %"

    def sizes(one: int, other: int) -> str:
        return format_size(one) if one == other else f"{format_size(one)} → {format_size(other)}"

    rows = [
        [pair.name, share(pair.first), share(pair.second), sizes(pair.first_bytes, pair.second_bytes)] for pair in found.domains
    ]
    html = table(("domain", *called, "bytes"), rows, caption="Mean use of the links of each domain, of the step")
    if found.links:
        rows = [
            [pair.name, pair.domain, share(pair.first), share(pair.second), sizes(pair.first_bytes, pair.second_bytes)]
            for pair in found.links
        ]
        html += table(
            ("link", "domain", *called, "bytes"), rows, text=2, caption="Links in both whose bytes or use differ most"
        )
    return Section("links", "Links", html)


def _answers(runs: list[tuple[Result, Summary]], called: tuple[str, str]) -> Section:
    """How to make each anew."""
    html = []
    for name, (result, summary) in zip(called, runs, strict=True):
        id = f"command-{name[0]}"
        html.append(f"<h3>{escape(name)}</h3>" + paragraph(answer(result, summary)))
        html.append(f'<pre id="{id}">{escape(command_of(result.spec))}</pre>')
        html.append(f'<button type="button" data-copy="{id}">Copy the command</button>')
        html.append(pairs([(key, value) for key, value in result.provenance.items() if isinstance(value, str)]))
    return Section("configuration", "Configuration", "".join(html))
