"""A collective over a range of sizes, in the table that nccl-tests prints, beside what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distsim.units import format_bandwidth, format_size

if TYPE_CHECKING:
    from distsim.microbench import CollectiveTiming

#: bytes of an element, as nccl-tests counts by default (float)
ELEMENT = 4
_WIDTHS = (12, 12, 8, 6, 5, 10, 8, 8, 6)
_REDUCES = ("all_reduce", "reduce_scatter", "reduce")
#: what has a root
ROOTED = ("broadcast", "reduce", "gather", "scatter")


def text(timings: Sequence[CollectiveTiming], measured: Mapping[int, float], network: str, root: int = -1) -> str:
    """The answer, a header and one line a size. ``measured``: buffer in bytes -> us; ``root``: -1 where there is none."""
    first = timings[0]
    best = max(timings, key=lambda t: t.busbw)
    lines = [
        f"{first.operation} on {first.group_size} ranks: busbw up to {format_bandwidth(best.busbw)} "
        f"at {format_size(best.buffer)}, {first.time_ps / 1e6:.2f} us at {format_size(first.buffer)}"
        + (f"; {_error(timings, measured)}" if measured else ""),
        f"# {first.topology.spec}, level {network}",
        *(f"# warning: {one}" for one in _warnings(timings, network)),
        "#",
    ]
    titles = ("size", "count", "type", "redop", "root", "time", "algbw", "busbw", "#wrong")
    units = ("(B)", "(elements)", "", "", "", "(us)", "(GB/s)", "(GB/s)", "")
    head, unit = ("# " + " ".join(f"{c:>{w}}" for c, w in zip(cells, _WIDTHS, strict=True)) for cells in (titles, units))
    if measured:
        head, unit = f"{head} {'measured':>10} {'error':>8}", f"{unit} {'(us)':>10} {'(%)':>8}"
    lines += [f"{head}  algorithm", unit]
    redop = "sum" if first.operation in _REDUCES else "none"
    for t in timings:
        line = (
            f"  {t.buffer:>12} {t.buffer // ELEMENT:>12} {'float':>8} {redop:>6} {root:>5} {t.time_ps / 1e6:>10.2f} "
            f"{t.algbw / 1e9:>8.2f} {t.busbw / 1e9:>8.2f} {0:>6}"
        )
        if measured:
            real = measured.get(t.buffer)
            shown = (f"{real:.2f}", f"{100 * _off(t, real):+.1f}") if real else ("-", "-")
            line += f" {shown[0]:>10} {shown[1]:>8}"
        lines.append(f"{line}  {t.algorithm}")
    average = statistics.fmean(t.busbw for t in timings) / 1e9
    return "\n".join([*lines, f"# Avg bus bandwidth    : {average:.4f}"])


def document(timings: Sequence[CollectiveTiming], measured: Mapping[int, float], network: str) -> dict[str, Any]:
    """The machine-readable form; times in us, bandwidths in GB/s of 1e9 bytes."""
    first = timings[0]
    rows = []
    for t in timings:
        row: dict[str, Any] = {
            "size_bytes": t.buffer, "input_bytes": t.bytes, "time_us": t.time_ps / 1e6, "time_ps": t.time_ps,
            "algbw": t.algbw / 1e9, "busbw": t.busbw / 1e9, "algorithm": t.algorithm,
        }  # fmt: skip
        if real := measured.get(t.buffer):
            row |= {"measured_us": real, "error": _off(t, real)}
        rows.append(row)
    errors = [abs(row["error"]) for row in rows if "error" in row]
    return {
        "format": "distsim-collective-sweep", "operation": first.operation, "ranks": first.group_size, "network": network,
        "topology": first.topology.spec, "rows": rows,
        "warnings": _warnings(timings, network), **({"mape": 100 * statistics.fmean(errors)} if errors else {}),
    }  # fmt: skip


def draw(path: str, timings: Sequence[CollectiveTiming], measured: Mapping[int, float]) -> None:
    """busbw against size, with what was measured. Raises ConfigError."""
    from distsim.collectives.bandwidth import bus_factor
    from distsim.report.chart import Series, draw_chart

    first = timings[0]
    lines = [Series("distsim", [t.buffer for t in timings], [t.busbw / 1e9 for t in timings])]
    if measured:
        factor = bus_factor(first.operation, first.group_size)
        sizes = sorted(measured)
        lines.append(Series("measured", sizes, [factor * size / measured[size] / 1e3 for size in sizes]))
    title = f"{first.operation} on {first.group_size} ranks, {first.topology.name}"
    draw_chart(path, lines, title=title, x="size (bytes)", y="busbw (GB/s)", log_x=2)


def _warnings(timings: Sequence[CollectiveTiming], network: str) -> list[str]:
    """What makes answers too fast: links that carry more than they can."""
    over = sum(int(t.links.busy.max(initial=0)) > t.time_ps > 0 for t in timings)
    if not over:
        return []
    return [f"level {network} knows no contention, and {over} of {len(timings)} sizes ask too much of links: too fast"]


def _off(timing: CollectiveTiming, real: float) -> float:
    return timing.time_ps / 1e6 / real - 1


def _error(timings: Sequence[CollectiveTiming], measured: Mapping[int, float]) -> str:
    """``MAPE 8.3 % against 20 measured sizes``."""
    errors = [abs(_off(t, measured[t.buffer])) for t in timings if t.buffer in measured]
    if not errors:
        return "no size was measured"
    return f"MAPE {100 * statistics.fmean(errors):.1f} % against {len(errors)} measured size{'s' if len(errors) > 1 else ''}"
