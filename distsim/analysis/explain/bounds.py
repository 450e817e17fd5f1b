"""How short the run could be if one thing cost nothing: longest ways through the activity network, and what ranks have to do.

First-order: streams keep their order, and what is on the network takes what it took. Bounds by the network are exact where all
dependencies are known, streams are in order and nothing contends; a run again (``--resimulate``) is exact always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.activity import Activities
from distsim.analysis.explain.classes import Left
from distsim.analysis.explain.ranks import RankTime
from distsim.analysis.explain.starts import late_rows
from distsim.analysis.intervals import Ints
from distsim.analysis.underway import UnderWay, communicates, is_kind
from distsim.result import Result, SpanTable

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bound:
    """``name``: its key. ``resimulated_ps``: the same by a run, None where there was none."""

    name: str
    about: str
    step_ps: int
    resimulated_ps: int | None = None


def bounds(
    result: Result, moving: UnderWay, network: Activities, ranks: Sequence[RankTime], left: Left,
    slower: bool = False,
) -> tuple[Bound, ...]:  # fmt: skip
    """All that mean something for this run, in a fixed order.

    Args:
        left: of computations, where they hold more than kernels.
        slower: computation beside communication was slowed down, which stays part of how long spans took.
    """
    spans = result.spans()
    talks, memory, host = communicates(spans), is_kind(spans, "memory"), is_kind(spans, "host", "delay")
    computes, late = is_kind(spans, "compute"), late_rows(spans)
    host &= ~late

    def without(gone: Bools, left: Floats) -> int:
        """These rows take no time; of computations this fraction is left."""
        length = network.length.copy()
        own = length[: len(spans)]
        own[gone] = 0
        some = np.flatnonzero(computes & (left[spans.name] < 1))
        own[some] = np.round(own[some] * left[spans.name[some]])
        return int(network.ends(length).max(initial=0))

    free = "communication takes no time" + (" but slows compute" if slower else "")
    found = [
        Bound("infinite_network", free, without(talks, left.network)),
        Bound("infinite_compute", "GPUs compute in no time", without(memory, left.compute)),
    ]
    alone = _alone(spans, moving, talks)
    if (alone < network.length[: len(spans)]).any():
        length = network.length.copy()
        length[: len(spans)] = np.minimum(length[: len(spans)], alone)
        about = "communication is as fast as its fastest alike"
        found.append(Bound("fastest_communication", about, int(network.ends(length).max(initial=0))))
    if host.any() or (left.host < 1).any():
        found.append(Bound("free_host", "the host launches in no time", without(host, left.host)))
    if late.any():
        found.append(Bound("no_late_start", "all ranks begin together", without(late, np.ones_like(left.host))))
    busy = [rank.busy for rank in ranks] or [0]
    found.append(Bound("no_bubbles", "it works without a break, overlap as it was", max(busy)))
    found.append(Bound("perfect_balance", "and all ranks have as much to do", sum(busy) // len(busy)))
    return tuple(found)


def _alone(spans: SpanTable, moving: UnderWay, talks: Bools) -> Ints:
    """Per row: its length; of a communication the least of all like it."""
    length = spans.end - moving.since
    length = np.where(talks, length, spans.end - spans.start)
    rows = np.flatnonzero(talks & ((moving.collective >= 0) | is_kind(spans, "send")))
    if not len(rows):
        return length
    keys = np.stack([spans.kind[rows].astype(np.int64), spans.group[rows].astype(np.int64), spans.bytes[rows]], axis=1)
    _, which = np.unique(keys, axis=0, return_inverse=True)
    which = which.ravel()
    least = np.full(int(which.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(least, which, length[rows])
    length[rows] = least[which]
    return length
