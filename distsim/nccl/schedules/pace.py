"""Pacing: how long every hop of a schedule shall take on idle links, so that all of it takes what the plan says.

NCCL is slower than the links it uses: it pays for synchronisation at each hop, and its channels do not fill a link. Both are
told by two numbers per row of a schedule:

* ``hop``: ps from release to delivery on idle links. What the links of the route do not take of it becomes the row's delay.
* ``burst``: bytes that the sender's link has to carry from the release until the last row that is released with it is through:
  its own, and theirs.

Data is cut into *pieces* that follow one another at a distance of ``gap``: a pipeline of Q pieces over M hops takes
``M * hop + (Q - 1) * gap``. Where the links are slower than the plan, no delay is left and the links decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from distsim.collectives.schedule import Schedule
from distsim.nccl.schedules.wires import routes
from distsim.network.pattern import by_first_use
from distsim.topology.graph import Topology

Columns64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Paced:
    """A schedule, and per row what it shall take (see the module). Of a join, ``hop`` is its delay."""

    schedule: Schedule
    hop: Columns64
    burst: Columns64

    def on(self, topology: Topology, hosts: NDArray[np.int32], stores: float = 0.0) -> Schedule:
        """The schedule with its delays for member m on ``hosts[m]``, on a level that stores so many bytes (see Wire).

        Raises TopologyError where there is no route.
        """
        rows = self.schedule
        src, dst = hosts[rows.src], hosts[rows.dst]
        pair, used = by_first_use(src.astype(np.int64) * topology.hosts + dst, topology.hosts**2)
        first, second = (used // topology.hosts).astype(np.int32), (used % topology.hosts).astype(np.int32)
        latency, per_byte, stored = (column[pair] for column in routes(topology, first, second))
        idle = latency + self.burst * per_byte + np.minimum(rows.bytes, stores) * stored
        delay = np.maximum(0, self.hop - np.ceil(idle).astype(np.int64))
        return replace(rows, delay=np.where(rows.src == rows.dst, self.hop, delay))


@dataclass(frozen=True, slots=True)
class Leg:
    """A kind of hop on the longest way of a piece.

    Attributes:
        count: how many of it the way has.
        hop: ps that each takes at least, by NCCL.
        least: ps that each takes at least, by the links.
        latency: what of ``least`` does not depend on bytes.
    """

    count: int
    hop: float
    least: float
    latency: float

    @property
    def bytes_ps(self) -> float:
        """What the bytes of a piece take of ``least``."""
        return self.least - self.latency


def pipeline(total: float, legs: Sequence[Leg], pieces: int, least_gap: float) -> tuple[list[float], float]:
    """Shares ``total`` ps out to the hops of every leg and to the gaps: (ps of a hop of every leg, gap).

    The hops take what NCCL and the links ask for, the gaps take the rest; where that leaves less than the links need between
    two pieces, or there is but one piece, it is the hops that give or take.
    """
    asked = [max(leg.hop, leg.least) for leg in legs]
    way = sum(leg.count * ps for leg, ps in zip(legs, asked, strict=True))
    if pieces > 1 and total - way >= (pieces - 1) * least_gap:
        return asked, (total - way) / (pieces - 1)
    gap = least_gap if pieces > 1 else 0.0
    left = total - (pieces - 1) * gap
    needed = sum(leg.count * leg.least for leg in legs)
    if way <= 0:
        return [0.0 for _ in legs], gap
    if left <= needed:
        return [leg.least for leg in legs], gap
    if left >= way:
        return [ps * left / way for ps in asked], gap
    give = (left - needed) / (way - needed)
    return [leg.least + (ps - leg.least) * give for leg, ps in zip(legs, asked, strict=True)], gap


def in_step(total: float, hops: int, hop: float, pieces: int, rings: int, least_gap: float) -> tuple[float, float]:
    """(ps of a hop, gap) of a pipeline whose hops take a multiple of ``rings`` gaps, and about ``hop`` ps."""

    def gap_of(multiple: int) -> float:
        return total / (hops * multiple * rings + pieces - 1)

    free = (total - hops * hop) / max(1, pieces - 1)
    multiple = max(1, round(hop / (rings * max(free, least_gap, 1.0))))
    if gap_of(multiple) < least_gap:
        multiple = max(1, int((total / least_gap - pieces + 1) / (hops * rings)))
    return multiple * rings * gap_of(multiple), gap_of(multiple)
