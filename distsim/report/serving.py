"""A simulated service in words: the answer, what limits it, what was dropped, latencies, rates, replicas, and the warnings."""

from __future__ import annotations

import math
import textwrap

from distsim.analysis.serving import Goodput, Rates, Spread, gpu_time
from distsim.analysis.serving_findings import Findings
from distsim.analysis.serving_slo import BOUNDS
from distsim.analysis.serving_work import PARTS
from distsim.report.table import table
from distsim.serving.result import ReplicaRow, ServingResult
from distsim.units import format_size, format_time

#: rows of a table on the terminal; --json and the results folder hold all
_ROWS = 8
#: warnings in full; the rest is counted
_WARNINGS = 6
#: counts of a result that are no news
_COUNTS = ("requests", "events", "iterations")
#: latencies by name: what they are
LATENCIES = {
    "ttft": "time to first token", "tpot": "time per output token", "latency": "latency", "queueing": "before first iteration",
    "normalised": "latency per output token",
}  # fmt: skip


def answer(result: ServingResult, found: Findings) -> str:
    """The first line: ``3.98 requests/s, 842 output tokens/s (105 per GPU) on 8 x h100_sxm; TTFT 88.1 ms P50 ...``"""
    s = found.summary
    said = [
        f"{number(s.rates.requests)} requests/s, {number(s.rates.output_tokens)} output tokens/s "
        f"({number(s.output_tokens_per_s_gpu)} per GPU) on {_gpus(result, s.gpus)}"
    ]
    lost = s.dropped + s.unfinished
    if lost:
        said[0] += f", {lost:,} of {s.requests:,} requests not served"
    for name, spread in (("TTFT", s.latencies.ttft), ("TPOT", s.latencies.tpot)):
        if spread.count:
            said.append(f"{name} {format_time(spread.p50)} P50, {format_time(spread.p99)} P99")
    if s.goodput is not None:
        said.append(_goodput(s.goodput))
    said.append(f"KV {_percent(s.kv_mean)}, peak {_percent(s.kv_peak)}")
    said.append(f"limited by {_limit(found)}" if s.finished else f"nothing served{_top_reason(found)}")
    return "; ".join(said)


def text(result: ServingResult, found: Findings, width: int = 100) -> str:
    """The whole screen."""
    lines = [answer(result, found), ""]
    lines += _wrapped(f"{_limit(found)}: {found.limit.because}" if found.summary.finished else found.limit.because, width)
    lines += _lost(result, found, width)
    lines += ["", *_latencies(found, width), "", *_rates(found, width), ""]
    lines += _wrapped(_work(found), width)
    lines += [line for told in _copies(result) for line in _wrapped(told, width)]
    lines += _operations(result, width)
    lines += _replicas(result, width)
    lines += _tenants(found, width)
    lines += [line for told in _told(found) for line in _wrapped(told, width)]
    for warning in result.warnings[:_WARNINGS]:
        lines += textwrap.wrap(f"warning: {warning}", width, initial_indent="  ", subsequent_indent="    ")
    if len(result.warnings) > _WARNINGS:
        lines.append(f"  warning: and {len(result.warnings) - _WARNINGS} more (--json lists all)")
    return "\n".join(lines)


def _lost(result: ServingResult, found: Findings, width: int) -> list[str]:
    """Requests that were not served, by reason; and that there are warnings."""
    s = found.summary
    lines = []
    for reason, count in s.drops.items():
        lines += _wrapped(f"dropped: {count:,} of {s.requests:,} requests: {reason}", width)
    if s.unfinished:
        said = f"unfinished: {s.unfinished:,} of {s.requests:,} requests had not ended when nothing more happened"
        lines += _wrapped(said, width)
    if result.warnings:
        count = len(result.warnings)
        lines.append(f"  {count} warning{'s' if count > 1 else ''}, see below")
    return lines


