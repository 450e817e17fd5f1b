"""What may happen during a run, as a YAML file says it (docs/events.md)::

    seed: 7
    events:
      - {at: 10ms, link: leaf0-spine1, bandwidth: 25%, until: 20ms}
      - {at: 12ms, link: leaf0-spine1, down: true, until: 30ms, detect: 1ms}
      - {at: 15ms, switch: spine3, down: true}
      - {at: 0, rank: 5, slow: 1.3}
      - {at: 40ms, rank: 9, lost: true, replace_after: 60s}
      - {at: 0, link: rail, jitter: {mean: 2us, distribution: exponential}}
      - {at: 5ms, background: {from: "gpu[0-7]", to: "gpu[8-15]", bytes: 64MiB, every: 5ms, count: 20}}

The kind of an event is told by its key: ``link``, ``switch``, ``rank`` or ``background``. Values are kept as written and read
where they are used; what cannot be read is refused here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from distsim.errors import ConfigError
from distsim.params import Parameters, worst
from distsim.units import parse_bandwidth, parse_size, parse_time


def _plain(value: Any) -> Any:
    """Numbers as text: YAML makes 0 an integer, and 64 is a size."""
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _time(text: str) -> str:
    """Checked. A bare number other than 0 is refused: its unit was forgotten."""
    try:
        parse_time(text)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    if re.fullmatch(r"\s*[+-]?[\d.eE+-]+\s*", text) and float(text) != 0:
        raise ValueError(f"{text!r} has no unit; write {text}ms, {text}us ...")
    return text


def _some_time(text: str) -> str:
    if parse_time(_time(text)) == 0:
        raise ValueError("must be more than 0")
    return text


def _rate(text: str) -> str:
    """``25%`` or ``100Gbps``."""
    if text.strip().endswith("%"):
        try:
            share = float(text.strip()[:-1])
        except ValueError:
            raise ValueError(f"{text!r} is not a percentage") from None
        if not 0 < share <= 100:
            raise ValueError(f"{text!r} is not above 0 % and at most 100 %; a dead link is `down: true`")
        return text
    try:
        parse_bandwidth(text)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return text


def _size(text: str) -> str:
    try:
        parse_size(text)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return text


def _named(names: str | list[str]) -> str | list[str]:
    if not names:
        raise ValueError("names nothing")
    return names


Time = Annotated[str, BeforeValidator(_plain), AfterValidator(_time)]
SomeTime = Annotated[str, BeforeValidator(_plain), AfterValidator(_some_time)]
Rate = Annotated[str, BeforeValidator(_plain), AfterValidator(_rate)]
Size = Annotated[str, BeforeValidator(_plain), AfterValidator(_size)]
Names = Annotated[str | list[str], AfterValidator(_named)]

_MOST_JITTER = "1h"  #: no latency is longer, and sums of so many stay in the range of the clock


class Event(Parameters):
    """What all events have."""

    at: Time  #: when it happens, from the start of the run


class _Lasting(Event):
    """An event that may end."""

    until: Time | None = None  #: when it is over; default: never

    @model_validator(mode="after")
    def _ends_later(self) -> _Lasting:
        if self.until is not None and parse_time(self.until) <= parse_time(self.at):
            raise ValueError(f"until {self.until} is not after at {self.at}")
        return self


class Jitter(Parameters):
    """Extra latency of transfers, drawn anew for each."""

    mean: SomeTime
    distribution: Literal["exponential", "uniform", "constant"] = "exponential"  #: uniform: between 0 and twice the mean

    @model_validator(mode="after")
    def _is_short(self) -> Jitter:
        if parse_time(self.mean) > parse_time(_MOST_JITTER):
            raise ValueError(f"a mean of {self.mean} is no jitter; at most {_MOST_JITTER}")
        return self


class LinkEvent(_Lasting):
    """Links that are slow, dead or unsteady."""

    key: ClassVar[str] = "link"
    link: Names  #: see distsim.events.select
    bandwidth: Rate | None = None  #: percent of what it has, or a rate
    latency: Time | None = None  #: of the hop, instead of what it has
    down: Literal[True] | None = None
    detect: Time | None = None  #: down: from the failure until routes avoid it; default at once
    jitter: Jitter | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> LinkEvent:
        said = [bool(self.bandwidth or self.latency), bool(self.down), bool(self.jitter)]
        if sum(said) != 1:
            raise ValueError("a link event says one of: bandwidth and/or latency, down: true, jitter")
        if self.detect is not None and not self.down:
            raise ValueError("detect goes with down: true")
        return self


class SwitchEvent(_Lasting):
    """A switch that is dead: all links at it are down."""

    key: ClassVar[str] = "switch"
    switch: Names
    down: Literal[True]
    detect: Time | None = None


class RankEvent(_Lasting):
    """A rank that computes slower, or is lost."""

    key: ClassVar[str] = "rank"
    rank: int | str | list[int]  #: 5, "0-7,12" or [1, 2]
    slow: float | None = Field(None, ge=1, le=1e6)  #: computation takes so many times as long
    lost: Literal[True] | None = None
    replace_after: SomeTime | None = None  #: lost: another takes over then; default: the run ends

    @model_validator(mode="after")
    def _says_one_thing(self) -> RankEvent:
        if (self.slow is None) == (self.lost is None):
            raise ValueError("a rank event says one of: slow: FACTOR, lost: true")
        if self.replace_after is not None and not self.lost:
            raise ValueError("replace_after goes with lost: true")
        if self.lost and self.until is not None:
            raise ValueError("a lost rank comes back with replace_after, not until")
        return self


class Background(Parameters):
    """Messages of others."""

    from_: Names = Field(alias="from")  #: hosts that send
    to: Names  #: hosts that receive
    pairs: Literal["each", "all"] = "each"  #: sender i to receiver i (mod their number), or each to all
    bytes: Size  #: of every message
    every: SomeTime | None = None  #: between two bursts
    count: int = Field(1, ge=1, le=10_000_000)  #: bursts

    @model_validator(mode="after")
    def _repeats(self) -> Background:
        if (self.count > 1) != (self.every is not None):
            raise ValueError("every and a count above 1 go together")
        return self


class BackgroundEvent(Event):
    """Flows of others, which share the network with the run."""

    key: ClassVar[str] = "background"
    background: Background


AnyEvent = LinkEvent | SwitchEvent | RankEvent | BackgroundEvent
_KINDS: dict[str, type[Any]] = {kind.key: kind for kind in (LinkEvent, SwitchEvent, RankEvent, BackgroundEvent)}


@dataclass(frozen=True, slots=True)
class Events:
    """Timed events and the seed of what is random in them."""

    events: tuple[AnyEvent, ...]
    numbers: tuple[int, ...]  #: of each event in its file, from 1; its draws depend on that number, not on its neighbours
    seed: int = 0
    source: str = "events"
    file: str | None = None  #: the file that was read

    def only(self, index: int) -> Events:
        """One event alone."""
        return replace(self, events=(self.events[index],), numbers=(self.numbers[index],))

    def place(self, index: int) -> str:
        """``events.yaml: event 3``."""
        return f"{self.source}: event {self.numbers[index]}"


def shipped() -> dict[str, Path]:
    """Name without suffix -> file of the events that come with distsim."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "data" / "events", package.parent / "events"):
        if folder.is_dir():
            return {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    return {}


def read_events(path: str) -> Events:
    """The events of a YAML file, or of a shipped one by its name. Raises ConfigError."""
    file = Path(path)
    if not file.is_file():
        known = shipped()
        found = known.get(path.removeprefix("events/").removesuffix(".yaml"))
        if found is None:
            beside = [other.name for other in file.parent.glob("*.y*ml")] if file.parent.is_dir() else []
            near = difflib.get_close_matches(file.name, [*beside, *known])
            names = ", ".join(known)
            raise ConfigError(
                "no such file of events", where=path, near=near, expected=f"a YAML file, or one of those shipped: {names}"
            )
        file = found
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"is not readable YAML: {' '.join(str(error).split())}", where=path) from None
    return replace(events_of(document, path), file=str(file))


