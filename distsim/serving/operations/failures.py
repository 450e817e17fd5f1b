"""Replicas that fail, come back, or are slow.

``mtbf:hours=100,repair=10min`` (random), or timed: ``down:at=60s,replica=0,repair=2min``, ``slow:at=90s,replica=1,factor=2``;
``policy:...`` says what happens to requests and how long a start takes. Parts are joined by ``;``, or are the items of a list
in a YAML file, as text or as ``{down: {at: 60s, replica: 0}}``.

Rules:
- A replica that fails loses its queue, its KV cache and the iteration under way. It is sent nothing until it is back: after the
  repair, and the start (``startup``, and its weights at the rate of ``storage``). Without a repair it never comes back.
- Its requests are sent to other replicas before anybody who waits at the door: with ``inflight=recompute`` their clients keep
  what they have, and prompt and answer so far are computed anew (token replay, as NVIDIA Dynamo's request migration);
  with ``restart`` they begin again; with ``lost`` they are dropped. One that loses its replica more than ``retries`` times is.
- Random failures come at exponential times with mean ``hours``, for each replica from a generator of its own, and only while it
  is in service; repairs take exponential times with mean ``repair``, or exactly that with ``fixed``.
- A slow replica's iterations take ``factor`` times as long, from the first that begins after ``at``; factors of slow-downs that
  overlap multiply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from distsim.errors import ConfigError, UnknownNameError
from distsim.kernel.clock import END_OF_TIME, LATE
from distsim.params import Parameters, parse, validated
from distsim.serving.durations import Duration, SomeTime, ps
from distsim.serving.operations.startup import StartupParams
from distsim.serving.replica import Replica
from distsim.serving.seeds import stream
from distsim.serving.service import Service
from distsim.units import PS_PER_S

#: reasons to drop a request
LOST = "its replica failed"
UNLUCKY = "its replicas failed too often"


class Mtbf(Parameters):
    """Random failures of every replica."""

    hours: float = Field(gt=0, examples=[100], description="mean time in service between failures of one replica")
    repair: SomeTime = Field(examples=["10min"], description="mean time to repair")
    fixed: bool = Field(False, description="every repair takes just that")


class Down(Parameters):
    """One failure."""

    at: Duration = Field(examples=["60s"], description="since the start")
    replica: int = Field(ge=0, examples=[0], description="its number")
    repair: Duration | None = Field(None, description="how long it takes; default: for good")


class Slow(Parameters):
    """A replica is slow for a time."""

    at: Duration = Field(examples=["60s"], description="since the start")
    replica: int = Field(ge=0, examples=[0], description="its number")
    factor: float = Field(gt=0, examples=[2], description="iterations take so many times as long")
    until: Duration | None = Field(None, description="default: to the end")

    @model_validator(mode="after")
    def _ordered(self) -> Slow:
        if self.until is not None and ps(self.until) <= ps(self.at):
            raise ValueError(f"until={self.until} is not after at={self.at}")
        return self


class PolicyParams(StartupParams):
    """What follows a failure."""

    inflight: Literal["recompute", "restart", "lost"] = Field("recompute", description="what becomes of its requests")
    retries: int = Field(3, ge=0, description="how often a request may lose its replica and be sent to another")


@dataclass(frozen=True, slots=True)
class FailurePlan:
    """What may befall the replicas of a service."""

    mtbf: Mtbf | None = None
    downs: tuple[Down, ...] = ()
    slows: tuple[Slow, ...] = ()
    policy: PolicyParams = field(default_factory=lambda: PolicyParams.model_validate({}))

    @property
    def replicas(self) -> int:
        """How many replicas the timed events speak of: one more than the highest number."""
        numbers = [down.replica for down in self.downs] + [slow.replica for slow in self.slows]
        return max(numbers, default=-1) + 1


_KINDS: dict[str, type[Parameters]] = {"mtbf": Mtbf, "down": Down, "slow": Slow, "policy": PolicyParams}


def failures(text: str) -> FailurePlan:
    """The plan that a text or a YAML file gives. Raises ConfigError, UnknownNameError."""
    items: list[tuple[str, Mapping[str, Any]]]
    if text.endswith((".yaml", ".yml")):
        items = _listed(Path(text))
    else:
        items = [parse(part) for part in text.split(";") if part.strip()]
    found: dict[str, list[Any]] = {kind: [] for kind in _KINDS}
    for kind, options in items:
        if kind not in _KINDS:
            raise UnknownNameError("failure", kind, _KINDS, where=text)
        found[kind].append(validated(_KINDS[kind], f"failures, {kind}", options))
    for kind in ("mtbf", "policy"):
        if len(found[kind]) > 1:
            raise ConfigError(f"{kind} is given twice", where=text)
    if not items:
        raise ConfigError("no failure given", where=repr(text), expected="mtbf:hours=100,repair=10min or down:at=60s,replica=0")
    return FailurePlan(
        next(iter(found["mtbf"]), None), tuple(found["down"]), tuple(found["slow"]),
        next(iter(found["policy"]), PolicyParams.model_validate({})),
    )  # fmt: skip


def _listed(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """The items of a file."""
    import yaml

    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"is no YAML: {' '.join(str(error).split())}", where=str(path)) from None
    expected = "a list of down:at=60s,replica=0 or {down: {at: 60s, replica: 0}}"
    if not isinstance(document, list):
        raise ConfigError("is no list", where=str(path), expected=expected)
    items: list[tuple[str, Mapping[str, Any]]] = []
    for number, item in enumerate(document):
        if isinstance(item, str):
            items.append(parse(item))
        elif isinstance(item, dict) and len(item) == 1 and isinstance(next(iter(item.values())), dict):
            kind, options = next(iter(item.items()))
            items.append((str(kind), {str(key): value for key, value in options.items()}))
        else:
            raise ConfigError(f"item {number} is {item!r}", where=str(path), expected=expected)
    return items


class Failures:
    """Lets a plan happen to a service. failed: how many failures there were; missed: timed ones that met no running replica."""

    def __init__(self, plan: FailurePlan, service: Service, seed: int, startup: Callable[[Replica], int]) -> None:
        """startup: ps that a replica takes to start."""
        self.plan = plan
        self.failed = self.missed = 0
        self._service = service
        self._clock = service.clock
        self._startup = startup
        self._seed = seed
        self._dice: dict[int, Any] = {}  #: replica -> its generator
        self._lives: dict[int, int] = {}  #: replica -> how often it has come into service
        self._slowed: dict[int, list[float]] = {}  #: replica -> factors in force
        self._losses: dict[int, int] = {}  #: row -> how often it lost its replica

    def start(self) -> None:
        """After Service.start, before the clock runs."""
        service, at = self._service, self._clock.now
        service.joined.append(self._joined)
        for replica in service.replicas:
            replica.arm()
        for replica in service.front:
            self._joined(replica)
        for down in self.plan.downs:
            self._at(at + ps(down.at), self._down, down)
        for slow in self.plan.slows:
            self._at(at + ps(slow.at), self._slow, slow)

    def _at(self, time: int, callback: Callable[[Any], None], subject: Any) -> bool:
        """Whether that will ever be."""
        if time >= END_OF_TIME:
            return False
        self._clock.call_at(time, callback, subject, LATE)
        return True

    # --- failures -------------------------------------------------------------------------------------------------------------

    def _joined(self, replica: Replica) -> None:
        """A replica is in service: draw when it fails."""
        life = self._lives[replica.number] = self._lives.get(replica.number, 0) + 1
        mtbf = self.plan.mtbf
        if mtbf is not None:
            after = self._rng(replica).exponential(mtbf.hours * 3600 * PS_PER_S)
            self._at(self._clock.now + max(1, round(after)), self._random, (replica, life))

    def _rng(self, replica: Replica) -> Any:
        number = replica.number
        if number not in self._dice:
            self._dice[number] = stream(self._seed, "failures", number)
        return self._dice[number]

    def _random(self, call: Any) -> None:
        replica, life = call.subject
        mtbf = self.plan.mtbf
        assert mtbf is not None
        if self._lives[replica.number] != life or not self._runs(replica) or not self._service.unfinished:
            return
        repair = ps(mtbf.repair)
        if not mtbf.fixed:
            repair = max(1, round(self._rng(replica).exponential(repair)))
        self.fail(replica, repair)

    def _down(self, call: Any) -> None:
        down: Down = call.subject
        replica = self._replica(down.replica)
        if replica is None:
            self.missed += 1
        else:
            self.fail(replica, None if down.repair is None else ps(down.repair))

    def _replica(self, number: int) -> Replica | None:
        """A replica that runs."""
        replicas = self._service.replicas
        return replicas[number] if number < len(replicas) and self._runs(replicas[number]) else None

    def _runs(self, replica: Replica) -> bool:
        return replica.draining or replica in self._service.front

    def fail(self, replica: Replica, repair: int | None) -> None:
        """A replica fails now; repair: ps that takes, None: for good."""
        service, policy = self._service, self.plan.policy
        self.failed += 1
        self._lives[replica.number] += 1
        service.take_out(replica)
        replica.fail()
        lost = service.requests_of(replica)
        if replica.draining:
            replica.stop(self._clock.now)
        elif repair is not None:
            after = repair + self._startup(replica)
            if self._at(self._clock.now + after, self._back, replica):
                service.coming += 1
                replica.down += after
        again = []
        for request in lost:
            request.lose(policy.inflight == "restart")
            losses = self._losses[request.row] = self._losses.get(request.row, 0) + 1
            if policy.inflight == "lost" or losses > policy.retries:
                service.drop(request, LOST if policy.inflight == "lost" else UNLUCKY)
            else:
                again.append(request)
        service.send_back(again)

    def _back(self, call: Any) -> None:
        """A replica is repaired and has started."""
        self._service.coming -= 1
        self._service.put_in(call.subject)

    # --- slow replicas --------------------------------------------------------------------------------------------------------

    def _slow(self, call: Any) -> None:
        slow: Slow = call.subject
        if slow.replica >= len(self._service.replicas):
            self.missed += 1
            return
        self._slowed.setdefault(slow.replica, []).append(slow.factor)
        self._set(slow.replica)
        if slow.until is not None:
            self._at(self._clock.now + ps(slow.until) - ps(slow.at), self._over, slow)

    def _over(self, call: Any) -> None:
        slow: Slow = call.subject
        self._slowed[slow.replica].remove(slow.factor)
        self._set(slow.replica)

    def _set(self, number: int) -> None:
        factor = 1.0
        for one in sorted(self._slowed[number]):
            factor *= one
        self._service.replicas[number].slow(factor)
