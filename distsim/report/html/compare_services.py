"""Two services side by side: figures, distributions of latencies, and load over time in common charts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distsim.report.html.lines import Chart, data, distribution, grid
from distsim.report.html.markup import table
from distsim.report.html.section import Figure, Page, Section
from distsim.report.html.serving import averaged, batches, marks, seconds, series, window
from distsim.report.html.sides import HUES, LETTERS, change, changed, names, rows_of
from distsim.report.serving import LATENCIES
from distsim.report.serving_folder import SavedService, load
from distsim.units import format_time

_RATES = {
    "arrivals_per_s": "arrivals/s", "requests_per_s": "requests/s", "prompt_tokens_per_s": "prompt tokens/s",
    "output_tokens_per_s": "output tokens/s", "output_tokens_per_s_gpu": "output tokens/s per GPU",
}  # fmt: skip
_SERIES = {
    "completions_per_s": ("Completions", "requests/s", ""), "output_tokens_per_s": ("Output tokens", "tokens/s", ""),
    "queued": ("Queued requests", "requests", ""), "running": ("Requests in service", "requests", ""),
    "kv_share": ("KV cache in use", "share of all blocks", "share"),
    "busy_share": ("Replicas at work", "share of all", "share"),
}  # fmt: skip


def page(first: str, second: str, title: str = "") -> Page:
    """The second is measured by the first. Raises ConfigError as reading a service's folder does."""
    called = names(first, second)
    both = load(first), load(second)
    summaries = both[0].summary, both[1].summary
    sections = (
        _figures_section(summaries, called), _latencies(both, called), _load(both, called),
        changed(summaries[0]["spec"], summaries[1]["spec"], called),
    )  # fmt: skip
    warnings = tuple(f"{letter}: {text}" for letter, one in zip(LETTERS, summaries, strict=True) for text in one["warnings"])
    return Page(title or " against ".join(one[3:] for one in called), _said(summaries), sections, _figures(summaries), warnings)


def _said(summaries: tuple[Mapping[str, Any], Mapping[str, Any]]) -> str:
    """The first line: B against A in throughput and in the two latencies that users feel."""
    rates = [one["throughput"]["whole"] for one in summaries]
    said = [
        f"{rates[1]['requests_per_s']:.4g} against {rates[0]['requests_per_s']:.4g} requests/s "
        f"({change(rates[0]['requests_per_s'], rates[1]['requests_per_s'])})"
    ]
    for name, head in (("ttft", "TTFT"), ("tpot", "TPOT")):
        spreads = [one["latencies"][f"{name}_ps"] for one in summaries]
        if all(one["count"] for one in spreads):
            one, other = (spread["p99"] for spread in spreads)
            said.append(f"{head} P99 {format_time(other)} against {format_time(one)} ({change(one, other)})")
    return f"B against A: {', '.join(said)}"


def _figures(summaries: tuple[Mapping[str, Any], Mapping[str, Any]]) -> tuple[Figure, ...]:
    found = []
    for key in ("requests_per_s", "output_tokens_per_s"):
        one, other = (summary["throughput"]["whole"][key] for summary in summaries)
        found.append(Figure(_RATES[key], f"{one:,.4g} → {other:,.4g}", change(one, other)))
    for name, head in (("ttft", "TTFT P99"), ("tpot", "TPOT P99"), ("latency", "latency P99")):
        spreads = [summary["latencies"][f"{name}_ps"] for summary in summaries]
        if all(spread["count"] for spread in spreads):
            one, other = (spread["p99"] for spread in spreads)
            found.append(Figure(head, f"{format_time(one)} → {format_time(other)}", change(one, other)))
    one, other = (f"{summary['limit']['by']} {summary['limit']['of']}".strip() for summary in summaries)
    found.append(Figure("limited by", one if one == other else f"{one} → {other}"))
    return tuple(found)


def _figures_section(summaries: tuple[Mapping[str, Any], Mapping[str, Any]], called: tuple[str, str]) -> Section:
    one, other = summaries
    rates = one["throughput"]["whole"], other["throughput"]["whole"]
    counts = one["requests"], other["requests"]
    plain: list[tuple[str, float | None, float | None]] = [(name, rates[0][key], rates[1][key]) for key, name in _RATES.items()]
    plain += [(name, counts[0][name], counts[1][name]) for name in ("finished", "dropped", "unfinished")]
    plain += [("preemptions", one["iterations"]["preemptions"], other["iterations"]["preemptions"]),
              ("requests of an iteration", one["iterations"]["batch_mean"], other["iterations"]["batch_mean"])]  # fmt: skip
    shares: list[tuple[str, float | None, float | None]] = [
        ("KV cache, mean", one["kv"]["mean_share"], other["kv"]["mean_share"]),
        ("KV cache, peak", one["kv"]["peak_share"], other["kv"]["peak_share"]),
        ("prompt tokens held by the prefix cache", one["prefix_cache"]["hit_share"], other["prefix_cache"]["hit_share"]),
        ("replicas busy", one["iterations"]["busy_share"], other["iterations"]["busy_share"]),
    ]  # fmt: skip
    if one["goodput"] and other["goodput"]:
        shares.append(("requests within the objective", one["goodput"]["share"], other["goodput"]["share"]))
    rows, keys = rows_of(plain, lambda value: f"{value:,.4g}")
    more, their = rows_of(shares, lambda value: f"{100 * value:.1f} %")
    html = table(("figure", *called, "change"), [*rows, *more], keys=[*keys, *their], caption="Of the whole run")
    return Section("figures", "Figures", html)


def _latencies(both: tuple[SavedService, SavedService], called: tuple[str, str]) -> Section:
    charts = [
        Chart(f"cdf-{name}", about[0].upper() + about[1:], "", "share of requests",
              [distribution(called[k], seconds(one, f"{name}_ps"), HUES[k]) for k, one in enumerate(both)],
              y_kind="share", log_x=True, marks=marks(both[0].summary, name))
        for name, about in LATENCIES.items() if name != "normalised"
    ]  # fmt: skip
    pairs: list[tuple[str, float | None, float | None]] = []
    for name, about in LATENCIES.items():
        spreads = [one.summary["latencies"][f"{name}_ps"] for one in both]
        if all(spread["count"] for spread in spreads):
            pairs += [(f"{about}, {head}", spreads[0][key], spreads[1][key]) for key, head in (("p50", "P50"), ("p99", "P99"))]
    rows, keys = rows_of(pairs, format_time)
    html = grid(charts) + table(("of finished requests", *called, "change"), rows, keys=keys, caption="Latencies")
    return Section("latencies", "Latencies", html, data(charts), ("lines.js",), charts=True)


def _load(both: tuple[SavedService, SavedService], called: tuple[str, str]) -> Section:
    charts = []
    for column, (title, unit, kind) in _SERIES.items():
        over = window(*both) if column.endswith("_per_s") else 0
        lines = [series(one, column, called[k], HUES[k], window_ps=over) for k, one in enumerate(both)]
        charts.append(Chart(f"series-{column}", averaged(title, over), "time", unit, lines, y_kind=kind))
    charts.append(
        Chart("batches", "Batch sizes, by the time they took", "requests of an iteration", "share of busy time",
              [batches(one, called[k], HUES[k]) for k, one in enumerate(both)], x_kind="", y_kind="share", bars=True)
    )  # fmt: skip
    return Section("load", "Over time", grid(charts), data(charts), ("lines.js",), charts=True)
