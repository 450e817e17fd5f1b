"""All routes between hosts that are as good as the topology's own: how many there are, and walks along them.

As good means of the same shape between the same ends of the fabric (see topology/fabric.py); what of a route is scale-up
network stays as it is, and so do pairs that never leave it. Walks are taken for all pairs at once, a step at a time, choosing
by a hash as switches do (ECMP), or by the number of the route among all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.topology.fabric import Crossings, Fabric
from distsim.topology.graph import Paths, Topology
from distsim.topology.onward import Graph, Onward, Shapes, search

_BATCH_CELLS = 1 << 22  #: (goal, link) pairs searched together
_WHOLE_CELLS = 1 << 25  #: up to so many, all goals are searched once and kept; else those asked for, each time

_Numbers = NDArray[np.int64]
#: (which of the pairs that walk, cells they are at, where the entries of these begin, how many) -> which one each takes
_Choice = Callable[[_Numbers, _Numbers, _Numbers, _Numbers], _Numbers]
Own = Callable[[], _Numbers]  #: tells the numbers of the topology's own routes
#: (rows of pairs, how many routes each has, Own) -> numbers of routes
Pick = Callable[[_Numbers, _Numbers, Own], _Numbers]


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Pairs whose goals were searched together."""

    graph: Graph
    onward: Onward
    row: _Numbers  #: of the pairs
    which: _Numbers  #: their places in the columns of Crossings
    cell: _Numbers  #: where they set out


