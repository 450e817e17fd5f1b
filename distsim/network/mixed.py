"""Several levels in one network, by link domain: NVLink closed-form, the fabric max-min or in queues.

``--network nvlink=analytic+*=fluid``. Where all levels but one know no contention, that one runs the whole network and its
links of the other domains limit a transfer without being shared: as fast as the one level. Otherwise every transfer is cut
where its route passes from the links of one level to those of another, and each level carries its stretches, one after the
other, as messages of its own: exact at each level, stored whole in between, and some 0.5 ms of CPU a stretch.
"""

from __future__ import annotations

import dataclasses
import heapq
import inspect
import itertools
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError, UnknownNameError
from distsim.network.model import NEVER, NO_LANE, Finished, LinkUsage, NetworkModel, Transfers
from distsim.network.pieces import Pieces
from distsim.network.spec import Level, level_of
from distsim.network.transfers import refuse_bad, single, too_long
from distsim.topology.graph import Paths, Topology
from distsim.topology.lanes import choices_of

MOST = 8  #: stretches of a route
_MESSAGES = 1 << 16  # remembered
_NONE = np.zeros(0, dtype=np.int32)
EVERY = "*"  #: all domains that are not named
_FREE = "analytic"  #: the level on which links are not shared
_WHOLE = -2  #: in place of a row: the group as a whole, on the level that is not shared


def mixed(spec: str, topology: Topology, *, where: str = "--network") -> NetworkModel:
    """The network of ``domain=level+domain=level``. Raises ConfigError, UnknownNameError."""
    named: dict[str, str] = {}
    for part in re.split(r"\+(?=[^+:,=]+=)", spec):
        domain, _, level = (word.strip() for word in part.partition("="))
        if not level:
            raise ConfigError(f"{part.strip()!r} names no level", where=where, expected="DOMAIN=LEVEL+DOMAIN=LEVEL")
        if domain in named:
            raise ConfigError(f"domain {domain!r} is named twice", where=where)
        if domain != EVERY and domain not in topology.domains:
            raise UnknownNameError("link domain", domain, topology.domains, where=where)
        named[domain] = level
    missing = [domain for domain in topology.domains if domain not in named]
    if missing and EVERY not in named:
        raise ConfigError(
            f"no level for the links of {', '.join(missing)}", where=where, fix=f"Add +{EVERY}=LEVEL for all others."
        )
    texts = [named.get(domain, named.get(EVERY, "")) for domain in topology.domains]
    distinct = list(dict.fromkeys(texts))
    levels = [level_of(text, where=where) for text in distinct]
    level_at = np.array([distinct.index(text) for text in texts], dtype=np.int64)[topology.link_domain]
    if len(levels) == 1:
        return levels[0](topology)
    shared = [number for number, level in enumerate(levels) if level.name != _FREE]
    if len(shared) == 1 and "uncontended" in inspect.signature(levels[shared[0]].make).parameters:
        return levels[shared[0]](topology, uncontended=level_at != shared[0])
    return Mixed(topology, levels, level_at)


@dataclasses.dataclass(slots=True, eq=False)
class _Group:
    """A group under way."""

    transfers: Transfers
    waits: list[int]  #: per row: dependencies that have not been delivered
    after: list[list[int]]  #: per row: rows that depend on it
    left: int  #: rows that have not been delivered, and 1 for its start
    host_end: dict[int, int] = dataclasses.field(default_factory=dict)


