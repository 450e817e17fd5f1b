"""Generic deterministic routing: shortest paths by hops over any graph, for topologies whose builder knows no closed form.

Structured topologies have routers of their own (next to their builders), which compute link ids from host numbers; all
routers are small callables with the signature of :attr:`Topology.router`, and may offer ``hops`` to count without listing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from distsim.errors import TopologyError
from distsim.topology.graph import Paths

_Table = NDArray[np.int32]
_Rows = NDArray[np.int64]

UNREACHABLE = int(np.iinfo(np.int32).max)
_BATCH_CELLS = 1 << 22  #: (destination, node) cells searched at once, so that memory stays near 100 MB
_KEPT_CELLS = 1 << 23  #: cells of next-link tables kept for later calls


def pack(columns: Sequence[NDArray[np.int64]]) -> Paths:
    """Paths of a table with one row a pair and at most one link per column; -1 marks a column that the pair does not use.

    >>> pack([np.array([4, -1]), np.array([5, 7])])
    (array([0, 2, 3]), array([4, 5, 7], dtype=int32))
    """
    table = np.stack(columns, axis=1)
    used = table >= 0
    offsets = np.zeros(len(table) + 1, np.int64)
    np.cumsum(used.sum(axis=1), out=offsets[1:])
    return offsets, table[used].astype(np.int32)


def ragged(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(row, step) of every element when row i has ``counts[i]`` elements.

    >>> ragged(np.array([2, 0, 1]))
    (array([0, 0, 2]), array([0, 1, 0]))
    """
    row = np.repeat(np.arange(len(counts)), counts)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)


