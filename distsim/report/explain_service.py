"""Where the time of requests went, as text and as a JSON document."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from distsim.analysis.explain.requests import Cohort, RequestTimes
from distsim.report.table import table
from distsim.units import format_time

FORMAT = "distsim-service-explanation"


def answer(found: RequestTimes) -> str:
    """``latency 2.1 s (mean of 500 requests): 1 % waiting, 2 % prompt, 97 % generating ...; limited by memory (bandwidth)``"""
    whole = found.cohorts[0]
    limit = found.limit["by"] + (f" ({found.limit['of']})" if found.limit["of"] else "")
    return (
        f"latency {format_time(whole.latency_ps)} (mean of {whole.requests:,} requests): "
        f"{_percent(whole.queueing_ps, whole.latency_ps)} waiting, {_percent(whole.prompt_ps, whole.latency_ps)} prompt, "
        f"{_percent(whole.generating_ps, whole.latency_ps)} generating, "
        f"{_percent(whole.disturbed_ps, whole.latency_ps)} of it disturbed by others; limited by {limit}"
    )


def text(found: RequestTimes, width: int = 100, top: int = 12) -> str:
    """The screen; its first line is the answer."""
    lines = [answer(found), f"because {found.limit['because']}" if found.limit["because"] else "", ""]
    head = ("mean over", "requests", "latency", "waiting", "prompt", "generating", "disturbed", "restarted", "tokens in", "out")
    lines += table(head, [_row(one) for one in (*found.cohorts, *found.tenants[:top])], width=width)
    lines.append("  (disturbed: part of generating beyond the pace of the 5 % of requests whose tokens come fastest)")
    if found.preemptions or found.kv_peak >= 0.9:
        lines.append(f"  KV blocks: {100 * found.kv_peak:.0f} % in use at most; {found.preemptions:,} requests were preempted")
    if found.dropped or found.unfinished:
        lines.append(f"  not in these figures: {found.dropped:,} requests dropped, {found.unfinished:,} unfinished")
    return "\n".join(lines)


def _row(one: Cohort) -> tuple[str, ...]:
    times = (one.latency_ps, one.queueing_ps, one.prompt_ps, one.generating_ps, one.disturbed_ps)
    return (
        one.name, f"{one.requests:,}", *map(format_time, times), f"{one.restarted:,}", f"{one.prompt_tokens:,.0f}",
        f"{one.output_tokens:,.0f}",
    )  # fmt: skip


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole if whole else 0:.0f} %"


def document(found: RequestTimes) -> dict[str, Any]:
    """Keys are stable; times are ps."""
    return {"format": FORMAT, "schema": 1, "explained": answer(found), **asdict(found)}
