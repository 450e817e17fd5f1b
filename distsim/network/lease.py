"""Leases: a group that has its links to itself costs no events; its answer comes from memory.

A group whose links nobody else uses does what it does alone, and DAGs of one shape do the same alone. So it gets a *lease* of
its links and its end is read off the shape. The first run of a shape takes place aside, on a scratch network. When another
group starts on a leased link, the lease is *revoked*: the group is handed to the live network as of its own start. Nobody has
met its links since, so its past can be made up for there in any order, and from then on both contend like any others. Leases
never change an answer, only its cost.
"""

from __future__ import annotations

import heapq
import weakref
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distsim.errors import ConfigError
from distsim.network.answer import Ledger
from distsim.network.episode import Episodes
from distsim.network.fifo import FifoLinks
from distsim.network.injection import with_injection
from distsim.network.model import NEVER, Finished, LinkUsage, Transfers
from distsim.network.outline import Alone, Outline, Outlines
from distsim.network.paths import PathTable
from distsim.network.pieces import Pieces
from distsim.params import Bandwidth, Count, Parameters, Size
from distsim.topology.graph import Topology

_SCRATCH_ENDS = 1 << 60  # ps: from here on the scratch network is replaced by a new one
_PATIENCE = 2  # revocations of a small shape that are forgiven; beyond, half of its leases must hold
_WASTE = 4  # new shapes are tried out while at most one row in so many was tried out in vain


class FifoParameters(Parameters):
    """Options of the levels with FIFO links: ``chunk:size=1MiB,credits=8``."""

    size: Size | None = Field(None, description="transfers of more bytes are cut into even chunks of at most so many")
    credits: Count | None = Field(None, description="chunks in flight per connection (source, destination, lane) of a group")
    injection: Bandwidth | None = Field(None, description="what a host's NIC sends at most, over all its ports")


class _Lease(NamedTuple):
    """A group that runs on links of its own. Ordered by (end, group)."""

    end: int  #: ps; not before that while the shape has not been tried out
    group: int
    at: int  #: ps, its start
    transfers: Transfers
    outline: Outline