class ShortestPath:
    """Breadth-first search from every asked destination; next-link tables of recent destinations are kept.

    Args:
        ties: which of several next links on shortest paths is taken. ``lowest``: the lowest link id, the same for all.
            ``spread``: chosen by a fixed hash of destination and node, so that parallel spines share the traffic as
            under per-destination ECMP.
        host_forwarding: whether a host may carry the traffic of others (a ring of GPUs needs it).
    """

    by_hops = True  #: it knows no other length: any route of as many links is as good (see topology/fabric.py)

    def __init__(
        self,
        node_names: Sequence[str],
        hosts: int,
        link_src: NDArray[np.int32],
        link_dst: NDArray[np.int32],
        *,
        ties: Literal["lowest", "spread"] = "lowest",
        host_forwarding: bool = True,
    ) -> None:
        self.node_names, self.hosts, self.ties, self.host_forwarding = node_names, hosts, ties, host_forwarding
        self.link_src, self.link_dst = link_src, link_dst
        self._into = np.argsort(link_dst, kind="stable").astype(np.int32)
        self._into_ptr = np.searchsorted(link_dst[self._into], np.arange(len(node_names) + 1)).astype(np.int64)
        self._kept: dict[int, tuple[_Table, _Table]] = {}

    def hops(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int64]:
        """Links between the pairs. Raises TopologyError when one cannot be reached."""
        counts = np.zeros(len(src), np.int64)
        for rows, at, distance, _ in self._batches(dst):
            counts[rows] = distance[at, src[rows]]
        self._refuse_unreachable(src, dst, counts)
        return counts

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> Paths:
        """See :attr:`Topology.router`. Raises TopologyError when a destination cannot be reached."""
        counts = np.zeros(len(src), np.int64)
        walked = []
        for rows, at, distance, following in self._batches(dst):
            counts[rows] = distance[at, src[rows]]
            self._refuse_unreachable(src[rows], dst[rows], counts[rows])
            row, step = ragged(counts[rows])
            links = np.empty(len(row), np.int32)
            first = np.cumsum(counts[rows]) - counts[rows]
            here, live, taken = src[rows].copy(), np.flatnonzero(counts[rows]), 0
            while len(live):
                links[first[live] + taken] = link = following[at[live], here[live]]
                here[live] = self.link_dst[link]
                taken += 1
                live = live[counts[rows[live]] > taken]
            walked.append((rows[row], step, links))
        offsets = np.zeros(len(src) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        result = np.empty(offsets[-1], np.int32)
        for row, step, links in walked:
            result[offsets[row] + step] = links
        return offsets, result

    def _batches(self, dst: NDArray[np.int32]) -> Iterator[tuple[_Rows, _Rows, _Table, _Table]]:
        """(rows of dst, index of their destinations in the tables, distances, next links), a bounded number at a time."""
        wanted, which = np.unique(dst, return_inverse=True)
        size = max(1, _BATCH_CELLS // len(self.node_names))
        for start in range(0, len(wanted), size):
            batch = wanted[start : start + size]
            rows = np.flatnonzero((which >= start) & (which < start + size))
            yield (rows, which[rows] - start, *self._tables_of(batch))

    def _tables_of(self, destinations: NDArray[np.int32]) -> tuple[_Table, _Table]:
        missing = np.array([d for d in destinations.tolist() if d not in self._kept], np.int32)
        found = dict(zip(missing.tolist(), zip(*self._search(missing), strict=True), strict=True)) if len(missing) else {}
        rows = [found[d] if d in found else self._kept[d] for d in destinations.tolist()]
        if (len(self._kept) + len(found)) * len(self.node_names) <= _KEPT_CELLS:
            self._kept.update(found)
        return np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])

    def _search(self, destinations: NDArray[np.int32]) -> tuple[_Table, _Table]:
        """Distance to every destination and the link to take there, for every node: one sweep for all destinations."""
        nodes, links = len(self.node_names), len(self.link_src)
        distance = np.full(len(destinations) * nodes, UNREACHABLE, np.int32)
        following = np.full(len(destinations) * nodes, -1, np.int32)
        cells = np.arange(len(destinations), dtype=np.int64) * nodes + destinations
        distance[cells] = 0
        hop = 0
        while len(cells):
            hop += 1
            node = cells % nodes
            row, step = ragged(self._into_ptr[node + 1] - self._into_ptr[node])
            link = self._into[self._into_ptr[node[row]] + step].astype(np.int64)
            cell = cells[row] - node[row] + self.link_src[link]
            new = distance[cell] == UNREACHABLE
            ordered = np.sort(cell[new] * links + link[new])
            reached = ordered // links
            first = np.flatnonzero(np.diff(reached, prepend=-1))  # NOTE: np.unique would sort once more
            count = np.diff(first, append=len(reached))
            cells = reached[first]
            if self.ties == "spread":
                first = first + mix(destinations[cells // nodes], cells % nodes) % count
            following[cells] = ordered[first] % links
            distance[cells] = hop
            if not self.host_forwarding:
                cells = cells[cells % nodes >= self.hosts]
        shape = (len(destinations), nodes)
        return distance.reshape(shape), following.reshape(shape)

    def _refuse_unreachable(self, src: NDArray[np.int32], dst: NDArray[np.int32], counts: NDArray[np.int64]) -> None:
        cut = np.flatnonzero(counts == UNREACHABLE)
        if not len(cut):
            return
        pairs = [f"{self.node_names[src[row]]} -> {self.node_names[dst[row]]}" for row in cut[:3]]
        raise TopologyError(
            f"no path for {len(cut)} of {len(src)} pairs: {', '.join(pairs)}{' ...' if len(cut) > 3 else ''}",
            expected="every host to reach every other",
            fix="Add links between the parts, or check the ranges in the links already there.",
        )


def components(nodes: int, link_src: NDArray[np.int32], link_dst: NDArray[np.int32]) -> NDArray[np.int32]:
    """The lowest node of the part of the graph that each node belongs to (links taken as undirected)."""
    label = np.arange(nodes, dtype=np.int32)
    while True:
        lower = label.copy()
        np.minimum.at(lower, link_src, label[link_dst])
        np.minimum.at(lower, link_dst, label[link_src])
        lower = lower[lower]  # NOTE: pointer jumping, so that a chain of n nodes takes log n sweeps, not n
        if np.array_equal(lower, label):
            return label
        label = lower


def mix(destination: NDArray[np.int32], node: NDArray[np.int64]) -> NDArray[np.int64]:
    """A fixed integer hash; neighbouring destinations and the switches of successive tiers get unrelated values."""
    value = destination.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    value += node.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    value ^= value >> np.uint64(29)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    return (value >> np.uint64(33)).astype(np.int64)
