"""What packets cost that flows do not: headers, acknowledgements and one packet's store-and-forward on every hop.

The level ``fluid`` moves bytes; with ``--network fluid:mtu=4096`` they go in packets of so many bytes. Every packet carries a
header and is answered by an acknowledgement and a credit for the next one, HEADER bytes each (csg-htsim, ndppacket.h and
eqdspacket.h: ACKSIZE = 64 for all three). Ports of a training fabric send about as much as they receive, so that all three are
charged to the transfer itself. Switches store a packet whole before they pass it on: one packet's time a hop, the slowest link
left out, as that is where the bytes themselves are counted.
"""

from __future__ import annotations

import dataclasses
import weakref

import numpy as np

from distsim.network.model import Transfers
from distsim.network.pattern import by_first_use
from distsim.topology.graph import Topology
from distsim.units import PS_PER_S

HEADER = 64  #: bytes of a header, of an acknowledgement and of a credit
_OVERHEAD = 3 * HEADER


class Packets:
    """A rewriting of what a network is to move: bytes grow by what goes with them, delays by the hops of one packet."""

    def __init__(self, topology: Topology, mtu: int) -> None:
        self._topology, self._mtu = topology, mtu
        self._known: weakref.WeakKeyDictionary[Transfers, Transfers] = weakref.WeakKeyDictionary()

    def __call__(self, transfers: Transfers) -> Transfers:
        """The same rows in packets. Raises TopologyError where there is no route."""
        found = self._known.get(transfers)
        if found is None:
            size = transfers.bytes + _OVERHEAD * -(-transfers.bytes // self._mtu)
            packet = np.where(transfers.bytes > 0, np.minimum(transfers.bytes, self._mtu) + HEADER, 0)
            delay = transfers.delay + np.rint(packet * self._hops(transfers)).astype(np.int64)
            found = dataclasses.replace(transfers, bytes=size, delay=delay, pattern=None, members=None, alone=None)
            self._known[transfers] = found
        return found

    def _hops(self, transfers: Transfers) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """ps for which every byte of a packet of every row is stored on its way."""
        hosts, ways = self._topology.hosts, self._topology.ways
        lane = np.zeros(len(transfers.src), np.int64) if transfers.lane is None else transfers.lane.astype(np.int64)
        key = (transfers.src.astype(np.int64) * hosts + transfers.dst) * (ways + 1) + lane + 1
        row_pair, pairs = by_first_use(key, hosts * hosts * (ways + 1))
        ends, chosen = pairs // (ways + 1), pairs % (ways + 1) - 1
        src, dst = ends // hosts, np.where(chosen < 0, ends // hosts, ends % hosts)  # no lane: over no link
        offsets, links = self._topology.paths(
            src.astype(np.int32), dst.astype(np.int32), np.maximum(chosen, 0).astype(np.int32)
        )
        took = PS_PER_S / self._topology.link_bandwidth[links]
        length = np.diff(offsets)
        stored = np.zeros(len(pairs))
        some = length > 0
        if some.any():
            first = offsets[:-1][some]
            stored[some] = np.add.reduceat(took, first) - np.maximum.reduceat(took, first)
        return np.asarray(stored[row_pair], np.float64)
