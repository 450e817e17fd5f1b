"""How rows are divided before they are sent: over the lanes of the routing, into chunks, with so many under way at once.

A pure rewriting, Transfers to Transfers: a row becomes parts and, where it has several, a *join*: a row over no link
(NO_LANE) that carries the row's delay and on which its dependents depend. Every level with links does so first thing in
``start``; the same object is answered by the same object, so that what a level remembers about it stays known, and patterns
are divided once, not once per group of hosts.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError
from distsim.network.model import NO_LANE, Transfers
from distsim.network.pattern import Pattern
from distsim.network.transfers import pair_hosts, pair_lanes, refuse_bad
from distsim.topology.graph import Topology
from distsim.topology.lanes import choices_of, part_of
from distsim.topology.routing import ragged

MOST = 1 << 27  #: parts of one DAG; more could not be live at once

_Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Parts:
    """Columns of the DAG that is sent."""

    row: _Numbers  #: that each comes from
    bytes: _Numbers
    dep_ptr: _Numbers
    dep: NDArray[np.int32]
    delay: _Numbers
    lane: NDArray[np.int32]
    share: NDArray[np.float64] | None


class Pieces:
    """What a network sends instead of a row.

    - Where the routing has several lanes and transfers do not choose among them, a row is divided evenly over the lanes of its
      pair, but into no parts smaller than the routing's ``part``. Small rows take the lanes in turn.
    - With ``size``, a row of more bytes is cut into ``ceil(bytes / size)`` even chunks instead, which take the lanes in turn.
    - With ``credits``, a part starts once the part that many before it on the same connection (source, destination and lane,
      in order of rows, within a group) has arrived. 1 is stop-and-wait.

    Rows whose lane is given keep it. What crosses no link stays whole.
    """

    def __init__(self, topology: Topology, *, size: int | None = None, credits: int | None = None) -> None:
        self._topology = topology
        self._size, self._credits, self._part = size, credits, part_of(topology)
        self._divides = topology.ways > 1 and choices_of(topology) == 1
        self._does = self._divides or size is not None or credits is not None
        self._known: weakref.WeakKeyDictionary[Transfers, Transfers | None] = weakref.WeakKeyDictionary()
        self._patterns: weakref.WeakKeyDictionary[Pattern, dict[bytes, Pattern | None]] = weakref.WeakKeyDictionary()

    def on(self, topology: Topology) -> Pieces:
        """The same rules on another topology."""
        return Pieces(topology, size=self._size, credits=self._credits)

    def __call__(self, transfers: Transfers) -> Transfers:
        """What to send; the object itself where there is nothing to divide. Raises as ``refuse_bad``; ConfigError where the
        chunks are too many, TopologyError where there is no route."""
        if not self._does:
            return transfers
        if transfers not in self._known:
            refuse_bad(transfers, self._topology)
            self._known[transfers] = self._divided(transfers)
        found = self._known[transfers]
        return transfers if found is None else found

    def _divided(self, transfers: Transfers) -> Transfers | None:
        src, dst = pair_hosts(transfers)
        lanes = self._lanes(src, dst, pair_lanes(transfers))
        pattern, members = transfers.pattern, transfers.members
        if pattern is None or members is None:
            pair = src.astype(np.int64) * self._topology.hosts + dst
            parts = self._cut(transfers, pair, lanes, transfers.lane)
            if parts is None:
                return None
            return Transfers(
                src[parts.row], dst[parts.row], parts.bytes, parts.dep_ptr, parts.dep, parts.delay, lane=parts.lane,
                share=parts.share,
            )  # fmt: skip
        known = self._patterns.setdefault(pattern, {})
        key = lanes.tobytes()
        if key not in known:
            lane = None if pattern.lane is None else pattern.lane[pattern.pair]
            known[key] = self._pattern(pattern, self._cut(transfers, pattern.pair, lanes[pattern.pair], lane))
        cut = known[key]
        return None if cut is None else cut.on(members)

    @staticmethod
    def _pattern(whole: Pattern, parts: _Parts | None) -> Pattern | None:
        if parts is None:
            return None
        src, dst = whole.src[whole.pair], whole.dst[whole.pair]
        ends = src[parts.row], dst[parts.row]
        return Pattern.of(*ends, parts.bytes, parts.dep_ptr, parts.dep, parts.delay, parts.lane, parts.share)

    def _lanes(self, src: NDArray[np.int32], dst: NDArray[np.int32], given: NDArray[np.int32] | None) -> _Numbers:
        """Over how many lanes the rows of every pair go; 0 where they cross no link."""
        if self._divides and given is None:
            lanes = self._topology.lanes(src, dst)
        else:
            lanes = np.ones(len(src), np.int64)
        local = src == dst if given is None else (src == dst) | (given == NO_LANE)
        return np.where(local, 0, lanes)

    def _cut(
        self, whole: Transfers, pair: NDArray[np.int64] | NDArray[np.int32], lanes: _Numbers, given: NDArray[np.int32] | None
    ) -> _Parts | None:
        """The parts of all rows, None where they are the rows."""
        size = whole.bytes
        if self._size is not None:
            count = -(-size // self._size)
        else:
            count = np.minimum(lanes, -(-size // self._part))
        count = np.maximum(1, np.where(lanes > 0, count, 1))
        width = count + (count > 1)
        total = int(width.sum())
        if total > MOST:
            raise ConfigError(f"{len(size):,} transfers would be cut into {total:,} parts", expected=f"at most {MOST:,}",
                              fix="Make the chunks (size) larger.")  # fmt: skip
        row, step = ragged(width)
        join = step == count[row]
        lane = self._turns(pair, count, lanes)[row] + step
        lane = np.where(lanes[row] > 0, lane % np.maximum(1, lanes[row]), 0) if given is None else given[row].astype(np.int64)
        waits = self._waits(pair[row], lane, join | (lanes[row] == 0))
        if total == len(size) and not len(waits[0]) and (given is not None or not lane.any()):
            return None
        even, rest = size // count, size % count
        dep_ptr, dep = _dependencies(whole, count, width, join, waits)
        return _Parts(
            row, np.where(join, 0, even[row] + (step < rest[row])), dep_ptr, dep,
            np.where(join | (count == 1)[row], whole.delay[row], 0), np.where(join, NO_LANE, lane).astype(np.int32),
            np.where(join, 1.0, 1.0 / count[row]) if self._size is None and self._divides else whole.share,
        )  # fmt: skip

    @staticmethod
    def _turns(pair: NDArray[np.int64] | NDArray[np.int32], count: _Numbers, lanes: _Numbers) -> _Numbers:
        """How many parts of earlier rows of the same pair there are, for every row: the next lane is that of the next."""
        if not (lanes > 1).any():
            return np.zeros(len(count), np.int64)
        order = np.argsort(pair, kind="stable")
        before = np.cumsum(count[order]) - count[order]
        first = np.flatnonzero(np.diff(pair[order], prepend=-1))
        turns = np.empty(len(count), np.int64)
        turns[order] = before - np.repeat(before[first], np.diff(first, append=len(order)))
        return turns

    def _waits(
        self, pair: NDArray[np.int64] | NDArray[np.int32], lane: _Numbers, free: NDArray[np.bool_]
    ) -> tuple[_Numbers, _Numbers]:
        """Parts that wait for a credit, and the part that gives it."""
        if self._credits is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        sent = np.flatnonzero(~free)
        order = sent[np.lexsort((sent, lane[sent], pair[sent]))]
        later, earlier = order[self._credits :], order[: -self._credits]
        same = (pair[later] == pair[earlier]) & (lane[later] == lane[earlier])
        return later[same], earlier[same]


def _dependencies(
    whole: Transfers, count: _Numbers, width: _Numbers, join: NDArray[np.bool_], waits: tuple[_Numbers, _Numbers]
) -> tuple[_Numbers, NDArray[np.int32]]:
    """dep_ptr and dep of the parts: those of the row, a join's of its parts, and the credits."""
    first = np.cumsum(width) - width
    final = first + width - 1
    row = np.repeat(np.arange(len(width)), width)
    degree = np.where(join, count[row], np.diff(whole.dep_ptr)[row])
    extra = np.zeros(len(row), np.int64)
    extra[waits[0]] = 1
    dep_ptr = np.zeros(len(row) + 1, np.int64)
    np.cumsum(degree + extra, out=dep_ptr[1:])
    dep = np.empty(dep_ptr[-1], np.int32)
    part, step = ragged(degree)
    source = np.where(join[part], 0, whole.dep_ptr[row[part]] + step)
    inherited = final[whole.dep[source]] if len(whole.dep) else np.zeros(len(part), np.int64)
    dep[dep_ptr[part] + step] = np.where(join[part], first[row[part]] + step, inherited)
    dep[dep_ptr[waits[0] + 1] - 1] = waits[1]
    return dep_ptr, dep
