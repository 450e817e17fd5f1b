"""When communication really moves: a task that waits for other ranks is issued, but nothing is under way yet.

A collective is under way from the arrival of its last member, a receive from the start of the send that it is for, a send
from its own start.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from distsim.record import CollectiveRow
from distsim.result import COMPUTE, Result, SpanTable

Ints = NDArray[np.int64]

#: kinds of spans that do not communicate
LOCAL = (*COMPUTE, "memory", "none", "delay")
#: kinds of spans that communicate, but not as a member of a collective
POINT_TO_POINT = ("send", "recv")


@dataclass(frozen=True, slots=True, eq=False)
class UnderWay:
    """Per row of the span table."""

    since: Ints  #: ps from when it is under way, in start .. end; the start of a row that waits for nobody
    collective: Ints  #: index into ``Result.collectives``, -1 for none
    send: Ints  #: row of the send that a receive waited for, -1 for none or unknown


def is_kind(spans: SpanTable, *names: str) -> NDArray[np.bool_]:
    """Which rows are of one of these kinds."""
    wanted = np.array([name in names for name in (*spans.kinds, "")])
    return np.asarray(wanted[spans.kind])


def communicates(spans: SpanTable) -> NDArray[np.bool_]:
    """Which rows are communication."""
    return ~is_kind(spans, *LOCAL)


def on_gpu(spans: SpanTable) -> NDArray[np.bool_]:
    """Which rows are work on a GPU: kernels, copies and communication, but no host work and no latencies."""
    return ~is_kind(spans, "host", "delay", "none")


def under_way(result: Result) -> UnderWay:
    """Finds the collective of every member and the send of every receive.

    The k-th span of a rank, operation and communicator, by end, belongs to the k-th such collective, by end. A send and a
    receive belong together when they end together and are of one size; the span table does not say more, and pairs that
    cannot be told apart by that take the same time.
    """
    spans = result.spans()
    since, collective, send = spans.start.copy(), np.full(len(spans), -1, np.int64), np.full(len(spans), -1, np.int64)
    rows = np.flatnonzero(~is_kind(spans, *LOCAL, *POINT_TO_POINT))
    if len(rows) and result.collectives:
        index = _collectives(spans, rows, result.collectives)
        known = index >= 0
        rows, index = rows[known], index[known]
        started = np.fromiter((c.start_ps for c in result.collectives), np.int64, len(result.collectives))
        since[rows] = np.clip(started[index], spans.start[rows], spans.end[rows])
        collective[rows] = index
    receives = np.flatnonzero(is_kind(spans, "recv") & (spans.end > spans.start))
    sends = np.flatnonzero(is_kind(spans, "send"))
    if len(receives) and len(sends):
        (key, order), (other_key, other_order) = (
            ((spans.end[rows], spans.bytes[rows]), (spans.start[rows],)) for rows in (receives, sends)
        )
        found = _kth(key, order, other_key, other_order)
        receives, sends = receives[found >= 0], sends[found[found >= 0]]
        since[receives] = np.clip(spans.start[sends], spans.start[receives], spans.end[receives])
        send[receives] = sends
    return UnderWay(since, collective, send)


def _collectives(spans: SpanTable, rows: Ints, collectives: tuple[CollectiveRow, ...]) -> Ints:
    """Collective of each of these rows, or -1."""
    names: dict[tuple[str, str], int] = {}
    labels = ("", *spans.groups)  # group -1 is all ranks
    codes = [[names.setdefault((kind.removesuffix("_block"), label), len(names)) for label in labels] for kind in spans.kinds]
    mine = spans.rank[rows] * np.int64(len(names)) + np.array(codes, np.int64)[spans.kind[rows], spans.group[rows] + 1]
    count = len(collectives)
    size = np.fromiter((len(c.members) for c in collectives), np.int64, count)
    member = np.fromiter(chain.from_iterable(c.members for c in collectives), np.int64, int(size.sum()))
    index = np.repeat(np.arange(count), size)
    code = np.fromiter((names.get((c.operation, c.label), -1) for c in collectives), np.int64, count)
    first = np.fromiter((c.first_ps for c in collectives), np.int64, count)
    end = np.fromiter((c.end_ps for c in collectives), np.int64, count)
    member, index = member[code[index] >= 0], index[code[index] >= 0]
    theirs = member * len(names) + code[index]
    found = _kth((mine,), (spans.end[rows], spans.start[rows]), (theirs,), (end[index], first[index]))
    return np.where(found >= 0, index[found], -1) if len(index) else found


def _kth(key: tuple[Ints, ...], order: tuple[Ints, ...], other_key: tuple[Ints, ...], other_order: tuple[Ints, ...]) -> Ints:
    """For the k-th entry of a key, in this order, the k-th other entry of the same key; -1 where there are fewer."""
    size = len(key[0])
    keys = [np.concatenate(pair) for pair in zip(key, other_key, strict=True)]
    orders = [np.concatenate(pair) for pair in zip(order, other_order, strict=True)]
    other = np.arange(len(keys[0])) >= size
    at = np.lexsort((*reversed(orders), other, *reversed(keys)))  # by key; within one: entries in order, then others in order
    new = np.zeros(len(at) + 1, np.bool_)
    new[[0, -1]] = True
    for column in keys:
        new[1:-1] |= column[at[1:]] != column[at[:-1]]
    edge = np.flatnonzero(new)
    block = np.cumsum(new[:-1]) - 1
    first, last = edge[block], edge[block + 1]
    before = np.concatenate((np.zeros(1, np.int64), np.cumsum(other[at])))
    others = before[last] - before[first]
    place = np.arange(len(at))
    good = ~other[at] & (place - first < others)
    found = np.full(size, -1, np.int64)
    found[at[good]] = at[(place + last - first - others)[good]] - size
    return found
