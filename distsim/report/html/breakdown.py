"""Where the step goes: the mean of all ranks, and every rank."""

from __future__ import annotations

import numpy as np

from distsim.analysis.summary import Summary
from distsim.report.html.columns import packed
from distsim.report.html.markup import chart, escape, paragraph, table
from distsim.report.html.section import Section
from distsim.result import Result
from distsim.units import format_time

#: bars at most; of more ranks, so many neighbours share a bar, which shows their mean
_BARS = 1024
#: part -> (what it is called, colour of the style sheet)
PARTS = {
    "compute": ("compute", "compute"), "exposed": ("exposed communication", "exposed"), "memory": ("memory", "memory"),
    "host": ("host", "host"), "waiting": ("waiting for other ranks", "waiting"), "idle": ("idle otherwise", "idle"),
}  # fmt: skip


def section(result: Result, summary: Summary) -> Section:
    """Bars and their table."""
    split = summary.breakdown
    # NOTE: waiting is a part of idle; told apart here, all parts still sum to the step
    columns = {part: getattr(split, part) for part in PARTS} | {"idle": split.idle - split.waiting}
    shown = [part for part, column in columns.items() if len(column) and int(column.sum())]
    ranks = len(split.compute)
    each = -(-ranks // _BARS) if ranks else 1
    edges = np.arange(0, ranks, each)
    whole = max(1, result.makespan)
    rows, keys = [], []
    for part in shown:
        column = columns[part]
        mean, low, high = float(column.mean()), int(column.min()), int(column.max())
        rows.append((PARTS[part][0], _percent(mean / whole), *map(format_time, (mean, low, high))))
        keys.append((PARTS[part][0], mean, mean, low, high))
    hidden = float(split.hidden.mean()) if ranks else 0.0
    rows.append(("hidden communication (while computing)", _percent(hidden / whole), *(
        format_time(time) for time in (hidden, int(split.hidden.min(initial=whole)), int(split.hidden.max(initial=0)))
    )))  # fmt: skip
    keys.append((rows[-1][0], hidden, hidden, float(split.hidden.min(initial=whole)), float(split.hidden.max(initial=0))))
    counts = np.diff(np.append(edges, ranks))
    data = {
        "parts": [{"name": PARTS[part][0], "colour": PARTS[part][1],
                   "ps": packed(np.round(np.add.reduceat(columns[part], edges) / counts).astype(np.int64))} for part in shown],
        "first": packed(edges.astype(np.int32), delta=True), "each": each, "ranks": ranks, "makespan": result.makespan,
        "finish": packed(np.maximum.reduceat(result.finish, edges) if ranks else result.finish),
    }  # fmt: skip
    several = "" if each == 1 else f" A bar is the mean of {each} neighbouring ranks."
    bar = "".join(
        f'<span style="flex:{share:.5f};background:var(--{PARTS[part][1]})" title="{escape(PARTS[part][0])}: {_percent(share)}">'
        f"{f'{100 * share:.0f} %' if share >= 0.03 else ''}</span>"
        for part in shown
        if (share := float(columns[part].mean()) / whole)
    )
    key = "".join(f'<span><i style="background:var(--{PARTS[part][1]})"></i>{escape(PARTS[part][0])}</span>' for part in shown)
    html = [
        paragraph(
            "Each instant of a rank counts as the first of these that is true; the parts sum to the step. "
            "Exposed communication holds a rank up, hidden communication runs while it computes.", "note"),
        f'<div class="key">{key}</div>',
        f'<div class="mean" role="img" aria-label="The mean of all ranks; the table below says the same">{bar}</div>',
        table(("part", "share", "mean", "least", "most"), rows, keys=keys, caption="Parts of the step, over ranks"),
    ]  # fmt: skip
    if ranks > 1:
        html += [
            f"<h3>Every rank</h3>{paragraph(several.strip(), 'note') if several else ''}",
            '<div class="controls"><label>Order <select id="breakdown-order"><option value="rank">rank</option>'
            '<option value="finish">end</option><option value="part:0">compute</option></select></label></div>',
            chart("breakdown-ranks", "Parts of the step of every rank", 290),
        ]
        return Section("breakdown", "Breakdown", "\n".join(html), data, ("breakdown.js",), charts=True)
    return Section("breakdown", "Breakdown", "\n".join(html))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
