"""Directed links as FIFO queues: the model behind the levels ``chunk`` and ``cut_through``, event by event.

The levels themselves are :class:`~distsim.network.lease.Leased`, which spares this model what it can.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError
from distsim.network import event_heap, event_queue, fifo_change, fifo_kernel
from distsim.network.columns import Blocks, Columns, Records
from distsim.network.model import NEVER, NO_LANE, Finished, LinkUsage, Transfers
from distsim.network.paths import PathTable
from distsim.network.rounding import serialisations
from distsim.network.transfers import refuse_bad, too_long
from distsim.topology.graph import Topology
from distsim.topology.routing import ragged


class _Group:
    """Where the rows of a live group are: (first, count) of its slots, dependents and host seats; its number."""

    __slots__ = ("held", "hosts", "kicks", "number", "room", "seats", "slots", "transfers")

    def __init__(
        self, number: int, slots: tuple[int, int], room: tuple[int, int], seats: tuple[int, int], hosts: int,
        transfers: Transfers,
    ) -> None:  # fmt: skip
        self.number, self.slots, self.room, self.seats, self.hosts = number, slots, room, seats, hosts
        self.transfers = transfers
        self.held: set[int] = set()  #: slots that wait for a route (see fifo_change)
        self.kicks: list[tuple[int, int, int]] = []  #: (slot, dependents, how many) of what released such slots


class FifoLinks:
    """A NetworkModel of FIFO links, ``chunk`` (store and forward) or ``cut_through``; see those modules for the rules.

    What happens at one instant happens in the order (group, row); a delivery hands the transfers that it releases to their
    first links at once, in row order. A transfer from a host to itself crosses no link; one of 0 bytes only pays latency
    (and its place in the queues). Use is counted when a transfer joins a link's queue. Where routing offers transfers a choice
    of routes, each takes, when it is released, the one with the least to wait for.

    Args:
        topology: hosts and links.
        cut_through: a transfer goes on with its first byte instead of its last.
        paths: routes shared with other networks on the topology; all that share them change their form together.
        uncontended: a mask of links that limit a transfer to their bandwidth, but on which nobody waits for others; over
            several such in a row a transfer cuts through in any case.
    """

    def __init__(
        self, topology: Topology, *, cut_through: bool = False, paths: PathTable | None = None,
        uncontended: NDArray[np.bool_] | None = None,
    ) -> None:  # fmt: skip
        self._paths = paths or PathTable(topology)
        self._topology = topology
        self._cut_through = cut_through
        self._lone = uncontended if uncontended is not None and uncontended.any() else None
        self.now = 0  #: where the last run stopped
        self.retransmitted = 0  #: bytes that were lost on dead links and had to be sent again
        self._dead: NDArray[np.bool_] | None = None  # links that are down, if any
        self._started = 0  # groups ever
        self._work = 0  # elementary steps asked for so far, roughly
        self._live: dict[int, _Group] = {}  # by slot of the group table
        self._slot_blocks, self._room_blocks, self._seat_blocks, self._group_blocks = Blocks(), Blocks(), Blocks(), Blocks()
        self._state = Columns(event_queue.STATE, value="i8")
        self._state["value"][event_queue.SHIFT] = 20  # first guess: buckets of a microsecond
        self._buckets = Columns(event_queue.BUCKETS, first="i4", last="i4")
        self._heap = Columns(time="i8", rank="i8")
        self._due = Columns(time="i8", rank="i8", spare_time="i8", spare_rank="i8")
        self._slots = Records(
            hop="i4", last="i4", waits="i4", behind="i4", beside="i4", when="i8", load="i8", delay="i8",
            tail_in="i8", rank="i8",
        )  # fmt: skip
        self._deliveries = Records(first="i4", owner="i4", src_end="i4", dst_end="i4")
        self._room = Columns(dependents="i4")
        self._seats = Columns(host="i4", end="i8")
        self._groups = Columns(number="i8", left="i8")
        self._done = Columns(group="i4")
        self._mark = Columns(topology.hosts, seat="i4")
        self._links = Records(
            max(1, topology.links),
            free="i8", tail="i4", latency="i8", bandwidth="f8", sent="i8", busy="i8", like="i8", like_ps="i8",
        )  # fmt: skip
        self._choosing = Columns(max(1, topology.links), claim="i8", lone="i4")
        self._tally = Columns(event_queue.DIGITS, count="i4")
        for name in ("tail", "like"):
            self._links.write(name, 0, np.full(self._links.rows, -1))
        self._mark.write("seat", 0, np.full(topology.hosts, -1))
        self._links.write("latency", 0, topology.link_latency)
        self._links.write("bandwidth", 0, topology.link_bandwidth)
        if self._lone is not None:
            self._choosing.write("lone", 0, self._lone.astype(np.int64))

    def start(self, transfers: Transfers, at: int) -> int:
        """See NetworkModel. Raises ConfigError on columns that are no DAG of transfers of this topology, or a past ``at``;
        TopologyError where there is no route."""
        if not self.now <= at < NEVER:
            raise ConfigError(f"a group cannot start at {at} ps", expected=f"{self.now} ps (now) or later")
        refuse_bad(transfers, self._topology)
        self.admit(transfers, at, self._started)
        self._started += 1
        return self._started - 1

    def expect(self, groups: int, rows: int) -> None:
        """Make room for so many more transfers in so many groups at once, where they are going to be admitted."""
        if self._slots.compiled or fifo_kernel.admit.for_work(self._work + 8 * rows, self._work + 8 * rows)[1]:
            self._compile()
            self._reserve(self._slot_blocks.end + rows + 2 * groups)
            self._room.reserve(self._room_blocks.end + 2 * rows)

    def admit(self, transfers: Transfers, at: int, number: int) -> None:
        """Take in, as group ``number`` (no two at once), transfers that have passed ``refuse_bad``.

        ``at`` may lie in the past if no other group has met their links since. Raises as :meth:`start`.
        """
        rows = len(transfers.src)
        self._work += 8 * rows
        admit, compiled = fifo_kernel.admit.for_work(self._work, self._work - 8 * rows)
        if compiled or self._paths.compiled:
            self._compile()
            admit = fifo_kernel.admit.compiled
        columns = transfers.columns()
        if not self._slots.compiled:
            columns = [column.tolist() for column in columns]
        pair = self._paths.row_numbers(transfers, columns[0], columns[1])
        slots, room = rows + 2, rows + len(transfers.dep)
        seats = 1 + min(2 * rows, self._topology.hosts)
        if self._slot_blocks.end + slots > event_queue.SLOT_MASK:
            raise ConfigError(f"more than {event_queue.SLOT_MASK} live transfers", fix="Use fewer chunks, or level analytic.")
        base, first, seat, group = (
            self._take_slots(slots),
            self._take(self._room_blocks, self._room, room),
            self._take(self._seat_blocks, self._seats, seats),
            self._take(self._group_blocks, self._groups, 1),
        )
        self._done.reserve(self._groups.rows)
        hosts = admit(
            *columns, pair, self._paths.pairs["first"], self._paths.choices, base, first, seat, group, number,
            self._mark["seat"], *self._slots.all(), *self._deliveries.all(), self._room["dependents"], *self._seats.all(),
        )  # fmt: skip
        live = self._live[group] = _Group(number, (base, slots), (first, room), (seat, seats), hosts, transfers)
        if self._dead is not None:
            for row in np.flatnonzero(fifo_change.stuck(self._paths, pair, self._dead)).tolist():
                self._slots["waits"][base + 1 + row] += 1
                live.held.add(base + 1 + row)
        self._groups["number"][group] = number
        self._groups["left"][group] = rows + 1
        self._push(at, number << event_queue.SLOT_BITS | base)

    def next_event(self) -> int:
        """See NetworkModel: the time of the next arrival at a link or of the next delivery."""
        state, size = self._state["value"], event_queue.SIZE
        first = int(self._heap["time"][0]) if state[size] else NEVER
        due = int(state[event_queue.DUE])
        return min(first, int(self._due["time"][due])) if due < state[event_queue.DUE_END] else first

    @property
    def events(self) -> int:
        """Events handled so far: ends of crossings, the last of a transfer with its delivery, and starts of groups."""
        state = self._state["value"]
        return int(state[event_queue.EVENTS] + state[event_queue.HANDLED])

    def run_until(self, limit: int) -> list[Finished]:
        """See NetworkModel. Raises ConfigError when a time leaves the clock's range (2^62 ps)."""
        if self.next_event() > limit:
            self.now = max(self.now, limit)
            return []
        if self._paths.compiled:
            self._compile()
        run = fifo_kernel.run.compiled if self._slots.compiled else fifo_kernel.run.interpreted
        count, at = run(
            limit, self._cut_through, self._lone is not None, self._paths.choices, self._paths.pairs["first"],
            self._paths.links["id"], self._done["group"], self._state["value"], *self._buckets.all(), self._tally["count"],
            *self._heap.all(), *self._due.all(), *self._slots.all(), *self._deliveries.all(), self._room["dependents"],
            *self._seats.all(), self._groups["left"],
            *self._links.all(), *self._choosing.all(),
        )  # fmt: skip
        if count == fifo_kernel.TOO_LONG:
            raise too_long()
        self.now = at if count else max(self.now, limit)
        groups = [int(group) for group in self._done["group"][:count]]
        finished = [self._finish(group, at) for group in sorted(groups, key=lambda group: self._live[group].number)]
        for group in groups:
            self._forget(group)
        return finished

    def usage(self) -> LinkUsage:
        """See NetworkModel."""
        sent, busy = (np.array(self._links[name][: self._topology.links], dtype=np.int64) for name in ("sent", "busy"))
        return LinkUsage(bytes=sent, busy=busy)

    def used(self, links: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Bytes and busy ps of some links so far."""
        sent, busy = self._links["sent"], self._links["busy"]
        if self._links.compiled:
            return sent[links], busy[links]
        return tuple(np.array([column[link] for link in links.tolist()], dtype=np.int64) for column in (sent, busy))  # type: ignore[return-value]

    def change(self, topology: Topology) -> None:
        """See NetworkModel: what joins a link's queue from now on meets its new rate; what is lost with a link is sent again,
        whole, by its source, once it has a route. Transfers under way keep their route as long as it lives."""
        before, now, self._topology = self._topology, self.now, topology
        names = ("hop", "last", "waits", "behind", "beside", "when", "load", "delay", "tail_in", "rank")
        slots = {name: np.array(self._slots[name], dtype=np.int64) for name in names}
        state = self._state["value"]
        flying, times = fifo_change.in_flight(
            state, self._buckets, self._heap, self._due, slots["behind"], slots["beside"], slots["when"]
        )  # fmt: skip
        gone = self._lose(flying, slots, before, now)
        slots["waits"][gone], slots["tail_in"][gone], slots["behind"][flying] = 1, 0, -1
        # from here on routes are those of the new topology; old ones stay in the table under their indices
        self._paths.change(topology)
        dead = topology.link_bandwidth == 0
        self._dead = dead if dead.any() else None
        for group in self._live.values():
            group.held.update(gone[(gone > group.slots[0]) & (gone < sum(group.slots))].tolist())
        kicks = [(number, self._route_anew(group, slots)) for number, group in self._live.items()]
        for name in ("hop", "last", "waits", "behind", "tail_in"):
            self._slots.write(name, 0, slots[name])
        stays = ~np.isin(flying, gone)
        self._requeue(times[stays], slots["rank"][flying[stays]])
        self._relink(before, flying[stays], slots)
        for number, released in kicks:
            if released:
                self._kick(number, released)

    def _lose(self, flying: NDArray[np.int64], slots: dict[str, NDArray[np.int64]], before: Topology, now: int) -> Any:
        """Slots of the transfers that are lost with the links that have died now. Counts them."""
        died = (self._topology.link_bandwidth == 0) & (before.link_bandwidth > 0)
        if not died.any() or not len(flying):
            return np.zeros(0, dtype=np.int64)
        on_links = []
        for group in self._live.values():
            mine = flying[(flying > group.slots[0]) & (flying < sum(group.slots) - 1)]
            rows, transfers = mine - group.slots[0] - 1, group.transfers
            crosses = transfers.src[rows] != transfers.dst[rows]
            if transfers.lane is not None:
                crosses &= transfers.lane[rows] != NO_LANE
            on_links.append(mine[crosses])
        slot = np.concatenate(on_links) if on_links else flying[:0]
        columns = (slots[name][slot] for name in ("last", "when", "load", "delay", "tail_in"))
        moving = fifo_change.Flying(slot, slots["hop"][slot] - 1, *columns)
        gone = moving.some(fifo_change.lost(moving, now, died, before, self._paths, self._cut_through, self._lone))
        tails = self._cut_through or self._lone is not None
        queued, link, busy = fifo_change.unsent(gone, now, before, self._paths, tails=tails)
        self.retransmitted += int(gone.load[~queued].sum())
        for name, amount in (("sent", gone.load), ("busy", busy)):
            column = np.array(self._links[name], dtype=np.int64)
            np.subtract.at(column, link[queued], amount[queued])
            self._links.write(name, 0, column)
        return np.sort(gone.slot)

    def _route_anew(self, group: _Group, slots: dict[str, NDArray[np.int64]]) -> list[int]:
        """Give what has not set out its route on the new topology. Returns the slots that were held and need not be."""
        base, transfers = group.slots[0] + 1, group.transfers
        rows = np.flatnonzero(slots["waits"][base : base + len(transfers.src)] > 0)
        if not len(rows):
            return []
        lane = None if transfers.lane is None else transfers.lane[rows]
        pair, first, last = fifo_change.routes(self._paths, transfers.src[rows], transfers.dst[rows], lane)
        choosing = (last > first) & (self._paths.choices > 1)
        slots["hop"][base + rows] = np.where(choosing, pair, first)
        slots["last"][base + rows] = np.where(choosing, fifo_kernel.UNDECIDED, last)
        wait = np.zeros(len(rows), dtype=np.bool_)
        if self._dead is not None:
            wait = fifo_change.stuck(self._paths, pair, self._dead)
        held = np.isin(base + rows, sorted(group.held))
        slots["waits"][(base + rows)[wait & ~held]] += 1
        group.held = set((base + rows)[wait].tolist())
        return (base + rows)[held & ~wait].tolist()  # type: ignore[no-any-return]

    def _requeue(self, times: NDArray[np.int64], rank: NDArray[np.int64]) -> None:
        """Put these events, and nothing else, into the queue: all in the heap, none in a bucket or behind another."""
        state = self._state["value"]
        order = np.lexsort((rank, times))  # NOTE: what is sorted is a heap
        self._heap.write("time", 0, times[order])
        self._heap.write("rank", 0, rank[order])
        for name in ("first", "last"):
            self._buckets.write(name, 0, np.zeros(event_queue.BUCKETS, dtype=np.int64))
        state[event_queue.SIZE], state[event_queue.NEAR] = len(times), 0
        state[event_queue.DUE] = state[event_queue.DUE_END] = 0
        state[event_queue.CURSOR] = self.now >> int(state[event_queue.SHIFT])

    def _relink(self, before: Topology, flying: NDArray[np.int64], slots: dict[str, NDArray[np.int64]]) -> None:
        """The links as they are now."""
        topology, links = self._topology, self._topology.links
        free = np.array(self._links["free"][:links], dtype=np.int64)
        down, was_down = topology.link_bandwidth == 0, before.link_bandwidth == 0
        free[was_down & ~down] = self.now
        free[down] = NEVER >> 2  # nobody joins; who may choose stays away
        claim = np.zeros(links, dtype=np.int64)
        if self._paths.choices > 1:
            hop, last = slots["hop"][flying], slots["last"][flying]
            row, step = ragged(np.maximum(last - hop, 0))
            link = np.array(self._paths.links["id"], dtype=np.int64)[hop[row] + step]
            np.add.at(claim, link, serialisations(slots["load"][flying][row], topology.link_bandwidth[link]))
        if self._lone is not None:
            claim[self._lone] = 0
        self._choosing.write("claim", 0, claim)
        for name, column in (
            ("free", free), ("latency", topology.link_latency), ("bandwidth", topology.link_bandwidth),
            ("tail", np.full(links, -1)), ("like", np.full(links, -1)),
        ):  # fmt: skip
            self._links.write(name, 0, column)

    def _kick(self, group: int, released: list[int]) -> None:
        """Release held slots of a group now: a delivery over no link, on which they depend."""
        live = self._live[group]
        slot, room = self._take_slots(2), self._take(self._room_blocks, self._room, len(released))
        self._room.write("dependents", room, np.array(released))
        seat, rank = live.seats[0], live.number << event_queue.SLOT_BITS | slot
        for name, value in (
            ("hop", 1), ("last", 1), ("waits", 0), ("behind", -1), ("load", 0), ("delay", 0), ("tail_in", 0),
            ("when", self.now), ("rank", rank),
        ):  # fmt: skip
            self._slots[name][slot] = value
        for name, value in (("owner", group), ("src_end", seat), ("dst_end", seat), ("first", room)):
            self._deliveries[name][slot] = value
        self._deliveries["first"][slot + 1] = room + len(released)
        self._groups["left"][group] += 1
        live.kicks.append((slot, room, len(released)))
        self._push(self.now, rank)

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
        for slot, room, count in live.kicks:
            self._slot_blocks.give(slot, 2)
            self._room_blocks.give(room, count)

    def _push(self, time: int, rank: int) -> None:
        # NOTE: interpreted whatever the form: one insertion a group is not worth loading one more compiled kernel.
        state = self._state["value"]
        event_heap.rise(*self._heap.all(), int(state[event_queue.SIZE]), time, rank)
        state[event_queue.SIZE] += 1

    def _compile(self) -> None:
        if not self._slots.compiled:
            self._paths.compile()
            for columns in (
                self._state, self._buckets, self._heap, self._due, self._slots, self._deliveries, self._room, self._seats,
                self._groups, self._done, self._mark, self._links, self._choosing, self._tally,
            ):  # fmt: skip
                columns.compile()

    def _take_slots(self, rows: int) -> int:
        first = self._slot_blocks.take(rows)
        self._reserve(self._slot_blocks.end)
        return first

    def _reserve(self, slots: int) -> None:
        self._slots.reserve(slots)
        for beside in (self._deliveries, self._heap, self._due):
            beside.reserve(self._slots.rows)

    @staticmethod
    def _take(blocks: Blocks, columns: Columns, rows: int) -> int:
        first = blocks.take(rows)
        columns.reserve(blocks.end)
        return first
