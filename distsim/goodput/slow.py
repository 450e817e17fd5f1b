"""When slow nodes are about: every node turns slow now and then, and stays so until it is found and replaced."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: with more slow nodes than this on average, there is always one (the chance of none is e^-40)
_ALWAYS = 40.0


def slow_spells(nodes: int, share: float, lasts: float, horizon: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Times (s) at which the job turns slow and quick again in turn, the first of them slow; within the horizon.

    A job is slow while at least one of its nodes is. Each node is slow ``share`` of the time, in spells of an exponential
    length of mean ``lasts``: a Poisson stream of ``nodes * share / lasts`` spells a second, with those under way at the start.
    """
    mean = nodes * share
    if mean == 0:
        return np.empty(0)
    if mean > _ALWAYS:
        return np.zeros(1)
    running = int(rng.poisson(mean))
    fresh = int(rng.poisson(mean * horizon / lasts))
    start = np.concatenate((np.zeros(running), np.sort(rng.uniform(0, horizon, fresh))))
    end = np.maximum.accumulate(start + rng.exponential(lasts, len(start)))
    if not len(start):
        return np.empty(0)
    # a new spell of the job begins where a node turns slow after all before it were found
    first = np.concatenate(([True], start[1:] > end[:-1]))
    last = np.concatenate((first[1:], [True]))
    turns = np.stack((start[first], end[last]), axis=1).reshape(-1)
    return turns[turns < horizon]
