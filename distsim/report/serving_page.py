"""A service as one self-contained HTML page: the screen's text, and charts; no script, nothing is loaded from anywhere."""

from __future__ import annotations

import html

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.serving import held
from distsim.analysis.serving_findings import Findings
from distsim.analysis.serving_slo import Slo
from distsim.report.serving import answer, text
from distsim.report.serving_svg import Line, chart, strips
from distsim.serving.result import ServingResult
from distsim.units import PS_PER_S

#: replicas with a strip of their own
_REPLICAS = 64
#: steps of a strip
_STEPS = 200
_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1180px; padding: 0 1em; color: #1a1a1a; }
h1 { font-size: 1.15em; } pre { font-size: 12.5px; overflow: auto; background: #f7f7f7; padding: 1em; }
figure { display: inline-block; margin: .4em 0; max-width: 100%; } figcaption { font-weight: 600; }
svg { max-width: 100%; height: auto; } svg text { font-size: 11px; fill: #444; }
.grid { stroke: #e6e6e6; } .mark { stroke: #999; stroke-dasharray: 4 3; }
"""


def page(result: ServingResult, found: Findings) -> str:
    """The HTML text; equal results give equal text."""
    slo = None if found.summary.goodput is None else found.summary.goodput.slo
    charts = [*_distributions(result, found, slo), *_over_time(found), _timeline(result)]
    head = f'<meta charset="utf-8"><title>distsim serve</title><style>{_STYLE}</style>'
    body = [f"<h1>{html.escape(answer(result, found))}</h1>", *charts, f"<pre>{html.escape(text(result, found, 120))}</pre>"]
    lines = ["<!doctype html>", '<html lang="en">', f"<head>{head}</head>", "<body>", *body, "</body>", "</html>"]
    return "\n".join(lines) + "\n"


def _distributions(result: ServingResult, found: Findings, slo: Slo | None) -> list[str]:
    """CDFs of latencies, with the objective's bounds as marks, and batch sizes."""
    requests = result.requests
    done = requests.done
    many = done & (requests.output > 1)

    def marks(*bounds: int | None) -> list[float]:
        return [bound / PS_PER_S for bound in bounds if bound is not None]

    longest = found.gaps.longest[found.gaps.longest > 0] / PS_PER_S
    sizes, shares = found.batches
    return [
        chart("Time to first token, and waiting before it", "s", "share of requests", [
            _cdf("TTFT", requests.ttft[done] / PS_PER_S),
            _cdf("queueing", (requests.scheduled - requests.arrival)[done] / PS_PER_S),
        ], log_x=True, marks=marks(slo.ttft if slo else None)),
        chart("Time between the tokens of a request", "s", "share of requests", [
            _cdf("mean (TPOT)", requests.tpot[many] / PS_PER_S), _cdf("longest", longest),
        ], log_x=True, marks=marks(slo.tpot if slo else None)),
        chart("Latency", "s", "share of requests", [_cdf("latency", requests.latency[done] / PS_PER_S)], log_x=True,
              marks=marks(slo.latency if slo else None)),
        chart("Batch size", "requests of an iteration", "share of busy time", [Line("batch", sizes.astype(np.float64), shares)],
              bars=True),
    ]  # fmt: skip


def _cdf(name: str, values: NDArray[np.float64]) -> Line:
    return Line(name, np.sort(values), (np.arange(len(values)) + 1) / max(1, len(values)))


def _over_time(found: Findings) -> list[str]:
    series = found.series
    middle = (series.start + series.width / 2) / PS_PER_S

    def line(name: str, values: NDArray[np.float64]) -> Line:
        return Line(name, middle, values)

    return [
        chart("Requests", "s", "requests", [line("queued", series.queued), line("running", series.running)]),
        chart("Batch size over time", "s", "requests of an iteration", [line("batch", series.batch)]),
        chart("KV cache and replicas", "s", "share", [line("KV blocks in use", series.kv), line("busy", series.busy)]),
        chart("Tokens", "s", "tokens per second", [line("prompt", series.prompt_tokens), line("output", series.output_tokens)]),
        chart("Load", "s", "requests per second", [line("arrivals", series.arrivals), line("completions", series.completions)]),
    ]


def _timeline(result: ServingResult) -> str:
    """When each replica computed."""
    shown = result.replicas[:_REPLICAS]
    end = max(1, result.end)
    edges = np.linspace(0, end, _STEPS + 1)
    shares = []
    for row in shown:
        _, begin, stop = held(result, row.number)
        busy = np.concatenate(([0.0], np.cumsum(stop - begin)))
        # NOTE: intervals neither overlap nor go back, so the time covered until an instant is linear between their ends
        at = np.stack((begin, stop), axis=1).ravel()
        covered = np.repeat(busy, 2)[1:-1]
        until = np.interp(edges, at, covered, left=0.0, right=float(busy[-1])) if len(at) else np.zeros(len(edges))
        shares.append(np.diff(until) / np.diff(edges))
    more = f", the first {len(shown)} of {len(result.replicas)}" if len(result.replicas) > len(shown) else ""
    names = [f"{row.number} {row.pool}" for row in shown]
    return strips(f"Replicas at work{more}", "s", names, shares, end / PS_PER_S)