def _latencies(found: Findings, width: int) -> list[str]:
    latencies, longest = found.summary.latencies, found.longest
    rows = [[about, *_spread(getattr(latencies, name))] for name, about in LATENCIES.items()]
    # NOTE: of few known requests they would tell of those that met no trouble
    if longest.count > latencies.tpot.count / 2:
        partly = "" if longest.count == latencies.tpot.count else f" ({longest.count:,} of {latencies.tpot.count:,})"
        rows.append([f"between tokens{partly}", *_spread(found.between)])
        rows.append([f"longest between tokens{partly}", *_spread(longest)])
    return table(["finished requests", "mean", "P50", "P90", "P95", "P99", "most"], rows, width=width)


def _spread(spread: Spread) -> list[str]:
    values = (spread.mean, spread.p50, spread.p90, spread.p95, spread.p99, spread.most)
    return ["-" if math.isnan(value) else format_time(value) for value in values]


def _rates(found: Findings, width: int) -> list[str]:
    s = found.summary

    def row(name: str, rates: Rates) -> list[str]:
        per_gpu = rates.output_tokens / s.gpus if s.gpus else 0.0
        values = (rates.arrivals, rates.requests, rates.prompt_tokens, rates.output_tokens, per_gpu)
        return [name, format_time(rates.span_ps), *map(number, values)]

    rows = [row("whole run", s.rates)]
    if s.steady is not None:
        rows.append(row("steady window", s.steady))
    head = ["per second", "for", "arrivals", "requests", "prompt tokens", "output tokens", "output tokens/GPU"]
    return table(head, rows, width=width)


def _work(found: Findings) -> str:
    """What the iterations were."""
    s = found.summary
    said = f"{s.iterations:,} iterations of {number(s.batch)} requests on average, {s.batch_peak:,} at most; replicas busy "
    said += _percent(s.busy)
    if found.limit.parts is not None:
        shares = sorted(found.limit.parts.items(), key=lambda item: -item[1])
        said += "; their time: " + ", ".join(f"{_percent(share)} {PARTS[part]}" for part, share in shares if share >= 0.005)
    if s.preemptions or s.recomputed:
        said += (
            f"; {s.preemptions:,} preemptions, {s.restarted:,} requests began again, {s.recomputed:,} of {s.computed:,} prompt "
            "tokens computed again"
        )
    if s.looked_up:
        said += f"; the prefix cache held {_percent(s.cache_hits)} of {s.looked_up:,} prompt tokens"
    return said


def _copies(result: ServingResult) -> list[str]:
    """What tiers, swapping and drafts did, by pool."""
    found, said = result.tallies, []
    several = len({row.pool for row in result.replicas}) > 1

    def where(pool: str) -> str:
        return f" of {pool}" if several else ""

    for tier in found.tiers:
        said.append(
            f"tier {tier.name}{where(tier.pool)}: {tier.hits:,} prompts loaded {tier.loaded_tokens:,} tokens "
            f"({format_size(tier.loaded_bytes)}); {format_size(tier.written_bytes)} written, "
            f"{format_size(tier.dropped_bytes)} thrown out"
        )
    for swap in found.swaps:
        said.append(
            f"swap{where(swap.pool)}: {swap.out_tokens:,} tokens ({format_size(swap.out_bytes)}) to the host, "
            f"{swap.back_tokens:,} ({format_size(swap.back_bytes)}) back"
        )
    for draft in found.drafts:
        said.append(
            f"speculation{where(draft.pool)}: {draft.accepted_per_step:.2f} of {draft.drafted} drafted tokens accepted per "
            f"step, {draft.tokens:,} tokens in {draft.steps:,} steps"
        )
    return said


def _operations(result: ServingResult, width: int) -> list[str]:
    """What operators count: failures, launches, requests held back or sent elsewhere."""
    told = [
        f"{name.replace('_', ' ')} {count:,}" for name, count in result.counts.items()
        if count and name not in _COUNTS and not name.startswith("dropped: ")
    ]  # fmt: skip
    return _wrapped("operations: " + ", ".join(told), width) if told else []


