"""Jitter: a network whose transfers take a random while longer where they cross certain links.

The delay is drawn anew for every transfer of every group that starts while the jitter lasts, from a generator of the event's
own, and comes on top of its delivery; the links themselves are not busier for it.
"""

from __future__ import annotations

import dataclasses
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.events.model import Events, Jitter, LinkEvent
from distsim.events.select import links
from distsim.kernel.clock import END_OF_TIME
from distsim.network.model import NO_LANE, Finished, LinkUsage, NetworkModel, Transfers
from distsim.topology.graph import Topology
from distsim.units import parse_time


@dataclass(slots=True, eq=False)
class _Source:
    """One event's."""

    at: int
    until: int
    crossed: NDArray[np.bool_]  #: per link
    jitter: Jitter
    dice: np.random.Generator

    def draw(self, count: int) -> NDArray[np.int64]:
        """ps."""
        mean = parse_time(self.jitter.mean)
        if self.jitter.distribution == "exponential":
            return np.rint(self.dice.exponential(mean, count)).astype(np.int64)
        if self.jitter.distribution == "uniform":
            return self.dice.integers(0, 2 * mean, count, endpoint=True)
        return np.full(count, mean, dtype=np.int64)


def jittered(network: NetworkModel, topology: Topology, events: Events) -> NetworkModel:
    """The network with the jitter of the events; the network itself where there is none. Raises ConfigError."""
    sources = []
    for index, event in enumerate(events.events):
        if isinstance(event, LinkEvent) and event.jitter is not None:
            crossed = np.zeros(topology.links, dtype=np.bool_)
            crossed[links(topology, event.link, events.place(index))] = True
            until = END_OF_TIME if event.until is None else parse_time(event.until)
            dice = np.random.default_rng([events.seed, events.numbers[index]])
            sources.append(_Source(parse_time(event.at), until, crossed, event.jitter, dice))
    return Jittered(network, topology, sources) if sources else network


class Jittered:
    """A NetworkModel in front of another."""

    def __init__(self, network: NetworkModel, topology: Topology, sources: list[_Source]) -> None:
        self._network, self._topology, self._sources = network, topology, sources
        self._known: weakref.WeakKeyDictionary[Transfers, list[NDArray[np.int64]]] = weakref.WeakKeyDictionary()

    def __getattr__(self, name: str) -> Any:
        # what a level offers beside the protocol (retransmitted ...) is that of the network behind
        return getattr(self._network, name)

    def start(self, transfers: Transfers, at: int) -> int:
        """See NetworkModel."""
        sources = [number for number, source in enumerate(self._sources) if source.at <= at < source.until]
        if not sources:
            return self._network.start(transfers, at)
        rows = self._known.get(transfers)
        if rows is None:
            rows = self._known[transfers] = self._crossing(transfers)
        delay = transfers.delay.copy()
        for number in sources:
            delay[rows[number]] += self._sources[number].draw(len(rows[number]))
        if not any(len(rows[number]) for number in sources):
            return self._network.start(transfers, at)
        # NOTE: no two draws are alike, so there is no pattern to share
        made = dataclasses.replace(transfers, delay=delay, pattern=None, members=None)
        if transfers.alone is not None:
            made = dataclasses.replace(made, alone=transfers.alone + _longest(transfers, delay - transfers.delay))
        return self._network.start(made, at)

    def next_event(self) -> int:
        """See NetworkModel."""
        return self._network.next_event()

    def run_until(self, limit: int) -> list[Finished]:
        """See NetworkModel."""
        return self._network.run_until(limit)

    def usage(self) -> LinkUsage:
        """See NetworkModel."""
        return self._network.usage()

    def change(self, topology: Topology) -> None:
        """See NetworkModel: routes may cross other links now."""
        self._topology = topology
        self._known.clear()
        self._network.change(topology)  # type: ignore[attr-defined]

    def _crossing(self, transfers: Transfers) -> list[NDArray[np.int64]]:
        """Rows whose route crosses the links of each source."""
        given = transfers.lane
        rows = np.arange(len(transfers.src)) if given is None else np.flatnonzero(given != NO_LANE)
        lane = np.zeros(len(rows), dtype=np.int32) if given is None else given[rows]
        keys = np.stack((transfers.src[rows], transfers.dst[rows], lane), axis=1).astype(np.int32)
        pairs, which = np.unique(keys, return_inverse=True, axis=0)
        offsets, ids = self._topology.paths(pairs[:, 0], pairs[:, 1], None if given is None else pairs[:, 2])
        found = []
        for source in self._sources:
            hits = np.concatenate(([0], np.cumsum(source.crossed[ids])))
            found.append(rows[(hits[offsets[1:]] > hits[offsets[:-1]])[which.ravel()]])
        return found


def _longest(transfers: Transfers, extra: NDArray[np.int64]) -> int:
    """The most that ``extra`` adds up to along any chain of dependencies: what a closed form is longer by."""
    first, dep, more = transfers.dep_ptr.tolist(), transfers.dep.tolist(), extra.tolist()
    total: list[int] = []
    for row in range(len(more)):
        total.append(more[row] + max((total[before] for before in dep[first[row] : first[row + 1]]), default=0))
    return max(total, default=0)
