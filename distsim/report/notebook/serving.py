"""A simulated service in a notebook: the answer, what limits it, latencies, and the warnings."""

from __future__ import annotations

import math

from distsim.analysis.serving import Spread
from distsim.analysis.serving_findings import findings
from distsim.registry import register
from distsim.report.notebook.fragment import fragment, notes, rows
from distsim.report.serving import LATENCIES, answer
from distsim.serving.result import ServingResult
from distsim.units import format_time


@register("notebook", "serving")
def html(result: ServingResult) -> str:
    """``ServingResult._repr_html_``."""
    found = findings(result)
    listed = [(about, *_spread(getattr(found.summary.latencies, name))) for name, about in LATENCIES.items()]
    return fragment(
        answer(result, found), notes((found.limit.because,), mark="limit: "),
        rows(("finished requests", "mean", "P50", "P90", "P99", "most"), listed if found.summary.finished else ()),
        notes(result.warnings),
    )  # fmt: skip


def _spread(spread: Spread) -> list[str]:
    values = (spread.mean, spread.p50, spread.p90, spread.p99, spread.most)
    return ["-" if math.isnan(value) else format_time(value) for value in values]
