"""Level ``chunk``: directed links are FIFO queues, every transfer is a chunk that is stored and forwarded whole.

A chunk that reaches a link waits for those before it, keeps the link busy for ``ceil(bytes / bandwidth)`` ps and reaches
the next link (or its destination) one latency later. Choose it where contention decides: incast, shared uplinks, several
collectives at once. Cut large buffers into chunks (``Collective.chunks``): an uncut transfer pays its serialisation on every
hop. The same model as the congestion-aware analytical network of ASTRA-sim, for any topology.
"""

from __future__ import annotations

import numpy as np

from distsim.errors import ConfigError
from distsim.network import chunk_kernel
from distsim.network.columns import Blocks, Columns
from distsim.network.model import NEVER, Finished, LinkUsage, Transfers
from distsim.network.paths import PathTable
from distsim.network.transfers import forward_dependency, refuse_bad, too_long
from distsim.registry import register
from distsim.topology.graph import Topology


class _Group:
    """Where the rows of a live group are: (first, count) of its slots, dependents and host seats; its number."""

    __slots__ = ("hosts", "number", "room", "seats", "slots")

    def __init__(self, number: int, slots: tuple[int, int], room: tuple[int, int], seats: tuple[int, int], hosts: int) -> None:
        self.number, self.slots, self.room, self.seats, self.hosts = number, slots, room, seats, hosts


