"""What a capture itself shows of each step: how long its GPU work took, computing and communicating, and how much overlapped.

A step is the kernels, copies and sets that were launched in it. Its span goes from the first start to the last end of them
all; compute is the union of the kernels that do not communicate, communication that of those that do (waiting included),
overlap what both cover; copies and sets count in none of the two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.trace.kineto.capture import Capture, GpuKind

#: key of TaskGraph.metadata that holds the steps of all ranks
KEY = "kineto.steps"


@dataclass(frozen=True, slots=True)
class StepMeasure:
    """One step of one rank, in ps."""

    step: str
    kernels: int
    span_ps: int
    compute_ps: int
    communication_ps: int
    overlap_ps: int

    @property
    def exposed_ps(self) -> int:
        """Communication beside which nothing was computed."""
        return self.communication_ps - self.overlap_ps


def measure(capture: Capture) -> list[StepMeasure]:
    """Every step in which a kernel, copy or set was launched."""
    kernels = capture.kernels
    found = []
    for number, step in enumerate(capture.steps):
        launched = kernels.step == number
        mine = launched & (kernels.kind <= GpuKind.COMMUNICATION)
        if not launched.any():
            continue
        talks = kernels.kind == GpuKind.COMMUNICATION
        start, end = kernels.start_ps, kernels.end_ps
        compute, communication = (_covered(start[mine & what], end[mine & what]) for what in (~talks, talks))
        either = _covered(start[mine], end[mine])
        span = int(end[launched].max() - start[launched].min())
        overlap = compute + communication - either
        found.append(StepMeasure(step.name, int(mine.sum()), span, compute, communication, overlap))
    return found


def metadata_of(captures: Sequence[Capture]) -> dict[str, str]:
    """The steps of all ranks as a trace keeps them."""
    return {KEY: json.dumps([[asdict(one) for one in measure(capture)] for capture in captures])}


def steps_of(metadata: Mapping[str, str]) -> list[list[StepMeasure]]:
    """Of each rank, the steps that a captured trace was measured to have; empty where it does not say."""
    return [[StepMeasure(**one) for one in rank] for rank in json.loads(metadata.get(KEY, "[]"))]


def _covered(start: NDArray[np.int64], end: NDArray[np.int64]) -> int:
    """Length of the union of intervals in order of their starts."""
    if not len(start):
        return 0
    reach = np.maximum.accumulate(end)
    begin = np.maximum(start, np.concatenate(([start[0]], reach[:-1])))
    return int(np.maximum(end - begin, 0).sum())
