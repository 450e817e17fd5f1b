"""The communication of the critical path: on which link, at what load, beside what else.

Known are the bytes and the busy time of every link over the whole run, and when every communication was under way. What a
single one did on a link is not recorded: its links are taken to be those between the neighbours of a ring of its members (of a
hierarchical one: of rings in every dimension of the topology; of an all-to-all: between all of them; of a message: its route),
and its *link* the one of them that was busy longest. Who else is on a link is told where all collectives are of these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distsim.analysis.explain.story import Leg
from distsim.analysis.intervals import Ints, Union
from distsim.analysis.source import Source
from distsim.analysis.underway import POINT_TO_POINT, UnderWay
from distsim.collectives.bandwidth import bus_factor, whole_buffer
from distsim.errors import DistsimError
from distsim.record import CollectiveRow
from distsim.result import Result

#: a link that is busy for longer than this times its use by those who are known is used by others too
_SLACK = 1.01
#: members up to which all pairs of an all-to-all are routed
_PAIRS = 64
#: routes in all; beyond, only the groups of the path are looked at, and nobody else on their links
_ROUTES = 400_000

Members = tuple[int, ...]
_Key = tuple[Members, str]  #: (members in ring order, who sends to whom: ring, dims, all, or way: the first to the second)
#: algorithms whose members send to those that are taken here; of others the links are a guess
_TAKEN = ("ring", "hierarchical", "direct", "none")


@dataclass(frozen=True, slots=True)
class Load:
    """The busiest link of some communications."""

    link: int
    name: str
    domain: str
    bandwidth: float  #: bytes/s
    bytes: int  #: over the run
    busy_ps: int  #: over the run
    share: float  #: busy / makespan
    share_in_use: float | None  #: busy / time in which a communication that crosses it was under way; None: not known who does
    alike: int  #: links of these communications that were as busy


@dataclass(frozen=True, slots=True)
class Place:
    """Where a communication of the path was. ``link``: its busiest, -1: unknown; ``sender``: of a receive, else -1."""

    link: int
    sender: int


@dataclass(frozen=True, slots=True)
class PathCommunication:
    """Communications of one operation and group on the critical path."""

    operation: str
    group: str
    ranks: int  #: members of each; 2 for messages
    count: int
    ps: int  #: on the path, from the last member's arrival
    bytes: int  #: what a member brings or a message carries, summed
    wire_ps: int | None  #: of that, its bytes alone at the rate of the narrowest link; None: not known for its algorithm
    contended_ps: int | None  #: of that, while others were under way over the same link
    spread_ps: int  #: between the first and the last member's arrival, summed
    last: tuple[tuple[int, int], ...]  #: (rank, times that it came last), most often first; where anyone waited
    load: Load | None  #: None: no use of links is known


def path_communications(
    result: Result, legs: Sequence[Leg], moving: UnderWay, source: Source
) -> tuple[tuple[PathCommunication, ...], dict[int, Place]]:  # fmt: skip
    """By operation and group, longest on the path first; and the place of each, by its row of the span table."""
    talks = [leg for leg in legs if leg.collective >= 0 or leg.activity in POINT_TO_POINT]
    keys = {id(leg): _key(result, leg, moving, source) for leg in talks}
    lines = _Lines(result, source, [key for key in keys.values() if key is not None])
    by_name: dict[tuple[str, str], list[Leg]] = {}
    for leg in talks:
        by_name.setdefault((leg.activity, leg.group), []).append(leg)
    latest = last_members(result, moving)
    found = [_one(result, name, some, latest, keys, lines) for name, some in by_name.items()]
    places = {}
    for leg in talks:
        key, send = keys[id(leg)], int(moving.send[leg.row])
        link = -1 if key is None else lines.busiest(key)[0]
        places[leg.row] = Place(link, int(result.spans().rank[send]) if send >= 0 else -1)
    return tuple(sorted(found, key=lambda one: (-one.ps, one.operation, one.group))), places


def _key(result: Result, leg: Leg, moving: UnderWay, source: Source) -> _Key | None:
    """Who takes part in a leg; None where that is not known."""
    spans = result.spans()
    if leg.activity in POINT_TO_POINT:
        send = int(moving.send[leg.row])
        return None if send < 0 else ((int(spans.rank[send]), int(spans.rank[leg.row])), "way")
    row = result.collectives[leg.collective]
    members = row.members
    if row.ranks != len(members):  # folded: the trace knows the others
        if source.graph is None:
            return None
        members = source.graph.members(leg.rank, int(spans.group[leg.row]))
    return (members, _shape(row)) if len(members) > 1 else None


def _shape(row: CollectiveRow) -> str:
    if "all_to_all" in row.operation:
        return "all"
    return "dims" if row.algorithm == "hierarchical" else "ring"


class _Lines:
    """Links of groups of ranks, and when anybody uses them."""

    def __init__(self, result: Result, source: Source, wanted: Sequence[_Key]) -> None:
        self._result = result
        self._numbers: dict[_Key, int] = {}
        for key in wanted:
            self._numbers.setdefault(key, len(self._numbers))
        own = len(self._numbers)
        rows = result.collectives
        self.known = result.representative is None and bool(result.links.busy.any())  #: who is on a link
        users = [self._numbers.setdefault((row.members, _shape(row)), len(self._numbers)) for row in rows]
        routes = sum(_routes(key) for key in self._numbers)
        self.known = self.known and routes <= _ROUTES and not _messages(result) and all(row.algorithm in _TAKEN for row in rows)
        keys = list(self._numbers)[: None if self.known else own]
        self._users = np.array(users, np.int64)
        self._of, self._link, self._load = self._routed(keys) if result.links.busy.any() else (np.zeros(0, np.int64),) * 3
        self._begin = np.fromiter((row.start_ps for row in rows), np.int64, len(rows))
        self._end = np.fromiter((row.end_ps for row in rows), np.int64, len(rows))
        self._several: dict[int, tuple[Union, int]] = {}
        self._busiest: dict[_Key, tuple[int, int]] = {}

    def _routed(self, keys: Sequence[_Key]) -> tuple[Ints, Ints, Ints]:
        """(key, link, routes of the key that cross it), by key, then link."""
        topology = self._result.topology
        sizes = tuple(one.size for one in topology.dimensions) or topology.levels
        pairs = [_pairs(key, sizes) for key in keys if max(key[0]) < topology.hosts]
        if not pairs or len(pairs) < len(keys):
            return (np.zeros(0, np.int64),) * 3
        src, dst = (np.concatenate(column).astype(np.int32) for column in zip(*pairs, strict=True))
        of = np.repeat(np.arange(len(pairs)), [len(one) for one, _ in pairs])
        try:
            offsets, links = topology.paths(src, dst)
        except DistsimError:  # links that were down: the route then was another
            return (np.zeros(0, np.int64),) * 3
        key = np.repeat(of, np.diff(offsets)) * np.int64(topology.links) + links
        distinct, count = np.unique(key, return_counts=True)
        return distinct // topology.links, distinct % topology.links, count

    def links(self, key: _Key) -> tuple[Ints, Ints]:
        """(links, routes of the key that cross each)."""
        number = self._numbers[key]
        low, high = np.searchsorted(self._of, [number, number + 1])
        return self._link[low:high], self._load[low:high]

    def busiest(self, key: _Key) -> tuple[int, int]:
        """(the link that was busy longest, links as busy as it); (-1, 0) where none is known."""
        found = self._busiest.get(key)
        if found is None:
            links, crossing = self.links(key)
            busy = self._result.links.busy[links]
            found = -1, 0
            if len(links) and busy.max():
                order = np.lexsort((links, -crossing / self._result.topology.link_bandwidth[links], -busy))
                found = int(links[order[0]]), int(np.count_nonzero(busy == busy[order[0]]))
            self._busiest[key] = found
        return found

    def wire(self, key: _Key, edge: float) -> int:
        """ps of so many bytes on each of its routes at the rate of the link that takes longest; 0 where none is known."""
        links, crossing = self.links(key)
        return round(float((crossing / self._result.topology.link_bandwidth[links]).max()) * edge * 1e12) if len(links) else 0

    def use(self, link: int) -> tuple[Union, int]:
        """(when more than one communication was under way over it, ps for which at least one was)."""
        if link not in self._several:
            users = self._of[self._link == link]
            mine = np.flatnonzero(np.isin(self._users, users) & (self._end > self._begin))
            begin, end = self._begin[mine], self._end[mine]
            at = np.concatenate((begin, end))
            step = np.concatenate((np.ones(len(mine), np.int64), -np.ones(len(mine), np.int64)))
            order = np.lexsort((step, at))
            at, level = at[order], np.cumsum(step[order])
            two = level[:-1] > 1 if len(at) else np.zeros(0, np.bool_)
            used = Union.of(begin, end)
            self._several[link] = Union.of(at[:-1][two], at[1:][two]), int((used.end - used.begin).sum())
        return self._several[link]


def _messages(result: Result) -> bool:
    """Whether messages move too: who else is on a link is then not told by collectives alone."""
    spans = result.spans()
    return any(spans.kinds[kind] in POINT_TO_POINT for kind in np.unique(spans.kind).tolist())


def _routes(key: _Key) -> int:
    size = len(key[0])
    if key[1] == "dims":
        return size * size.bit_length()  # as many dimensions at most
    return size * (size - 1) if key[1] == "all" and size <= _PAIRS else size


def _pairs(key: _Key, sizes: Sequence[int]) -> tuple[Ints, Ints]:
    """(sources, destinations) of what the members are taken to send; ``sizes``: of the dimensions, fastest first."""
    members = np.array(key[0], np.int64)
    if key[1] == "dims" and math.prod(sizes) == len(members):
        grid = members.reshape(tuple(sizes)[::-1])
        axes = [axis for axis, size in enumerate(grid.shape) if size > 1]
        return np.tile(members, len(axes)), np.concatenate([np.roll(grid, -1, axis).ravel() for axis in axes])
    if key[1] == "all" and len(members) <= _PAIRS:
        one, two = np.meshgrid(members, members, indexing="ij")
        apart = one != two
        return one[apart], two[apart]
    if key[1] == "way":
        return members[:1], members[1:]
    return members, np.roll(members, -1)


def _one(
    result: Result, name: tuple[str, str], legs: Sequence[Leg], latest: Ints, keys: dict[int, _Key | None], lines: _Lines
) -> PathCommunication:  # fmt: skip
    spans, size, wire, contended, spread = result.spans(), 0, 0, 0, 0
    known = shared = True
    last: dict[int, int] = {}
    loads: dict[int, tuple[int, int]] = {}
    ranks = 2
    for leg in legs:
        key = keys[id(leg)]
        link, alike = lines.busiest(key) if key is not None else (-1, 0)
        if link >= 0:
            before = loads.get(link, (0, alike))
            loads[link] = before[0] + leg.ps, alike
        alone = 0
        if leg.collective >= 0:
            row = result.collectives[leg.collective]
            ranks = row.ranks
            size += row.bytes
            edge = whole_buffer(row.operation, row.bytes, row.ranks) * bus_factor(row.operation, row.ranks)
            if key is not None and key[1] == "all":
                edge = row.bytes / row.ranks if len(key[0]) <= _PAIRS else 0.0
            if key is not None and any(word in row.algorithm for word in ("ring", "direct")) and "hier" not in row.algorithm:
                alone = lines.wire(key, edge)
            spread += row.start_ps - row.first_ps
            if row.start_ps > row.first_ps:
                who = int(latest[leg.collective])
                last[who] = last.get(who, 0) + 1
        else:
            size += int(spans.bytes[leg.row])
            alone = lines.wire(key, float(spans.bytes[leg.row])) if key is not None else 0
        known, wire = known and 0 < alone <= leg.ps, wire + alone
        if link >= 0 and lines.known:
            contended += int(lines.use(link)[0].within(np.array([leg.begin_ps]), np.array([leg.end_ps]))[0])
        else:
            shared = False
    busiest = max(loads, key=lambda one: (loads[one][0], -one), default=-1)
    load = _load(result, busiest, loads[busiest][1], lines) if busiest >= 0 else None
    return PathCommunication(
        *name, ranks, len(legs), sum(leg.ps for leg in legs), size, wire if known else None, contended if shared else None,
        spread, tuple(sorted(last.items(), key=lambda item: (-item[1], item[0]))), load,
    )  # fmt: skip


def _load(result: Result, link: int, alike: int, lines: _Lines) -> Load:
    topology, busy = result.topology, int(result.links.busy[link])
    used = lines.use(link)[1] if lines.known else 0
    if busy > _SLACK * used:  # somebody crosses it who is not known
        used = 0
    return Load(
        link, topology.link_name(link), topology.domains[topology.link_domain[link]], float(topology.link_bandwidth[link]),
        int(result.links.bytes[link]), busy, busy / result.makespan if result.makespan else 0.0, busy / used if used else None,
        alike,
    )  # fmt: skip


def last_members(result: Result, moving: UnderWay) -> Ints:
    """Per collective: rank of the member that came last, of those that came together the lowest; -1 where none is known."""
    spans = result.spans()
    rows = np.flatnonzero(moving.collective >= 0)
    rows = rows[np.lexsort((-spans.rank[rows].astype(np.int64), spans.start[rows]))]
    last = np.full(len(result.collectives), -1, np.int64)
    last[moving.collective[rows]] = spans.rank[rows]  # the last of equal indices stays
    return last
