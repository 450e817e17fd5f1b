"""What becomes of live transfers when links of a FIFO network change.

Transfers that are on, or on their way to, a link that has died are *lost*: their source sends them again, whole. Until there is
a route for them they are *held*: a held slot waits for one more delivery than it has dependencies, which nothing but the next
change can bring. So are those that would be released while their route is down. The kernel knows none of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.network.columns import Columns
from distsim.network.event_queue import DUE, DUE_END, NEAR, SIZE, SLOT_MASK
from distsim.network.paths import PathTable
from distsim.network.rounding import serialisations
from distsim.topology.graph import Topology

_Ints = NDArray[np.int64]


def in_flight(
    state: Any, buckets: Columns, heap: Columns, due: Columns, behind: _Ints, beside: _Ints, when: _Ints
) -> tuple[_Ints, _Ints]:
    """(slot, time of its next event) of every slot in the queue or in a chain behind one that is."""
    size = int(state[SIZE])
    slots = (np.array(heap["rank"][:size], dtype=np.int64) & SLOT_MASK).tolist()
    times = np.array(heap["time"][:size], dtype=np.int64).tolist()
    first, end = int(state[DUE]), int(state[DUE_END])
    slots += (np.array(due["rank"][first:end], dtype=np.int64) & SLOT_MASK).tolist()
    times += np.array(due["time"][first:end], dtype=np.int64).tolist()
    if state[NEAR]:
        for slot in np.array(buckets["first"], dtype=np.int64).tolist():
            while slot:
                slots.append(slot)
                times.append(int(when[slot]))
                slot = int(beside[slot])
    for slot in slots:  # grows while it is gone through: chains are followed to their ends
        if behind[slot] >= 0:
            slots.append(int(behind[slot]))
            times.append(int(when[behind[slot]]))
    return np.array(slots, dtype=np.int64), np.array(times, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Flying:
    """Transfers on links, in columns: slot, index of the link they are on in the table of routes, end of their route there,
    time of the next event, bytes, delay after arrival, when the tail is through (cut-through)."""

    slot: _Ints
    at: _Ints
    last: _Ints
    when: _Ints
    load: _Ints
    delay: _Ints
    tail_in: _Ints

    def some(self, mask: NDArray[np.bool_]) -> Flying:
        """Those of a mask."""
        return Flying(*(getattr(self, name)[mask] for name in self.__slots__))


def lost(
    flying: Flying, now: int, died: NDArray[np.bool_], before: Topology, paths: PathTable, cut_through: bool,
    lone: NDArray[np.bool_] | None,
) -> NDArray[np.bool_]:  # fmt: skip
    """Which of them are lost with the links that have ``died``: those on one, or with one still before them. One whose last
    byte has crossed is not; of one that cuts through, nobody knows where its tail is until that is through its present link, so
    any dead link behind it counts, as far back as it cuts through: to its source, or over links of ``lone`` (which nobody waits
    for) in a row."""
    ids = np.array(paths.links["id"], dtype=np.int64)
    dead = np.concatenate(([0], np.cumsum(died[ids])))
    here, final = ids[flying.at], flying.at + 1 == flying.last
    gone = dead[flying.last] > dead[flying.at + 1]
    gone |= died[here] & (~final | (flying.when - flying.delay > now))
    if cut_through or lone is not None:
        tail = flying.tail_in - before.link_latency[here] > now
        since = _first(flying, paths)
        if not cut_through and lone is not None:
            stored = np.append(True, ~(lone[ids[1:]] & lone[ids[:-1]]))  # at which links a transfer arrives whole
            since = np.maximum(since, np.maximum.accumulate(np.where(stored, np.arange(len(ids)), 0))[flying.at])
        gone |= tail & (dead[flying.at] > dead[since])
    return gone


def unsent(
    gone: Flying, now: int, before: Topology, paths: PathTable, *, tails: bool
) -> tuple[NDArray[np.bool_], _Ints, _Ints]:
    """Which of them were still queued at their source, with nothing on the wire yet; the link they queued for, and the ps that
    it was going to be busy. ``tails``: it is known when they are through."""
    here = np.array(paths.links["id"], dtype=np.int64)[gone.at]
    busy = serialisations(gone.load, before.link_bandwidth[here])
    if tails:
        begin = gone.tail_in - before.link_latency[here] - busy
    else:
        final = gone.at + 1 == gone.last
        begin = gone.when - np.where(final, gone.delay, 0) - before.link_latency[here] - busy
    return (gone.at == _first(gone, paths)) & (begin >= now), here, busy


def _first(flying: Flying, paths: PathTable) -> _Ints:
    """Index of the first link of their routes."""
    first = np.array(paths.pairs["first"][: paths.count + 1], dtype=np.int64)
    return first[np.searchsorted(first, flying.at, side="right") - 1]


def routes(
    paths: PathTable, src: NDArray[np.int32], dst: NDArray[np.int32], lane: NDArray[np.int32] | None
) -> tuple[_Ints, _Ints, _Ints]:
    """(number, first, end) of the route of every row; where transfers choose, of the first that they may take."""
    one, other = (np.ascontiguousarray(side, dtype=np.int32) for side in (src, dst))
    found = paths.numbers(one, other, lane) if paths.compiled else paths.numbers(one.tolist(), other.tolist(), lane)
    pair = np.array(found, dtype=np.int64)
    first = np.array(paths.pairs["first"][: paths.count + 1], dtype=np.int64)
    return pair, first[pair], first[pair + 1]


def stuck(paths: PathTable, pair: Sequence[int] | _Ints, dead: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows have a dead link on their route; where transfers choose, on all that they may take."""
    number = np.asarray(pair, dtype=np.int64)
    first = np.array(paths.pairs["first"][: paths.count + 1], dtype=np.int64)
    ids = np.array(paths.links["id"][: first[-1]], dtype=np.int64)
    total = np.concatenate(([0], np.cumsum(dead[ids])))
    hit = total[first[1:]] > total[first[:-1]]
    found = np.ones(len(number), dtype=np.bool_)
    for choice in range(paths.choices):
        # NOTE: a route over no link is alone, not one of several
        found &= hit[np.where(first[number + 1] > first[number], number + choice, number)]
    return found