class Mixed:
    """Levels by link domain, coordinated stretch by stretch. States of a row: waiting, on stretch 0, 1 ..., delay, delivered.

    Args:
        topology: hosts and links; its routing may divide transfers, but not let them choose a route as they go.
        levels: what makes each level's network.
        level_at: index of the level that carries each link.

    A group that knows what it takes (``Transfers.alone``) and keeps to links that are not shared goes there as a whole.
    """

    stores = float("inf")  #: see NetworkModel: between two levels whole transfers

    def __init__(self, topology: Topology, levels: Sequence[Level], level_at: NDArray[np.int64]) -> None:
        if choices_of(topology) > 1:
            raise ConfigError("adaptive routing cannot see across levels", fix="Take one level, or analytic and one other.")
        self._topology = topology
        self._pieces = Pieces(topology)
        self._stretches = _Stretches(topology, level_at)
        cut = dataclasses.replace(topology, router=self._stretches)
        self._levels = [level(cut) for level in levels]
        self._level_at = level_at
        self._free = next((number for number, level in enumerate(levels) if level.name == _FREE), -1)
        self._owner: list[dict[int, tuple[int, int, int]]] = [{} for _ in levels]  # message -> (group, row, stretch)
        self._live: dict[int, _Group] = {}
        self._heap: list[tuple[int, int, int]] = []  # (ps, group, row): deliveries; row -1 starts the group
        self._message = lru_cache(maxsize=_MESSAGES)(_one)  # the same object again is cheap for a level
        self.now = 0  #: where the last run stopped
        self._started = 0

    def start(self, transfers: Transfers, at: int) -> int:
        """See NetworkModel. Raises ConfigError on columns that are no DAG of transfers of this topology, or a past ``at``;
        TopologyError where there is no route."""
        if not self.now <= at < NEVER:
            raise ConfigError(f"a group cannot start at {at} ps", expected=f"{self.now} ps (now) or later")
        refuse_bad(transfers, self._topology)
        cut = self._pieces(transfers)
        if cut is transfers and self._unshared(transfers):
            group, self._started = self._started, self._started + 1
            self._owner[self._free][self._levels[self._free].start(transfers, at)] = (group, _WHOLE, 0)
            return group
        rows = len(cut.src)
        lane = np.zeros(rows, dtype=np.int32) if cut.lane is None else cut.lane
        moves = (cut.src != cut.dst) & (lane != NO_LANE)
        self._stretches.learn(cut.src[moves], cut.dst[moves], lane[moves])
        after: list[list[int]] = [[] for _ in range(rows)]
        ptr, dep = cut.dep_ptr.tolist(), cut.dep.tolist()
        for row in range(rows):
            for before in dep[ptr[row] : ptr[row + 1]]:
                after[before].append(row)
        degree = np.diff(cut.dep_ptr).tolist()
        group = self._started
        self._live[group] = _Group(cut, degree, after, rows + 1)
        heapq.heappush(self._heap, (at, group, -1))
        self._started += 1
        return group

    def next_event(self) -> int:
        """See NetworkModel."""
        return min([self._heap[0][0] if self._heap else NEVER, *(level.next_event() for level in self._levels)])

    def run_until(self, limit: int) -> list[Finished]:
        """See NetworkModel. Raises ConfigError when a time leaves the clock's range (2^62 ps)."""
        finished: list[Finished] = []
        while (at := self.next_event()) <= limit and at < NEVER:
            for number, level in enumerate(self._levels):
                if level.next_event() <= at:
                    for done in level.run_until(at):
                        group, row, stretch = self._owner[number].pop(done.group)
                        if row == _WHOLE:
                            finished.append(Finished(group, done.at, done.host_end))
                            limit = at
                        else:
                            self._arrived(group, row, stretch, done.at)
            while self._heap and self._heap[0][0] <= at:
                _, group, row = heapq.heappop(self._heap)
                self._delivered(group, row, at)
                if not self._live[group].left:
                    finished.append(Finished(group, at, self._live.pop(group).host_end))
                    limit = at
        self.now = limit if finished else max(self.now, limit)
        return sorted(finished, key=lambda done: done.group)

    def usage(self) -> LinkUsage:
        """See NetworkModel; every level counts its stretches by its own rules."""
        used = [level.usage() for level in self._levels]
        return LinkUsage(np.sum([one.bytes for one in used], axis=0), np.sum([one.busy for one in used], axis=0))

    def _unshared(self, transfers: Transfers) -> bool:
        """Whether a group knows its time, and no other level than the one that shares nothing carries any of its links."""
        if transfers.alone is None or self._free < 0 or transfers.lane is not None:
            return False
        pairs = np.unique(np.stack((transfers.src, transfers.dst), axis=1), axis=0)
        return bool((self._level_at[self._topology.paths(pairs[:, 0], pairs[:, 1])[1]] == self._free).all())

    def _delivered(self, group: int, row: int, at: int) -> None:
        """A row has been delivered, or (row -1) the group starts: set out with what waited for it."""
        live = self._live[group]
        live.left -= 1
        if row < 0:
            freed = [row for row, waits in enumerate(live.waits) if not waits]
        else:
            live.host_end[int(live.transfers.src[row])] = live.host_end[int(live.transfers.dst[row])] = at
            freed = []
            for after in live.after[row]:
                live.waits[after] -= 1
                if not live.waits[after]:
                    freed.append(after)
        for ready in freed:
            self._set_out(group, ready, 0, at)

    def _set_out(self, group: int, row: int, stretch: int, at: int) -> None:
        """A row begins a stretch, or has none left: it will be delivered after its delay."""
        moved = self._live[group].transfers
        src, dst = int(moved.src[row]), int(moved.dst[row])
        lane = 0 if moved.lane is None else int(moved.lane[row])
        route = [] if src == dst or lane == NO_LANE else self._stretches.levels(src, dst, lane)
        if stretch == len(route):
            end = at + int(moved.delay[row])
            if end >= NEVER:
                raise too_long()
            heapq.heappush(self._heap, (end, group, row))
            return
        message = self._message(src, dst, int(moved.bytes[row]), lane * MOST + stretch)
        number = route[stretch]
        self._owner[number][self._levels[number].start(message, at)] = (group, row, stretch)

    def _arrived(self, group: int, row: int, stretch: int, at: int) -> None:
        self._set_out(group, row, stretch + 1, at)


