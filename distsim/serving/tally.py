"""What the memories below the GPUs', swapping and drafts did in a run, counted by pool."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from distsim.serving.kv.swap import Swap
from distsim.serving.kv.tiers import Tier
from distsim.serving.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class TierTally:
    """One tier of a pool's replicas. hits: requests that found part of their prompt here; loaded_tokens: of those prompts.
    Bytes are of all GPUs. written: came from above; dropped: thrown out for lack of room, to the next tier where there is one.
    """

    pool: str
    name: str
    hits: int
    loaded_tokens: int
    loaded_bytes: int
    written_bytes: int
    dropped_bytes: int


@dataclass(frozen=True, slots=True)
class SwapTally:
    """Keys and values of preempted requests that went to the host, and came back. Bytes are of all GPUs."""

    pool: str
    out_tokens: int
    back_tokens: int
    out_bytes: int
    back_bytes: int


@dataclass(frozen=True, slots=True)
class DraftTally:
    """steps: iterations of single sequences that generated; in each ``drafted`` tokens were proposed. tokens: that came out."""

    pool: str
    steps: int
    drafted: int
    tokens: int

    @property
    def accepted_per_step(self) -> float:
        """Drafted tokens that were right, of each step: all that came out but the model's own."""
        return self.tokens / self.steps - 1 if self.steps else 0.0


@dataclass(frozen=True, slots=True)
class Tallies:
    """Empty where a run has none of it."""

    tiers: tuple[TierTally, ...] = ()
    swaps: tuple[SwapTally, ...] = ()
    drafts: tuple[DraftTally, ...] = field(default=())


def counters(scheduler: Scheduler) -> list[Tier | Swap]:
    """What counts in a scheduler: its tiers and its swap space, those of all its lanes."""
    found: list[Tier | Swap] = []
    for lane in getattr(scheduler, "lanes", (scheduler,)):
        tiers = getattr(lane.kv, "tiers", None)
        found += [] if tiers is None else tiers.tiers
        if lane.swap is not None:
            found.append(lane.swap)
    return found


def tallies(replicas: Iterable[Any], pools: Mapping[int, tuple[str, int]]) -> Tallies:
    """Of a run. pools: of each replica's number the name of its pool and the GPUs that share one KV cache (tp * pp)."""
    tiers: dict[tuple[str, str], list[int]] = {}
    swaps: dict[str, list[int]] = {}
    drafts: dict[str, list[Any]] = {}
    for replica in replicas:
        pool, gpus = pools[replica.number]
        for lane in getattr(replica.scheduler, "lanes", (replica.scheduler,)):
            drafting = drafts.setdefault(pool, [])
            if lane.acceptance is not None and all(lane.acceptance is not one for one in drafting):
                drafting.append(lane.acceptance)
        for one in (*replica.former, *counters(replica.scheduler)):
            if isinstance(one, Tier):
                loaded, written, dropped = (round(n * one.number_bytes * gpus) for n in (one.loaded, one.written, one.dropped))
                _add(tiers, (pool, one.name), (one.asked, one.loaded * one.number_tokens, loaded, written, dropped))
            else:
                sizes = (one.block_tokens, one.block_bytes * gpus)
                _add(swaps, pool, [round(blocks * size) for size in sizes for blocks in (one.out, one.back)])
    return Tallies(
        tuple(TierTally(*key, *counted) for key, counted in tiers.items()),
        tuple(SwapTally(pool, *counted) for pool, counted in swaps.items()),
        tuple(
            DraftTally(pool, sum(one.steps for one in found), found[0].tokens, sum(one.came for one in found))
            for pool, found in drafts.items() if found
        ),
    )  # fmt: skip


def _add(found: dict[Any, list[int]], key: Any, counted: Iterable[int]) -> None:
    known = found.get(key)
    found[key] = list(counted) if known is None else [a + b for a, b in zip(known, counted, strict=True)]
