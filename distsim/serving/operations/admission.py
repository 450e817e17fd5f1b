"""Admission: which requests are let in, when, and how long they and their clients wait.

``queue:limit=100,timeout=30s`` and what else ``AdmissionParams`` lists; rates of tenants as ``each:requests=5,tokens=20000``
(every tenant) or ``NAME:...`` (one of them), joined by ``;``.

Rules:
- Rates come first. A tenant's bucket of requests, and its bucket of tokens, fill at its rates and hold what comes in ``burst``;
  a request takes one and its prompt and output tokens (output lengths are taken as known: services count ``max_tokens``, as
  OpenAI's do, "Rate limits"). A request that finds too little is dropped, or with ``full=wait`` held back until there is
  enough; a tenant's requests stay in order. Buckets are exact: the virtual scheduling form of the generic cell rate algorithm
  (ITU-T I.371, annex A), in integer ps.
- ``outstanding``: a replica with so many requests, waiting or served, is sent no other; requests wait at the door, first come
  first served. ``limit``: a replica where so many wait for admission is sent no other; where all are, the request is dropped.
  ``total``: nobody may wait at the door beside so many.
- ``timeout``: who has not been scheduled so long after its arrival is dropped. ``deadline`` (and the table's own): the client
  gives up so long after the arrival. Who waits then is dropped; who is being served goes on in vain, or with ``abort`` is
  stopped at the end of the iteration, and its KV blocks come free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from distsim.errors import ConfigError, UnknownNameError
from distsim.kernel.clock import END_OF_TIME, LATE
from distsim.params import Parameters, parse, validated
from distsim.serving.durations import Duration, SomeTime, ps
from distsim.serving.replica import Replica
from distsim.serving.request import Request
from distsim.serving.service import Gate, Service
from distsim.units import PS_PER_S

#: reasons to drop a request
FULL = "queues full"
CROWDED = "too many wait at the door"
LATE_START = "waited longer than its timeout"
GIVEN_UP = "past its deadline, while it waited"
OVER_RATE = "over its tenant's rate limit"
OVER_BUCKET = "larger than its tenant's token bucket"


class AdmissionParams(Parameters):
    """What ``queue:...`` can be told. What is left out does not limit."""

    limit: int | None = Field(None, ge=1, description="most requests that wait for admission at a replica")
    outstanding: int | None = Field(None, ge=1, description="most requests at a replica, waiting or served")
    total: int | None = Field(None, ge=0, description="most requests that wait at the door")
    timeout: SomeTime | None = Field(None, description="longest wait for the first iteration")
    deadline: SomeTime | None = Field(None, description="the client gives up so long after the arrival")
    abort: bool = Field(False, description="a client that gives up stops its request")


class RateParams(Parameters):
    """Rates of one tenant."""

    requests: float | None = Field(None, gt=0, description="requests per second")
    tokens: float | None = Field(None, gt=0, description="prompt and output tokens per second")
    burst: SomeTime = Field("1s", description="the buckets hold what comes in this time (of requests: at least one)")
    full: Literal["reject", "wait"] = Field("reject", description="what to do with requests beyond the rate")
    max_wait: Duration | None = Field(None, description="full=wait: drop what would be held back longer")

    @model_validator(mode="after")
    def _some(self) -> RateParams:
        if self.requests is None and self.tokens is None:
            raise ValueError("no rate given: requests= or tokens= (per second)")
        return self


def admission(text: str) -> AdmissionParams:
    """``queue:limit=100,timeout=30s``. Raises UnknownNameError, ConfigError."""
    name, options = parse(text)
    if name != "queue":
        raise UnknownNameError("admission", name, ["queue"])
    return validated(AdmissionParams, "admission queue", options)


def rates(text: str) -> dict[str, RateParams]:
    """Tenant (``each``: any other) -> its rates, of ``NAME:requests=5,...;NAME:...``. Raises ConfigError."""
    found: dict[str, RateParams] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, options = parse(part)
        if name in found:
            raise ConfigError(f"tenant {name!r} is given twice", where=text)
        found[name] = validated(RateParams, f"rate limit of {name}", options)
    if not found:
        raise ConfigError("no rate limit given", where=repr(text), expected="each:requests=5,tokens=20000")
    return found


class _Bucket:
    """A bucket that fills at a rate, by its virtual schedule: ``free`` is when it will be full again."""

    __slots__ = ("depth", "free", "unit")

    def __init__(self, rate: float, depth: int) -> None:
        """rate: per second. depth: ps that an empty one takes to fill."""
        self.unit = PS_PER_S / rate
        self.depth = depth
        self.free = 0

    def when(self, cost: int, now: int) -> int:
        """From when on ``cost`` is there."""
        return max(now, max(self.free, now) + round(cost * self.unit) - self.depth)

    def take(self, cost: int, at: int) -> None:
        """Take it, at a time when it is there."""
        self.free = max(self.free, at) + round(cost * self.unit)


class _Rate:
    """The buckets of one tenant."""

    def __init__(self, params: RateParams) -> None:
        self.params = params
        burst = ps(params.burst)
        self._requests = None
        if params.requests is not None:
            self._requests = _Bucket(params.requests, max(burst, round(PS_PER_S / params.requests)))
        self._tokens = None if params.tokens is None else _Bucket(params.tokens, burst)
        self._last = 0  #: ps at which the last was let in: requests stay in order

    def take(self, request: Request, now: int) -> tuple[int, str]:
        """(ps at which the request may pass, why it may not)."""
        tokens = request.prompt + request.output
        if self._tokens is not None and round(tokens * self._tokens.unit) > self._tokens.depth:
            return 0, OVER_BUCKET
        wanted = [(bucket, cost) for bucket, cost in ((self._requests, 1), (self._tokens, tokens)) if bucket is not None]
        at = max(self._last, *(bucket.when(cost, now) for bucket, cost in wanted))
        if at > now:
            if self.params.full == "reject":
                return 0, OVER_RATE
            if self.params.max_wait is not None and at - now > ps(self.params.max_wait):
                return 0, OVER_RATE
        at = max(at, now)
        for bucket, cost in wanted:
            bucket.take(cost, at)
        self._last = at
        return at, ""


class Admission(Gate):
    """The gate of ``AdmissionParams`` and ``RateParams``."""

    def __init__(
        self, params: AdmissionParams, limits: Mapping[str, RateParams] | None = None, tenants: Sequence[str] = ("",)
    ) -> None:
        """limits: as ``rates`` reads them. tenants: names by number. Raises UnknownNameError for a tenant nobody has."""
        self.params = params
        self.limits = params.limit is not None or params.outstanding is not None
        self.reopens = params.outstanding is not None
        self.delayed = 0  #: requests that were held back by their tenant's rate
        self._service: Service | None = None
        self._timeout = ps(params.timeout) if params.timeout else 0
        self._deadline = ps(params.deadline) if params.deadline else 0
        limits = limits or {}
        for name in limits:
            if name != "each" and name not in tenants:
                raise UnknownNameError("tenant", name, ["each", *filter(None, tenants)], where="rate limit")
        given = [limits.get(name) or limits.get("each") for name in tenants]
        self._rates = [None if params is None else _Rate(params) for params in given]
        self._limited = any(self._rates)

    def attach(self, service: Service) -> None:
        """See Gate."""
        self._service = service

    def arrive(self, request: Request, service: Service) -> None:
        """See Gate."""
        clock = service.clock
        at = now = clock.now
        if self._limited:
            rate = self._rates[request.tenant]
            if rate is not None:
                at, reason = rate.take(request, now)
                if reason:
                    service.drop(request, reason)
                    return
        if at > now:
            self.delayed += 1
            clock.call_at(at, self._let_in, request, LATE)
        else:
            service.admit(request)
        if self._timeout and request.scheduled < 0 and not request.reason:
            self._at(now + self._timeout, self._too_late, request)
        deadline = request.deadline or self._deadline
        if deadline and not request.reason:
            self._at(now + deadline, self._give_up, request)

    def _at(self, time: int, callback: Any, request: Request) -> None:
        assert self._service is not None
        if time < END_OF_TIME:
            self._service.clock.call_at(time, callback, request, LATE)

    def _let_in(self, call: Any) -> None:
        request = call.subject
        assert self._service is not None
        if not request.reason:
            self._service.admit(request)

    def room(self, front: Sequence[Replica]) -> Sequence[Replica] | str:
        """See Gate."""
        most, limit = self.params.outstanding, self.params.limit
        if most is not None:
            front = [replica for replica in front if replica.outstanding < most]
        if limit is None or not front:
            return front
        return [replica for replica in front if replica.queued < limit] or FULL

    def crowded(self, service: Service) -> str:
        """See Gate."""
        total = self.params.total
        return CROWDED if total is not None and len(service.door) >= total else ""

    # --- patience -------------------------------------------------------------------------------------------------------------

    def _too_late(self, call: Any) -> None:
        request = call.subject
        if request.scheduled < 0 and not request.reason:
            self._withdraw(request, LATE_START)

    def _give_up(self, call: Any) -> None:
        request = call.subject
        if request.completed >= 0 or request.reason or self._withdraw(request, GIVEN_UP):
            return
        if self.params.abort and request.replica >= 0:
            assert self._service is not None
            self._service.replicas[request.replica].abandon(request)

    def _withdraw(self, request: Request, reason: str) -> bool:
        """Drop a request that waits, at the door, before it, or in the queue of a replica. False if it is being served."""
        service = self._service
        assert service is not None
        if request.replica >= 0:
            replica = service.replicas[request.replica]
            if request.handoff and request.scheduled >= 0:
                return False  # its other half may be on its way to where it will generate
            if not replica.scheduler.withdraw(request):
                return False
            replica.poke()  # whoever waited behind it may be admitted
            service.drop(request, reason)
            service.emptied(replica)
            return True
        if request in service.door:
            service.door.remove(request)
            service.knock()  # it may have been the first in line
        service.drop(request, reason)
        return True
