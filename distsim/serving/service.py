"""A service: requests come, a router sends each to a replica, replicas serve them. It is a workload, as a training job is one.

It runs on the executor's clock; several workloads may share one run. Operators have their say at three places: a gate that
requests pass when they arrive (operations/admission.py), the front, which is the list of replicas that take requests, and the
door, where requests wait while nobody takes them (operations/failures.py, operations/autoscaling.py).

Whatever comes from outside, arrivals first of all, is LATE in its instant: routers see all iterations that end in it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush

import numpy as np

from distsim.kernel.clock import LATE, Clock
from distsim.serving.replica import Replica
from distsim.serving.request import Request
from distsim.serving.requests.table import Requests
from distsim.serving.router import Router

#: reasons to drop a request
NOBODY = "no replica in service"
ORPHAN = "the turn before it was dropped"
STOPPED = "past its deadline, while it was served"
TOO_LONG = "prompt of max_model_len or more"


class Gate:
    """What requests pass. This one lets all of them in; see distsim.serving.operations.admission for one that does not."""

    #: whether ``room`` says anything
    limits = False
    #: reasons that ``room`` gives may be gone when a request leaves
    reopens = False

    def attach(self, service: Service) -> None:
        """Before the first request."""

    def arrive(self, request: Request, service: Service) -> None:
        """A request has come: let it in (``Service.admit``), now or later, or drop it."""
        service.admit(request)

    def room(self, front: Sequence[Replica]) -> Sequence[Replica] | str:
        """Those of ``front`` that may be sent another request; none: let it wait at the door; or why to drop it."""
        return front

    def crowded(self, service: Service) -> str:
        """Why no further request may wait at the door; empty if it may."""
        return ""


class Service:
    """Requests in, results out: every request ends finished or dropped with a reason (``Request.reason``).

    requests: the simulated ones by row, None until they arrive. A turn of a session arrives when the one before it has been
    answered and its client has thought (``Requests.after``, ``think``); if that was dropped, so is the turn.
    """

    def __init__(
        self, clock: Clock, table: Requests, router: Router, concurrency: int = 0, turnaround: int = 0,
        gate: Gate | None = None, longest: int = 0,
    ) -> None:  # fmt: skip
        """concurrency: closed loop: arrivals are ignored, so many requests, or sessions, are kept in the system (0: open loop).
        turnaround: ps that a client of the closed loop takes from an answer to its next request.
        longest: tokens of a sequence; a prompt with no room for an answer is dropped (0: none is)."""
        self.clock = clock
        self.table = table
        self.router = router
        self.gate = gate
        self._longest = longest
        self.replicas: list[Replica] = []
        self.front: list[Replica] = []  #: those that take new requests, in order of their numbers
        self.door: deque[Request] = deque()  #: nobody takes them now, first come first served
        self.requests: list[Request | None] = [None] * len(table)
        self.finished = self.dropped = 0
        self.reasons: Counter[str] = Counter()  #: why requests were dropped
        self.waited = 0  #: times that a request had to wait at the door
        self.rerouted = 0  #: times that a request was sent to another replica because its own had failed
        self.last = 0  #: ps at which the last request left
        self.coming = 0  #: replicas under way to the front, and whoever may still bring some
        self.joined: list[Callable[[Replica], None]] = []  #: told of every replica that comes to the front
        self._concurrency = concurrency
        self._turnaround = turnaround
        self._arrivals: list[int] = table.arrival.tolist()
        self._columns = tuple(
            c.tolist() for c in (table.prompt, table.output, table.tenant, table.session, table.priority, table.deadline)
        )
        first = np.flatnonzero(table.after < 0)
        self._order: Sequence[int] = range(len(table)) if len(first) == len(table) else first.tolist()
        self._turns: dict[int, list[int]] = {}  #: row -> rows that follow it
        for row in np.flatnonzero(table.after >= 0).tolist():
            self._turns.setdefault(int(table.after[row]), []).append(row)
        self._next = 0  #: position in ``_order`` of the row that arrives next
        self._later: list[tuple[int, int]] = []  #: heap of turns to come: ps, row
        self._knocking = False
        self._oldest = 0  #: no row before it is anywhere

    def start(self, replicas: Sequence[Replica]) -> None:
        """Begin: the first arrivals are on the clock. replicas: by number; those that hold no GPUs yet do not take requests."""
        self.replicas = list(replicas)
        self.front = [replica for replica in replicas if replica.role != "decode" and replica.since >= 0]
        for replica in replicas:
            replica.abandoned = self._given_up
        if self.gate is not None:
            self.gate.attach(self)
        if self._concurrency:
            for _ in range(min(self._concurrency, len(self._order))):
                self.clock.call_at(self.clock.now, self._follow, priority=LATE)
        elif self._order:
            self.clock.call_at(self._arrivals[self._order[0]], self._arrive, priority=LATE)

    # --- arrivals -------------------------------------------------------------------------------------------------------------

    def _arrive(self, _: object) -> None:
        arrivals, order, now = self._arrivals, self._order, self.clock.env._now
        count = len(order)
        while self._next < count:
            row = order[self._next]
            if arrivals[row] > now:
                self.clock.call_at(arrivals[row], self._arrive, priority=LATE)
                break
            self._next += 1
            self._come(self._take(row, arrivals[row]))

    def _take(self, row: int, arrival: int) -> Request:
        """A row as a request."""
        prompt, output, tenant, session, priority, deadline = self._columns
        request = Request(
            row, arrival, prompt[row], output[row], tenant[row], session[row], priority[row], self.table.hashes.get(row, ()),
            deadline[row],
        )  # fmt: skip
        self.requests[row] = request
        return request

    def _enter(self, row: int) -> None:
        """A row arrives now, whatever the table says."""
        self._come(self._take(row, self.clock.now))

    def _come(self, request: Request) -> None:
        """A request is there."""
        if self._longest and request.prompt >= self._longest:
            self.drop(request, TOO_LONG)
        elif self.gate is None:
            self.admit(request)
        else:
            self.gate.arrive(request, self)

    def _follow(self, _: object) -> None:
        """Closed loop: the next request, or session."""
        if self._next < len(self._order):
            self._next += 1
            self._enter(self._order[self._next - 1])

    def _turn(self, _: object) -> None:
        """Turns whose time has come, in the order of their rows: it does not depend on who was told first."""
        now = self.clock.now
        while self._later and self._later[0][0] <= now:
            self._enter(heappop(self._later)[1])

    # --- ways ----------------------------------------------------------------------------------------------------------------

    def admit(self, request: Request) -> None:
        """Send a request to a replica; let it wait at the door where nobody takes it; drop it where nobody ever will."""
        if self.door or not self._sent(request):
            self._wait(request)

    def _sent(self, request: Request) -> bool:
        """Whether the request is off the door's hands: sent, or dropped."""
        front: Sequence[Replica] = self.front
        if self.gate is not None and self.gate.limits:
            room = self.gate.room(front)
            if isinstance(room, str):
                self.drop(request, room)
                return True
            front = room
        if not front:
            return False
        replica = self.router.route(request, front)
        reason = replica.scheduler.refusal(request)
        if reason:
            able = [one for one in front if not one.scheduler.refusal(request)]
            if not able:
                self.drop(request, reason)
                return True
            replica = self.router.route(request, able)
        replica.arrive(request)
        return True

    def _wait(self, request: Request) -> None:
        if not self.front and not self.coming:
            self.drop(request, NOBODY)
            return
        reason = self.gate.crowded(self) if self.gate is not None else ""
        if reason:
            self.drop(request, reason)
            return
        self.waited += 1
        self.door.append(request)

    def knock(self) -> None:
        """Somebody may take requests now: try the door at the end of this instant's events."""
        if self.door and not self._knocking:
            self._knocking = True
            self.clock.call_at(self.clock.now, self._open, priority=LATE)

    def _open(self, _: object) -> None:
        self._knocking = False
        while self.door and self._sent(self.door[0]):
            self.door.popleft()
        if self.door and not self.front and not self.coming:
            while self.door:
                self.drop(self.door.popleft(), NOBODY)

    # --- replicas come and go -------------------------------------------------------------------------------------------------

    def put_in(self, replica: Replica) -> None:
        """A replica takes requests from now on."""
        self.front.append(replica)
        self.front.sort(key=lambda one: one.number)
        for told in self.joined:
            told(replica)
        self.knock()

    def take_out(self, replica: Replica) -> None:
        """A replica takes no more requests; what it has it keeps."""
        if replica in self.front:
            self.front.remove(replica)
            self.knock()

    def drain(self, replica: Replica) -> None:
        """A replica takes no more requests, and stops when it is empty."""
        self.take_out(replica)
        replica.draining = True
        self.emptied(replica)

    def emptied(self, replica: Replica) -> None:
        """Stop a replica that is draining, if nobody is left there."""
        if replica.draining and replica.since >= 0 and not replica.outstanding:
            replica.stop(self.clock.now)

    def requests_of(self, replica: Replica) -> list[Request]:
        """Requests that wait or are served at a replica, in order of their rows."""
        requests = self.requests
        while self._oldest < len(requests):
            oldest = requests[self._oldest]
            if oldest is None or (oldest.completed < 0 and not oldest.reason):
                break
            self._oldest += 1
        return [
            request for request in requests[self._oldest :]
            if request is not None and request.replica == replica.number and request.completed < 0 and not request.reason
            and not (request.handoff and request.first >= 0)  # on its way to where it will generate
        ]  # fmt: skip

    def send_back(self, requests: Sequence[Request]) -> None:
        """Requests of a replica that has failed go to others, before whoever waits at the door."""
        for request in reversed(requests):
            request.replica = -1
            self.door.appendleft(request)
        self.rerouted += len(requests)
        self._open(None)

    # --- ends ----------------------------------------------------------------------------------------------------------------

    def drop(self, request: Request, reason: str) -> None:
        """A request ends unserved. It must be in no queue."""
        request.reason = reason
        self.dropped += 1
        self.reasons[reason] += 1
        self._leave(request)

    def ended(self, request: Request, replica: Replica) -> None:
        """A replica has finished a request."""
        self.finished += 1
        self._leave(request)
        if replica.draining:
            self.emptied(replica)

    def _given_up(self, request: Request, replica: Replica) -> None:
        """A request that its client has given up is off its replica."""
        self.drop(request, STOPPED)
        self.emptied(replica)

    def _leave(self, request: Request) -> None:
        self.last = self.clock.env._now
        if self.door and self.gate is not None and self.gate.reopens:
            self.knock()
        if request.row in self._turns:
            self._answered(request)
        elif self._concurrency and self._next < len(self._order):
            self.clock.call_at(self.clock.now + self._turnaround, self._follow, priority=LATE)

    def _answered(self, request: Request) -> None:
        """The turns that follow a request are due, or dropped with it."""
        now = self.clock.now
        turns = self._turns.pop(request.row)
        if not request.reason:
            for row in turns:
                at = max(self._arrivals[row], now + int(self.table.think[row]))
                heappush(self._later, (at, row))
                self.clock.call_at(at, self._turn, priority=LATE)
            return
        while turns:
            row = turns.pop()
            turns += self._turns.pop(row, ())
            orphan = self._take(row, now)
            orphan.reason = ORPHAN
            self.dropped += 1
            self.reasons[ORPHAN] += 1
        if self._concurrency and self._next < len(self._order):
            self.clock.call_at(now + self._turnaround, self._follow, priority=LATE)

    def close(self) -> None:
        """The run is over: whoever still waits at the door waits in vain."""
        self.coming = 0
        self.front = []
        self._open(None)

    @property
    def arrived(self) -> int:
        """Rows from here on, but for turns of sessions that have begun, have not arrived."""
        return self._order[self._next] if self._next < len(self._order) else len(self._arrivals)

    @property
    def unfinished(self) -> int:
        """Requests that have neither finished nor been dropped."""
        return len(self._arrivals) - self.finished - self.dropped
