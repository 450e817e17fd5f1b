"""Pages of a service: ``distsim serve -o``. Figures and tables from its summary, charts from its tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distsim.analysis.serving_work import PARTS
from distsim.report.html.lines import Chart, Line, data, distribution, grid
from distsim.report.html.markup import escape, pairs, paragraph, table
from distsim.report.html.replicas import section as replicas
from distsim.report.html.section import Figure, Page, Section
from distsim.report.serving import LATENCIES
from distsim.report.serving_folder import SavedService, load
from distsim.units import PS_PER_S, format_time

#: percentiles of a table: keys of the summary and their heads
PERCENTILES = {"mean": "mean", "p50": "P50", "p90": "P90", "p95": "P95", "p99": "P99", "most": "most"}
_TENANTS = 200  #: rows of the table of tenants
_EVENTS = 25  #: requests of a window: a count of so many scatters by a fifth
_PARTS_OF_RUN = 12  #: windows of a run, at least


def page(folder: str, title: str = "") -> Page:
    """Raises: ConfigError where the folder is no service's, or of another schema."""
    saved = load(folder)
    summary = saved.summary
    sections = [_latencies(saved), _load(saved), _resources(saved), replicas(saved), *_tenants(summary), _setup(summary)]
    return Page(
        title or Path(folder).name, summary["answer"], tuple(sections), tuple(figures(summary)), tuple(summary["warnings"])
    )


def figures(summary: Mapping[str, Any]) -> list[Figure]:
    """The numbers that a reader wants first."""
    rates, limit, asked = summary["throughput"]["whole"], summary["limit"], summary["requests"]
    found = [
        Figure("requests/s", f"{rates['requests_per_s']:.4g}", f"{asked['finished']:,} of {asked['asked']:,} finished"),
        Figure("output tokens/s", f"{rates['output_tokens_per_s']:,.0f}", f"{rates['output_tokens_per_s_gpu']:,.1f} per GPU"),
    ]
    for name, head in (("ttft", "time to first token"), ("tpot", "time per output token"), ("latency", "latency")):
        spread = summary["latencies"][f"{name}_ps"]
        if spread["count"]:
            found.append(Figure(head, format_time(spread["p50"]), f"P50; P99 {format_time(spread['p99'])}"))
    good = summary["goodput"]
    if good is not None:
        met = "objective met" if good["met"] else "objective missed"
        found.append(Figure("goodput", f"{good['requests_per_s']:.4g}/s", f"{100 * good['share']:.1f} % keep it; {met}"))
    found.append(
        Figure("KV cache", f"{100 * summary['kv']['mean_share']:.0f} %", f"peak {100 * summary['kv']['peak_share']:.0f} %")
    )
    if limit["by"]:
        found.append(Figure("limited by", limit["by"], limit["of"] or ""))
    return found


def seconds(saved: SavedService, column: str) -> Any:
    """A column of times of the requests, in seconds, without those that never came."""
    values = saved.requests[column].to_numpy().astype(np.float64)
    return values[values >= 0] / PS_PER_S


def marks(summary: Mapping[str, Any], name: str) -> list[tuple[str, float]]:
    """The objective's bound on a latency, where it has one."""
    bound = None if summary["goodput"] is None else summary["goodput"]["slo"].get(f"{name}_ps")
    return [] if bound is None else [("objective", bound / PS_PER_S)]


def series(saved: SavedService, column: str, name: str, hue: int = 0, dash: bool = False, window_ps: int = 0) -> Line:
    """A column of the series over the middle of its buckets; where a window is given, the mean over as much time around each
    (shorter at the ends of the run)."""
    table = saved.series
    width = table["width_ps"].to_numpy()
    middle = (table["start_ps"].to_numpy() + width / 2) / PS_PER_S
    values = table[column].to_numpy().astype(np.float64)
    half = round(window_ps / int(width[0])) // 2 if len(width) else 0
    if half:
        places = np.arange(len(values))
        first, last = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
        total = np.concatenate(([0.0], np.cumsum(values)))
        values = (total[last] - total[first]) / (last - first)
    return Line(name, middle, values, hue, dash)


