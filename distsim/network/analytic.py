"""Level ``analytic``: nothing contends; a transfer takes the latencies of its route plus its bytes over the narrowest link.

Choose it for first answers, for bounds, and where collectives own their links. The whole of a DAG is known when it starts,
so a collective of any size is one event. A route forwards without storing (wormhole): unlike at level ``chunk`` the bytes
are paid once, not once a hop; over one idle link the two agree to the picosecond.
"""

from __future__ import annotations

import heapq
import weakref

import numpy as np

from distsim.errors import ConfigError
from distsim.network import analytic_kernel
from distsim.network.answer import Answer, Ledger
from distsim.network.columns import Columns
from distsim.network.model import NEVER, Finished, LinkUsage, Transfers
from distsim.network.outline import Alone, Outline, Outlines
from distsim.network.paths import PathTable
from distsim.network.transfers import too_long
from distsim.registry import register
from distsim.topology.graph import Topology


@register("network", "analytic")
class Analytic:
    """No contention. A row is delivered ``sum(latencies) + ceil(bytes / min(bandwidths)) + delay`` ps after its dependencies;
    a transfer from a host to itself after its delay.

    A DAG is timed once per shape (see :mod:`~distsim.network.outline`): rings of eight on eight leaves are one sweep. The
    answer to a Transfers object is remembered as long as the object lives: a caller that hands over the same one pays once.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._paths = PathTable(topology)
        self._outlines = Outlines(topology, self._paths)
        self._measured = 0  # pairs whose routes have been summed up
        self._routes = Columns(latency="i8", bandwidth="f8")
        self._rows = Columns(end="i8")
        self._hosts = Columns(topology.hosts, seen="i8", end="i8", used="i8")
        self._links = Columns(
            topology.links, latency="i8", bandwidth="f8", seen="i8", used="i8", sent="i8", busy="i8", like="i8", like_ps="i8"
        )
        self._links.write("latency", 0, topology.link_latency)
        self._links.write("bandwidth", 0, topology.link_bandwidth)
        self._sweeps = 0
        self._known: weakref.WeakKeyDictionary[Transfers, Answer] = weakref.WeakKeyDictionary()
        self._ledger = Ledger(topology.links)
        self._now = 0
        self._work = 0
        self._started = 0
        self._waiting: list[tuple[int, int, int, Answer]] = []  # heap of (end, group, start, answer)

    def start(self, transfers: Transfers, at: int) -> int:
        """See NetworkModel. Raises ConfigError on columns that are no DAG of transfers of this topology, a past ``at`` or an
        end beyond 2^62 ps; TopologyError where there is no route."""
        if not self._now <= at < NEVER:
            raise ConfigError(f"a group cannot start at {at} ps", expected=f"{self._now} ps (now) or later")
        answer = self._known.get(transfers)
        if answer is None:
            outline = self._outlines.of(transfers)
            if outline.shape.alone is None:
                outline.shape.alone = self._solve(transfers, outline)
            answer = self._known[transfers] = outline.placed()
        end = at + answer.duration
        if end >= NEVER:
            raise too_long()
        self._ledger.count(answer)
        group = self._started
        heapq.heappush(self._waiting, (end, group, at, answer))
        self._started = group + 1
        return group

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
            _, group, start, answer = heapq.heappop(waiting)
            finished.append(answer.finished(group, start))
        return finished

    def usage(self) -> LinkUsage:
        """See NetworkModel; counted when a group starts."""
        return self._ledger.usage()

    def _solve(self, transfers: Transfers, outline: Outline) -> Alone:
        """What its shape does."""
        rows = len(transfers.src)
        self._work += 2 * rows
        sweep, compiled = analytic_kernel.sweep.for_work(self._work)
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
        return Alone(
            int(duration), tuple(int(ends[host]) for host in outline.hosts),
            np.array([sent[link] for link in links], dtype=np.int64), np.array([busy[link] for link in links], dtype=np.int64),
        )  # fmt: skip
