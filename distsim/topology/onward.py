"""Searches for all routes of given shapes over a fabric: backwards from their ends, with what is left of the shape as state.

A shape is how many links of every class a route has (see topology/fabric.py). A *cell* is a goal, a node, and what a route from
there to the goal still has to take of every class; its entries are the links that it may take next, each with the cell where
that leads. Of a node's cells only those are kept below which there is none (as many links of every class or fewer), so that no
route meets a node twice.

Where routes do not pass hosts, hosts with the same cables are searched as one: their n-th cables stand for each other.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.topology.fabric import Fabric
from distsim.topology.routing import ragged

_MOST = 1 << 40  #: routes counted from a cell; of more, some are never taken
_HOPS = 63  #: a single class is counted so far at least, so that a later, longer route does not start all searches again
_WORD = 64

_Numbers = NDArray[np.int64]


class Shapes:
    """All shapes up to a largest one, numbered; number 0 is empty."""

    def __init__(self, most: _Numbers) -> None:
        self.most = np.maximum(most, _HOPS) if len(most) == 1 else most  #: of every class
        sizes = (self.most + 1).tolist()
        self.stride = np.cumprod([1, *sizes[:-1]]).astype(np.int64)
        digits = np.array(list(itertools.product(*map(range, sizes[::-1]))), np.int64)[:, ::-1]
        self.count = len(digits)
        self.room = (digits < self.most).T  #: (class, shape): whether one more link of the class fits
        total = digits.sum(axis=1)
        self.rank = np.zeros(self.count, np.int64)  #: place among the shapes of equally many links
        for links in range(int(total.max()) + 1):
            some = np.flatnonzero(total == links)
            self.rank[some] = np.arange(len(some))
        self.ranks = int(self.rank.max()) + 1
        if len(most) == 1:  # what was reached over fewer links is smaller: one bit tells
            self.words, self.bit = 1, np.ones((1, self.count), np.uint64)
            self.below = self.bit
            return
        self.words = -(-self.count // _WORD)
        less = ~np.eye(self.words * _WORD, dtype=np.bool_)[: self.count]
        less[:, self.count :] = False
        for digit in digits.T:
            less[:, : self.count] &= digit <= digit[:, None]
        self.below = _bits(less)  #: (word, shape): bits of the shapes that are smaller
        self.bit = _bits(np.eye(self.words * _WORD, dtype=np.bool_)[: self.count])  #: (word, shape): the bit of each


def _bits(flags: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Rows of flags as columns of words."""
    return np.ascontiguousarray(np.packbits(flags, axis=1, bitorder="little").view("<u8").T.astype(np.uint64))


class Graph:
    """The fabric as it is searched: its nodes are renumbered, its links have labels."""

    def __init__(self, fabric: Fabric, *, through_hosts: bool) -> None:
        topology = fabric.topology
        hosts, self.links = topology.hosts, topology.links
        self.hosts = hosts
        label = np.arange(topology.links, dtype=np.int64)  #: of every link; n-th cables of hosts: links + n
        kept = np.flatnonzero(fabric.outside)
        self.start, self.goal = np.arange(topology.nodes), np.arange(topology.nodes)  #: of every node: its number as an end
        self.ports = np.zeros((2, hosts + 1), np.int64)  #: of every host: where its cables begin, outwards and inwards
        self.port: list[_Numbers] = []  #: those cables
        if not through_hosts:
            ends = topology.link_src, topology.link_dst
            up, down = (kept[ends[side][kept] < hosts] for side in (0, 1))
            listed = []
            for side, some in enumerate((up, down)):
                host, other = ends[side][some], ends[1 - side][some]
                order = np.lexsort((some, fabric.link_class[some], other, host))
                listed.append(some[order])
                self.ports[side] = np.searchsorted(host[order], np.arange(hosts + 1))
            self.port = listed
            first = _alike(fabric, self.ports, listed)
            single = np.unique(first)
            number = topology.nodes + np.searchsorted(single, first)
            self.start[:hosts], self.goal[:hosts] = first, number
            for side, some in enumerate(listed):
                to_switch = ends[1 - side][some] >= hosts
                turn = np.arange(len(some)) - self.ports[side][ends[side][some]]
                label[some[to_switch]] = topology.links + turn[to_switch]
            one = np.ones(topology.links, np.bool_)
            one[up] = first[topology.link_src[up]] == topology.link_src[up]
            one[down] &= first[topology.link_dst[down]] == topology.link_dst[down]
            kept = kept[one[kept]]
        self.label = label
        self.labels = int(label.max(initial=0)) + 1
        self.nodes = int(max(self.start.max(), self.goal.max())) + 1
        source, target = self.start[topology.link_src[kept]], self.goal[topology.link_dst[kept]]
        order = np.argsort(target, kind="stable")
        self.source, self.kept = source[order], kept[order]
        self.kind, self.name = fabric.link_class[self.kept], label[self.kept]
        self.into = np.searchsorted(target[order], np.arange(self.nodes + 1)).astype(np.int64)

    def real(self, name: _Numbers, entry: NDArray[np.int32], exit: NDArray[np.int32], *, first: bool) -> _Numbers:
        """The links with these labels, on routes between these nodes; ``first``: they are the first of their routes."""
        links = name.copy()
        port = name - self.links
        for side, host in enumerate((entry, exit)):
            leaves = (entry < self.hosts) & first
            rows = np.flatnonzero((port >= 0) & (leaves if side == 0 else ~leaves))
            if len(rows):
                links[rows] = self.port[side][self.ports[side][host[rows]] + port[rows]]
        return links


