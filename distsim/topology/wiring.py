"""Laying cables: the one way in which builders make the link columns of a Topology."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distsim.errors import TopologyError
from distsim.topology.graph import Dimension, Paths, Topology
from distsim.units import parse_bandwidth, parse_time

MOST_LINKS = 100_000_000  #: beyond this the columns alone take more than 2 GB
MOST_NAMED = 2_000_000  #: nodes of a file: each has a name of its own


def refuse_many(count: int, what: str, where: str, most: int = MOST_NAMED) -> None:
    """Refuse more nodes or cables than a file can name one by one. Raises TopologyError."""
    if count > most:
        raise TopologyError(f"{count:,} {what} are too many", where=where, expected=f"at most {most:,} in a file")


def refuse_huge(cables: float) -> None:
    """Raise TopologyError when so many cables would not fit; builders ask before they make arrays."""
    if 2 * cables > MOST_LINKS:
        raise TopologyError(
            f"{2 * int(cables):,} links are too many", expected=f"at most {MOST_LINKS:,}", fix="Use fewer hosts, or switches."
        )


class Wiring:
    """Collects blocks of cables, in order; cable ``c`` becomes the links ``2c`` (first end to second) and ``2c + 1``."""

    def __init__(self) -> None:
        self.cables = 0
        self._blocks: list[tuple[NDArray[np.int32], NDArray[np.int32], float, int, int]] = []
        self._domains: dict[str, int] = {}

    def add(self, domain: str, ends: ArrayLike, other_ends: ArrayLike, bandwidth: str | float, latency: str | int) -> int:
        """Lay one cable between every ``ends[i]`` and ``other_ends[i]`` (broadcast against each other).

        Args:
            domain: name of the link class.
            bandwidth: bytes/s of each direction, or text such as ``400Gbps``.
            latency: ps of one hop, or text such as ``500ns``.

        Returns: the number of the first of these cables.
        """
        first = self.cables
        one, two = np.broadcast_arrays(np.asarray(ends, np.int32), np.asarray(other_ends, np.int32))
        self.cables += one.size
        rate = parse_bandwidth(bandwidth)
        delay = parse_time(latency) if isinstance(latency, str) else latency
        if one.size:
            number = self._domains.setdefault(domain, len(self._domains))
            self._blocks.append((one.ravel(), two.ravel(), rate, delay, number))
        return first

    def links(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Source and destination of every directed link laid so far."""
        src, dst = np.empty(2 * self.cables, np.int32), np.empty(2 * self.cables, np.int32)
        if self._blocks:
            src[0::2] = dst[1::2] = np.concatenate([block[0] for block in self._blocks])
            src[1::2] = dst[0::2] = np.concatenate([block[1] for block in self._blocks])
        return src, dst

    def topology(
        self,
        name: str,
        hosts: int,
        switch_names: Sequence[str],
        router: Callable[[NDArray[np.int32], NDArray[np.int32]], Paths],
        *,
        dimensions: tuple[Dimension, ...] = (),
        levels: tuple[int, ...] = (),
        positions: NDArray[np.float64] | None = None,
        bisection: float | None = None,
        host_names: Sequence[str] | None = None,
    ) -> Topology:
        """The finished Topology; hosts are called gpu0, gpu1 ... unless named. Its ``spec`` is its name until it is known."""
        src, dst = self.links()
        twice = [2 * block[0].size for block in self._blocks]
        return Topology(
            name=name,
            spec=name,
            hosts=hosts,
            node_names=(*(host_names or [f"gpu{host}" for host in range(hosts)]), *switch_names),
            link_src=src,
            link_dst=dst,
            link_bandwidth=np.repeat(np.array([block[2] for block in self._blocks], np.float64), twice),
            link_latency=np.repeat(np.array([block[3] for block in self._blocks], np.int64), twice),
            link_domain=np.repeat(np.array([block[4] for block in self._blocks], np.int16), twice),
            levels=levels,
            domains=tuple(self._domains),
            router=router,
            dimensions=dimensions,
            positions=positions,
            bisection=bisection,
        )