def events_of(found: Any, source: str = "events") -> Events:
    """The events of a document: {seed, events: [...]}. Raises ConfigError."""
    if not isinstance(found, Mapping) or not isinstance(found.get("events"), list):
        raise ConfigError("has no list of events", where=source, expected="events: [{at: 10ms, switch: spine3, down: true}]")
    unknown = [str(key) for key in found if key not in ("seed", "events")]
    if unknown:
        near = difflib.get_close_matches(unknown[0], ("seed", "events"))
        raise ConfigError(f"unknown key {unknown[0]!r}", where=source, near=near, expected="seed and events")
    seed = found.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 63:
        raise ConfigError(f"seed is {seed!r}", where=source, expected="a whole number from 0")
    made = tuple(_event(one, f"{source}: event {number}") for number, one in enumerate(found["events"], 1))
    return Events(made, tuple(range(1, len(made) + 1)), seed, source)


def _event(found: Any, where: str) -> AnyEvent:
    """One event."""
    if not isinstance(found, Mapping):
        raise ConfigError(f"{found!r} is no event", where=where, expected="{at: 10ms, link: leaf0-spine1, down: true}")
    kinds = [name for name in _KINDS if name in found]
    if len(kinds) != 1:
        near = [] if kinds else [n for key in found for n in difflib.get_close_matches(str(key), _KINDS, n=1, cutoff=0.6)]
        said = f"says {' and '.join(kinds)}" if kinds else f"has only the keys {', '.join(map(str, found)) or 'none'}"
        raise ConfigError(f"what happens is unclear: it {said}", where=where, near=near, expected=f"one of {', '.join(_KINDS)}")
    kind = _KINDS[kinds[0]]
    try:
        return kind(**{str(key): value for key, value in found.items()})  # type: ignore[no-any-return]
    except ValidationError as failure:
        raise _refusal(failure, kind, where) from None


def _refusal(failure: ValidationError, kind: type[Any], where: str) -> ConfigError:
    """In words, with near keys."""
    first = worst(failure)
    path = [str(part) for part in first["loc"] if not str(part).startswith(("function-", "str", "list[", "int"))]
    model = kind
    for part in path[:-1]:
        model = {"jitter": Jitter, "background": Background}.get(part, model)
    known = [field.alias or name for name, field in model.model_fields.items()]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], known, n=2, cutoff=0.5)
        return ConfigError(f"unknown key {key!r}", where=where, near=near, expected=f"one of {', '.join(known)}")
    if first["type"] == "missing":
        return ConfigError(f"{key!r} is missing", where=where, expected=f"keys {', '.join(known)}")
    reason = first["msg"].removeprefix("Value error, ")
    return ConfigError(f"{key}: {reason} (it is {first['input']!r})" if key else reason, where=where)