@register("network", "chunk")
class Chunk:
    """FIFO links, store-and-forward.

    What happens at one instant happens in the order (group, row); a delivery hands the transfers that it releases to their
    first links at once, in row order. A transfer from a host to itself crosses no link; one of 0 bytes only pays latency
    (and its place in the queues). Use is counted when a transfer joins a link's queue.
    """

    def __init__(self, topology: Topology) -> None:
        self._paths = PathTable(topology)
        self._topology = topology
        self._now = 0
        self._started = 0  # groups ever
        self._work = 0  # elementary steps asked for so far, roughly
        self._live: dict[int, _Group] = {}  # by slot of the group table
        self._slot_blocks, self._room_blocks, self._seat_blocks, self._group_blocks = Blocks(), Blocks(), Blocks(), Blocks()
        self._state = Columns(chunk_kernel.STATE, value="i8")
        self._state["value"][chunk_kernel.SHIFT] = 20  # first guess: buckets of a microsecond
        self._buckets = Columns(chunk_kernel.BUCKETS, first="i4", last="i4")
        self._heap = Columns(time="i8", rank="i8")
        self._slots = Columns(
            hop="i4", last="i4", waits="i4", first="i4", behind="i4", beside="i4", owner="i4", src_end="i4", dst_end="i4",
            when="i8", load="i8", delay="i8",
        )  # fmt: skip
        self._room = Columns(dependents="i4")
        self._seats = Columns(host="i4", end="i8")
        self._groups = Columns(number="i8", left="i8")
        self._done = Columns(group="i4")
        self._mark = Columns(topology.hosts, seat="i4")
        self._links = Columns(
            max(1, topology.links),
            free="i8", tail="i4", latency="i8", bandwidth="f8", sent="i8", busy="i8", like="i8", like_ps="i8",
        )  # fmt: skip
        for name in ("tail", "like"):
            self._links.write(name, 0, np.full(self._links.rows, -1))
        self._mark.write("seat", 0, np.full(topology.hosts, -1))
        self._links.write("latency", 0, topology.link_latency)
        self._links.write("bandwidth", 0, topology.link_bandwidth)

    def start(self, transfers: Transfers, at: int) -> int:
        """See NetworkModel. Raises ConfigError on columns that are no DAG of transfers of this topology, or a past ``at``;
        TopologyError where there is no route."""
        if not self._now <= at < NEVER:
            raise ConfigError(f"a group cannot start at {at} ps", expected=f"{self._now} ps (now) or later")
        refuse_bad(transfers, self._topology)
        rows = len(transfers.src)
        self._work += 8 * rows
        admit, compiled = chunk_kernel.admit.for_work(self._work)
        if compiled:
            self._compile()
        elif self._slots.compiled:
            admit = chunk_kernel.admit.compiled
        columns = transfers.columns()
        if not self._slots.compiled:
            columns = [column.tolist() for column in columns]
        pair = self._paths.numbers(columns[0], columns[1])
        roots = int(np.count_nonzero(transfers.dep_ptr[1:] == transfers.dep_ptr[:-1]))
        slots, room = rows + 2, len(transfers.dep) + roots
        seats = 1 + min(2 * rows, self._topology.hosts)
        if self._slot_blocks.end + slots > chunk_kernel.SLOT_MASK:
            raise ConfigError(f"more than {chunk_kernel.SLOT_MASK} live transfers", fix="Use fewer chunks, or level analytic.")
        base, first, seat, group = (
            self._take(self._slot_blocks, self._slots, slots),
            self._take(self._room_blocks, self._room, room),
            self._take(self._seat_blocks, self._seats, seats),
            self._take(self._group_blocks, self._groups, 1),
        )
        self._heap.reserve(self._slots.rows)
        self._done.reserve(self._groups.rows)
        hosts = admit(
            *columns, pair, self._paths.pairs["first"], base, first, seat, group, self._mark["seat"],
            *self._slots.all(), self._room["dependents"], *self._seats.all(),
        )  # fmt: skip
        self._live[group] = _Group(self._started, (base, slots), (first, room), (seat, seats), hosts)
        if hosts < 0:
            self._forget(group)
            raise forward_dependency(-1 - hosts)
        self._groups["number"][group] = self._started
        self._groups["left"][group] = rows + 1
        self._push(at, self._started << chunk_kernel.SLOT_BITS | base)
        self._started += 1
        return self._started - 1

    def next_event(self) -> int:
        """See NetworkModel: the time of the next arrival at a link or of the next delivery."""
        return int(self._heap["time"][0]) if self._state["value"][chunk_kernel.SIZE] else NEVER

    def run_until(self, limit: int) -> list[Finished]:
        """See NetworkModel. Raises ConfigError when a time leaves the clock's range (2^62 ps)."""
        if self.next_event() > limit:
            self._now = max(self._now, limit)
            return []
        run = chunk_kernel.run.compiled if self._slots.compiled else chunk_kernel.run.interpreted
        count, at = run(
            limit, self._paths.links["id"], self._done["group"], self._state["value"], *self._buckets.all(),
            *self._heap.all(), *self._slots.all(), self._room["dependents"], *self._seats.all(), *self._groups.all(),
            *self._links.all(),
        )  # fmt: skip
        if count == chunk_kernel.TOO_LONG:
            raise too_long()
        self._now = at if count else max(self._now, limit)
        groups = [int(group) for group in self._done["group"][:count]]
        finished = [self._finish(group, at) for group in sorted(groups, key=lambda group: self._live[group].number)]
        for group in groups:
            self._forget(group)
        return finished

    def usage(self) -> LinkUsage:
        """See NetworkModel."""
        sent, busy = (np.array(self._links[name][: self._topology.links], dtype=np.int64) for name in ("sent", "busy"))
        return LinkUsage(bytes=sent, busy=busy)

    def _finish(self, group: int, at: int) -> Finished:
        live = self._live[group]
        first, end = live.seats[0] + 1, live.seats[0] + live.hosts
        hosts, ends = self._seats["host"][first:end], self._seats["end"][first:end]
        if self._seats.compiled:
            hosts, ends = hosts.tolist(), ends.tolist()
        return Finished(group=live.number, at=at, host_end=dict(zip(hosts, ends, strict=True)))

    def _forget(self, group: int) -> None:
        live = self._live.pop(group)
        self._slot_blocks.give(*live.slots)
        self._room_blocks.give(*live.room)
        self._seat_blocks.give(*live.seats)
        self._group_blocks.give(group, 1)

    def _push(self, time: int, rank: int) -> None:
        # NOTE: interpreted whatever the form: one insertion a group is not worth loading one more compiled kernel.
        state = self._state["value"]
        chunk_kernel.rise(*self._heap.all(), int(state[chunk_kernel.SIZE]), time, rank)
        state[chunk_kernel.SIZE] += 1

    def _compile(self) -> None:
        if not self._slots.compiled:
            self._paths.compile()
            for columns in (
                self._state, self._buckets, self._heap, self._slots, self._room, self._seats, self._groups, self._done,
                self._mark, self._links,
            ):  # fmt: skip
                columns.compile()

    @staticmethod
    def _take(blocks: Blocks, columns: Columns, rows: int) -> int:
        first = blocks.take(rows)
        columns.reserve(blocks.end)
        return first