def _alike(fabric: Fabric, ports: _Numbers, listed: list[_Numbers]) -> _Numbers:
    """Of every host the lowest with the same cables to the same switches; itself where it is joined to a host."""
    topology = fabric.topology
    other = topology.link_dst[listed[0]], topology.link_src[listed[1]]
    seen: dict[bytes, int] = {}
    first = np.arange(topology.hosts)
    told = [np.stack([far, fabric.link_class[some]], axis=1) for far, some in zip(other, listed, strict=True)]
    direct = np.zeros(topology.hosts, np.bool_)
    for side, some in enumerate(listed):
        near = (topology.link_src, topology.link_dst)[side][some]
        direct[near[other[side] < topology.hosts]] = True
    bounds = ports.tolist()
    for host in np.flatnonzero(~direct).tolist():
        up, down = (told[side][bounds[side][host] : bounds[side][host + 1]].tobytes() for side in (0, 1))
        first[host] = seen.setdefault(up + b"|" + down, host)
    return first


@dataclass(frozen=True, slots=True, eq=False)
class Onward:
    """The cells of some goals."""

    shapes: int
    nodes: int
    first: _Numbers  #: of every cell and of the one after the last: where its entries begin
    name: NDArray[np.int32]  #: label of every entry's link, ascending in a cell
    to: NDArray[np.int32]  #: cell where it leads
    before: _Numbers  #: routes over the entries listed before it in its cell
    even: NDArray[np.bool_]  #: of every cell: all its entries lie on as many routes
    routes: _Numbers  #: from every cell
    node: NDArray[np.int32]  #: of every cell
    key: _Numbers  #: of every cell, ascending
    cell: NDArray[np.int32]  #: whose key that is

    def find(self, goal: _Numbers, node: _Numbers, shape: _Numbers) -> _Numbers:
        """Cells of routes of these shapes from these nodes to these goals (by their places), -1 where there are none."""
        key = (goal * self.nodes + node) * self.shapes + shape
        at = np.minimum(np.searchsorted(self.key, key), len(self.key) - 1)
        return np.where(self.key[at] == key, self.cell[at], -1)


def search(graph: Graph, goals: _Numbers, shapes: Shapes) -> Onward:
    """All routes to these goals, of shapes up to the largest."""
    nodes = graph.nodes
    reached = np.zeros((shapes.words, len(goals) * nodes), np.uint64)
    seen = np.zeros(len(goals) * nodes * shapes.ranks, np.int32)
    goal, node, shape = np.arange(len(goals)), goals.astype(np.int64), np.zeros(len(goals), np.int64)
    routes = np.ones(len(goals), np.int64)
    reached[:, goal * nodes + node] = shapes.bit[:, :1]
    cells, base = [(goal, node, shape, routes, np.zeros(len(goals), np.int64), np.ones(len(goals), np.bool_))], 0
    entries = [(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int64))]
    while len(node):
        row, step = ragged(graph.into[node + 1] - graph.into[node])
        link = graph.into[node[row]] + step
        fits = shapes.room[graph.kind[link], shape[row]]
        row, link = row[fits], link[fits]
        place, more = goal[row] * nodes + graph.source[link], shape[row] + shapes.stride[graph.kind[link]]
        free = np.ones(len(row), np.bool_)
        for word in range(shapes.words):
            free &= (reached[word, place] & shapes.below[word, more]) == 0
        row, link, place, more = row[free], link[free], place[free], more[free]
        slot, turn = place * shapes.ranks + shapes.rank[more], np.arange(len(row), dtype=np.int32)
        seen[slot] = turn
        owner = seen[slot]
        new = owner == turn
        cell = (np.cumsum(new) - 1)[owner]
        order = np.argsort(cell * graph.labels + graph.name[link])
        count = np.bincount(cell, minlength=int(new.sum()))
        over = routes[row[order]]
        before = np.cumsum(over) - over
        begin = np.cumsum(count) - count
        name, to = graph.name[link[order]].astype(np.int32), (base + row[order]).astype(np.int32)
        entries.append((name, to, before - np.repeat(before[begin], count)))
        uneven = over != np.repeat(over[begin], count)
        base += len(node)
        even = np.ones(len(count), np.bool_)
        even[cell[order[uneven]]] = False
        routes = np.minimum(np.add.reduceat(over, begin) if len(over) else over, _MOST)
        goal, node, shape, place = goal[row[new]], graph.source[link[new]], more[new], place[new]
        for word in range(shapes.words):
            np.bitwise_or.at(reached[word], place, shapes.bit[word, shape])
        cells.append((goal, node, shape, routes, count, even))
    goal, node, shape, routes, count, even = (np.concatenate(column) for column in zip(*cells, strict=True))
    name, to, before = (np.concatenate(column) for column in zip(*entries, strict=True))
    key = (goal * nodes + node) * shapes.count + shape
    order = np.argsort(key)
    return Onward(
        shapes.count, nodes, np.concatenate(([0], np.cumsum(count))), name, to, before, even, routes, node.astype(np.int32),
        key[order], order.astype(np.int32),
    )  # fmt: skip
