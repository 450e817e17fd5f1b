"""Communications that shared links at the same time in the recorded run: what each adds to the others depends on when they come.

A *unit* is a collective or a message. Units that were under way at the same time over one link met; those that met, and those
that these met in turn, make an *episode*. What an episode takes is asked of the run's own network level, all its units together
at their instants and nobody else: the same question that gives the time of a communication alone. An episode that is only
shifted takes what it took, so that equal ones (layers, micro-batches) are asked once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.intervals import Ints
from distsim.analysis.underway import UnderWay
from distsim.analysis.whatif.times import Call, OnLevel
from distsim.result import SpanTable


class Episodes:
    """Units in which a communication took longer than alone, by episode."""

    def __init__(
        self, spans: SpanTable, moving: UnderWay, calls: Sequence[Call], which: Ints, slowed: NDArray[np.bool_], level: OnLevel
    ) -> None:  # fmt: skip
        """``slowed``: rows that took longer than alone. ``level``: of the recorded run."""
        talks = np.flatnonzero(which >= 0)
        number = np.where(moving.collective >= 0, moving.collective, len(spans) + np.arange(len(spans)))[talks]
        _, first, unit = np.unique(number, return_index=True, return_inverse=True)
        row = talks[first]  #: of each unit, the one that speaks for it
        begin, end = moving.since[row], spans.end[row]
        hurt = np.zeros(len(row), np.bool_)
        hurt[unit.ravel()[slowed[talks]]] = True
        episode = _connected(*self._crossed(calls, which[row], level), begin, end)
        kept = np.isin(episode, np.unique(episode[hurt]))
        alone = np.bincount(episode, minlength=len(row))[episode] < 2
        kept &= ~alone
        order = np.flatnonzero(kept)
        order = order[np.argsort(episode[order], kind="stable")]
        self.row: Ints = row[order]  #: of the units of all episodes, one after the other
        edge = np.flatnonzero(np.append(True, episode[order][1:] != episode[order][:-1])) if len(order) else np.zeros(0, np.int64)
        self._edge = np.append(edge, len(order)).tolist()
        place = np.full(len(row), -1, np.int64)
        place[order] = np.arange(len(order))
        self.unit: Ints = np.full(len(spans), -1, np.int64)  #: of every row: place of its unit in ``row``, -1 for none
        self.unit[talks] = place[unit.ravel()]

    @staticmethod
    def _crossed(calls: Sequence[Call], which: Ints, level: OnLevel) -> tuple[Ints, Ints]:
        """(unit, link), by link."""
        distinct, number = np.unique(which, return_inverse=True)
        links = [level.links(calls[one]) for one in distinct.tolist()]
        size = np.array([len(one) for one in links], np.int64)[number.ravel()]
        unit = np.repeat(np.arange(len(which)), size)
        link = np.concatenate([np.zeros(0, np.int64), *(links[one] for one in number.ravel().tolist())])
        order = np.argsort(link, kind="stable")
        return unit[order], link[order]

    def __len__(self) -> int:
        return len(self._edge) - 1

    def took(self, calls: Sequence[Call], which: Ints, start: Ints, level: OnLevel) -> Ints:
        """ps of each unit where unit i comes at ``start[i]``."""
        found = np.zeros(len(self.row), np.int64)
        for low, high in zip(self._edge[:-1], self._edge[1:], strict=True):
            order = low + np.argsort(start[low:high], kind="stable")
            asked = tuple(calls[one] for one in which[self.row[order]].tolist())
            found[order] = level.together(asked, tuple(start[order].tolist()))
        return found


def _connected(unit: Ints, link: Ints, begin: Ints, end: Ints) -> Ints:
    """Of every unit the lowest unit that it has to do with. Given are the links of each, by link."""
    order = np.lexsort((begin[unit], link))
    unit, link = unit[order], link[order]
    found = np.arange(len(begin))
    if not len(unit):
        return found
    # units of a link in order of their begins: one that begins when all before have ended begins a new crowd
    new = np.append(True, link[1:] != link[:-1])
    stride = np.int64(end.max() + 1)
    latest = np.maximum.accumulate(end[unit] + np.cumsum(new) * stride) - np.cumsum(new) * stride  # NOTE: of the link so far
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
