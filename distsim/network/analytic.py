"""Level ``analytic``: nothing contends; a transfer takes the latencies of its route plus its bytes over the narrowest link.

Choose it for first answers, for bounds, and where collectives own their links. The whole of a DAG is known when it starts,
so a collective of any size is one event. A route forwards without storing (wormhole): unlike at level ``chunk`` the bytes
are paid once, not once a hop; over one idle link the two agree to the picosecond.
"""

from __future__ import annotations

import heapq
import weakref

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError
from distsim.network import analytic_kernel
from distsim.network.answer import Answer, Ledger
from distsim.network.columns import Columns
from distsim.network.model import NEVER, Finished, LinkUsage, Transfers
from distsim.network.outline import Alone, Outline, Outlines
from distsim.network.pace import Pace
from distsim.network.paths import PathTable
from distsim.network.pieces import Pieces
from distsim.network.rounding import serialisations
from distsim.network.transfers import pair_hosts, pair_lanes, too_long
from distsim.registry import register
from distsim.topology.graph import Topology
from distsim.topology.routing import ragged


@register("network", "analytic")
class Analytic:
    """No contention. A row is delivered ``sum(latencies) + ceil(bytes / min(bandwidths)) + delay`` ps after its dependencies;
    a transfer from a host to itself after its delay.

    A DAG is timed once per shape (see :mod:`~distsim.network.outline`): rings of eight on eight leaves are one sweep. The
    answer to a Transfers object is remembered as long as the object lives: a caller that hands over the same one pays once.
    Transfers that know what they take (``alone``) are believed; their rows only tell which links they use.
    """

    def __init__(self, topology: Topology) -> None:
        self._hosts = Columns(topology.hosts, seen="i8", end="i8", used="i8")
        self._rows = Columns(end="i8")
        self._sweeps = 0
        self._ledger = Ledger(topology.links)
        self._now = 0
        self._work = 0
        self._started = 0
        self._waiting: list[tuple[int, int, int, Answer, Transfers]] = []  # heap of (end, group, start, answer, what it moves)
        self._paced: dict[int, Pace] = {}  # groups that were under way at a change, or found their route down
        self._stuck: dict[int, Transfers] = {}  # those of them whose route is down
        self._built: Analytic | None = None  # the links as they were built, once they have changed
        self._moved = np.zeros((2, topology.links), dtype=np.int64)  # bytes, busy ps that changes took to or off links
        self._learn(topology)

    def _learn(self, topology: Topology) -> None:
        """Everything that hangs on the links."""
        self._topology = topology
        self._down = topology.link_bandwidth == 0
        self._paths = PathTable(topology)
        self._outlines = Outlines(topology, self._paths)
        self._pieces = Pieces(topology)
        self._measured = 0  # pairs whose routes have been summed up
        self._routes = Columns(latency="i8", bandwidth="f8")
        self._links = Columns(
            topology.links, latency="i8", bandwidth="f8", seen="i8", used="i8", sent="i8", busy="i8", like="i8", like_ps="i8"
        )
        self._links.write("latency", 0, topology.link_latency)
        self._links.write("bandwidth", 0, topology.link_bandwidth)
        self._known: weakref.WeakKeyDictionary[Transfers, Answer] = weakref.WeakKeyDictionary()

    def start(self, transfers: Transfers, at: int) -> int:
        """See NetworkModel. Raises ConfigError on columns that are no DAG of transfers of this topology, a past ``at`` or an
        end beyond 2^62 ps; TopologyError where there is no route."""
        if not self._now <= at < NEVER:
            raise ConfigError(f"a group cannot start at {at} ps", expected=f"{self._now} ps (now) or later")
        answer = self._answer(transfers)
        group = self._started
        self._started = group + 1
        if answer is None:
            self._paced[group], self._stuck[group] = Pace(at, None), transfers
            return group
        end = at + answer.duration
        if end >= NEVER:
            raise too_long()
        self._ledger.count(answer)
        heapq.heappush(self._waiting, (end, group, at, answer, transfers))
        return group

    def _answer(self, transfers: Transfers) -> Answer | None:
        """What a DAG does; None where a link on its route is down."""
        answer = self._known.get(transfers)
        if answer is None:
            answer = self._of_rows(transfers)
            if answer is not None and transfers.alone is not None:
                alone = transfers.alone
                if self._built is not None:  # it holds on the links as they were built; on others it is stretched as its rows
                    usual = self._built._of_rows(transfers)
                    assert usual is not None
                    alone = -(-alone * answer.duration // max(1, usual.duration))
                answer = Answer(alone, [(host, alone) for host, _ in answer.host_end], answer.links, answer.sent, answer.busy)
            if answer is not None:
                self._known[transfers] = answer
        return answer

    def _of_rows(self, transfers: Transfers) -> Answer | None:
        """What its rows do."""
        sent = self._pieces(transfers)
        outline = self._outlines.of(sent, whole=None if sent is transfers else len(transfers.src))
        if self._down[outline.links].any():
            return None
        if outline.shape.alone is None:
            outline.shape.alone = self._solve(transfers, sent, outline)
        return outline.placed()

    def change(self, topology: Topology) -> None:
        """See NetworkModel: what is left of a group takes that share of what the whole takes from now on. Use of links goes
        with it. Nothing is lost, as nothing is anywhere in particular."""
        if self._built is None:
            self._built = Analytic(self._topology)
        self._learn(topology)
        under_way: list[tuple[int, int, Answer | None, Transfers]]
        under_way = [(group, start, answer, transfers) for _, group, start, answer, transfers in self._waiting]
        under_way += [(group, self._paced[group].since, None, transfers) for group, transfers in self._stuck.items()]
        self._waiting, self._stuck = [], {}
        for group, start, before, transfers in sorted(under_way, key=lambda one: one[0]):
            pace = self._paced.get(group)
            if pace is None:
                pace = self._paced[group] = Pace(start, before, counted=before)
            answer = self._answer(transfers)
            pace.turn(self._now, answer)
            if answer is None:
                self._stuck[group] = transfers
                continue
            for counted, sign in ((pace.counted, -1), (answer, 1)):
                if counted is not None:
                    np.add.at(self._moved[0], counted.links, sign * pace.rest(counted.sent))
                    np.add.at(self._moved[1], counted.links, sign * pace.rest(counted.busy))
            pace.counted = answer
            end = pace.end()
            if end >= NEVER:
                raise too_long()
            heapq.heappush(self._waiting, (end, group, start, answer, transfers))

    def next_event(self) -> int:
        """See NetworkModel: exactly the instant at which the next group finishes."""
        return self._waiting[0][0] if self._waiting else NEVER

    def run_until(self, limit: int) -> list[Finished]:
        """See NetworkModel."""
        waiting = self._waiting
        if not waiting or waiting[0][0] > limit:
            self._now = max(self._now, limit)
            return []
        self._now = at = waiting[0][0]
        finished = []
        while waiting and waiting[0][0] == at:
            _, group, start, answer, _ = heapq.heappop(waiting)
            pace = self._paced.pop(group, None) if self._paced else None
            finished.append(answer.finished(group, start) if pace is None else pace.finished(group))
        return finished

    def usage(self) -> LinkUsage:
        """See NetworkModel; counted when a group starts."""
        whole = self._ledger.usage()
        return LinkUsage(bytes=whole.bytes + self._moved[0], busy=whole.busy + self._moved[1])

    def _solve(self, transfers: Transfers, parts: Transfers, outline: Outline) -> Alone:
        """What its shape does. Rows whose routing divides them into ``parts`` are timed whole, over all their lanes at once;
        the parts tell which links they use."""
        rows = len(transfers.src)
        self._work += 2 * rows
        sweep, compiled = analytic_kernel.sweep.for_work(self._work, self._work - 2 * rows)
        measure = analytic_kernel.measure.interpreted
        if compiled or self._paths.compiled:
            for known in (self._paths, self._routes, self._rows, self._hosts, self._links):
                known.compile()
            sweep, measure = analytic_kernel.sweep.compiled, analytic_kernel.measure.compiled
        columns = transfers.columns()
        if not self._links.compiled:
            columns = [column.tolist() for column in columns]
        pair = self._paths.row_numbers(transfers, columns[0], columns[1])
        first, path_links = self._paths.pairs["first"], self._paths.links["id"]
        self._routes.reserve(self._paths.count)
        latency, bandwidth = self._links["latency"], self._links["bandwidth"]
        measure(self._measured, self._paths.count, first, path_links, latency, bandwidth, *self._routes.all())
        self._measured = self._paths.count
        if parts is not transfers:
            self._widen(transfers)
        self._rows.reserve(rows)
        self._sweeps += 1
        duration, _, _ = sweep(
            self._sweeps, *columns, pair, first, path_links, *self._routes.all(), *self._rows.all(), *self._hosts.all(),
            *self._links.all(),
        )  # fmt: skip
        if duration >= NEVER:
            raise too_long()
        # NOTE: the sweep lists hosts and links by row, an outline by pair: both by first use, but not in the same order.
        ends, sent, busy = self._hosts["end"], self._links["sent"], self._links["busy"]
        links = outline.links.tolist()
        if parts is not transfers:
            sent, busy = self._use(parts)
        elif self._paths.choices > 1:  # the routes not chosen are in the outline, but not in the sweep
            touched = [link for link in links if self._links["seen"][link] == self._sweeps]
            sent, busy = (dict.fromkeys(links, 0) | {link: column[link] for link in touched} for column in (sent, busy))
        return Alone(
            int(duration), tuple(int(ends[host]) for host in outline.hosts),
            np.array([sent[link] for link in links], dtype=np.int64), np.array([busy[link] for link in links], dtype=np.int64),
        )  # fmt: skip

    def _widen(self, transfers: Transfers) -> None:
        """Note, of every pair, the latency of its longest lane and the rate at which its narrowest link takes its share."""
        topology = self._topology
        src, dst = pair_hosts(transfers)
        if pair_lanes(transfers) is not None or not len(src):
            return
        lanes = topology.lanes(src, dst)
        row, lane = ragged(lanes)
        length, ids = self._paths.routes(src[row], dst[row], lane.astype(np.int32))
        part = np.repeat(np.arange(len(row)), length)
        latency = np.zeros(len(src), dtype=np.int64)
        np.maximum.at(latency, row, np.bincount(part, topology.link_latency[ids], len(row)).astype(np.int64))
        shared, count = np.unique(row[part] * topology.links + ids, return_counts=True)
        owner, link = shared // topology.links, shared % topology.links
        bandwidth = np.full(len(src), np.inf)
        np.minimum.at(bandwidth, owner, topology.link_bandwidth[link] * lanes[owner] / count)
        known = self._paths.numbers(*(side if self._paths.compiled else side.tolist() for side in (src, dst)))
        self._routes.reserve(self._paths.count)
        for at, pair in enumerate(known):
            self._routes["latency"][pair], self._routes["bandwidth"][pair] = int(latency[at]), float(bandwidth[at])

    def _use(self, parts: Transfers) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Bytes and busy ps of every link of the topology."""
        topology = self._topology
        length, ids = self._paths.routes(parts.src, parts.dst, parts.lane)
        size = np.repeat(parts.bytes, length)
        sent, busy = np.zeros((2, topology.links), dtype=np.int64)
        np.add.at(sent, ids, size)
        np.add.at(busy, ids, serialisations(size, topology.link_bandwidth[ids]))
        return sent, busy