def window(*services: SavedService) -> int:
    """Over how much time rates are averaged, ps: so much that some _EVENTS requests end in it, whose scatter would hide the
    course, at most a _PARTS_OF_RUN-th of the run. An odd number of buckets of the first; 0: as they are."""
    found = 0
    for saved in services:
        width = saved.series["width_ps"].to_numpy()
        if len(width):
            each = saved.summary["requests"]["finished"] / len(width)
            buckets = min(_EVENTS / each if each else 1.0, len(width) / _PARTS_OF_RUN)
            found = max(found, (2 * int(buckets / 2) + 1) * int(width[0]) if buckets >= 2 else 0)
    return found


def averaged(title: str, window_ps: int) -> str:
    """A title that says so."""
    return f"{title}, mean over {format_time(window_ps)}" if window_ps else title


def latency_rows(latencies: Mapping[str, Any]) -> tuple[list[list[str]], list[list[float | str | None]]]:
    """Rows of percentiles of all latencies that there are, and what they sort by."""
    rows, keys = [], []
    more = {"between_tokens": "between tokens", "longest_between_tokens": "longest between tokens"}
    for name, about in {**LATENCIES, **more}.items():
        spread = latencies.get(f"{name}_ps")
        if spread and spread["count"]:
            rows.append([about, f"{spread['count']:,}", *(format_time(spread[key]) for key in PERCENTILES)])
            keys.append([about, spread["count"], *(spread[key] for key in PERCENTILES)])
    return rows, keys


def _latencies(saved: SavedService) -> Section:
    summary = saved.summary
    longest = seconds(saved, "longest_between_tokens_ps")
    charts = [
        Chart("ttft", "Time to first token, and waiting before it", "", "share of requests", [
            distribution("time to first token", seconds(saved, "ttft_ps")),
            distribution("before first iteration", seconds(saved, "queueing_ps")),
        ], y_kind="share", log_x=True, marks=marks(summary, "ttft")),
        Chart("tpot", "Time between the tokens of a request", "", "share of requests", [
            distribution("mean (TPOT)", seconds(saved, "tpot_ps")), distribution("longest", longest[longest > 0]),
        ], y_kind="share", log_x=True, marks=marks(summary, "tpot")),
        Chart("latency", "Latency: arrival to last token", "", "share of requests", [
            distribution("latency", seconds(saved, "latency_ps")),
        ], y_kind="share", log_x=True, marks=marks(summary, "latency")),
        Chart("lengths", "Tokens of a request", "", "share of requests", [
            distribution("prompt", saved.requests["prompt_tokens"].to_numpy()),
            distribution("output", saved.requests["output_tokens"].to_numpy()),
        ], x_kind="", y_kind="share", log_x=True),
    ]  # fmt: skip
    rows, keys = latency_rows(summary["latencies"])
    lost = summary["requests"]["dropped_by_reason"]
    html = grid(charts) + table(["finished requests", "count", *PERCENTILES.values()], rows, keys=keys, caption="Latencies")
    if lost:
        html += table(["dropped because", "requests"], [[why, f"{count:,}"] for why, count in lost.items()], caption="Dropped")
    return Section("latencies", "Latencies", html, data(charts), ("lines.js",), charts=True)


def _load(saved: SavedService) -> Section:
    over = window(saved)
    charts = [
        Chart("rates", averaged("Requests per second", over), "time", "requests/s", [
            series(saved, "arrivals_per_s", "arrivals", window_ps=over),
            series(saved, "completions_per_s", "completions", window_ps=over),
        ]),
        Chart("tokens", averaged("Tokens per second", over), "time", "tokens/s", [
            series(saved, "prompt_tokens_per_s", "prompt", window_ps=over),
            series(saved, "output_tokens_per_s", "output", window_ps=over),
        ]),
        Chart("queue", "Requests in the service", "time", "requests", [
            series(saved, "queued", "queued"), series(saved, "running", "running"),
        ]),
        Chart("batch", "Batch size", "time", "requests of an iteration", [series(saved, "batch", "batch")]),
    ]  # fmt: skip
    rates = saved.summary["throughput"]
    rows = [
        [name, format_time(one["span_ps"]), *(f"{one[key]:,.4g}" for key in (
            "arrivals_per_s", "requests_per_s", "prompt_tokens_per_s", "output_tokens_per_s", "output_tokens_per_s_gpu"))]
        for name, one in (("whole run", rates["whole"]), ("steady window", rates["steady"])) if one is not None
    ]  # fmt: skip
    head = ["per second", "for", "arrivals", "requests", "prompt tokens", "output tokens", "output tokens/GPU"]
    html = grid(charts) + table(head, rows, caption="Throughput", sort=False)
    return Section("load", "Load and throughput", html, data(charts), ("lines.js",), charts=True)


