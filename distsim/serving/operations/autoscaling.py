"""Autoscaling: the number of replicas of a pool follows the load.

``target:outstanding=8,min=1,max=8,every=10s,startup=60s``; the policy is a file of ``autoscalers/`` (role ``autoscaler``).

Rules, as those of the Kubernetes horizontal pod autoscaler ("Horizontal Pod Autoscaling", algorithm details):
- Every ``every`` the policy is shown the load and says how many replicas it wants; ``min``, ``max`` and the GPUs of the cluster
  bound that.
- More than there are (in service or starting): the missing ones are launched at once. They take requests after the start
  (``startup``, and the weights at the rate of ``storage``), and their GPUs from now on.
- Fewer: only what was wanted at no time within ``cooldown`` goes. Those that start go first, the latest first, then those with
  the fewest requests; they take no more requests, finish those they have (*draining*), and give their GPUs back.
- A replica that has failed counts as none; its GPUs stay taken until it is back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import Field, model_validator

from distsim.errors import ConfigError
from distsim.kernel.clock import END_OF_TIME, LATE
from distsim.params import parse, validated
from distsim.registry import lookup
from distsim.serving.durations import Duration, SomeTime, ps
from distsim.serving.operations.startup import StartupParams
from distsim.serving.replica import Replica
from distsim.serving.service import Service


class ScalingParams(StartupParams):
    """What every policy can be told. Defaults are Kubernetes's."""

    min: int = Field(1, ge=0, description="fewest replicas")
    max: int | None = Field(None, ge=1, description="most replicas; default: what the cluster's GPUs allow")
    every: SomeTime = Field("15s", description="time between decisions")
    cooldown: Duration = Field("5min", description="a replica goes when it was not wanted for so long")
    pool: str = Field("", description="name of the pool that is scaled; default: the only one")

    @model_validator(mode="after")
    def _ordered(self) -> ScalingParams:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"max={self.max} is less than min={self.min}")
        return self


@dataclass(frozen=True, slots=True)
class Load:
    """What a policy sees: the pool, now.

    now: ps since the start. replicas: in service; starting: on their way. outstanding: requests, at the door, waiting or
    served; queued: those that are not admitted. kv: share of the KV blocks in use. waits: ps to the first token, of all
    requests that had it since the last decision; for those that have none yet, how long they have waited so far.
    """

    now: int
    replicas: int
    starting: int
    outstanding: int
    queued: int
    kv: float
    waits: Sequence[int]

    @property
    def current(self) -> int:
        """Replicas in service or starting."""
        return self.replicas + self.starting


class Autoscaler(Protocol):
    """Made with its Params, a subclass of ScalingParams: ``Name(params)``."""

    #: whether it looks at ``Load.waits``, which cost a look at every request
    waits: bool

    def wanted(self, load: Load) -> int:
        """How many replicas there should be; bounds are not its business."""
        ...

    def until(self, now: int) -> int | None:
        """When it may want another number though the load stays as it is, ps; None: never."""
        ...


def autoscaler(text: str) -> tuple[Autoscaler, ScalingParams]:
    """The policy ``NAME:key=value,...`` and its parameters. Raises UnknownNameError, ConfigError."""
    name, options = parse(text)
    component = lookup("autoscaler", name)
    params = validated(component.Params, f"autoscaler {name}", options)
    made: Autoscaler = component(params)
    return made, params


def bounded(params: ScalingParams, room: int) -> int:
    """Most replicas of a pool, where the cluster has GPUs for ``room``. Raises ConfigError where it has too few."""
    most = room if params.max is None else params.max
    if max(most, params.min) > room:
        raise ConfigError(
            f"up to {max(most, params.min)} replicas, the cluster has GPUs for {room}", where="autoscale",
            fix="Make the cluster larger (gpus=N), or set max to fewer.",
        )  # fmt: skip
    return most


