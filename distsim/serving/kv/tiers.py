"""Memory below the GPU's for prefixes: the host's, disks. What the GPU's cache throws out stays findable there.

Blocks that are thrown out go to the first tier; each tier keeps what was used last, and passes what it has no room for on to
the next, the last one drops it. A prompt whose beginning is in a tier loads it instead of computing it, into blocks that it
takes; the tier keeps its copy. Loads take bytes over bandwidth (and a latency each): the iteration waits for them, or they run
beside it layer by layer (``overlap``). Copies downwards go the other way at the same time, on duplex links, and hold nothing
up: only their bytes are counted.

Sources: LMCache documentation, "KV cache offloading" (CPU, disk; LRU); Gao et al., "Cost-efficient LLM serving for multi-turn
conversations with CachedAttention" (2024), layer-wise pre-loading; Qin et al., "Mooncake" (2024), section 5.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from pydantic import Field

from distsim.errors import ConfigError
from distsim.params import SEPARATOR, Bandwidth, Parameters, Size, parse, validated
from distsim.serving.durations import Duration
from distsim.serving.kv.transfers import Transfers
from distsim.units import PS_PER_S, parse_bandwidth, parse_size, parse_time


class TierParams(Parameters):
    """Options of one tier; sizes and rates are the share of one GPU."""

    size: Size = Field(examples=["100GB"], description="of the memory, per GPU")
    bandwidth: Bandwidth = Field(examples=["50GB/s"], description="of loads from it, per GPU")
    latency: Duration = Field("0ns", description="of the loads of one request, once")
    overlap: bool = Field(False, description="load beside the iteration that needs it, layer by layer")


class Tier:
    """One memory. Contents are numbers of prefixes, the least recently used first. written = len + dropped at all times."""

    def __init__(
        self, name: str, room: int, load_ps: int, latency: int = 0, *, overlap: bool = False, number_bytes: float = 0.0,
        number_tokens: int = 0,
    ) -> None:  # fmt: skip
        """room: numbers that it holds. load_ps: of loading one. number_bytes, number_tokens: what one stands for, on a GPU."""
        self.name = name
        self.room = room
        self.load_ps = load_ps
        self.latency = latency
        self.overlap = overlap
        self.number_bytes = number_bytes
        self.number_tokens = number_tokens
        self.written = self.loaded = self.dropped = 0
        self.asked = 0  #: requests that loaded from it
        self._held: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, number: int) -> bool:
        return number in self._held

    def touch(self, number: int) -> None:
        """It has been used."""
        self._held.move_to_end(number)

    def put(self, number: int) -> int | None:
        """Keep a number; returns the one that has to go for it."""
        if number in self._held:
            self._held.move_to_end(number)
            return None
        self._held[number] = None
        self.written += 1
        if len(self._held) <= self.room:
            return None
        self.dropped += 1
        return self._held.popitem(last=False)[0]


class Tiers:
    """The memories below one GPU's cache, the fastest first."""

    def __init__(self, tiers: list[Tier], transfers: Transfers) -> None:
        self.tiers = tiers
        self._transfers = transfers

    def __contains__(self, number: int) -> bool:
        return any(number in tier for tier in self.tiers)

    def put(self, number: int) -> None:
        """The GPU's cache throws a number out."""
        gone: int | None = number
        for tier in self.tiers:
            if gone is not None:
                gone = tier.put(gone)

    def load(self, numbers: Iterable[int]) -> None:
        """A request takes its numbers, each from the first tier that has it."""
        asked = set()
        for number in numbers:
            tier = next(tier for tier in self.tiers if number in tier)
            tier.touch(number)
            tier.loaded += 1
            self._transfers.add(tier.load_ps, background=tier.overlap)
            asked.add(tier)
        for tier in self.tiers:
            if tier in asked:
                tier.asked += 1
                self._transfers.add(tier.latency, background=tier.overlap)


def tiers_of(text: str, number_bytes: float, transfers: Transfers, number_tokens: int = 0) -> Tiers:
    """``NAME:size=...,bandwidth=...`` of one tier or several joined by ``+``; number_bytes: of what one number stands for, on a
    GPU; number_tokens: how many tokens that is.

    Raises ConfigError: malformed, a name twice, or a tier that holds not one number.
    """
    made: list[Tier] = []
    for part in text.split(SEPARATOR):
        name, options = parse(part)
        params = validated(TierParams, name, options)
        if any(tier.name == name for tier in made):
            raise ConfigError(f"two tiers are called {name!r}", where=text)
        room = int(parse_size(params.size) // number_bytes)
        if room < 1:
            raise ConfigError(f"size {params.size} holds no prefix of {number_bytes:.0f} bytes", where=part)
        load = round(number_bytes / parse_bandwidth(params.bandwidth) * PS_PER_S)
        latency = parse_time(params.latency)
        made.append(
            Tier(
                name, room, load, latency, overlap=params.overlap, number_bytes=number_bytes, number_tokens=number_tokens
            )
        )  # fmt: skip
    return Tiers(made, transfers)