def _replicas(result: ServingResult, width: int) -> list[str]:
    if len(result.replicas) < 2:
        return []
    rows = [
        [
            f"{row.number} ({row.pool})", row.gpu, str(row.gpus), f"{row.iterations:,}",
            _busy(result, row), f"{row.kv_blocks:,}", f"{row.preemptions:,}",
        ]
        for row in result.replicas[:_ROWS]
    ]  # fmt: skip
    lines = table(["replica", "GPU", "GPUs", "iterations", "busy", "KV blocks", "preemptions"], rows, text=2, width=width)
    if len(result.replicas) > _ROWS:
        lines.append(f"  and {len(result.replicas) - _ROWS} more (--out writes all)")
    return ["", *lines]


def _busy(result: ServingResult, row: ReplicaRow) -> str:
    there = gpu_time(result, row) - row.down
    return _percent(min(1.0, row.busy / there)) if there > 0 else "-"


def _tenants(found: Findings, width: int) -> list[str]:
    rows = []
    for one in found.summary.tenants[:_ROWS]:
        spreads = (one.latencies.ttft.p50, one.latencies.ttft.p99, one.latencies.tpot.p99, one.latencies.latency.p99)
        good = "-" if one.goodput is None else _percent(one.goodput.share)
        said = ["-" if math.isnan(value) else format_time(value) for value in spreads]
        rows.append([one.name, f"{one.requests:,}", f"{one.finished:,}", f"{one.dropped:,}", *said, good])
    if not rows:
        return []
    head = ["tenant", "requests", "finished", "dropped", "TTFT P50", "TTFT P99", "TPOT P99", "latency P99", "in SLO"]
    lines = table(head, rows, width=width)
    if len(found.summary.tenants) > _ROWS:
        lines.append(f"  and {len(found.summary.tenants) - _ROWS} more (--json lists all)")
    return ["", *lines]


def _told(found: Findings) -> list[str]:
    """Money, energy, and how far the times can be trusted."""
    said = []
    if found.price is not None:
        p = found.price
        said.append(
            f"cost at {p.per_gpu_hour:g} per GPU and hour: {_money(p.per_million_output_tokens)} per million output tokens, "
            f"{_money(p.per_million_tokens)} per million of all tokens, {p.total:,.4g} for the run"
        )
    if found.energy is not None:
        e = found.energy
        said.append(
            f"energy (estimate, GPUs only): {number(e.joules_per_output_token)} J per output token, "
            f"{number(e.watts_per_gpu)} W per GPU on average"
        )
    errors = ", ".join(f"{100 * error:.0f} % ({source})" for source, error in found.errors.items())
    if errors:
        whole = ", ".join(
            f"{_percent(one.tpot)} per output token and {_percent(one.ttft)} to the first token ({one.models})"
            for one in found.measured.values()
        )
        said.append(
            f"usual error of the kernels' times: {errors}"
            + (f"; of whole answers, against measured servers: {whole}" if whole else "")
        )
    return said


def _top_reason(found: Findings) -> str:
    return next((f" ({reason})" for reason in found.summary.drops), "")


def _limit(found: Findings) -> str:
    return found.limit.by + (f" ({found.limit.of})" if found.limit.of else "")


def _gpus(result: ServingResult, mean: float) -> str:
    kinds = list(dict.fromkeys(row.gpu for row in result.replicas))
    return f"{number(mean)} x {' and '.join(kinds) or 'no GPU'}"


def _goodput(found: Goodput) -> str:
    bounds = ", ".join(f"{name.upper() if name != 'latency' and name != 'queueing' else name} {format_time(bound)}"
                       for name in BOUNDS if (bound := getattr(found.slo, name)) is not None)  # fmt: skip
    verdict = "met" if found.met else f"asked: {found.slo.percentile:g} %"
    return f"goodput {100 * found.share:.1f} % = {number(found.requests_per_s)} requests/s in SLO ({bounds}; {verdict})"


def _wrapped(sentence: str, width: int) -> list[str]:
    return textwrap.wrap(sentence, width, initial_indent="  ", subsequent_indent="    ")


def _money(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.4g}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def number(value: float) -> str:
    """Three digits, or all before the point.

    >>> number(1234.5), number(8.0), number(0.01234)
    ('1,234', '8', '0.0123')
    """
    return "-" if math.isnan(value) else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