class Autoscaling:
    """Carries out what a policy wants. launched, drained: how many replicas came and went."""

    def __init__(
        self, policy: Autoscaler, params: ScalingParams, service: Service, replicas: Sequence[Replica], startup: int
    ) -> None:
        """replicas: of the pool, those that are not launched yet among them. startup: ps."""
        self.launched = self.drained = 0
        self._policy = policy
        self._replicas = list(replicas)
        self._min, self._max = params.min, len(self._replicas)
        self._service, self._clock = service, service.clock
        self._startup = startup
        self._every, self._cooldown = ps(params.every), ps(params.cooldown)
        self._starting: list[Replica] = []
        self._past: deque[tuple[int, int]] = deque()  #: (ps, replicas wanted then), within the cool-down
        self._looked = -1  #: ps of the last decision
        self._first = 0  #: rows before it had their first token, or were dropped, before the last decision

    def start(self) -> None:
        """After Service.start, before the clock runs."""
        for replica in self._replicas:
            replica.arm()
        now = self._clock.now
        self._past.append((now, len(self._mine)))
        self._service.coming += 1
        self._next(now + self._every)

    def _next(self, at: int) -> None:
        if at < END_OF_TIME:
            self._clock.call_at(at, self._decide, priority=LATE)
        else:
            self._service.coming -= 1

    # --- decisions ------------------------------------------------------------------------------------------------------------

    @property
    def _mine(self) -> list[Replica]:
        """In service."""
        front = set(self._service.front)
        return [replica for replica in self._replicas if replica in front]

    def _decide(self, _: object) -> None:
        service, now = self._service, self._clock.now
        if not service.unfinished:
            service.coming -= 1
            return
        load = self._load()
        wanted = min(max(self._policy.wanted(load), self._min), self._max)
        past = self._past
        past.append((now, wanted))
        while past[0][0] < now - self._cooldown:
            past.popleft()
        least = max(count for _, count in past)
        changed = False
        if wanted > load.current:
            changed = self._grow(wanted - load.current)
        elif least < load.current:
            self._shrink(load.current - least)
            changed = True
        settled = not changed and least == wanted
        if settled and not self._starting and self._clock.pending == 0:
            self._idle(now)
        else:
            self._next(now + self._every)

    def _idle(self, now: int) -> None:
        """Nothing is under way, yet requests wait: only the policy's own plan can change that."""
        until = self._policy.until(now)
        if until is None:
            self._service.coming -= 1
            self._service.knock()
        else:
            self._next(now + max(1, -(-(until - now) // self._every)) * self._every)

    def _grow(self, count: int) -> bool:
        """Launch so many, as far as there are GPUs."""
        now = self._clock.now
        free = [replica for replica in self._replicas if replica.since < 0][:count]
        for replica in free:
            replica.launch(now)
            self._starting.append(replica)
            self._service.coming += 1
            self.launched += 1
            self._clock.call_at(now + self._startup, self._ready, (replica, now), LATE)
        return bool(free)

    def _ready(self, call: Any) -> None:
        """A replica has started, unless it was called off."""
        replica, since = call.subject
        if replica not in self._starting or replica.since != since:
            return
        self._starting.remove(replica)
        self._service.coming -= 1
        if replica.started < 0:
            replica.started = self._clock.now
        self._service.put_in(replica)

    def _shrink(self, count: int) -> None:
        """So many go."""
        self.drained += count
        while count and self._starting:
            replica = self._starting.pop()
            replica.stop(self._clock.now)
            self._service.coming -= 1
            count -= 1
        for replica in sorted(self._mine, key=lambda one: (one.outstanding, -one.number))[:count]:
            self._service.drain(replica)

    # --- the load -------------------------------------------------------------------------------------------------------------

    def _load(self) -> Load:
        service, mine = self._service, self._mine
        door = len(service.door)
        used = sum(replica.used for replica in mine)
        total = sum(replica.scheduler.kv.total for replica in mine)
        return Load(
            self._clock.now, len(mine), len(self._starting), door + sum(replica.outstanding for replica in mine),
            door + sum(replica.queued for replica in mine), used / total if total else 0.0,
            self._waits() if self._policy.waits else (),
        )  # fmt: skip

    def _waits(self) -> list[int]:
        """See Load.waits."""
        now, looked = self._clock.now, self._looked
        self._looked = now
        requests = self._service.requests
        found = []
        oldest = -1
        for row in range(self._first, len(requests)):
            request = requests[row]
            if request is None:
                if oldest < 0:
                    oldest = row
                if row >= self._service.arrived:
                    break
            elif request.first < 0 and not request.reason:
                found.append(now - request.arrival)
                if oldest < 0:
                    oldest = row
            elif request.first > looked:
                found.append(request.first - request.arrival)
        self._first = oldest if oldest >= 0 else len(requests)
        return found
