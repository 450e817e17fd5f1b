"""Iterations of a captured trace: how long the GPU work of each took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.intervals import Ints
from distsim.analysis.underway import on_gpu
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
    lengths, present = step_lengths(result)
    told = np.where(present, lengths, -1)
    found = []
    for number in np.flatnonzero(present.any(axis=0)).tolist():
        rank = int(told[:, number].argmax())
        found.append(Step(result.spans().steps[number], int(told[rank, number]), rank))
    return tuple(found)


def step_lengths(result: Result) -> tuple[Ints, NDArray[np.bool_]]:
    """By rank and step: ps from the first start of its work on the GPU to the last end, and whether there is any."""
    spans = result.spans()
    steps = len(spans.steps)
    lengths, present = np.zeros((result.ranks, steps), np.int64), np.zeros((result.ranks, steps), dtype=bool)
    if spans.step is None or not steps:
        return lengths, present
    rows = np.flatnonzero((spans.step >= 0) & on_gpu(spans))
    if len(rows):
        key = spans.rank[rows].astype(np.int64) * steps + spans.step[rows]
        order = np.argsort(key, kind="stable")
        unique, first = np.unique(key[order], return_index=True)
        begin = np.minimum.reduceat(spans.start[rows][order], first)
        end = np.maximum.reduceat(spans.end[rows][order], first)
        lengths.ravel()[unique], present.ravel()[unique] = end - begin, True
    return lengths, present


def median_ps(found: Sequence[Step]) -> int:
    """Length of the middle one of these iterations; of two in the middle, their mean, rounded down."""
    return int(median(step.span_ps for step in found))
