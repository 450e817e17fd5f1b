"""Level ``ideal``: an infinite network; a group ends with its longest chain of delays. For critical-path bounds and tests."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from distsim.network.analytic import Analytic
from distsim.network.model import Finished, LinkUsage, Transfers
from distsim.registry import register
from distsim.topology.graph import Paths, Topology


def _no_route(src: NDArray[np.int32], _dst: NDArray[np.int32]) -> Paths:
    return np.zeros(len(src) + 1, dtype=np.int64), np.zeros(0, dtype=np.int32)


@register("network", "ideal")
class NullNetwork:
    """Every transfer arrives at once over no link; only its ``delay`` (reduction, endpoint overhead) takes time.

    What remains of a run's time on this level is what no network can mend.
    """

    def __init__(self, topology: Topology) -> None:
        self._inner = Analytic(dataclasses.replace(topology, router=_no_route))

    def start(self, transfers: Transfers, at: int) -> int:
        """See NetworkModel. Raises ConfigError on columns that are no DAG of transfers of this topology, or a past ``at``."""
        return self._inner.start(transfers, at)

    def next_event(self) -> int:
        """See NetworkModel."""
        return self._inner.next_event()

    def run_until(self, limit: int) -> list[Finished]:
        """See NetworkModel."""
        return self._inner.run_until(limit)

    def change(self, _topology: Topology) -> None:
        """See NetworkModel: an infinite network does not notice."""

    def usage(self) -> LinkUsage:
        """See NetworkModel: no link is ever used."""
        return self._inner.usage()
