"""Ranks of a captured trace whose capture begins after that of the first: nothing is known of what they did before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.underway import is_kind
from distsim.result import Result, SpanTable
from distsim.trace.graph import BEFORE_CAPTURE


@dataclass(frozen=True, slots=True)
class LateStart:
    """A rank that began late, on the clock of all ranks."""

    rank: int
    after_ps: int  #: after the first rank
    first: int  #: that rank; of several the lowest


def late_rows(spans: SpanTable) -> NDArray[np.bool_]:
    """Which rows are the time before a rank began."""
    number = next((at for at, name in enumerate(spans.names) if name == BEFORE_CAPTURE), -1)
    return np.asarray(is_kind(spans, "delay") & (spans.name == number) & (number >= 0))


def late_starts(result: Result) -> tuple[LateStart, ...]:
    """The latest first; none where all began together or nothing tells."""
    spans = result.spans()
    after = np.zeros(result.ranks, np.int64)
    rows = np.flatnonzero(late_rows(spans))
    after[spans.rank[rows]] = spans.end[rows]
    if result.representative is not None:
        after = after[result.representative]
    if not len(rows):
        return ()
    first = int(np.argmin(after))
    order = np.lexsort((np.arange(result.ranks), -after))
    return tuple(LateStart(int(r), int(after[r] - after[first]), first) for r in order if after[r] > after[first])
