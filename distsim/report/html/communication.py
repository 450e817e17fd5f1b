"""Communication by operation and group: how much, how long, how fast, what of it holds ranks up."""

from __future__ import annotations

from distsim.analysis.communication import Traffic
from distsim.analysis.summary import Summary
from distsim.report.html.markup import chart, paragraph, table
from distsim.report.html.section import Section
from distsim.units import format_bandwidth, format_size, format_time

#: rows with a bar of their own; the rest is in the table
_BARS = 16


def section(summary: Summary) -> Section | None:
    """The table and its bars; None where nothing communicates."""
    if not summary.traffic:
        return None
    rows, keys = [], []
    for t in summary.traffic:
        sizes = " to ".join(dict.fromkeys(str(n) for n in (min(t.ranks), max(t.ranks)))) if t.ranks else "2"
        group = t.group or ("all" if t.ranks else "-")
        rows.append((
            t.operation, group, sizes, f"{t.count:,}", format_size(t.bytes), format_time(t.time_ps),
            format_time(t.exposed_ps), format_time(t.waiting_ps), _rate(t.algbw), _rate(t.busbw), t.algorithm or "-",
        ))  # fmt: skip
        keys.append((None, None, float(max(t.ranks, default=2)), t.count, t.bytes, t.time_ps, t.exposed_ps, t.waiting_ps,
                     t.algbw or 0.0, t.busbw or 0.0, None))  # fmt: skip
    head = ("operation", "group", "ranks", "count", "bytes", "time", "exposed", "waiting", "algbw", "busbw", "algorithm")
    bars = [
        {"name": f"{t.operation} {t.group}".strip(), "exposed": t.exposed_ps, "hidden": _beside(t), "waiting": t.waiting_ps}
        for t in summary.traffic[:_BARS]
        if t.time_ps or t.waiting_ps
    ]
    html = []
    if bars:
        html.append(chart("communication-bars", "Exposed and other time of every operation; the table below says the same",
                          50 + 26 * len(bars)))  # fmt: skip
    html += [
        table(head, rows, text=2, keys=keys, caption="By operation and group, most exposed first"),
        paragraph(
            "Bytes are what all members bring; times are means of the ranks that take part. Time runs from the last member's "
            "arrival to the last delivery, exposed is what holds a rank up, waiting is for members that had not come. "
            "algbw and busbw as nccl-tests define them.", "note"),
    ]  # fmt: skip
    return Section("communication", "Communication", "\n".join(html), {"bars": bars}, ("communication.js",), charts=bool(bars))


def _beside(row: Traffic) -> float:
    """ps that it runs beside other work. A receive's time counts from when it was posted: its send tells what moved."""
    return 0.0 if row.operation == "recv" else max(0.0, row.time_ps - row.exposed_ps)


def _rate(rate: float | None) -> str:
    return "-" if rate is None else format_bandwidth(rate)
