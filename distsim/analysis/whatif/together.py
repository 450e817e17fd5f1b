"""Communications that shared links in the recorded run: what each adds to the others depends on when they come.

A *unit* is a collective or a message. Units that were under way at the same time over one link met; those that met, and those
that these met in turn, make an *episode*. What an episode takes is asked of the run's own network level, its units together at
their instants and nobody else: the question that gives the time of a communication alone, of several. An episode that is only
shifted takes what it took, so that equal ones (layers, micro-batches) are asked once.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from distsim.analysis.intervals import Ints
from distsim.analysis.underway import UnderWay
from distsim.analysis.whatif.times import Calls, OnLevel
from distsim.result import SpanTable

#: units that are asked to find an episode's order, at most, all tries together
_TRIED = 512
#: transfers of all units of a run beyond which nothing is asked: it would take as long as running again
_MOST = 2_000_000


class Episodes:
    """Those in which somebody took longer than alone.

    Attributes:
        row: of the span table that speaks for each unit of the run, whether it is in an episode or not.
        unit: of every row, -1 for what the network does not move, or moved alone.
    """

    def __init__(self, spans: SpanTable, moving: UnderWay, calls: Calls, waited: Ints, level: OnLevel) -> None:
        """``waited``: ps of each row beyond its time alone, 0 where it was not slowed. ``level``: of the recorded run."""
        which = calls[1]
        talks = np.flatnonzero(which >= 0)
        number = np.where(moving.collective >= 0, moving.collective, len(spans) + np.arange(len(spans)))[talks]
        _, first, unit = np.unique(number, return_index=True, return_inverse=True)
        self.row: Ints = talks[first]
        begin, end = moving.since[self.row], spans.end[self.row]
        slowed = np.zeros(len(self.row), np.bool_)
        slowed[unit.ravel()[waited[talks] > 0]] = True
        if sum(level.transfers(calls[0][one]) for one in which[self.row].tolist()) > _MOST:
            slowed[:] = False
        self._crossed = _crossed(calls, which[self.row], level) if slowed.any() else (self.row[:0], self.row[:0])
        self._of = _connected(*self._crossed, begin, end)
        met = np.isin(self._of, self._of[slowed])
        met &= np.bincount(self._of, minlength=len(met))[self._of] > 1
        self._met = np.flatnonzero(met)
        self.unit: Ints = np.full(len(spans), -1, np.int64)
        self.unit[talks] = np.where(met, np.arange(len(met)), -1)[unit.ravel()]
        order = np.lexsort((begin, self._of))
        order = order[met[order]]
        edge = [*np.flatnonzero(np.append(True, np.diff(self._of[order]) > 0)[: len(order)]).tolist(), len(order)]
        took = end - begin
        self._each = [self._lined_up(order[low:high], calls, begin, took, level) for low, high in pairwise(edge)]
        # none, but where an order within one instant is not found
        self._missed = (took - self._took(calls, begin, took, level)) * met

    def __len__(self) -> int:
        return len(self._each)

    def took(self, calls: Calls, begin: Ints, took: Ints, level: OnLevel) -> Ints:
        """ps of each unit that comes at ``begin[i]``; ``took[i]`` of those that are in no episode."""
        return self._took(calls, begin, took, level) + self._missed

    def keep(self, begin: Ints, end: Ints) -> bool:
        """Whether with other instants they still meet nobody but each other."""
        now = _connected(*self._crossed, begin, end)
        mine = np.isin(now, now[self._met])
        pairs = np.unique(np.stack([now[mine], self._of[mine]]), axis=1)
        return bool(len(np.unique(pairs[0])) == pairs.shape[1])

    def _took(self, calls: Calls, begin: Ints, took: Ints, level: OnLevel) -> Ints:
        found = took.copy()
        for episode in self._each:
            order = episode[np.argsort(begin[episode], kind="stable")]
            found[order] = self._ask(order, calls, begin, level)
        return found

    def _ask(self, units: Ints, calls: Calls, begin: Ints, level: OnLevel) -> tuple[int, ...]:
        """Of units in order of their instants."""
        asked = tuple(calls[0][one] for one in calls[1][self.row[units]].tolist())
        return level.together(asked, tuple(begin[units].tolist()))

    def _lined_up(self, order: Ints, calls: Calls, begin: Ints, took: Ints, level: OnLevel) -> Ints:
        """The order of an episode's units. Who went first of those that came in one instant is not recorded: sought is an order
        that gives the recorded times, by exchanging neighbours."""

        def off(order: Ints) -> int:
            return int(np.abs(np.array(self._ask(order, calls, begin, level)) - took[order]).sum())

        least, tries = off(order), _TRIED // len(order)
        for late in range(1, len(order)):
            at = late
            while at and least and tries and begin[order[at]] == begin[order[at - 1]]:
                other, tries = order.copy(), tries - 1
                other[[at - 1, at]] = order[[at, at - 1]]
                now = off(other)
                if now >= least:
                    break
                order, least, at = other, now, at - 1
        return order


def _crossed(calls: Calls, which: Ints, level: OnLevel) -> tuple[Ints, Ints]:
    """Pairs of a unit and a link that it crosses. ``which``: call of every unit."""
    distinct, number = np.unique(which, return_inverse=True)
    links = [level.links(calls[0][one]) for one in distinct.tolist()]
    number = number.ravel()
    unit = np.repeat(np.arange(len(which)), np.array([len(one) for one in links], np.int64)[number])
    return unit, np.concatenate([np.zeros(0, np.int64), *(links[one] for one in number.tolist())])


def _connected(unit: Ints, link: Ints, begin: Ints, end: Ints) -> Ints:
    """Of every unit the lowest that it has to do with. Given are pairs of a unit and a link that it crosses."""
    order = np.lexsort((begin[unit], link))
    unit, link = unit[order], link[order]
    found = np.arange(len(begin))
    if not len(unit):
        return found
    # of the units on a link, in order of their begins, one that begins when all before have ended begins a new crowd
    new = np.append(True, link[1:] != link[:-1])
    stride = np.cumsum(new) * (end.max() + 1)
    latest = np.maximum.accumulate(end[unit] + stride) - stride  # NOTE: on this link, so far
    new[1:] |= begin[unit[1:]] >= latest[:-1]
    crowd = np.cumsum(new) - 1
    while True:
        lowest = np.full(int(crowd[-1]) + 1, len(begin))
        np.minimum.at(lowest, crowd, found[unit])
        before = found.copy()
        np.minimum.at(found, unit, lowest[crowd])
        found = found[found]
        if np.array_equal(before, found):
            return found