def _one(src: int, dst: int, size: int, lane: int) -> Transfers:
    return dataclasses.replace(single(src, dst, size), lane=np.array([lane], dtype=np.int32))


class _Stretches:
    """Router of the levels: lane ``l * MOST + s`` is stretch s of the topology's lane l."""

    part = 1
    chooses = False

    def __init__(self, topology: Topology, level_at: NDArray[np.int64]) -> None:
        self.ways = topology.ways * MOST
        self._topology = topology
        self._level_at = level_at
        self._known: dict[tuple[int, int, int], tuple[tuple[int, NDArray[np.int32]], ...]] = {}

    def learn(self, src: NDArray[np.int32], dst: NDArray[np.int32], lane: NDArray[np.int32]) -> None:
        """Find the stretches of many routes at once. Raises TopologyError where there is no route, ConfigError beyond MOST."""
        keys = list(dict.fromkeys(zip(src.tolist(), dst.tolist(), lane.tolist(), strict=True)))
        keys = [key for key in keys if key not in self._known]
        if not keys:
            return
        offsets, links = self._topology.paths(*np.array(keys, dtype=np.int32).T)
        ends, level = offsets.tolist(), self._level_at[links]
        turns = np.flatnonzero(np.diff(level, prepend=-1))
        for number, key in enumerate(keys):
            begin, end = ends[number], ends[number + 1]
            cuts = [begin, *turns[np.searchsorted(turns, begin, "right") : np.searchsorted(turns, end)].tolist(), end]
            if len(cuts) - 1 > MOST:
                raise ConfigError(f"a route passes between levels {len(cuts) - 2} times", expected=f"at most {MOST - 1}")
            self._known[key] = tuple(
                (int(level[one]), links[one:other]) for one, other in itertools.pairwise(cuts) if one < other
            )

    def levels(self, src: int, dst: int, lane: int) -> list[int]:
        """The level of every stretch of a route that has been learnt."""
        return [level for level, _ in self._known[src, dst, lane]]

    def lanes(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int64]:
        """See LaneRouter: every row says its lane, so that nothing is divided once more."""
        return np.ones(len(src), np.int64)

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32], lane: NDArray[np.int32] | None = None) -> Paths:
        """See LaneRouter. Over no link where a route has no such stretch."""
        chosen = np.zeros(len(src), np.int32) if lane is None else lane
        self.learn(src, dst, chosen // MOST)
        found = []
        for one, other, way in zip(src.tolist(), dst.tolist(), chosen.tolist(), strict=True):
            stretches = self._known[one, other, way // MOST]
            found.append(stretches[way % MOST][1] if way % MOST < len(stretches) else _NONE)
        offsets = np.zeros(len(src) + 1, np.int64)
        np.cumsum([len(links) for links in found], out=offsets[1:])
        return offsets, np.concatenate([_NONE, *found])