class EqualCost:
    """Routes of the same shape as the topology's own. All methods raise TopologyError where the topology has no route."""

    def __init__(self, topology: Topology) -> None:
        self.fabric = Fabric(topology)
        self._shapes = Shapes(np.zeros(self.fabric.classes, np.int64))
        self._graphs: dict[bool, Graph] = {}
        self._kept: dict[tuple[bool, int], Onward] = {}

    def count(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> _Numbers:
        """How many routes every pair has (1 to itself)."""
        total = np.ones(len(src), np.int64)
        for batch in self._batches(self.fabric.crossings(src, dst)):
            total[batch.row] = batch.onward.routes[batch.cell]
        return total

    def hashed(self, src: NDArray[np.int32], dst: NDArray[np.int32], key: NDArray[np.uint64]) -> Paths:
        """Routes on which every node chooses by a hash of the pair's key and its own number."""
        found = self.fabric.crossings(src, dst)
        links = found.paths[1].copy()
        for batch in self._batches(found):
            node, keys = batch.onward.node, key[batch.row]

            def choose(
                pairs: _Numbers, cell: _Numbers, first: _Numbers, width: _Numbers, node: NDArray[np.int32] = node,
                keys: NDArray[np.uint64] = keys,
            ) -> _Numbers:  # fmt: skip
                mixed = mix(keys[pairs] + node[cell].astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F))
                return (mixed % width.astype(np.uint64)).astype(np.int64)

            _walk(links, found, batch, choose)
        return found.paths[0], links

    def numbered(self, src: NDArray[np.int32], dst: NDArray[np.int32], number: _Numbers) -> Paths:
        """The routes with these numbers, which are below :meth:`count`: every route has one.

        Neighbouring numbers part at the first node that offers as many routes over each of its links, as in trees.
        """
        return self.picked(src, dst, lambda rows, count, own: number[rows])

    def picked(self, src: NDArray[np.int32], dst: NDArray[np.int32], pick: Pick) -> Paths:
        """The routes whose numbers ``pick`` gives, see :meth:`numbered`; it is asked of pairs that have a choice only."""
        found = self.fabric.crossings(src, dst)
        links = found.paths[1].copy()
        for batch in self._batches(found):
            onward = batch.onward
            left = pick(batch.row, onward.routes[batch.cell], functools.partial(_own, found, batch)).copy()

            def choose(
                pairs: _Numbers, cell: _Numbers, first: _Numbers, width: _Numbers, left: _Numbers = left,
                onward: Onward = onward,
            ) -> _Numbers:  # fmt: skip
                wanted = left[pairs]
                chosen, rest = wanted % width, wanted // width
                uneven = np.flatnonzero(~onward.even[cell])
                if len(uneven):
                    begin, many, number = first[uneven], width[uneven], wanted[uneven]
                    which = np.zeros(len(uneven), np.int64)
                    for step in range(1, int(many.max())):
                        which += (step < many) & (onward.before[np.minimum(begin + step, begin + many - 1)] <= number)
                    chosen[uneven], rest[uneven] = which, number - onward.before[begin + which]
                left[pairs] = rest
                return np.asarray(chosen, np.int64)

            _walk(links, found, batch, choose)
        return found.paths[0], links

    def _batches(self, found: Crossings) -> Iterator[_Batch]:
        """All pairs that have more than their own route to choose from, or might have."""
        if not len(found.rows):
            return
        most = np.maximum(found.shape.max(axis=0), self._shapes.most)
        if (most > self._shapes.most).any():
            self._shapes = Shapes(most)
            self._kept.clear()
        shape = found.shape @ self._shapes.stride
        for through_hosts in (False, True):
            which = np.flatnonzero(found.through_hosts == through_hosts)
            if not len(which):
                continue
            graph = self._graphs.get(through_hosts)
            if graph is None:
                graph = self._graphs[through_hosts] = Graph(self.fabric, through_hosts=through_hosts)
            node, goal = graph.start[found.entry[which]], graph.goal[found.exit[which]]
            for some, place, onward in self._searched(graph, goal, through_hosts):
                cell = onward.find(place, node[some], shape[which[some]])
                # NOTE: not found is what its own router leads over more links of some class than needed: it keeps that route
                some, cell = some[cell >= 0], cell[cell >= 0]
                yield _Batch(graph, onward, found.rows[which[some]], which[some], cell)

    def _searched(self, graph: Graph, goal: _Numbers, through_hosts: bool) -> Iterator[tuple[_Numbers, _Numbers, Onward]]:
        """(rows of ``goal``, place of their goals among those searched, the search)."""
        every = np.unique(graph.goal[: graph.hosts])
        whole = len(every) * max(len(graph.kept), graph.nodes) <= _WHOLE_CELLS
        goals = np.union1d(every, goal) if whole else np.unique(goal)
        whole &= len(goals) == len(every)
        place = np.searchsorted(goals, goal)
        size = max(1, _BATCH_CELLS // max(1, len(graph.kept), graph.nodes * max(self._shapes.ranks, self._shapes.words)))
        for start in range(0, len(goals), size):
            some = np.flatnonzero((place >= start) & (place < start + size)) if len(goals) > size else np.arange(len(goal))
            if not len(some):
                continue
            key = (through_hosts, start)
            onward = self._kept.get(key) if whole else None
            if onward is None:
                onward = search(graph, goals[start : start + size], self._shapes)
                if whole:
                    self._kept[key] = onward
            yield some, place[some] - start, onward


def _walk(links: NDArray[np.int32], found: Crossings, batch: _Batch, choose: _Choice) -> None:
    """Write the routes of a batch over the topology's own, link for link."""
    onward, steps = batch.onward, found.steps[batch.which]
    first, entry, exit = found.first[batch.which], found.entry[batch.which], found.exit[batch.which]
    cell, live = batch.cell.copy(), np.flatnonzero(onward.routes[batch.cell] > 1)
    taken = 0
    while len(live):
        at = cell[live]
        place = onward.first[at]
        width = onward.first[at + 1] - place
        several = np.flatnonzero(width > 1)
        if len(several):
            place[several] += choose(live[several], at[several], place[several], width[several])
        name = onward.name[place].astype(np.int64)
        links[first[live] + taken] = batch.graph.real(name, entry[live], exit[live], first=taken == 0)
        cell[live] = onward.to[place]
        taken += 1
        live = live[steps[live] > taken]


def _own(found: Crossings, batch: _Batch) -> _Numbers:
    """The number of the topology's own route among those of every pair."""
    onward, labels = batch.onward, batch.graph.labels
    steps, first = found.steps[batch.which], found.first[batch.which]
    owner = np.repeat(np.arange(len(onward.first) - 1), np.diff(onward.first))
    key = owner * labels + onward.name
    cell, live, taken = batch.cell.copy(), np.arange(len(steps)), 0
    passed: list[tuple[_Numbers, _Numbers, _Numbers]] = []
    while len(live):
        at = cell[live]
        name = batch.graph.label[found.paths[1][first[live] + taken]]
        place = np.searchsorted(key, at * labels + name)
        several = np.flatnonzero(onward.first[at + 1] - onward.first[at] > 1)
        passed.append((live[several], at[several], place[several]))
        cell[live] = onward.to[place]
        taken += 1
        live = live[steps[live] > taken]
    number = np.zeros(len(steps), np.int64)
    for rows, at, place in reversed(passed):
        begin = onward.first[at]
        even = number[rows] * (onward.first[at + 1] - begin) + place - begin
        number[rows] = np.where(onward.even[at], even, onward.before[place] + number[rows])
    return number


def mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A fixed integer hash (the finaliser of SplitMix64, Steele, Lea and Flood, OOPSLA 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def key_of(
    seed: int, src: NDArray[np.int32], dst: NDArray[np.int32], lane: NDArray[np.int32] | None = None
) -> NDArray[np.uint64]:
    """What stands for the header fields of a connection: unrelated values for every seed, pair and lane."""
    value = (src.astype(np.uint64) << np.uint64(32)) | dst.astype(np.uint64)
    value = mix(value + np.uint64(seed * 0x9E3779B97F4A7C15 % (1 << 64)))
    return value if lane is None else mix(value + lane.astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93))
