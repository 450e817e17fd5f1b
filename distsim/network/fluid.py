"""Level ``fluid``: directed links are shared out max-min fairly among the flows on them, at every instant.

A row waits the latencies of its route, using no bandwidth, then moves its bytes at its max-min share of every link of the
route, and is delivered ``delay`` after the last byte. No packets, queues or losses: what congestion control that works, over
many packets, comes to. Rows of a group over one connection (from one host to another over one lane) are messages that move
one after the other, and have one share. Choose it where contention decides and messages are long; it costs an event per start
and end of a flow, whatever the bytes and the hops. A flow alone takes what ``analytic`` says, to the picosecond.

Sources: Bertsekas and Gallager, Data Networks (1992), 6.5.2 (max-min, water-filling); Casanova et al., "Versatile, scalable,
and accurate simulation of distributed applications and platforms" (2014), whose SimGrid has the same flow model.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distsim.errors import ConfigError, PartitionError, TopologyError
from distsim.network.fluid_links import FluidLinks
from distsim.network.injection import with_injection
from distsim.network.model import NEVER, Finished, LinkUsage, Transfers
from distsim.network.packets import Packets
from distsim.network.paths import PathTable
from distsim.network.pieces import Pieces
from distsim.network.transfers import refuse_bad
from distsim.params import Bandwidth, Parameters
from distsim.registry import register
from distsim.topology.graph import Topology
from distsim.units import parse_bandwidth


@register("network", "fluid")
class Fluid:
    """Max-min fair links. States of a row: waiting, latency, queued, moving, delay, delivered.

    Rates are found once an instant, with all that starts and ends in it, for the flows whose rates this can change. Use
    of links is counted when a row begins.

    Args:
        topology: hosts and links; bandwidth 0 is a link that is down: what is on it does not move.
        rtt_weighted: shares in proportion to 1 / (sum of the route's latencies), as SimGrid does unless told otherwise.
        cap: largest rate of one transfer, bytes/s or text.
        uncontended: a mask of links that limit a transfer to their bandwidth, but are not shared.
        injection: what a host's NIC sends at most, over all its ports, bytes/s or text (see network/injection.py).
        ordered: rows of a group between two hosts, over one lane, move one after the other, in the order in which they become
            due, as messages of one queue pair do; else all at once, each with a share.
        mtu: bytes of a packet; headers, acknowledgements and store-and-forward are then counted (see network/packets.py).
    """

    class Params(Parameters):
        """Options of ``--network fluid:...``."""

        rtt_weighted: bool = False
        cap: Bandwidth | None = None
        injection: Bandwidth | None = Field(None, description="what a host's NIC sends at most, over all its ports")
        ordered: bool = Field(True, description="a collective's transfers between two hosts move one after the other")
        mtu: Annotated[int, Field(ge=64)] | None = Field(None, description="bytes of a packet: what packets cost is added")

    def __init__(
        self, topology: Topology, *, rtt_weighted: bool = False, cap: str | float | None = None,
        uncontended: NDArray[np.bool_] | None = None, injection: str | float | None = None, ordered: bool = True,
        mtu: int | None = None,
    ) -> None:  # fmt: skip
        self._mtu = mtu
        self._injection = None if injection is None else parse_bandwidth(injection)
        self._real_links = topology.links
        shared = np.ones(topology.links, dtype=np.bool_) if uncontended is None else ~np.asarray(uncontended, dtype=np.bool_)
        if len(shared) != topology.links:
            raise ConfigError(
                f"the mask of uncontended links has {len(shared)} entries", expected=f"{topology.links}, one a link"
            )
        topology = self._topology = self._as_built(topology)
        shared = np.append(shared, np.ones(topology.links - self._real_links, dtype=np.bool_))
        self._pieces = Pieces(topology)
        self._packets = None if mtu is None else Packets(topology, mtu)
        self._links = FluidLinks(
            PathTable(topology), shared, weighted=rtt_weighted, cap=math.inf if cap is None else parse_bandwidth(cap),
            ordered=ordered,
        )  # fmt: skip
        self.now = 0  #: where the last run stopped
        self.retransmitted = 0  #: bytes lost on dead links: none, what has been moved stays moved
        self._started = 0

    @property
    def solves(self) -> int:
        """How often rates have been found so far."""
        return self._links.solves

    @property
    def delivered(self) -> int:
        """Rows delivered so far, of all groups."""
        return self._links.delivered

    @property
    def events(self) -> int:
        """How often rows have become due (latencies over), or been delivered, so far."""
        return self._links.events

    def start(self, transfers: Transfers, at: int) -> int:
        """See NetworkModel. Raises ConfigError on columns that are no DAG of transfers of this topology, or a past ``at``;
        TopologyError where there is no route."""
        if not self.now <= at < NEVER:
            raise ConfigError(f"a group cannot start at {at} ps", expected=f"{self.now} ps (now) or later")
        refuse_bad(transfers, self._topology)
        transfers = self._pieces(transfers)
        if self._packets is not None:
            transfers = self._packets(transfers)
        self._links.admit(transfers, at, self._started)
        self._started += 1
        return self._started - 1

    def next_event(self) -> int:
        """See NetworkModel."""
        return self._links.next_event()

    def run_until(self, limit: int) -> list[Finished]:
        """See NetworkModel. Raises ConfigError when a time leaves the clock's range (2^62 ps)."""
        finished: list[Finished] = []
        if self.next_event() <= limit:
            finished, at = self._links.run(limit)
        self.now = at if finished else max(self.now, limit)
        return finished

    def change(self, topology: Topology) -> None:
        """From now on links and routes are those of ``topology``: the same nodes and link ids; bandwidths, latencies and router
        may differ, and a link of bandwidth 0 is down.

        Bytes that have moved stay moved. What is under way goes on at new rates where its route stays, else with the bytes
        that are left over the new route, whose latencies it waits for; their use is moved there. Where a link is down and still
        on the route, it stands until the next change.

        Raises:
            ConfigError: other hosts or links, or fewer ways than rows under way have been told to take.
            PartitionError: a row that has not been delivered has no route; nothing has changed then.
        """
        topology = self._as_built(topology)
        if (topology.hosts, topology.links) != (self._topology.hosts, self._topology.links):
            raise ConfigError("links change to those of another topology", where=topology.spec, expected=self._topology.spec)
        if topology.ways < self._topology.ways:
            raise ConfigError(
                f"the changed topology has {topology.ways} ways between hosts", expected=f"{self._topology.ways}, as before"
            )
        try:
            self._links.change(PathTable(topology), self.now)
        except TopologyError as error:
            raise PartitionError(error.what, where=error.where, expected=error.expected, fix=error.fix) from None
        self._topology = topology
        self._pieces = self._pieces.on(topology)
        self._packets = None if self._mtu is None else Packets(topology, self._mtu)

    def usage(self) -> LinkUsage:
        """See NetworkModel."""
        usage = self._links.usage()
        return LinkUsage(bytes=usage.bytes[: self._real_links], busy=usage.busy[: self._real_links])

    def _as_built(self, topology: Topology) -> Topology:
        """The topology with the links that the level adds."""
        return topology if self._injection is None else with_injection(topology, self._injection)
