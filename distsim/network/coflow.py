"""Coflows: a whole collective, or a message, moves as one, as fast as the fullest link that it loads lets it.

A *coflow* (Chowdhury and Stoica, HotNets 2012) is its time alone, on idle links, and what it *demands* of every link that can
get full: the part of the link that it takes at full speed. Its speed is between 0 and 1. Links are shared out by progressive
filling (Bertsekas and Gallager, Data Networks, 6.5.2) on that speed: all speeds rise together until a link is full; coflows on
it stay there, the others rise on. Coflows that meet in a full link are therefore slowed by the same factor, whatever they
demand of it: none of them waits for another at the end.

All arithmetic is on integers (speeds in 2^-30, rounded down; demands in 2^-`DEMAND_BITS` of a link). Sums of integers do not
depend on their order, so that a class of symmetric coflows counted as one, its demands added up, behaves exactly as its members
one by one (docs/folding.md). A coflow ends at the nearest ps; one that was never slowed exactly its time alone after its start.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import Field

from distsim.errors import ConfigError
from distsim.network.model import NEVER
from distsim.params import Parameters

#: full speed
FULL = 1 << 30
#: a whole link is 2^70: a coefficient of a link (2^30) times a rate (2^40), see workload/images.py
DEMAND_BITS = 70
LINK = 1 << DEMAND_BITS
_ROOM = LINK * FULL


@dataclass(frozen=True, slots=True, eq=False)
class Coflow:
    """What moves as one.

    Attributes:
        alone: ps on idle links.
        demands: (link, part of it in 2^-DEMAND_BITS at full speed), each link once; links that can never be full may be left
            out. A part above the whole link is allowed: the coflow is then slowed even by itself.
    """

    alone: int
    demands: tuple[tuple[int, int], ...] = ()


class _Moving:
    """A coflow under way. ``left`` is in ps of full speed times FULL, as of ``since``."""

    __slots__ = ("coflow", "end", "left", "number", "since", "speed")

    def __init__(self, number: int, coflow: Coflow, at: int) -> None:
        self.number = number
        self.coflow = coflow
        self.left = coflow.alone * FULL
        self.since = at
        self.speed = FULL
        self.end = at + coflow.alone


class Coflows:
    """Links 0 .. links-1 and the coflows on them. States of a coflow: moving -> finished (reported exactly once).

    Used as a NetworkModel is: start, next_event, run_until. Starts and ends of one instant share one solution, and only
    coflows that full links connect to what changed are looked at.
    """

    class Params(Parameters):
        """Options of ``distsim run --network coflow:...`` (docs/folding.md)."""

        contention: bool = Field(True, description="communications share links; false: each takes its time alone")
        fold: bool = Field(True, description="simulate one rank of each class; false: every rank, with the same result")
        nccl: bool = Field(True, description="NCCL's closed form where it knows the GPUs; false: times from links alone")

    def __init__(self, links: int) -> None:
        self.solved = 0  #: how often links were shared out
        self._on: list[dict[int, int]] = [{} for _ in range(links)]  # per link: coflow -> demand
        self._asked = [0] * links  # per link: sum of demands
        self._moving: dict[int, _Moving] = {}
        self._ends: list[tuple[int, int, _Moving]] = []  # a heap; an entry counts while its coflow has that end
        self._started = 0
        self._now = 0
        self._changed: set[int] = set()  # coflows whose speeds may change at _changed_at
        self._changed_at = 0

    def start(self, coflow: Coflow, at: int) -> int:
        """Admit a coflow at ``at`` (>= every time run so far); returns its number: 0, 1, 2 ... in order of starts.

        Raises: ConfigError on a past instant, or an end beyond 2^62 ps.
        """
        if not self._now <= at < NEVER - coflow.alone:
            raise ConfigError(
                f"a coflow of {coflow.alone} ps cannot start at {at} ps", expected=f"{self._now} ps (now) or later"
            )
        self._settle(at)
        number = self._started
        self._started += 1
        one = self._moving[number] = _Moving(number, coflow, at)
        heapq.heappush(self._ends, (one.end, number, one))
        for link, demand in coflow.demands:
            self._on[link][number] = demand
            self._asked[link] += demand
            if self._asked[link] > LINK:
                self._changed.update(self._on[link])
        return number

    def next_event(self) -> int:
        """A lower bound on the time of the next end, NEVER if idle."""
        return self._changed_at if self._changed else self._head()

    def run_until(self, limit: int) -> tuple[int, list[int]]:
        """Advance to the first instant <= limit at which coflows finish: (instant, their numbers); (limit, []) if none does."""
        while True:
            if self._changed and limit > self._changed_at and self._head() > self._changed_at:
                self._solve()
            end = self._head()
            if end > limit or end >= NEVER:
                self._now = max(self._now, limit)
                return limit, []
            self._settle(end)
            finished = []
            while self._head() == end:
                _, number, one = heapq.heappop(self._ends)
                finished.append(number)
                one.end = -1
                del self._moving[number]
                self._leave(one)
            self._changed.difference_update(finished)
            return end, sorted(finished)

    def speeds(self) -> dict[int, float]:
        """Of every coflow under way, as of the last instant in which something happened."""
        if self._changed:
            self._solve()
        return {number: one.speed / FULL for number, one in self._moving.items()}

    def load(self) -> list[float]:
        """Part of every link that is in use, as of the last instant in which something happened."""
        speeds = self.speeds()
        return [sum(demand / LINK * speeds[number] for number, demand in on.items()) for on in self._on]

    # --- inside ---------------------------------------------------------------------------------------------------------

    def _head(self) -> int:
        """The next end by present speeds."""
        ends = self._ends
        while ends:
            end, _, one = ends[0]
            if one.end == end:
                return end
            heapq.heappop(ends)
        return NEVER

    def _settle(self, at: int) -> None:
        """Before something changes at ``at``: work off what changed earlier."""
        if self._changed and self._changed_at < at:
            self._solve()
        self._changed_at = self._now = at

    def _leave(self, one: _Moving) -> None:
        for link, demand in one.coflow.demands:
            on = self._on[link]
            if self._asked[link] > LINK:
                self._changed.update(on)
            del on[one.number]
            self._asked[link] -= demand

    def _solve(self) -> None:
        """Speeds of what full links connect to what has changed, from ``_changed_at`` on."""
        members, links = self._connected(self._changed)
        self._changed = set()
        self.solved += 1
        now = self._changed_at
        for number, speed in self._filled(members, links).items():
            one = self._moving[number]
            if speed != one.speed:
                one.left -= one.speed * (now - one.since)
                one.since, one.speed = now, speed
                one.end = now + (one.left + speed // 2) // speed  # to the nearest ps
                if one.end >= NEVER:
                    raise ConfigError("the run goes beyond 2^62 ps (53 days)", fix="Check sizes and bandwidths.")
                heapq.heappush(self._ends, (one.end, number, one))

    def _connected(self, seeds: Iterable[int]) -> tuple[set[int], set[int]]:
        """Coflows that are connected to these over links that are asked for more than they have, and those links."""
        members, links = set(seeds), set()
        front = list(members)
        while front:
            for link, _ in self._moving[front.pop()].coflow.demands:
                if link not in links and self._asked[link] > LINK:
                    links.add(link)
                    for number in self._on[link]:
                        if number not in members:
                            members.add(number)
                            front.append(number)
        return members, links

    def _filled(self, members: set[int], links: set[int]) -> dict[int, int]:
        """Progressive filling. The result does not depend on the order of members or links."""
        free = dict.fromkeys(links, _ROOM)
        asked = {link: self._asked[link] for link in links}
        speed: dict[int, int] = {}
        while asked:
            level = min(free[link] // weight for link, weight in asked.items())
            full = [link for link, weight in asked.items() if free[link] // weight == level]
            if level >= FULL:
                break
            level = max(level, 1)
            frozen = {number for link in full for number in self._on[link] if number not in speed}
            for number in frozen:
                speed[number] = level
                for link, demand in self._moving[number].coflow.demands:
                    if link in asked:
                        asked[link] -= demand
                        free[link] -= demand * level
            for link in [link for link, weight in asked.items() if weight <= 0]:
                del asked[link]
        for number in members:
            speed.setdefault(number, FULL)
        return speed


def demands_of(loads: Sequence[float], capacity: Sequence[float], alone: int) -> tuple[tuple[int, int], ...]:
    """Demands of a coflow that moves ``loads[l]`` bytes over link l of ``capacity[l]`` bytes/s in ``alone`` ps; scaled down
    where its time alone is less than its links allow (a closed form with its own idea of them rules).

    >>> demands_of([1000.0], [1e9], 1_000_000) == ((0, LINK),)       # 1,000 bytes at 1 GB/s in 1 us: the whole link
    True
    """
    parts = {
        link: size * 1e12 / capacity[link] / max(alone, 1) for link, size in enumerate(loads) if size > 0
    }  # fmt: skip
    scale = max(1.0, *parts.values()) if parts else 1.0
    return tuple((link, min(LINK, round(part / scale * LINK))) for link, part in parts.items())
