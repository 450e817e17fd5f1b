"""Iterations of a captured trace: how long the GPU work of each took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distsim.analysis.intervals import Ints
from distsim.analysis.underway import is_kind
from distsim.result import Result


@dataclass(frozen=True, slots=True)
class Step:
    """One iteration, in ps: from the first start to the last end of what was launched in it, on the rank where that is longest.

    On GPUs that run behind their hosts, neighbouring steps overlap and each is longer than the time from one to the next.
    """

    name: str
    span_ps: int
    rank: int


def steps(result: Result) -> tuple[Step, ...]:
    """The iterations that the trace tells and that have work on a GPU, in order; none for other traces."""
    spans = result.spans()
    if spans.step is None or not spans.steps:
        return ()
    rows = np.flatnonzero((spans.step >= 0) & ~is_kind(spans, "host", "delay", "none"))
    cell = spans.step[rows].astype(np.int64) * result.ranks + spans.rank[rows]
    begin: Ints = np.full(len(spans.steps) * result.ranks, np.iinfo(np.int64).max)
    end: Ints = np.zeros(len(begin), np.int64)
    np.minimum.at(begin, cell, spans.start[rows])
    np.maximum.at(end, cell, spans.end[rows])
    length = np.where(end > 0, end - begin, -1).reshape(len(spans.steps), result.ranks)
    return tuple(
        Step(name, int(row.max()), int(row.argmax())) for name, row in zip(spans.steps, length, strict=True) if row.max() >= 0
    )