class Leased:
    """FIFO links (see :class:`~distsim.network.fifo.FifoLinks`) with leases.

    A group is leased, live (among others, in events), or finished. ``leases=False`` makes every group live: same answers.
    ``size`` (bytes of a chunk), ``credits`` (chunks in flight per connection): see :class:`~distsim.network.pieces.Pieces`;
    ``injection`` (bytes/s of a host's NIC): see :mod:`~distsim.network.injection`; ``uncontended``, a mask of links on which
    nobody waits for others: see FifoLinks. Groups may share those and keep their leases.
    """

    def __init__(
        self, topology: Topology, *, cut_through: bool, leases: bool = True, size: int | None = None,
        credits: int | None = None, injection: float | None = None, uncontended: NDArray[np.bool_] | None = None,
    ) -> None:  # fmt: skip
        self.stores = 0.0 if cut_through else float("inf") if size is None else float(size)
        self._real_links = topology.links
        self._injection = injection
        if uncontended is not None:
            uncontended = np.asarray(uncontended, dtype=np.bool_)
            if len(uncontended) != topology.links:
                raise ConfigError(
                    f"the mask of uncontended links has {len(uncontended)} entries", expected=f"{topology.links}, one a link"
                )
        self._down = 0  # links that are down, as a mask
        topology = self._as_built(topology)
        self._pieces = Pieces(topology, size=size, credits=credits)
        if uncontended is not None:  # links that the level adds are shared
            uncontended = np.append(uncontended, np.zeros(topology.links - self._real_links, dtype=np.bool_))
        self._lone = uncontended
        self._topology = topology
        self._cut_through = cut_through
        self._leases = leases
        self._paths = PathTable(topology)
        live = FifoLinks(topology, cut_through=cut_through, paths=self._paths, uncontended=uncontended)
        self._live = Episodes(live, topology, remember=leases)
        self._scratch: FifoLinks | None = None
        self._outlines = Outlines(topology, self._paths, self._lone)
        self._known: weakref.WeakKeyDictionary[Transfers, Outline] = weakref.WeakKeyDictionary()
        self._ledger = Ledger(topology.links)
        self._now = 0
        self._next = NEVER
        self._started = 0
        self._begun = False  # whether a group has started since the last run
        self._untried: list[_Lease] = []  # of shapes that have not been tried out when they started
        self._ends: list[_Lease] = []  # heap of all others
        self._held = 0  # links under lease, as a mask
        self._crowd: dict[int, int] = {}  # live group -> its links, as a mask
        self._crowded = 0  # links of live groups, as a mask; links of groups that have finished may linger
        self._gone = 0  # live groups that have finished since that was last added up
        self._rows = 0  # rows of all groups ever
        self._wasted = 0  # rows tried out for a lease that was revoked

    def start(self, transfers: Transfers, at: int) -> int:
        """See NetworkModel. Raises ConfigError on columns that are no DAG of transfers of this topology, or a past ``at``;
        TopologyError where there is no route."""
        if not self._now <= at < NEVER:
            raise ConfigError(f"a group cannot start at {at} ps", expected=f"{self._now} ps (now) or later")
        transfers = self._pieces(transfers)
        outline = self._known.get(transfers)
        if outline is None:
            outline = self._known[transfers] = self._outlines.of(transfers)
        group = self._started
        shape, mask = outline.shape, outline.mask
        self._rows += outline.rows
        if mask & (self._held | self._crowded | self._down) or not self._worth_it(outline):
            self._live.admit(transfers, at, group, outline)
            self._join(group, mask)
            if mask & self._held:
                self._revoke(mask)
            self._next = self._now
        else:
            shape.leased += 1
            self._held |= mask
            if shape.alone is None:
                # NOTE: tried out once it might end, so that whatever starts in the same instant on its links comes in time.
                end = at + outline.least
                self._untried.append(_Lease(end, group, at, transfers, outline))
                self._next = min(self._next, end)
            elif (end := at + outline.placed().duration) < NEVER:
                heapq.heappush(self._ends, _Lease(end, group, at, transfers, outline))
                self._next = min(self._next, end)
            else:
                self._go_live(_Lease(at, group, at, transfers, outline))
        self._started = group + 1
        self._begun = True
        return group

    def _as_built(self, topology: Topology) -> Topology:
        """The topology with the links that the level adds."""
        return topology if self._injection is None else with_injection(topology, self._injection)

    def next_event(self) -> int:
        """See NetworkModel: the next end of a lease, or the next event of a group that is live."""
        return self._next

    def run_until(self, limit: int) -> list[Finished]:
        """See NetworkModel. Raises ConfigError when a time leaves the clock's range (2^62 ps)."""
        self._begun = False
        if limit < self._next:
            self._now = max(self._now, limit)
            if self._crowd:  # nothing is due, but it may be asked for the use of links as of now
                self._live.run_until(limit)
            return []
        if self._untried:
            self._try_out()
        ends = self._ends
        end = ends[0].end if ends else NEVER
        stop = min(end, limit)
        finished: list[Finished] = []
        if self._crowd:
            finished = self._live.run_until(stop)
            for done in finished:
                stop = done.at
                self._leave(done.group)
        if end == stop:
            alone = len(finished)
            while ends and ends[0].end == end:
                lease = heapq.heappop(ends)
                self._held ^= lease.outline.mask
                answer = lease.outline.placed()
                self._ledger.count(answer)
                finished.append(answer.finished(lease.group, lease.at))
            if alone:
                finished.sort(key=lambda done: done.group)
        self._now = stop if finished else max(self._now, limit)
        self._look_ahead()
        return finished

    def change(self, topology: Topology) -> None:
        """See NetworkModel and FifoLinks.change. Leases are revoked; what is known of shapes is of other links."""
        if self._ends or self._untried:
            self._revoke(None)
            self._live.run_until(self._now - self._begun)
        if self._crowd:
            self._live.realise()  # NOTE: what is under way is replayed over the routes that it took, before they change
        topology = self._as_built(topology)
        self._topology, self._scratch = topology, None
        self._paths.change(topology)
        self._outlines = Outlines(topology, self._paths, self._lone)
        self._known.clear()
        self._pieces = self._pieces.on(topology)
        self._live.change(topology)
        # NOTE: routes of what is under way have changed: until it is done, all links are taken to be in use
        every = (1 << topology.links) - 1
        self._crowd = dict.fromkeys(self._crowd, every)
        self._crowded = every if self._crowd else 0
        self._down = sum(1 << link for link in np.flatnonzero(topology.link_bandwidth == 0).tolist())
        self._look_ahead()

    @property
    def retransmitted(self) -> int:
        """See NetworkModel."""
        return self._live.retransmitted

    @property
    def events(self) -> int:
        """Events handled among live groups so far (see FifoLinks); what leases and episodes answer from memory costs none."""
        return self._live.events

    def usage(self) -> LinkUsage:
        """See NetworkModel; a transfer counts when it joins a link's queue. To know that, leases under way are revoked."""
        if self._ends or self._untried:
            self._revoke(None)
            # NOTE: whatever ends by now has been reported; only what has begun since the last run is not due yet.
            self._live.run_until(self._now - self._begun)
            self._look_ahead()
        whole, live = self._ledger.usage(), self._live.usage()
        sent, busy = whole.bytes + live.bytes, whole.busy + live.busy
        return LinkUsage(bytes=sent[: self._real_links], busy=busy[: self._real_links])

    def _worth_it(self, outline: Outline) -> bool:
        """Whether to try a lease. Only cost hangs on this, never an answer."""
        shape = outline.shape
        if shape.alone is None and (shape.endless or self._wasted * _WASTE > self._rows):
            return False
        # NOTE: what has been tried out costs a lease nothing but a look through all others when it is revoked.
        known = shape.alone is not None and outline.rows > len(self._ends)
        return self._leases and (known or shape.revoked <= shape.leased // 2 + _PATIENCE)

    def _try_out(self) -> None:
        """Find out what the untried leases do, each shape once, and note their ends."""
        for lease in self._untried:
            outline = lease.outline
            shape = outline.shape
            if shape.alone is None and not shape.endless:
                self._run_alone(lease.transfers, outline)
            alone = shape.alone
            if alone is None or lease.at + alone.duration >= NEVER:
                self._go_live(lease)
                continue
            heapq.heappush(self._ends, lease._replace(end=lease.at + alone.duration))
        self._untried.clear()

    def _run_alone(self, transfers: Transfers, outline: Outline) -> None:
        """Fill in the shape."""
        if self._scratch is None or self._scratch.now > _SCRATCH_ENDS:
            self._scratch = FifoLinks(self._topology, cut_through=self._cut_through, paths=self._paths, uncontended=self._lone)
        scratch, shape = self._scratch, outline.shape
        start = scratch.now
        sent, busy = scratch.used(outline.links)
        scratch.admit(transfers, start, 0)
        try:
            (done,) = scratch.run_until(NEVER)
        except ConfigError:  # it leaves the clock's range, which the live network is going to say in its time
            self._scratch = None
            shape.endless = True
            return
        sent_then, busy_then = scratch.used(outline.links)
        ends = tuple(done.host_end[host] - start for host in outline.hosts)
        shape.alone = Alone(done.at - start, ends, sent_then - sent, busy_then - busy)

    def _revoke(self, mask: int | None) -> None:
        """Make the leases on links of ``mask`` live; all, with None: those on uncontended links alone too."""
        for leases in (self._ends, self._untried):
            lost = [lease for lease in leases if mask is None or lease.outline.mask & mask]
            if lost:
                leases[:] = [] if mask is None else [lease for lease in leases if not lease.outline.mask & mask]
            for lease in lost:
                shape = lease.outline.shape
                shape.revoked += 1
                if shape.revoked == shape.leased and lease.outline.answer is not None:
                    self._wasted += lease.outline.rows
                self._go_live(lease)
        heapq.heapify(self._ends)

    def _go_live(self, lease: _Lease) -> None:
        """Hand a leased group to the live network, as of its start."""
        self._held ^= lease.outline.mask
        self._live.admit(lease.transfers, lease.at, lease.group, lease.outline)
        self._join(lease.group, lease.outline.mask)

    def _join(self, group: int, mask: int) -> None:
        self._crowd[group] = mask
        self._crowded |= mask

    def _leave(self, group: int) -> None:
        """A live group has finished. Its links are free again from here on, or a few groups later."""
        del self._crowd[group]
        self._gone += 1
        if self._gone >= len(self._crowd):
            self._gone = 0
            self._crowded = 0
            for mask in self._crowd.values():
                self._crowded |= mask

    def _look_ahead(self) -> None:
        """Note when something happens next."""
        self._next = self._ends[0].end if self._ends else NEVER
        for lease in self._untried:
            self._next = min(self._next, lease.end)
        if self._crowd:
            self._next = min(self._next, self._live.next_event())
