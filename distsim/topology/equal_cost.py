"""All shortest routes between hosts of any graph: which next links lie on them, how many there are, and walks along them.

A breadth-first search from a destination tells the hops from every node; the links that come one hop closer, listed by
destination and node, are all that routes of equal cost are made of. A host whose only cable leads to a switch is that switch
to the search, so that the hosts of a leaf share one. Walks are taken for all pairs at once, a step at a time, choosing by a
hash as switches do (ECMP), or by the number of the route among all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.errors import TopologyError
from distsim.topology.graph import Paths, Topology
from distsim.topology.routing import UNREACHABLE, ragged

_BATCH_CELLS = 1 << 22  #: (destination, link) cells searched together
_WHOLE_CELLS = 1 << 25  #: up to so many, all destinations are searched once and kept; else those asked for, each time
_MOST = 1 << 40  #: routes counted between two nodes; of more, some are never taken

_Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Onward:
    """Of some destinations, the links that come closer. Cells are ``destination * nodes + node``."""

    first: _Numbers  #: of every cell and of the one after the last: where its links begin
    link: NDArray[np.int32]
    before: _Numbers  #: of every link listed: routes over the links listed before it at its node
    even: NDArray[np.bool_]  #: of the first link of every cell: all its links lie on as many routes
    routes: _Numbers  #: from every cell
    hops: NDArray[np.int32]  #: from every cell; UNREACHABLE where there is no way


#: (rows of pairs, the nodes they are at, first of the links to choose from, how many, Onward) -> which one each takes
_Choice = Callable[[_Numbers, _Numbers, _Numbers, _Numbers, Onward], _Numbers]


class EqualCost:
    """Shortest routes by hops. Hosts carry the traffic of others only between hosts that have no other way."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        hosts, nodes, src, dst = topology.hosts, topology.nodes, topology.link_src, topology.link_dst
        out, into = np.bincount(src, minlength=nodes), np.bincount(dst, minlength=nodes)
        hanging = (out == 1) & (into == 1) & (np.arange(nodes) < hosts)
        away = np.flatnonzero(hanging[src] & (dst >= hosts))
        back = np.flatnonzero(hanging[dst] & (src >= hosts))
        self._leave, self._enter = np.full((2, hosts), -1, np.int32)  # the links of a host that hangs on a switch
        self._leave[src[away]], self._enter[dst[back]] = away, back
        stands = np.arange(nodes, dtype=np.int32)
        stands[src[away]] = dst[away]
        core = np.unique(stands)  # nodes that are searched
        self._core = core.astype(np.int64)
        self._nodes = len(core)
        number = np.full(nodes, -1, np.int64)
        number[core] = np.arange(len(core))
        self._place = number[stands]  # of every node: the one that stands for it
        inner = np.flatnonzero((number[src] >= 0) & (number[dst] >= 0))
        inner = inner[np.argsort(src[inner], kind="stable")]
        self._link = inner.astype(np.int32)
        self._src, self._dst = number[src[inner]], number[dst[inner]]
        self._into = np.argsort(self._dst, kind="stable")
        self._into_ptr = np.searchsorted(self._dst[self._into], np.arange(self._nodes + 1)).astype(np.int64)
        self._goals = np.unique(self._place[:hosts])
        self._whole = len(self._goals) * max(len(inner), self._nodes) <= _WHOLE_CELLS
        self._forwarding = bool(getattr(topology.router, "host_forwarding", True))
        self._kept: dict[tuple[bool, int], Onward] = {}

    def count(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> _Numbers:
        """How many shortest routes every pair has (1 to itself). Raises TopologyError where there is none."""
        total = np.ones(len(src), np.int64)
        for rows, cell, onward in self._batches(src, dst):
            total[rows] = onward.routes[cell + self._place[src[rows]]]
        return total

    def hashed(self, src: NDArray[np.int32], dst: NDArray[np.int32], key: NDArray[np.uint64]) -> Paths:
        """Routes on which every switch chooses by a hash of the pair's key and its own number. Raises as :meth:`count`."""

        def choose(rows: _Numbers, here: _Numbers, first: _Numbers, width: _Numbers, onward: Onward) -> _Numbers:
            mixed = mix(key[rows] + self._core[here].astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F))
            return (mixed % width.astype(np.uint64)).astype(np.int64)

        return self._walk(src, dst, choose)

    def numbered(self, src: NDArray[np.int32], dst: NDArray[np.int32], number: _Numbers) -> Paths:
        """The routes with these numbers, which are below :meth:`count`: every route has one.

        Neighbouring numbers part at the first switch that offers as many routes over each of its links, as in trees. Raises as
        :meth:`count`.
        """
        left = number.copy()

        def choose(rows: _Numbers, here: _Numbers, first: _Numbers, width: _Numbers, onward: Onward) -> _Numbers:
            wanted = left[rows]
            chosen, rest = wanted % width, wanted // width
            uneven = np.flatnonzero(~onward.even[first])
            if len(uneven):
                begin, many, number = first[uneven], width[uneven], wanted[uneven]
                which = np.zeros(len(uneven), np.int64)
                for step in range(1, int(many.max())):
                    which += (step < many) & (onward.before[np.minimum(begin + step, begin + many - 1)] <= number)
                chosen[uneven], rest[uneven] = which, number - onward.before[begin + which]
            left[rows] = rest
            return np.asarray(chosen, np.int64)

        return self._walk(src, dst, choose)

    def _walk(self, src: NDArray[np.int32], dst: NDArray[np.int32], choose: _Choice) -> Paths:
        counts = np.zeros(len(src), np.int64)
        walked = []
        for rows, cell, onward in self._batches(src, dst):
            here = self._place[src[rows]]
            inner = onward.hops[cell + here].astype(np.int64)
            leave, enter = self._leave[src[rows]], self._enter[dst[rows]]
            counts[rows] = inner + (leave >= 0) + (enter >= 0)
            row, step = ragged(counts[rows])
            links = np.empty(len(row), np.int32)
            first = np.cumsum(counts[rows]) - counts[rows]
            links[first[leave >= 0]] = leave[leave >= 0]
            links[(first + counts[rows] - 1)[enter >= 0]] = enter[enter >= 0]
            first += leave >= 0
            live, taken = np.flatnonzero(inner), 0
            while len(live):
                at = cell[live] + here[live]
                begin = onward.first[at]
                width = onward.first[at + 1] - begin
                several = np.flatnonzero(width > 1)
                if len(several):
                    some = live[several]
                    begin[several] += choose(rows[some], here[some], begin[several], width[several], onward)
                link = onward.link[begin]
                links[first[live] + taken] = self._link[link]
                here[live] = self._dst[link]
                taken += 1
                live = live[inner[live] > taken]
            walked.append((rows[row], step, links))
        offsets = np.zeros(len(src) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        result = np.empty(offsets[-1], np.int32)
        for row, step, links in walked:
            result[offsets[row] + step] = links
        return offsets, result

    def _batches(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> Iterator[tuple[_Numbers, _Numbers, Onward]]:
        """(rows of pairs of different hosts, first cells of their destinations, the links), all such pairs."""
        left = np.flatnonzero(src != dst)
        for through_hosts in (False, True)[: 1 + self._forwarding]:
            lost = [np.zeros(0, np.int64)]
            for rows, cell, onward in self._searched(dst, left, through_hosts):
                found = onward.hops[cell + self._place[src[rows]]] != UNREACHABLE
                lost.append(rows[~found])
                if found.any():
                    yield rows[found], cell[found], onward
            left = np.concatenate(lost)
        if len(left):
            raise self._unreachable(src, dst, left)

    def _searched(
        self, dst: NDArray[np.int32], rows: _Numbers, through_hosts: bool
    ) -> Iterator[tuple[_Numbers, _Numbers, Onward]]:
        place = self._place[dst[rows]]
        goals = self._goals if self._whole else np.unique(place)
        which = np.searchsorted(goals, place)
        size = max(1, _BATCH_CELLS // max(1, len(self._link), self._nodes))
        for start in range(0, len(goals), size):
            some = np.flatnonzero((which >= start) & (which < start + size)) if len(goals) > size else np.arange(len(rows))
            if not len(some):
                continue
            key = (through_hosts, start)
            onward = self._kept.get(key)
            if onward is None:
                onward = self._search(goals[start : start + size], through_hosts)
                if self._whole:
                    self._kept[key] = onward
            yield rows[some], (which[some] - start) * self._nodes, onward

    def _search(self, goals: _Numbers, through_hosts: bool) -> Onward:
        nodes, links = self._nodes, len(self._link)
        cells = np.arange(len(goals), dtype=np.int64) * nodes + goals
        hops = np.full(len(goals) * nodes, UNREACHABLE, np.int32)
        routes, seen = np.zeros(len(hops), np.int64), np.zeros(len(hops), np.int64)
        hops[cells], routes[cells] = 0, 1
        closer = np.zeros(len(goals) * links, np.bool_)
        reach = 0
        while len(cells):
            reach += 1
            node = cells % nodes
            row, step = ragged(self._into_ptr[node + 1] - self._into_ptr[node])
            link = self._into[self._into_ptr[node[row]] + step]
            cell = cells[row] - node[row] + self._src[link]
            new = hops[cell] == UNREACHABLE
            link, row, cell = link[new], row[new], cell[new]
            closer[cells[row] // nodes * links + link] = True
            np.add.at(routes, cell, routes[cells[row]])
            turn = np.arange(len(cell))
            seen[cell] = turn
            cells = cell[seen[cell] == turn]
            hops[cells] = reach
            routes[cells] = np.minimum(routes[cells], _MOST)
            if not through_hosts:
                cells = cells[self._core[cells % nodes] >= self.topology.hosts]
        listed = np.flatnonzero(closer)
        goal, link = listed // links, listed % links
        cell = goal * nodes + self._src[link]
        first = np.searchsorted(cell, np.arange(len(hops) + 1)).astype(np.int64)
        over = routes[goal * nodes + self._dst[link]]
        before = np.cumsum(over) - over
        begin = first[cell]
        odd = np.zeros(len(link), np.bool_)
        odd[begin[over != over[begin]]] = True
        return Onward(first, link.astype(np.int32), before - before[begin], ~odd, routes, hops)

    def _unreachable(self, src: NDArray[np.int32], dst: NDArray[np.int32], rows: _Numbers) -> TopologyError:
        names = self.topology.node_names
        pairs = [f"{names[src[row]]} -> {names[dst[row]]}" for row in rows[:3]]
        return TopologyError(
            f"no path for {len(rows)} of {len(src)} pairs: {', '.join(pairs)}{' ...' if len(rows) > 3 else ''}",
            expected="every host to reach every other",
        )


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
