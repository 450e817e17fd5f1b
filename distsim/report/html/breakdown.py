"""Where the step goes: the mean of all ranks, and every rank."""

from __future__ import annotations

from typing import Any

import numpy as np

from distsim.analysis.intervals import Ints
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
    """The mean as a bar and a table, and a bar per rank where there are several."""
    split, ranks = summary.breakdown, result.ranks
    # NOTE: waiting is a part of idle; told apart here, all parts still sum to the step
    columns = {part: getattr(split, part) for part in PARTS} | {"idle": split.idle - split.waiting}
    columns = {part: column for part, column in columns.items() if int(column.sum())}
    said = (
        "Each instant of a rank counts as the first of these that is true; the parts sum to the step. "
        "Exposed communication holds a rank up, hidden communication runs while it computes."
    )
    html = [paragraph(said, "note"), _bar(columns, result.makespan), _table(columns, split.hidden, result.makespan)]
    if ranks < 2:
        return Section("breakdown", "Breakdown", "\n".join(html))
    each = -(-ranks // _BARS)
    orders = "".join(f'<option value="part:{k}">{escape(PARTS[part][0])}</option>' for k, part in enumerate(columns))
    html += [
        "<h3>Every rank</h3>",
        paragraph(f"A bar is the mean of {each} neighbouring ranks.", "note") if each > 1 else "",
        '<div class="controls"><label>Order <select id="breakdown-order"><option value="rank">rank</option>'
        f'<option value="finish">end</option>{orders}</select></label></div>',
        chart("breakdown-ranks", "Parts of the step of every rank", 290),
    ]
    return Section("breakdown", "Breakdown", "\n".join(html), _bars(columns, result, each), ("breakdown.js",), charts=True)


def _bar(columns: dict[str, Ints], makespan: int) -> str:
    """The mean, with a key of the colours, which the bars of all ranks share."""
    parts, key = [], []
    for part, column in columns.items():
        name, colour = PARTS[part]
        share = float(column.mean()) / max(1, makespan)
        told = _percent(share) if share >= 0.05 else ""
        ink = "color:var(--ink);" if part == "idle" else ""  # pale
        style = f"flex:{share:.5f};{ink}background:var(--{colour})"
        parts.append(f'<span style="{style}" title="{escape(name)}: {_percent(share)}">{told}</span>')
        key.append(f'<span><i style="background:var(--{colour})"></i>{escape(name)}</span>')
    said = "The mean of all ranks; the table below says the same"
    return f'<div class="key">{"".join(key)}</div>\n<div class="mean" role="img" aria-label="{said}">{"".join(parts)}</div>'


def _table(columns: dict[str, Ints], hidden: Ints, makespan: int) -> str:
    """Shares and times; over several ranks their mean, least and most."""
    named = {PARTS[part][0]: column for part, column in columns.items()}
    if int(hidden.sum()):
        named["hidden communication (while computing)"] = hidden
    several = len(hidden) > 1
    rows: list[tuple[str, ...]] = []
    keys: list[tuple[str | float, ...]] = []
    for name, column in named.items():
        times = (float(column.mean()), int(column.min()), int(column.max()))[: 3 if several else 1]
        rows.append((name, _percent(times[0] / max(1, makespan)), *map(format_time, times)))
        keys.append((name, times[0], *times))
    head = ("part", "share", *(("mean", "least", "most") if several else ("time",)))
    return table(head, rows, keys=keys, caption="Parts of the step" + (", over ranks" if several else ""))


def _bars(columns: dict[str, Ints], result: Result, each: int) -> dict[str, Any]:
    """Per bar its first rank, the end of the last of its ranks, and the mean ps of every part."""
    first = np.arange(0, result.ranks, each)
    counts = np.diff(np.append(first, result.ranks))
    parts = [
        {"name": PARTS[part][0], "colour": PARTS[part][1],
         "ps": packed(np.round(np.add.reduceat(column, first) / counts).astype(np.int64))}
        for part, column in columns.items()
    ]  # fmt: skip
    return {
        "parts": parts, "first": packed(first.astype(np.int32), delta=True), "each": each, "ranks": result.ranks,
        "makespan": result.makespan, "finish": packed(np.maximum.reduceat(result.finish, first)),
    }  # fmt: skip


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
