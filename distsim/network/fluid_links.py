"""Directed links that are shared out max-min fairly: storage and control of the kernels behind the level ``fluid``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.network import fluid_connections, fluid_events, fluid_kernel, fluid_reroute, fluid_rows
from distsim.network.columns import Blocks, Columns
from distsim.network.model import NEVER, Finished, LinkUsage, Transfers
from distsim.network.paths import PathTable
from distsim.network.transfers import too_long

_ALLOWANCE = 20_000  # steps of the interpreter between two looks at whether a compiler pays
_TOLERANCE = 1e-12  # relative: flows that are through within this of one another, where times are not whole, end at once
_FLOWS = 64  # first room
_NODES = ("link", "before", "after")
_LINKS = ("bandwidth", "latency", "shared", "head")
_MOVING = (
    "order", "found", "where", "hops", "member", "route", "weight", "unit", "bound", "remaining", "rate", "since", "finish",
)  # fmt: skip


class _Group:
    """A live group: its number, and (first, count) of its rows, dependents, host seats, connections
    and itself in their tables."""

    __slots__ = ("blocks", "hosts", "number", "transfers")

    def __init__(self, number: int, transfers: Transfers, blocks: list[tuple[int, int]], hosts: int) -> None:
        self.number, self.transfers, self.blocks, self.hosts = number, transfers, blocks, hosts


class FluidLinks:
    """Groups of rows over numbered routes. Times given and returned are ps; the kernels count from an epoch, see below.

    The epoch is moved to the start of a group that finds nothing else under way, so that durations do not depend on the date.

    Args:
        paths: the topology and its routes; a link of bandwidth 0 is down.
        latency: of every link, in ps, where the topology's whole ones will not do.
        shared: links that flows share; each flow has the others to itself.
        rounded: whole picoseconds, upwards; else float64 throughout.
        weighted: shares in proportion to 1 / (sum of latencies).
        cap: bytes/s that no transfer exceeds.
        ordered: rows of a group over one connection move one after the other.
    """

    def __init__(
        self, paths: PathTable, shared: NDArray[np.bool_], *, latency: NDArray[np.float64] | None = None,
        rounded: bool = True, weighted: bool = False, cap: float = math.inf, ordered: bool = True,
    ) -> None:  # fmt: skip
        topology = paths.topology
        hosts = topology.hosts
        self._paths, self._count = paths, topology.links
        self._rounded, self._weighted, self._cap, self._ordered = rounded, weighted, cap, ordered
        self._limited = math.isfinite(cap) or not shared.all()
        self.epoch = 0
        self.compiled = False
        self._work = 0
        self._allowance = _ALLOWANCE
        self._stride = 2
        self._live: dict[int, _Group] = {}  # by row of the group table
        self._measured = 0  # routes whose length is known
        self._blocks = Blocks(), Blocks(), Blocks(), Blocks(), Blocks()  # of rows, dependents, seats, groups and connections
        self._state = Columns(fluid_kernel.STATE, value="i8")
        self._clock = Columns(1, now="f8", lowest="f8")
        self._heap = Columns(time="f8", rank="i8")
        self._chains = Columns(fluid_rows.CHAINS, time="f8", end="i4")
        self.rows = Columns(
            pair="i4", connection="i4", waits="i4", first="i4", beside="i4", owner="i4", src_end="i4", dst_end="i4", stage="i4",
            load="f8", todo="f8", delay="f8", due="f8", begun="f8", end="f8",
            share="f8",
        )  # fmt: skip
        self._room = Columns(dependents="i4")
        self._seats = Columns(host="i4", end="f8")
        self._groups = Columns(number="i8", left="i8")
        self._connections = Columns(ahead="i4", last="i4", moving="i4", ready="i4")
        self._done = Columns(group="i4")
        self._mark = Columns(hosts, seat="i4")
        self._open = Columns(flow="i4")
        self._routes = Columns(mark="i4")
        self._flows = Columns(
            order="i4", found="i4", where="i4", seen="i8", hops="i4", member="i4", route="i4", weight="f8",
            unit="f8", bound="f8", length="f8", remaining="f8", rate="f8", fresh="f8", since="f8", finish="f8",
        )  # fmt: skip
        self._nodes = Columns(link="i4", before="i4", after="i4")
        self._shares = Columns(self._count, share="f8", id="i8")
        self._links = Columns(
            max(1, self._count),
            bandwidth="f8", latency="f8", shared="i4", head="i4", seen="i8", left="f8", load="f8", level="f8", high="f8",
            stops="i4", queue="i4", dirty="i4", is_dirty="i4", sent="i8", busy="i8", like="f8", like_ps="i8", crowd="i4",
        )  # fmt: skip
        self._all = (
            self._state, self._clock, self._heap, self._chains, self.rows, self._room, self._seats, self._groups,
            self._connections, self._done, self._mark, self._open, self._routes, self._flows, self._nodes, self._shares,
            self._links,
        )  # fmt: skip
        self._clock["lowest"][0] = math.inf
        self._mark.write("seat", 0, np.full(hosts, -1))
        self._chains.write("end", 0, np.full(fluid_rows.CHAINS, -1))
        self._links.write("head", 0, np.full(self._count, -1))
        self._links.write("like", 0, np.full(self._count, -1.0))
        self._links.write("shared", 0, shared.astype(np.int32))
        self._links.write("bandwidth", 0, topology.link_bandwidth)
        self._links.write("latency", 0, (topology.link_latency if latency is None else latency).astype(np.float64))
        if paths.compiled:
            self.compile()

    @property
    def solves(self) -> int:
        """How often rates have been found."""
        return int(self._state["value"][fluid_kernel.SOLVES])

    @property
    def delivered(self) -> int:
        """Rows delivered so far, of all groups."""
        return int(self._state["value"][fluid_kernel.DELIVERED])

    @property
    def events(self) -> int:
        """How often rows have become due, or been delivered, so far."""
        return self.delivered + int(self._state["value"][fluid_kernel.DUE])

    def compile(self) -> None:
        """Arrays and compiled kernels from now on."""
        if not self.compiled:
            self.compiled = True
            self._paths.compile()
            for columns in self._all:
                columns.compile()

    def admit(self, transfers: Transfers, at: int, number: int, columns: list[NDArray[Any]] | None = None) -> int:
        """Take in, as group ``number`` (no two at once), transfers that have passed ``refuse_bad``. ``columns`` stand in for
        theirs, where sizes and delays are no whole numbers. Returns the row of the first transfer. Raises TopologyError where
        there is no route."""
        rows = len(transfers.src)
        if self._worth(50 * rows) or self._paths.compiled:
            self.compile()
        src, dst, size, dep_ptr, dep, delay = columns or transfers.columns()
        # NOTE: float64 in both forms: a Python int has digits that an array's number has not.
        lines: list[Any] = [src, dst, size.astype(np.float64), dep_ptr, dep, delay.astype(np.float64)]
        if not self.compiled:
            lines = [line.tolist() for line in lines]
        numbers = self._paths.row_numbers(transfers, lines[0], lines[1])
        if not self._live and self._rounded:
            self.epoch = at
            self._clock["now"][0] = 0.0
        elif at < self.epoch:  # nothing has happened since the epoch was set
            self._move_epoch(float(at - self.epoch))
            self._clock["now"][0] = 0.0
        self._widen()
        room = (rows + 2, rows + len(dep), 1 + min(2 * rows, len(self._mark["seat"])), 1)
        first = [
            self._take(blocks, table, size)
            for blocks, table, size in zip(self._blocks, (self.rows, self._room, self._seats, self._groups), room, strict=False)
        ]
        self._heap.reserve(self.rows.rows)
        self._done.reserve(self._groups.rows)
        run = fluid_rows.admit.compiled if self.compiled else fluid_rows.admit.interpreted
        hosts = run(*lines, numbers, *first, self._mark["seat"], *self.rows.all(), self._room["dependents"], *self._seats.all())
        if transfers.share is not None:
            self.rows.write("share", first[0] + 1, transfers.share)
        group = first[3]
        blocks = list(zip(first, room, strict=True))
        some = np.arange(first[0] + 1, first[0] + 1 + rows)
        blocks.append(self._connect(some, numbers, self._paths, self.rows["connection"]) if self._ordered else (0, 0))
        self._live[group] = _Group(number, transfers, blocks, hosts)
        self._groups["number"][group] = number
        self._groups["left"][group] = rows + 1
        self.rows["stage"][first[0]] = fluid_rows.DELAY
        self._push(float(at - self.epoch), first[0])
        return first[0] + 1

    def next_event(self) -> int:
        """A lower bound on the time (ps) of what happens next, NEVER if there is nothing."""
        state = self._state["value"]
        time = math.inf
        if state[fluid_kernel.ACTIVE]:
            if state[fluid_kernel.DIRTY] or state[fluid_kernel.EVERYTHING]:
                # NOTE: rates are found when the instant is left; whatever comes of them takes a picosecond at least.
                time = self._clock["now"][0] + 1
            else:
                time = self._flows["finish"][self._flows["order"][0]]
        if state[fluid_kernel.EVENTS]:
            time = min(time, self._heap["time"][0])
        return NEVER if time == math.inf else min(self.epoch + math.floor(time), NEVER - 1)

    def run(self, limit: int) -> tuple[list[Finished], int]:
        """Go on to the first instant up to ``limit`` at which groups finish: those, by number, and that instant (ps).

        Raises ConfigError when a time leaves the clock's range.
        """
        if self._paths.compiled:
            self.compile()
        while True:
            state = self._state["value"]
            run = fluid_events.run.compiled if self.compiled else fluid_events.run.interpreted
            answer = run(
                math.inf if limit >= NEVER - 1 else float(limit - self.epoch), float(NEVER - self.epoch), self._rounded,
                0.0 if self._rounded else _TOLERANCE, self._weighted, self._cap, self._paths.choices,
                NEVER if self.compiled else self._allowance, self._flows.rows, self._stride, self._count,
                self._paths.pairs["first"], self._paths.links["id"], self._open["flow"], self._done["group"], state,
                *self._clock.all(), *self._heap.all(), *self._chains.all(), *self.rows.all(), self._room["dependents"],
                *self._seats.all(), *self._groups.all(), *self._connections.all(), *self._flows.all(), *self._nodes.all(),
                *self._shares.all(), *self._links.all(),
            )  # fmt: skip
            if answer == fluid_events.DONE:
                break
            if answer == fluid_events.TOO_LONG:
                raise too_long()
            if answer == fluid_events.GROW:
                self._grow()
            elif answer == fluid_events.MOVE_EPOCH:
                self._move_epoch(float(self._clock["now"][0]))
            else:  # PAUSE
                self._allowance += _ALLOWANCE
                if self._worth(_ALLOWANCE):
                    self.compile()
        return self._report()

    def _report(self) -> tuple[list[Finished], int]:
        state = self._state["value"]
        count = int(state[fluid_kernel.FINISHED])
        state[fluid_kernel.FINISHED] = 0
        now = self.epoch + math.ceil(self._clock["now"][0])
        groups = sorted((int(group) for group in self._done["group"][:count]), key=lambda group: self._live[group].number)
        finished = [self._finished(group, now) for group in groups]
        for group in groups:
            for blocks, block in zip(self._blocks, self._live.pop(group).blocks, strict=True):
                blocks.give(*block)
        return finished, now

    def change(self, paths: PathTable, now: int) -> None:
        """From ``now`` on (not before the last run's end), links and routes are those of ``paths``; see Fluid.change. Raises
        what the router raises where a row that has not been delivered has no route; nothing has changed then."""
        if self.compiled or paths.compiled:
            paths.compile()
            self.compile()
        live = sorted(self._live.values(), key=lambda group: group.number)
        turns = [self._turns(group, paths) for group in live]
        turn = np.zeros(self.rows.rows, dtype=np.int32)
        for undelivered, numbers in turns:
            turn[undelivered] = numbers
        before, self._paths = self._paths, paths
        topology = paths.topology
        was = self._links["bandwidth"][:]
        if self.compiled:
            was = was.copy()
        self._links.write("bandwidth", 0, topology.link_bandwidth)
        self._links.write("latency", 0, topology.link_latency.astype(np.float64))
        self._links.write("like", 0, np.full(self._count, -1.0))
        self._open.write("flow", 0, np.zeros(self._open.rows, dtype=np.int32))
        self._measured = 0
        self._widen()
        if not self._live:
            return
        alone = np.full(self.rows.rows, fluid_connections.ALONE, dtype=np.int32)
        column, join = (turn, alone) if self.compiled else (turn.tolist(), alone.tolist())
        given = [group.blocks[-1] for group in live]
        if self._ordered:
            for group, (undelivered, numbers) in zip(live, turns, strict=True):
                group.blocks[-1] = self._connect(undelivered, numbers, paths, join)
            for block in given:
                self._blocks[-1].give(*block)
        state, clock = self._state["value"], self._clock["now"]
        clock[0] = max(clock[0], float(now - self.epoch))
        state[fluid_kernel.EVERYTHING] = 1
        flows, waiting = (
            each.compiled if self.compiled else each.interpreted
            for each in (fluid_reroute.turn_flows, fluid_reroute.turn_waiting)
        )
        table = [before.pairs["first"], before.links["id"], paths.pairs["first"], paths.links["id"]]
        rows, links = self.rows, self._links
        flows(
            clock[0], self._weighted, self._cap, paths.choices, self._stride, *table, state, rows["pair"], column, join,
            *(rows[name] for name in ("beside", "stage", "todo", "due", "share")), self._connections["moving"],
            *(self._flows[name] for name in _MOVING), *(self._nodes[name] for name in _NODES), was,
            *(links[name] for name in _LINKS), *(links[name] for name in ("dirty", "is_dirty", "sent", "busy", "crowd")),
        )  # fmt: skip
        state[fluid_kernel.EVENTS] = 0
        self._chains.write("end", 0, np.full(fluid_rows.CHAINS, -1))
        for group in live:
            begin, count = group.blocks[0]
            waiting(
                clock[0], begin, begin + count - 1, paths.choices, *table, state, *self._heap.all(), *self._chains.all(),
                rows["pair"], column, rows["connection"], join,
                *(rows[name] for name in ("beside", "stage", "todo", "due")), was,
                *(links[name] for name in ("bandwidth", "latency", "sent", "busy", "crowd")),
            )  # fmt: skip

    def _connect(self, rows: NDArray[np.int64], routes: Any, paths: PathTable, connection: Any) -> tuple[int, int]:
        """Number the connections of a group's ``rows``, on ``routes``, in that column: their block in the table."""
        if len(rows) < 2:
            return 0, 0
        kernel = fluid_connections.number_connections
        run = kernel.compiled if self.compiled else kernel.interpreted
        most = len(rows) // 2 * paths.choices
        base = self._blocks[-1].take(most)
        count = run(rows if self.compiled else rows.tolist(), routes, base, paths.choices, self._routes["mark"], connection)
        self._blocks[-1].give(base + count, most - count)
        self._connections.reserve(base + count)
        self._connections.write("ahead", base, np.full(count, -1))
        self._connections.write("moving", base, np.zeros(count, dtype=np.int32))
        return base, count

    def _turns(self, group: _Group, paths: PathTable) -> tuple[NDArray[np.int64], Any]:
        """The rows of a group that have not been delivered, and the numbers of their new routes."""
        begin, count = group.blocks[0]
        stages = np.array(self.rows["stage"][begin + 1 : begin + count - 1])
        some = np.flatnonzero(stages != fluid_rows.THERE)
        transfers = group.transfers
        lane = None if transfers.lane is None else transfers.lane[some]
        src, dst = transfers.src[some], transfers.dst[some]
        if not paths.compiled:
            src, dst = src.tolist(), dst.tolist()
        return begin + 1 + some, paths.numbers(src, dst, lane)

    def usage(self) -> LinkUsage:
        """Bytes and busy ps of every link; a row counts when it begins."""
        sent, busy = (np.array(self._links[name][: self._count], dtype=np.int64) for name in ("sent", "busy"))
        return LinkUsage(bytes=sent, busy=busy)

    def _finished(self, group: int, now: int) -> Finished:
        live = self._live[group]
        seat = live.blocks[2][0]
        hosts = [int(host) for host in self._seats["host"][seat + 1 : seat + live.hosts]]
        ends = [self.epoch + math.ceil(end) for end in self._seats["end"][seat + 1 : seat + live.hosts]]
        return Finished(group=live.number, at=now, host_end=dict(zip(hosts, ends, strict=True)))

    def _worth(self, steps: int) -> bool:
        """Whether the job, so many elementary steps longer, is worth the compiled kernels."""
        self._work += steps
        return self.compiled or bool(fluid_events.run.for_work(self._work, self._work - steps)[1])

    def _push(self, time: float, row: int) -> None:
        # NOTE: interpreted whatever the form: one insertion a group is not worth loading one more compiled kernel.
        fluid_rows.push(
            time, row, self._state["value"], *self._heap.all(), *self._chains.all(), self.rows["beside"], self.rows["due"]
        )

    def _widen(self) -> None:
        """Make room for routes that have become known: a flow has as many nodes as the longest route has links."""
        known, count = self._measured, self._paths.count
        if known == count:
            return
        self._measured = count
        self._open.reserve(count)
        self._routes.reserve(count)
        longest = int(np.diff(self._paths.pairs["first"][known : count + 1]).max())
        if longest <= self._stride:
            return
        old, self._stride = self._stride, longest
        used = int(self._state["value"][fluid_kernel.HIGH])
        moved = {name: np.array(self._nodes[name][: used * old], dtype=np.int64).reshape(-1, old) for name in _NODES}
        self._nodes.reserve(self._flows.rows * longest)
        for name, values in moved.items():
            wide = np.zeros((used, longest), dtype=np.int64)
            wide[:, :old] = values if name == "link" else _moved(values, old, longest)
            self._nodes.write(name, 0, wide.reshape(-1))
        self._links.write("head", 0, _moved(np.array(self._links["head"], dtype=np.int64), old, longest))

    def _grow(self) -> None:
        """More flow slots."""
        self._flows.reserve(min(max(_FLOWS, 4 * self._flows.rows), self.rows.rows + self._flows.rows))
        self._nodes.reserve(self._flows.rows * self._stride)
        self._shares.reserve(self._count + (self._flows.rows if self._limited else 0))

    def _move_epoch(self, step: float) -> None:
        """Count from ``step`` ps later on: all times are whole, so nothing changes."""
        self.epoch += int(step)
        times = (
            (self._heap, "time"), (self._clock, "now"), (self._seats, "end"), (self._flows, "since"), (self._flows, "finish"),
            (self.rows, "due"), (self.rows, "begun"), (self.rows, "end"),
        )  # fmt: skip
        for columns, name in times:
            columns.write(name, 0, np.array(columns[name], dtype=np.float64) - step)
        self._chains.write("end", 0, np.full(fluid_rows.CHAINS, -1))

    @staticmethod
    def _take(blocks: Blocks, columns: Columns, rows: int) -> int:
        first = blocks.take(rows)
        columns.reserve(blocks.end)
        return first


def _moved(nodes: NDArray[np.int64], old: int, new: int) -> NDArray[np.int64]:
    """Node numbers in a wider layout; -1 stays."""
    return np.where(nodes < 0, nodes, nodes // old * new + nodes % old)
