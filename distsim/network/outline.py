"""Which links a DAG of transfers needs, and its *shape*: what remains of it when hosts and links lose their names.

Two DAGs of one shape (rings of eight on eight leaves, say) do the same on idle links, so what one of them does need only be
found out once. The shape is the digest of a canonical spelling: the DAG's pattern (see :mod:`~distsim.network.pattern`); hosts
and links of its pairs, numbered by first use; bandwidth and latency of those links. Where transfers choose among routes, the
links are those of all of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.network.answer import Answer
from distsim.network.model import Transfers
from distsim.network.paths import PathTable
from distsim.network.pattern import Pattern, by_first_use
from distsim.network.transfers import pair_hosts, refuse_strangers
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
    answer: Answer | None = None  #: the shape's, on these hosts and links, once asked for

    def placed(self) -> Answer:
        """What the shape, which has been tried out, does on these hosts and links."""
        if self.answer is None:
            alone = self.shape.alone
            assert alone is not None
            host_end = list(zip(self.hosts, alone.ends, strict=True))
            self.answer = Answer(alone.duration, host_end, self.links, alone.sent, alone.busy)
        return self.answer


class Outlines:
    """Draws outlines, and remembers shapes (the oldest are forgotten all at once when they are too many).

    ``uncontended`` masks links on which nobody waits for others: they are not in ``Outline.mask``, unless they are down."""

    def __init__(self, topology: Topology, paths: PathTable, uncontended: NDArray[np.bool_] | None = None) -> None:
        self._topology = topology
        self._paths = paths
        self._lone = uncontended
        self._shapes: dict[bytes, Shape] = {}
        self._held = 0

    def of(self, transfers: Transfers, whole: int | None = None) -> Outline:
        """The outline of a DAG; ``whole``: rows of that of which these are the parts, where it is the whole that has the shape.

        Raises ConfigError on columns that are no DAG of transfers of this topology, TopologyError where there is no route."""
        refuse_strangers(transfers, self._topology)
        pattern = transfers.pattern
        if pattern is None:
            pattern = Pattern.of(*[*transfers.columns(), transfers.lane])
            src, dst = pattern.src, pattern.dst
        else:
            src, dst = pair_hosts(transfers)
        length, route = self._paths.routes(src, dst, pattern.lane)
        host_labels, hosts = by_first_use(np.stack((src, dst), axis=1).reshape(-1), self._topology.hosts)
        link_labels, links = by_first_use(route, self._topology.links)
        latency = self._topology.link_latency[links]
        digest = hashlib.sha1(pattern.digest.encode(), usedforsecurity=False)
        # NOTE: the pattern's digest says how many pairs there are, ``length`` how many links: no two spellings look alike.
        for column in (host_labels, length, link_labels, self._topology.link_bandwidth[links], latency):
            digest.update(column.data)
        crowds = links
        if self._lone is not None:
            digest.update(self._lone[links].data)
            crowds = links[~self._lone[links] | (self._topology.link_bandwidth[links] == 0)]
        if whole is not None:
            digest.update(b"parts of %d" % whole)
        return Outline(
            self._shape(digest.digest(), len(hosts) + len(links)), len(pattern), hosts.tolist(), links, self._mask(crowds),
            int(latency.min()) if len(links) else 0,
        )  # fmt: skip

    def _shape(self, digest: bytes, size: int) -> Shape:
        shape = self._shapes.get(digest)
        if shape is None:
            self._held += size + 10
            if self._held > _REMEMBER:
                self._shapes.clear()
                self._held = size + 10
            shape = self._shapes[digest] = Shape()
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
