"""Communications that share links: what each adds to the others depends on when they come.

A *unit* is a collective or a message. Units that are under way at the same time over one link meet; those that meet, and those
that these meet in turn, make an *episode*. What an episode takes is asked of the run's own network level, all its units together
at their instants and nobody else: the same question that gives the time of a communication alone. An episode that is only
shifted takes what it took, so that equal ones (layers, micro-batches) are asked once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from distsim.analysis.intervals import Ints
from distsim.analysis.underway import UnderWay
from distsim.analysis.whatif.times import Call, OnLevel
from distsim.result import SpanTable

#: orders of an episode's ties that are tried, at most
_TRIES = 64


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """Collectives and messages of a run.

    Attributes:
        row: of the span table that speaks for each unit.
        of: every row's unit, -1 for none.
        begin, took: ps, as recorded. turn: who goes first of those that come in one instant.
    """

    row: Ints
    of: Ints
    begin: Ints
    took: Ints
    turn: Ints

    @classmethod
    def made(cls, spans: SpanTable, moving: UnderWay, which: Ints) -> Units:
        """``which``: call of every row, -1 for none. Those of one instant go in order of their rows."""
        talks = np.flatnonzero(which >= 0)
        number = np.where(moving.collective >= 0, moving.collective, len(spans) + np.arange(len(spans)))[talks]
        _, first, unit = np.unique(number, return_index=True, return_inverse=True)
        row, of = talks[first], np.full(len(spans), -1, np.int64)
        of[talks] = unit.ravel()
        begin = moving.since[row]
        return cls(row, of, begin, spans.end[row] - begin, row)


class Asked:
    """A network level that is asked about the calls of units."""

    def __init__(self, units: Units, calls: Sequence[Call], which: Ints, level: OnLevel) -> None:
        self._units, self._level = units, level
        self._calls = [calls[one] for one in which[units.row].tolist()]
        distinct, number = np.unique(which[units.row], return_inverse=True)
        links = [level.links(calls[one]) for one in distinct.tolist()]
        number = number.ravel()
        self._unit = np.repeat(np.arange(len(number)), np.array([len(one) for one in links], np.int64)[number])
        self._link = np.concatenate([np.zeros(0, np.int64), *(links[one] for one in number.tolist())])

    def took(self, begin: Ints, end: Ints) -> Ints:
        """ps of each unit that comes at ``begin[i]``. ``end``: about when it ends, which says who meets."""
        found = np.zeros(len(begin), np.int64)
        for episode in self._episodes(begin, end):
            found[episode] = self._together(episode, begin)
        return found

    def lined_up(self, most: int = _TRIES) -> Units:
        """The units with turns, which are not recorded, that give the recorded times: sought by exchanging neighbours, at most so
        often in an episode."""
        units, turn = self._units, self._units.turn.copy()
        for episode in self._episodes(units.begin, units.begin + units.took):
            order, left = episode, most
            least = self._off(order)
            for late in range(1, len(order)):
                at = late
                while at and least and left and units.begin[order[at]] == units.begin[order[at - 1]]:
                    other, left = order.copy(), left - 1
                    other[[at - 1, at]] = order[[at, at - 1]]
                    off = self._off(other)
                    if off >= least:
                        break
                    order, least, at = other, off, at - 1
            turn[order] = turn[episode]
        return Units(units.row, units.of, units.begin, units.took, turn)

    def _off(self, episode: Ints) -> int:
        units = self._units
        return int(np.abs(np.array(self._together(episode, units.begin)) - units.took[episode]).sum())

    def _together(self, episode: Ints, begin: Ints) -> tuple[int, ...]:
        calls = tuple(self._calls[one] for one in episode.tolist())
        if len(calls) == 1:
            return (self._level.alone(calls[0]),)
        return self._level.together(calls, tuple(begin[episode].tolist()))

    def _episodes(self, begin: Ints, end: Ints) -> list[Ints]:
        """Units of each, in the order in which they come."""
        episode = _connected(self._unit, self._link, begin, end)
        order = np.lexsort((self._units.turn, begin, episode))
        edge = [*np.flatnonzero(np.append(True, np.diff(episode[order]) > 0)[: len(order)]).tolist(), len(order)]
        return [order[low:high] for low, high in pairwise(edge)]


def _connected(unit: Ints, link: Ints, begin: Ints, end: Ints) -> Ints:
    """Of every unit the lowest that it has to do with. Given are pairs of units and links that they cross."""
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
