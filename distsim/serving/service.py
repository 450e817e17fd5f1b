"""A service: requests come, a router sends each to a replica, replicas serve them. It is a workload, as a training job is one.

It runs on the executor's clock; several workloads may share one run.
"""

from __future__ import annotations

from collections.abc import Sequence

from distsim.kernel.clock import Clock
from distsim.serving.replica import Replica
from distsim.serving.request import Request
from distsim.serving.requests.table import Requests
from distsim.serving.router import Router


class Service:
    """Requests in, results out: every request ends finished or dropped with a reason (``Request.reason``).

    requests: the simulated ones by row, None until they arrive.
    """

    def __init__(self, clock: Clock, table: Requests, router: Router, concurrency: int = 0) -> None:
        """concurrency: closed loop: arrivals are ignored, so many requests are kept in the system (0: open loop)."""
        self.clock = clock
        self.table = table
        self.router = router
        self.replicas: list[Replica] = []
        self.front: list[Replica] = []  #: those that take new requests
        self.requests: list[Request | None] = [None] * len(table)
        self.finished = self.dropped = 0
        self._concurrency = concurrency
        self._arrivals: list[int] = table.arrival.tolist()
        self._columns = tuple(c.tolist() for c in (table.prompt, table.output, table.tenant, table.session, table.priority))
        self._next = 0  #: row that arrives next

    def start(self, replicas: Sequence[Replica]) -> None:
        """Begin: the first arrivals are on the clock."""
        self.replicas = list(replicas)
        self.front = [replica for replica in replicas if replica.role != "decode"]
        if self._concurrency:
            for _ in range(min(self._concurrency, len(self._arrivals))):
                self._admit(self._take(self.clock.now))
        elif self._arrivals:
            self.clock.call_at(self._arrivals[0], self._arrive)

    def _arrive(self, _: object) -> None:
        arrivals, now = self._arrivals, self.clock.env._now
        count = len(arrivals)
        while self._next < count and arrivals[self._next] <= now:
            self._admit(self._take(arrivals[self._next]))
        if self._next < count:
            self.clock.call_at(arrivals[self._next], self._arrive)

    def _take(self, arrival: int) -> Request:
        """The next row as a request."""
        row = self._next
        self._next += 1
        prompt, output, tenant, session, priority = self._columns
        request = Request(
            row, arrival, prompt[row], output[row], tenant[row], session[row], priority[row], self.table.hashes.get(row, ())
        )
        self.requests[row] = request
        return request

    def _admit(self, request: Request) -> None:
        """Send a request to a replica, or drop it where it can never be served."""
        replica = self.router.route(request, self.front)
        reason = replica.scheduler.refusal(request)
        if reason:
            self.drop(request, reason)
        else:
            replica.arrive(request)

    def drop(self, request: Request, reason: str) -> None:
        """A request ends unserved."""
        request.reason = reason
        self.dropped += 1
        self._leave(request)

    def ended(self, request: Request, replica: Replica) -> None:
        """A replica has finished a request."""
        self.finished += 1
        self._leave(request)

    def _leave(self, request: Request) -> None:
        if self._concurrency and self._next < len(self._arrivals):
            self.clock.call_at(self.clock.now, self._follow)

    def _follow(self, _: object) -> None:
        if self._next < len(self._arrivals):
            self._admit(self._take(self.clock.now))

    @property
    def unfinished(self) -> int:
        """Requests that have neither finished nor been dropped."""
        return len(self._arrivals) - self.finished - self.dropped


