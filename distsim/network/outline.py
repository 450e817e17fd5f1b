"""Which links a DAG of transfers needs, and its *shape*: what remains of it when hosts and links lose their names.

Two DAGs of one shape (rings of eight on eight leaves, say) do the same on idle links, so what one of them does need only be
found out once. The shape is the digest of a canonical spelling: rows with their dependencies, bytes and delays; pairs, hosts
and links numbered by first use; bandwidth and latency of those links.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.kernel.jit import kernel
from distsim.network.answer import Answer
from distsim.network.columns import Columns
from distsim.network.model import Transfers
from distsim.network.paths import PathTable
from distsim.network.transfers import forward_dependency, refuse_bad
from distsim.topology.graph import Topology

_REMEMBER = 2_000_000  # hosts and links in remembered shapes, all together (about 50 bytes each)


@dataclass(frozen=True, slots=True, eq=False)
class Alone:
    """What all DAGs of a shape do on idle links. Hosts and links in order of first use."""

    duration: int  #: ps
    ends: tuple[int, ...]  #: ps from the start to the last delivery of every host
    sent: NDArray[np.int64]  #: bytes over every link
    busy: NDArray[np.int64]  #: ps that every link sends


@dataclass(slots=True, eq=False)
class Shape:
    """All DAGs of one spelling."""

    alone: Alone | None = None  #: once it has been tried out
    endless: bool = False  #: tried out in vain: it leaves the clock's range
    leased: int = 0  #: how often
    revoked: int = 0  #: how many of those leases


@dataclass(slots=True, eq=False)
class Outline:
    """Where one DAG is, and its shape."""

    shape: Shape
    rows: int
    hosts: list[int]  #: in order of first use
    links: NDArray[np.int64]  #: in order of first use
    mask: int  #: bit l is set if it uses link l
    least: int  #: ps that it takes in any case: the shortest latency among its links
    answer: Answer | None = None  #: the shape's, on these hosts and links


@kernel
def spell(
    stamp: int, src: Any, dst: Any, dep_ptr: Any, dep: Any, pair: Any, first: Any, path_links: Any, row_label: Any, text: Any,
    pair_seen: Any, pair_label: Any, pair_used: Any, link_seen: Any, link_label: Any, link_used: Any,
    host_seen: Any, host_label: Any, host_used: Any,
) -> tuple[int, int, int, int]:  # fmt: skip
    """Number pairs, hosts and links by first use. ``row_label`` becomes the pair of every row; ``text`` says of every pair its
    two hosts, the length of its route and the links on it. ``stamp`` is new for every call; the ``used`` columns list what was
    met. Returns (length of text, hosts, links, pairs); the first is -1 - row where a dependency is not an earlier row."""
    pairs = 0
    hosts = 0
    links = 0
    length = 0
    for row in range(len(src)):
        for at in range(dep_ptr[row], dep_ptr[row + 1]):
            if dep[at] < 0 or dep[at] >= row:
                return -1 - row, hosts, links, pairs
        route = pair[row]
        if pair_seen[route] != stamp:
            pair_seen[route] = stamp
            pair_label[route] = pairs
            pair_used[pairs] = route
            pairs += 1
            for side in range(2):
                host = dst[row] if side else src[row]
                if host_seen[host] != stamp:
                    host_seen[host] = stamp
                    host_label[host] = hosts
                    host_used[hosts] = host
                    hosts += 1
                text[length] = host_label[host]
                length += 1
            text[length] = first[route + 1] - first[route]
            length += 1
            for at in range(first[route], first[route + 1]):
                link = path_links[at]
                if link_seen[link] != stamp:
                    link_seen[link] = stamp
                    link_label[link] = links
                    link_used[links] = link
                    links += 1
                text[length] = link_label[link]
                length += 1
        row_label[row] = pair_label[route]
    return length, hosts, links, pairs


class Outlines:
    """Draws outlines, and remembers shapes (the oldest are forgotten all at once when they are too many)."""

    def __init__(self, topology: Topology, paths: PathTable) -> None:
        self._topology = topology
        self._paths = paths
        self._work = 0
        self._stamp = 0
        self._shapes: dict[bytes, Shape] = {}
        self._held = 0
        self._rows = Columns(label="i4")
        self._text = Columns(label="i4")
        self._pairs = Columns(seen="i8", label="i4", used="i4")
        self._links = Columns(topology.links, seen="i8", label="i4", used="i4")
        self._hosts = Columns(topology.hosts, seen="i8", label="i4", used="i4")

    def of(self, transfers: Transfers) -> Outline:
        """The outline of a DAG. Raises ConfigError on columns that are no DAG of transfers of this topology, TopologyError
        where there is no route."""
        refuse_bad(transfers, self._topology)
        rows = len(transfers.src)
        self._work += 4 * rows
        run, compiled = spell.for_work(self._work)
        if compiled or self._paths.compiled:
            for known in (self._paths, self._rows, self._text, self._pairs, self._links, self._hosts):
                known.compile()
            run = spell.compiled
        src, dst, _, dep_ptr, dep, _ = transfers.columns()
        if not self._paths.compiled:
            src, dst, dep_ptr, dep = (column.tolist() for column in (src, dst, dep_ptr, dep))
        pair = self._paths.numbers(src, dst)
        self._rows.reserve(rows)
        self._pairs.reserve(self._paths.count)
        self._text.reserve(3 * self._paths.count + self._paths.links.rows)
        self._stamp += 1
        length, hosts, links, _ = run(
            self._stamp, src, dst, dep_ptr, dep, pair, self._paths.pairs["first"], self._paths.links["id"],
            *self._rows.all(), *self._text.all(), *self._pairs.all(), *self._links.all(), *self._hosts.all(),
        )  # fmt: skip
        if length < 0:
            raise forward_dependency(-1 - length)
        used = np.array(self._links["used"][:links], dtype=np.int64)
        spelling = [self._rows["label"][:rows], self._text["label"][:length]]
        return Outline(
            self._shape(transfers, spelling, used, hosts), rows, [int(host) for host in self._hosts["used"][:hosts]], used,
            self._mask(used), int(self._topology.link_latency[used].min()) if links else 0,
        )  # fmt: skip

    def _shape(self, transfers: Transfers, spelling: list[Any], links: NDArray[np.int64], hosts: int) -> Shape:
        digest = hashlib.sha1(usedforsecurity=False)  # the fastest where processors have it
        # NOTE: with the types fixed, these three and dep_ptr say how long every column is: no two spellings look alike.
        digest.update(b"%d %d %d " % (len(transfers.src), len(spelling[1]), len(links)))
        for labels in spelling:
            digest.update(np.asarray(labels, dtype=np.int32).data)
        for column in (transfers.dep_ptr, transfers.bytes, transfers.delay):
            digest.update(np.ascontiguousarray(column, dtype=np.int64).data)
        digest.update(np.ascontiguousarray(transfers.dep, dtype=np.int32).data)
        digest.update(self._topology.link_bandwidth[links].data)
        digest.update(self._topology.link_latency[links].data)
        shape = self._shapes.get(digest.digest())
        if shape is None:
            self._held += hosts + len(links) + 10
            if self._held > _REMEMBER:
                self._shapes.clear()
                self._held = hosts + len(links) + 10
            shape = self._shapes[digest.digest()] = Shape()
        return shape

    def _mask(self, links: NDArray[np.int64]) -> int:
        if len(links) <= 64:
            mask = 0
            for link in links.tolist():
                mask |= 1 << link
            return mask
        bits = np.zeros(self._topology.links, dtype=np.uint8)
        bits[links] = 1
        return int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little")
