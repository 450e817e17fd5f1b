"""Times between the tokens of a request, prefills of others that it had to wait for included (inter-token latency).

They are gaps between the ends of generating iterations on its replica, from its first token on. That is exact for a request
that was never restarted and emitted as often as its replica generated: then these are its own iterations, none else. Others (a
budget kept them from generating, several pipeline stages, drafts, keys and values from another replica) are left out, and
counted by whoever shows the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.serving import Spread
from distsim.serving.result import ServingResult

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Gaps:
    """longest: by row of the requests the longest gap, ps; 0 for requests of one token, -1 where it is not known. values: gaps
    of all known requests, ps, ascending; counts: how many tokens came after each."""

    longest: Ints
    values: Ints
    counts: Ints

    def spread(self) -> Spread:
        """Over tokens: equal to that of the values, each repeated as often as it counts."""
        total = int(self.counts.sum())
        if not total:
            return Spread.of(self.values[:0])
        upto = np.cumsum(self.counts)

        def at(share: float) -> float:
            place = share * (total - 1)
            low = int(place)
            ranks = (low, min(low + 1, total - 1))
            below, above = (int(self.values[np.searchsorted(upto, rank, side="right")]) for rank in ranks)
            return below + (above - below) * (place - low)

        mean = float((self.values * (self.counts / total)).sum())
        return Spread(total, mean, *(at(share) for share in (0.5, 0.9, 0.95, 0.99, 1.0)))


def gaps(result: ServingResult) -> Gaps:
    """Of all requests that finished."""
    requests, log = result.requests, result.iterations
    longest = np.full(len(requests), -1, np.int64)
    longest[requests.done & (requests.output == 1)] = 0
    candidates = requests.done & (requests.output > 1) & (requests.restarts == 0)
    values, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for row in result.replicas:
        rows = np.flatnonzero((log["replica"] == row.number) & (log["sequences"] > 0))
        mine = np.flatnonzero(candidates & (requests.replica == row.number))
        if len(rows) and len(mine):
            rows = rows[np.argsort(log["start"][rows], kind="stable")]
            own = _of_replica(log, rows, requests.first[mine], requests.completed[mine], requests.output[mine])
            longest[mine] = own.longest
            values.append(own.values)
            counts.append(own.counts)
    found, place = np.unique(np.concatenate(values), return_inverse=True)
    summed = np.bincount(place, weights=np.concatenate(counts), minlength=len(found)).astype(np.int64)
    kept = summed > 0
    return Gaps(longest, found[kept], summed[kept])


def _of_replica(log: Mapping[str, Ints], rows: Ints, first: Ints, completed: Ints, output: Ints) -> Gaps:
    """Of requests that emit from ``first`` to ``completed``; those with other than output - 1 iterations between are unknown.

    Every row is ``count`` iterations of ``ps``; requests join and leave between rows, never inside one."""
    start, ps, count = (log[name][rows] for name in ("start", "ps", "count"))
    end = start + ps * count
    before = np.concatenate((np.zeros(1, np.int64), np.cumsum(count)))
    low = np.searchsorted(end, first, side="right")
    high = np.searchsorted(end, completed, side="right")
    known = (high > low) & (before[high] - before[low] == output - 1)
    longest = np.full(len(first), -1, np.int64)
    low, high, first = low[known], high[known], first[known]
    if not len(low):
        return Gaps(longest, first, first)
    # the first iteration of a row ends some time after the one before it, the others ps later each
    lead = start + ps - np.concatenate((np.zeros(1, np.int64), end[:-1]))
    joined = start[low] + ps[low] - first
    most = np.maximum(joined, np.where(count[low] > 1, ps[low], 0))
    more = np.flatnonzero(high > low + 1)
    if len(more):
        each = np.append(np.maximum(lead, np.where(count > 1, ps, 0)), 0)
        pairs = np.stack((low[more] + 1, high[more]), axis=1).ravel()
        most[more] = np.maximum(most[more], np.maximum.reduceat(each, pairs)[::2])
    longest[known] = most
    inside, later = _covering(low, high, len(rows)), _covering(low + 1, high, len(rows))
    return Gaps(
        longest, np.concatenate((joined, lead, ps)), np.concatenate((np.ones(len(low), np.int64), later, inside * (count - 1)))
    )


def _covering(low: Ints, high: Ints, size: int) -> Ints:
    """How many of the ranges from ``low`` up to ``high`` each row is in."""
    steps = np.zeros(size + 1, np.int64)
    np.add.at(steps, low, 1)
    np.add.at(steps, high, -1)
    return np.cumsum(steps)[:-1]
