"""Everything that a report of a service says, found once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.serving import ServingSummary, Spread, summary
from distsim.analysis.serving_cost import Energy, Price, energy, price
from distsim.analysis.serving_gaps import Gaps, gaps
from distsim.analysis.serving_limit import Limit, limit
from distsim.analysis.serving_series import Series, batch_sizes, series
from distsim.analysis.serving_slo import Slo
from distsim.serving.result import ServingResult
from distsim.serving.times.model import Measured


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """Of one run. gaps: between tokens; between: of all tokens whose gap is known; longest: of the longest of each request.
    batches: sizes, and their shares of the busy time. errors: usual relative error of the iteration times by their source,
    where it is told; measured: that of whole answers for such models against measured servers."""

    summary: ServingSummary
    limit: Limit
    series: Series
    gaps: Gaps
    between: Spread
    longest: Spread
    batches: tuple[NDArray[np.int64], NDArray[np.float64]]
    price: Price | None
    energy: Energy | None
    errors: dict[str, float]
    measured: dict[str, Measured]


def findings(result: ServingResult, slo: Slo | None = None, per_gpu_hour: float | None = None) -> Findings:
    """What there is to say. Raises ConfigError for a price that is none."""
    found = summary(result, slo)
    tokens = gaps(result)
    longest = tokens.longest[(tokens.longest >= 0) & (result.requests.output > 1)]
    told = result.provenance.get("times", ())
    return Findings(
        found, limit(result, found), series(result), tokens, tokens.spread(), Spread.of(longest), batch_sizes(result),
        None if per_gpu_hour is None else price(found, per_gpu_hour), energy(result, found),
        {one["times"]: one["error"] for one in told if one["error"] is not None},
        {measured.models: measured for one in told if one.get("measured") for measured in (Measured(**one["measured"]),)},
    )  # fmt: skip
