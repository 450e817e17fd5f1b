"""Levels side by side: as text, as a document, and as a picture of accuracy against speed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from distsim.analysis.compare import Comparison
from distsim.report.table import table
from distsim.units import format_size, format_time

#: rows of divergences on the terminal; --json holds all
_ROWS = 8


def text(found: Comparison, ranks: int, topology: str, width: int = 100) -> str:
    """The whole report, its first line the answer."""
    rows = found.rows
    low, high = min(rows, key=lambda r: r.makespan_ps), max(rows, key=lambda r: r.makespan_ps)
    apart = _percent(high.makespan_ps / low.makespan_ps - 1 if low.makespan_ps else 0)
    if format_time(low.makespan_ps) == format_time(high.makespan_ps):
        steps = f"step {format_time(low.makespan_ps)} at every level"
    else:
        steps = f"step {format_time(low.makespan_ps)} ({low.network}) to {format_time(high.makespan_ps)} ({high.network})"
    lines = [
        f"{steps} on {ranks:,} ranks: levels {apart} apart; {_fastest(found)}",
        f"network: {topology}",
        "",
    ]
    cells = [
        (
            r.network, format_time(r.makespan_ps), _percent(r.error), _percent(r.collective_error), f"{r.cpu_s:.2f} s",
            f"{r.events:,}", _rate(r.events, r.cpu_s),
        )
        for r in rows
    ]  # fmt: skip
    lines += table(("level", "step", "error", "collectives", "CPU", "events", "events/s"), cells, width=width)
    lines.append(f"  (error: of the step against {rows[-1].network}; collectives: mean |error| of their durations, by time)")
    names = [d.domain for d in rows[-1].domains]
    loads = [
        (r.network, *(f"{100 * d.max:.1f} %" for d in r.domains), format_size(r.bytes)) for r in rows
    ]
    lines += ["", *table(("busiest link of", *names, "bytes on all"), loads, width=width)]
    if any(d.max > 1 for r in rows for d in r.domains):
        lines.append("  (over 100 %: a level without contention lets transfers share links for nothing)")
    lines += ["", *_where(found, width)]
    return "\n".join(lines)


def _fastest(found: Comparison) -> str:
    """What the cheapest level costs and misses against the reference."""
    cheap, last = min(found.rows, key=lambda r: r.cpu_s), found.rows[-1]
    if cheap is last:
        return f"{last.network} is also the cheapest"
    times = last.cpu_s / cheap.cpu_s if cheap.cpu_s else float("inf")
    return f"{cheap.network} is {times:.1f} x cheaper than {last.network} and {_percent(cheap.error)} off"


def _where(found: Comparison, width: int) -> list[str]:
    if found.parting is None:
        same = len({row.makespan_ps for row in found.rows}) == 1
        if not found.divergences:
            return [f"the trace has no collectives: levels {'do not part' if same else 'part in what ranks send and receive'}"]
        rest = "" if same else "; steps differ in what ranks send and receive besides"
        return [f"levels do not part: every collective takes the same on all of them{rest}"]
    first, names = found.parting, [r.network for r in found.rows]
    group = f"{first.group} " if first.group else ""
    said = ", ".join(f"{name} {format_time(time)}" for name, time in zip(names, first.duration_ps, strict=True))
    lines = [
        f"levels part first at {format_time(first.start_ps)}, in {group}{first.operation} of {format_size(first.bytes)} on "
        f"{first.ranks} ranks: {said}"
    ]
    cells = [
        (d.operation, d.group, f"{d.count:,}", *(format_time(time) for time in d.time_ps), format_time(d.spread_ps))
        for d in found.divergences[:_ROWS]
    ]
    lines += table(("where they part", "group", "count", *names, "spread"), cells, text=2, width=width)
    if len(found.divergences) > _ROWS:
        lines.append(f"  and {len(found.divergences) - _ROWS} more (--json lists all)")
    return lines


def document(found: Comparison, ranks: int, topology: str) -> dict[str, Any]:
    """The machine-readable form."""
    return {
        "format": "distsim-compare", "ranks": ranks, "topology": topology, "reference": found.rows[-1].network,
        "levels": [asdict(row) | {"makespan_ns": row.makespan_ps / 1000} for row in found.rows],
        "divergences": [asdict(row) | {"spread_ps": row.spread_ps} for row in found.divergences],
        "parting": asdict(found.parting) if found.parting else None,
    }  # fmt: skip


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _rate(events: int, seconds: float) -> str:
    return f"{events / seconds:,.0f}" if seconds else "-"
