"""Routers that offer several routes between two hosts, as load balancing needs them: what networks ask of them.

A *lane* is the number of one of these routes. A plain router is a callable of two columns; one with lanes takes the lane of
every pair as a third and says, in attributes, how traffic is divided over them.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from distsim.topology.graph import Paths, Topology


class LaneRouter(Protocol):
    """A router with lanes. Routes are deterministic; a host reaches itself over no link, on any lane."""

    ways: int  #: lanes are 0 ... ways - 1
    part: int  #: bytes: traffic is not divided into smaller parts
    chooses: bool  #: a transfer goes whole and takes the lane that is least loaded when it is released; else it is divided

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32], lane: NDArray[np.int32] | None = None) -> Paths:
        """See :attr:`Topology.router`; without ``lane`` all take lane 0."""
        ...

    def lanes(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int64]:
        """How many lanes of each pair differ (at least 1, at most ``ways``); higher ones repeat lower ones."""
        ...


def part_of(topology: Topology) -> int:
    """Bytes that the topology's router does not divide further."""
    return int(getattr(topology.router, "part", 1))


def choices_of(topology: Topology) -> int:
    """Routes among which a transfer chooses when it is released; 1 where there is nothing to choose."""
    return topology.ways if getattr(topology.router, "chooses", False) else 1