def _resources(saved: SavedService) -> Section:
    """KV cache, busy time, and what the time of iterations went to."""
    summary = saved.summary
    charts = [
        Chart("kv", "KV cache", "time", "share of all blocks", [series(saved, "kv_share", "in use")], y_kind="share"),
        Chart("busy", "Replicas at work", "time", "share of all", [series(saved, "busy_share", "busy")], y_kind="share"),
        Chart("batches", "Batch sizes, by the time they took", "requests of an iteration", "share of busy time",
              [batches(saved, "iterations")], x_kind="", y_kind="share", bars=True),
    ]  # fmt: skip
    cache, work = summary["prefix_cache"], summary["iterations"]
    said = [
        ("iterations", f"{work['count']:,} of {work['batch_mean']:.4g} requests on average, {work['batch_most']:,} at most"),
        ("preemptions", f"{work['preemptions']:,}"),
        ("prefix cache", f"{100 * cache['hit_share']:.1f} % of {cache['looked_up_tokens']:,} prompt tokens were held"
         if cache["looked_up_tokens"] else "none looked up"),
        ("GPUs", f"{summary['gpus']:,.4g}, {summary['gpu_seconds']:,.4g} GPU seconds"),
    ]  # fmt: skip
    if summary["limit"]["time_shares"]:
        parts = sorted(summary["limit"]["time_shares"].items(), key=lambda part: -part[1])
        told = ", ".join(f"{100 * share:.0f} % {PARTS.get(name, name)}" for name, share in parts if share >= 0.005)
        said.insert(0, ("time of iterations", told))
    html = paragraph(f"Limit: {summary['limit']['because']}") + grid(charts) + pairs(said)
    return Section("resources", "KV cache, batches and what limits", html, data(charts), ("lines.js",), charts=True)


def batches(saved: SavedService, name: str, hue: int = 0) -> Line:
    """Sizes of iterations, and the share of the busy time that those of each size took."""
    log = saved.iterations
    size = log["generating"].to_numpy() + log["prompts"].to_numpy()
    took = (log["each_ps"].to_numpy() * log["count"].to_numpy()).astype(np.float64)
    if not took.sum():
        return Line(name, np.zeros(0), np.zeros(0), hue)
    sizes, place = np.unique(size, return_inverse=True)
    return Line(name, sizes.astype(np.float64), np.bincount(place, weights=took) / took.sum(), hue)


def _tenants(summary: Mapping[str, Any]) -> list[Section]:
    """A table of them, where there are several."""
    tenants = summary["tenants"]
    if not tenants:
        return []
    rows = []
    for one in tenants[:_TENANTS]:
        spreads = [one["latencies"][f"{name}_ps"] for name in ("ttft", "tpot", "latency")]
        good = one["goodput"]
        rows.append([
            one["name"] or "(none)", f"{one['requests']:,}", f"{one['finished']:,}", f"{one['dropped']:,}",
            f"{one['output_tokens']:,}", *(format_time(spread["p99"]) if spread["count"] else "-" for spread in spreads),
            "-" if good is None else f"{100 * good['share']:.1f} %",
        ])  # fmt: skip
    head = [
        "tenant",
        "requests",
        "finished",
        "dropped",
        "output tokens",
        "TTFT P99",
        "TPOT P99",
        "latency P99",
        "within objective",
    ]
    html = table(head, rows, caption="Tenants")
    if len(tenants) > _TENANTS:
        html += paragraph(f"and {len(tenants) - _TENANTS:,} more (summary.json lists all)", "note")
    return [Section("tenants", "Tenants", html)]


def _setup(summary: Mapping[str, Any]) -> Section:
    """The specification and where the figures come from."""
    from distsim.report.document import dumps

    made = summary["provenance"]
    said = [
        ("distsim", made.get("distsim", "")),
        *((f"input {path}", digest) for path, digest in made.get("inputs", {}).items()),
    ]
    said += [("inferred", text) for text in made.get("inferred", ())]
    said += [
        ("usual error of iteration times", f"{name}: {100 * error:.0f} %") for name, error in summary["relative_error"].items()
    ]
    html = pairs(said) + f"<details><summary>Specification</summary><pre>{escape(dumps(summary['spec']))}</pre></details>"
    return Section("setup", "Configuration and provenance", html)
