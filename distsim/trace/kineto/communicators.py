"""Communicators of a whole job, put together from what each capture calls them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from distsim.trace.kineto.comms import Communicator, Kernels


@dataclass(slots=True, eq=False)
class Common:
    """A communicator, and which captures are in it."""

    name: str
    kind: str  #: Communicator.kind
    ranks: tuple[int, ...]  #: of the whole job; empty: not told
    size: int  #: 0: not told
    assumed: bool = False  #: nothing tells its ranks: it was taken for the whole job
    split: int = 0  #: it is one of so many that share a stream number, told apart by the ends of their kernels
    local: dict[int, int] = field(default_factory=dict)  #: capture -> number that the communicator has there

    @property
    def missing(self) -> int:
        """Members whose captures are not there."""
        return max(self.size - len(self.local), 0)


def unite(kernels: Sequence[Kernels], numbers: Sequence[int], world: int) -> list[Common]:
    """Communicators of all captures; those that are one are put together.

    The same name and ranks are the same communicator. One that only a stream stands for is taken for the whole job, the j-th
    such stream of one rank for the j-th of every other, as long as all ranks have as many and nothing speaks against it.
    """
    united: dict[tuple[object, ...], Common] = {}
    streams = [[c for c, one in enumerate(own.communicators) if one.kind == "stream"] for own in kernels]
    alike = len({len(found) for found in streams}) == 1
    for k, own in enumerate(kernels):
        for c, one in enumerate(own.communicators):
            key = _key(one, k)
            if one.ranks and numbers[k] not in one.ranks:
                key = (*key, k)  # the capture says itself that it is not in it: nobody can be waiting for it
            if one.kind == "stream" and alike and one.size in (0, world):
                key = ("stream", streams[k].index(c))
            common = united.setdefault(key, Common(one.name, one.kind, one.ranks, one.size))
            common.size = max(common.size, one.size)
            common.local.setdefault(k, c)
    for common in united.values():
        _settle(common, numbers, world)
    return list(united.values())


def labels(commons: Sequence[Common], world: int) -> list[str]:
    """What to call each. One that only a stream stands for is called by its ranks, numbered where several have the same: its
    stream is another on every rank."""
    plain = [_by_ranks(one.ranks, world) if one.kind == "stream" and len(one.ranks) > 1 else one.name for one in commons]
    count, seen = Counter(plain), Counter[str]()
    found = []
    for one, name in zip(commons, plain, strict=True):
        seen[name] += 1
        found.append(f"{name} ({seen[name]})" if one.kind == "stream" and count[name] > 1 else name)
    return found


def _by_ranks(ranks: Sequence[int], world: int) -> str:
    """``all 8 ranks``, ``ranks 0 to 3``, ``ranks 0, 4``, ``8 ranks from 1``."""
    if len(ranks) == world:
        return f"all {world} ranks"
    if len(ranks) > 2 and ranks[-1] - ranks[0] == len(ranks) - 1:
        return f"ranks {ranks[0]} to {ranks[-1]}"
    return f"ranks {', '.join(map(str, ranks))}" if len(ranks) <= 4 else f"{len(ranks)} ranks from {ranks[0]}"


def _key(one: Communicator, capture: int) -> tuple[object, ...]:
    if one.ranks:
        return one.kind, one.name, one.ranks
    if one.kind == "group":
        return one.kind, one.name, one.size
    return one.kind, one.name, capture


def _settle(common: Common, numbers: Sequence[int], world: int) -> None:
    """Complete what is known of a communicator from the others' view of it."""
    if not common.ranks and common.kind in ("stream", "group"):
        present = sorted(numbers[k] for k in common.local)
        if common.size in (0, world):
            common.assumed = common.size == 0
            common.ranks = tuple(range(world))
        elif common.size == len(present):
            common.ranks = tuple(present)
    if common.ranks and not all(numbers[k] in common.ranks for k in common.local):
        common.ranks = ()
    common.size = len(common.ranks) or common.size
