"""Two timelines on one axis of time, one above the other, that move together."""

from __future__ import annotations

from collections.abc import Sequence

from distsim.analysis.summary import Summary
from distsim.report.html.markup import escape, paragraph
from distsim.report.html.section import Section
from distsim.report.html.shown import chosen
from distsim.report.html.timeline import SCRIPTS, arrange, columns
from distsim.result import Result

#: ranks and tasks of each
_RANKS, _SPANS = 32, 100_000


def section(runs: Sequence[tuple[Result, Summary]], called: Sequence[str]) -> Section | None:
    """The section; None where nothing took time."""
    data, html = {}, ['<div class="controls"><label><input type="checkbox" id="together" checked> Move together</label></div>']
    longest = max(result.makespan for result, _ in runs)
    for side, name, (result, summary) in zip(("first", "second"), called, runs, strict=True):
        shown = chosen(result, summary, _RANKS, _SPANS)
        html.append(f"<h3>{escape(name)}</h3>")
        if not len(shown.rows):
            html.append(paragraph("No task took time."))
            continue
        if shown.left_out:
            html.append(paragraph(shown.left_out, "note"))
        html.append(f'<div class="timeline" id="timelines-{side}"></div>')
        # both last as long as the longer one: a millisecond is as wide in both
        data[side] = columns(result, summary, shown, arrange(result, summary, shown)) | {"makespan": longest}
    if not data:
        return None
    return Section("timelines", "Timelines on one axis", "".join(html), data, (*SCRIPTS, "compare.js"))
