"""Shortest paths by hops where hosts carry nothing for others, fast for thousands of hosts.

The answer is that of :class:`~distsim.topology.routing.ShortestPath` with ``ties="spread", host_forwarding=False``, link for
link. It is found between switches: hosts that hang on the same switches are one destination to the search, and only the last
choice among equally long ways (a hash of the destination and the node) tells them apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distsim.errors import TopologyError
from distsim.topology.graph import Paths
from distsim.topology.routing import mix, ragged

_Ints = NDArray[np.int64]
_FAR = int(np.iinfo(np.int16).max)
_BATCH_CELLS = 1 << 22  #: (destination class, node) cells searched at once
_KEPT_CELLS = 1 << 26  #: cells kept for later calls, 2 bytes each


class SwitchPaths:
    """A router for any graph of hosts and switches."""

    host_forwarding = False  #: no host carries the traffic of others

    def __init__(
        self, node_names: Sequence[str], hosts: int, link_src: NDArray[np.int32], link_dst: NDArray[np.int32]
    ) -> None:
        """Links from host to host are not allowed: such hosts would have to be switches."""
        self._names, self._hosts, self._nodes, self._dst = node_names, hosts, len(node_names), link_dst
        up, down = link_src < hosts, link_dst < hosts
        self._up, self._up_ptr = _rows(np.flatnonzero(up), link_src, hosts)
        self._between, self._between_ptr = _rows(np.flatnonzero(~up & ~down), link_src, self._nodes)
        falls = np.flatnonzero(down & ~up)
        key = link_dst[falls].astype(np.int64) * self._nodes + link_src[falls]  # of (host, switch)
        order = np.argsort(key, kind="stable")
        self._down, self._down_key = falls[order], key[order]
        self._classes, self._members = self._attachments()
        self._table: dict[int, NDArray[np.int16]] = {}

    def _attachments(self) -> tuple[_Ints, list[_Ints]]:
        """The class of every host, and the switches that the hosts of each class hang on."""
        host, switch = np.divmod(np.unique(self._down_key), self._nodes)
        bounds = np.searchsorted(host, np.arange(self._hosts + 1))
        known: dict[bytes, int] = {}
        members: list[_Ints] = []
        classes = np.zeros(self._hosts, np.int64)
        for one in range(self._hosts):
            attached = switch[bounds[one] : bounds[one + 1]]
            number = classes[one] = known.setdefault(attached.tobytes(), len(members))
            if number == len(members):
                members.append(attached)
        return classes, members

    def hops(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int64]:
        """Links between the pairs. Raises TopologyError where one cannot be reached."""
        counts = np.zeros(len(src), np.int64)
        for rows, at, table in self._batches(src, dst):
            counts[rows] = self._first(src[rows], dst[rows], at, table)[1]
        self._refuse_unreachable(src, dst, counts)
        return counts

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> Paths:
        """See :attr:`Topology.router`. Raises TopologyError where a destination cannot be reached."""
        counts = np.zeros(len(src), np.int64)
        walked = []
        for rows, at, table in self._batches(src, dst):
            link, far = self._first(src[rows], dst[rows], at, table)
            self._refuse_unreachable(src[rows], dst[rows], far)
            counts[rows] = far
            step = 0
            while len(rows):
                walked.append((rows, step, link))
                left = np.flatnonzero(far > step + 1)
                rows, at, far, here = rows[left], at[left], far[left], self._dst[link[left]]
                step += 1
                last = far == step + 1
                link = np.empty(len(rows), np.int64)
                link[last] = self._last(here[last], dst[rows[last]])
                link[~last] = self._next(here[~last], dst[rows[~last]], at[~last], table)
        offsets = np.zeros(len(src) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        result = np.empty(int(offsets[-1]), np.int32)
        for rows, step, link in walked:
            result[offsets[rows] + step] = link
        return offsets, result

    # --- search ---------------------------------------------------------------------------------------------------------

    def _batches(self, src: NDArray[np.int32], dst: NDArray[np.int32]):  # type: ignore[no-untyped-def]
        """(rows of different hosts, row of the table for each, table of hops to the class from every node), bounded parts."""
        apart = np.flatnonzero(src != dst)
        wanted, which = np.unique(self._classes[dst[apart]], return_inverse=True)
        size = max(1, _BATCH_CELLS // self._nodes)
        for start in range(0, len(wanted), size):
            chosen = (which >= start) & (which < start + size)
            yield apart[chosen], which[chosen] - start, self._tables(wanted[start : start + size])

    def _tables(self, classes: _Ints) -> NDArray[np.int16]:
        missing = [number for number in classes.tolist() if number not in self._table]
        found = dict(zip(missing, self._search(missing), strict=True)) if missing else {}
        rows = [found[number] if number in found else self._table[number] for number in classes.tolist()]
        if (len(self._table) + len(found)) * self._nodes <= _KEPT_CELLS:
            self._table.update(found)
        return np.stack(rows)

    def _search(self, classes: list[int]) -> NDArray[np.int16]:
        """Hops from every switch to the hosts of each class: one breadth-first sweep for all."""
        table = np.full(len(classes) * self._nodes, _FAR, np.int16)
        # cables are two-way, so that the links out of a switch lead to where those into it come from
        cells = np.concatenate([k * self._nodes + self._members[number] for k, number in enumerate(classes)])
        hop = 1
        while len(cells):
            table[cells] = hop
            node = cells % self._nodes
            row, step = ragged(self._between_ptr[node + 1] - self._between_ptr[node])
            link = self._between[self._between_ptr[node[row]] + step]
            near = cells[row] - node[row] + self._dst[link]
            cells = np.unique(near[table[near] == _FAR])
            hop += 1
        return table.reshape(len(classes), self._nodes)

    # --- choices --------------------------------------------------------------------------------------------------------

    def _first(
        self, src: NDArray[np.int32], dst: NDArray[np.int32], at: _Ints, table: NDArray[np.int16]
    ) -> tuple[_Ints, _Ints]:
        """(link out of the source, links to the destination) of every pair; _FAR + 1 links where there is no way."""
        row, step = ragged(self._up_ptr[src + 1] - self._up_ptr[src])
        link = self._up[self._up_ptr[src[row]] + step]
        far = table[at[row], self._dst[link]].astype(np.int64)
        least = np.full(len(src), _FAR, np.int64)
        np.minimum.at(least, row, far)
        chosen = np.flatnonzero((far == least[row]) & (far < _FAR))
        return _pick(link[chosen], row[chosen], len(src), mix(dst, src.astype(np.int64))), least + 1

    def _next(self, here: NDArray[np.int32], dst: NDArray[np.int32], at: _Ints, table: NDArray[np.int16]) -> _Ints:
        """Link from a switch to the next one."""
        if not len(here):
            return np.zeros(0, np.int64)
        place, which = np.unique(at * self._nodes + here, return_inverse=True)
        row_of, node = np.divmod(place, self._nodes)
        row, step = ragged(self._between_ptr[node + 1] - self._between_ptr[node])
        link = self._between[self._between_ptr[node[row]] + step]
        ok = np.flatnonzero(table[row_of[row], self._dst[link]] == table[row_of, node][row] - 1)
        return _pick(link[ok], row[ok], len(place), mix(dst, here.astype(np.int64)), which.ravel())

    def _last(self, here: NDArray[np.int32], dst: NDArray[np.int32]) -> _Ints:
        """Link from a switch to a host that hangs on it."""
        key = dst.astype(np.int64) * self._nodes + here
        first = np.searchsorted(self._down_key, key)
        count = np.searchsorted(self._down_key, key, side="right") - first
        return self._down[first + mix(dst, here.astype(np.int64)) % count]

    def _refuse_unreachable(self, src: NDArray[np.int32], dst: NDArray[np.int32], counts: _Ints) -> None:
        cut = np.flatnonzero(counts > _FAR)
        if len(cut):
            pairs = [f"{self._names[src[row]]} -> {self._names[dst[row]]}" for row in cut[:3]]
            raise TopologyError(
                f"no path for {len(cut)} of {len(src)} pairs: {', '.join(pairs)}{' ...' if len(cut) > 3 else ''}",
                expected="every host to reach every other without passing a third",
                fix="Add links between the parts, or check the ranges in the links already there.",
            )


def _rows(links: _Ints, link_src: NDArray[np.int32], nodes: int) -> tuple[_Ints, _Ints]:
    """The links by source, those of one source by number, and where those of each node begin."""
    ordered = links[np.argsort(link_src[links], kind="stable")]
    return ordered, np.searchsorted(link_src[ordered], np.arange(nodes + 1)).astype(np.int64)


def _pick(links: _Ints, row: _Ints, rows: int, value: _Ints, which: _Ints | None = None) -> _Ints:
    """One of the links of each row (rows ascending), chosen by ``value``; ``which`` maps values to rows."""
    count = np.bincount(row, minlength=rows)
    first = np.cumsum(count) - count
    at = np.arange(rows) if which is None else which
    chosen = first[at] + value % np.maximum(count[at], 1)
    return links[np.minimum(chosen, len(links) - 1)] if len(links) else np.zeros(len(at), np.int64)
