"""A run in one screen of plain text: the answer, what was inferred or ignored, communication, ranks, links."""

from __future__ import annotations

from textwrap import wrap

from distsim.analysis.summary import Summary
from distsim.report.answer import answer
from distsim.report.events import told_of_events
from distsim.report.table import table
from distsim.result import Result
from distsim.units import format_bandwidth, format_size, format_time

#: rows of a table on the terminal; --json and the results folder hold all
_ROWS = 12
#: warnings in full; the rest is counted
_WARNINGS = 8


def text(result: Result, summary: Summary, width: int = 100) -> str:
    """The whole report, its first line the answer."""
    lines = [answer(result, summary), *_told(result), "", *_communication(result, summary, width), *_ranks(result, summary)]
    return "\n".join([*lines, *_path(result, summary), "", *_links(result, summary, width)])


def _told(result: Result) -> list[str]:
    """Everything that was ignored, repaired or inferred."""
    lines = [f"warning: {sentence}" for sentence in result.warnings[:_WARNINGS]]
    if len(result.warnings) > _WARNINGS:
        lines.append(f"warning: and {len(result.warnings) - _WARNINGS} more (--json lists all)")
    lines += told_of_events(result)
    inferred = result.provenance.get("inferred", ())
    recorded = result.spec.get("communication") == "recorded"
    lines += [sentence for sentence in inferred if not (recorded and sentence in result.topology.inferred)]
    figures = [f"{name} {_from_to(values)}" for name, values in result.profile_figures.items() if isinstance(values, list)]
    lines += [f"profile: {', '.join(figures)}"] if figures else []
    if recorded:
        return lines
    routing = result.spec.get("routing", "static")
    routes = "" if routing in (None, "static") else f", routing {routing}"
    return [*lines, f"network: {result.topology.spec}, level {result.provenance.get('network', '')}{routes}"]


def _from_to(values: list[int]) -> str:
    """``100``, or ``90 to 100`` where ranks differ."""
    return " to ".join(dict.fromkeys(f"{value:,}" for value in (min(values, default=0), max(values, default=0))))


def _communication(result: Result, summary: Summary, width: int) -> list[str]:
    if not summary.traffic:
        return ["no communication"]
    rows = []
    waits = any(t.waiting_ps for t in summary.traffic)
    recorded = result.spec.get("communication") == "recorded"
    for t in summary.traffic[:_ROWS]:
        sizes = " to ".join(dict.fromkeys(str(n) for n in (min(t.ranks), max(t.ranks)))) if t.ranks else "2"
        rows.append(
            (
                t.operation, t.group, sizes, f"{t.count:,}", format_size(t.bytes), format_time(t.time_ps),
                format_time(t.exposed_ps), *([format_time(t.waiting_ps)] if waits and recorded else []), _rate(t.busbw),
                *([] if recorded else [t.algorithm]), *([format_time(t.waiting_ps)] if waits and not recorded else []),
            )
        )  # fmt: skip
    head = ["operation", "group", "ranks", "count", "bytes", "time", "exposed", *(["waiting"] if waits and recorded else [])]
    head += ["busbw", *([] if recorded else ["algorithm"]), *(["waiting"] if waits and not recorded else [])]
    lines = table(head, rows, text=2, width=width)
    if len(summary.traffic) > _ROWS:
        lines.append(f"  and {len(summary.traffic) - _ROWS} more (--json lists all)")
    if "algorithm" not in lines[0] and not recorded:  # the table had no room for it
        names = [f"{t.group} {t.operation}".strip() + f" {t.algorithm}" for t in summary.traffic[:_ROWS] if t.algorithm]
        lines += wrap(f"algorithms: {'; '.join(names)}", width, initial_indent="  ", subsequent_indent="    ") if names else []
    return [*lines, "  (bytes: of all members; times: mean of those taking part; exposed: holds them up, overlaps count once)"]


def _ranks(result: Result, summary: Summary) -> list[str]:
    if summary.slowest is None or summary.fastest is None:
        return []
    split, slow, fast = summary.breakdown, summary.slowest, summary.fastest
    last, first = int(result.finish[slow]), int(result.finish[fast])
    if last == first:
        return ["", f"slowest rank: all end together, after {format_time(last)}"]
    parts = ", ".join(
        f"{format_time(int(column[slow]))} {name}"
        for name, column in (("compute", split.compute), ("exposed communication", split.exposed), ("idle", split.idle))
    )
    lead = f"rank {fast} ends first, {format_time(last - first)} earlier"
    return ["", f"slowest rank: {slow} ends after {format_time(last)} ({parts}); {lead}"]


def _path(result: Result, summary: Summary) -> list[str]:
    if not result.makespan or not summary.critical.times:
        return []
    times = summary.critical.times.items()
    parts = ", ".join(f"{format_time(time)} {kind}" for kind, time in sorted(times, key=lambda item: -item[1])[:5])
    return [f"critical path: {parts}"]


def _links(result: Result, summary: Summary, width: int) -> list[str]:
    if not summary.links:
        return [] if result.spec.get("communication") == "recorded" else ["no use of links was recorded"]
    rows = [
        (link.name, link.domain, _percent(link.utilisation), format_time(link.busy_ps), format_size(link.bytes))
        for link in summary.links[:5]
    ]
    lines = table(("busiest links", "domain", "busy", "for", "bytes"), rows, text=2, width=width)
    of_domain = [
        (d.domain, f"{d.used:,} of {d.links:,}", _percent(d.mean), _percent(d.max), format_size(d.bytes))
        for d in summary.domains
    ]
    if any(d.max > 1 for d in summary.domains):
        lines.append("  (over 100 %: this network level has no contention; --network chunk has)")
    return [*lines, "", *table(("links by domain", "used", "mean busy", "at most", "bytes"), of_domain, width=width)]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _rate(rate: float | None) -> str:
    return "-" if rate is None else format_bandwidth(rate)
