"""Arithmetic of half-open time intervals, in columns: unions, who held an instant first, how much of one lies in another.

All ranks share one axis: an instant of rank r is ``r * stride + time`` with a stride that no time reaches, so that one sort
and one scan serve them all. Lengths are exact integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Union:
    """Disjoint intervals in ascending order: the instants that at least one of the intervals it was made of covers."""

    begin: Ints
    end: Ints
    before: Ints  #: total length of the intervals before each, and at last of all of them (one entry more)

    @classmethod
    def of(cls, begin: Ints, end: Ints) -> Union:
        """The union of intervals in any order; empty ones count for nothing."""
        begin, end, _ = _ascending(begin, end)
        if len(begin):
            top = np.maximum.accumulate(end)
            first = np.append(True, begin[1:] > top[:-1])
            begin, end = begin[first], top[np.append(first[1:], True)]
        return cls(begin, end, np.concatenate((np.zeros(1, np.int64), np.cumsum(end - begin))))

    def with_(self, begin: Ints, end: Ints) -> Union:
        """The union of this and further intervals."""
        return Union.of(np.concatenate((self.begin, begin)), np.concatenate((self.end, end))) if len(begin) else self

    def until(self, instant: Ints) -> Ints:
        """Length covered before each of these instants."""
        at = np.searchsorted(self.begin, instant, side="right")
        covered = self.before[at]
        if len(self.end):
            covered = covered - np.where(at > 0, np.maximum(self.end[at - 1] - instant, 0), 0)
        return covered

    def within(self, begin: Ints, end: Ints) -> Ints:
        """How much of each interval is covered."""
        return self.until(end) - self.until(begin)


def owned(begin: Ints, end: Ints) -> tuple[Ints, Ints, Ints]:
    """(row, begin, end) of disjoint pieces that cover the union: each instant goes to the interval that began first.

    Of those that began together the lower row has it. An interval owns one piece at most: what follows the end of all
    that began before it.
    """
    begin, end, row = _ascending(begin, end)
    if len(begin):
        begin = np.concatenate((begin[:1], np.maximum(begin[1:], np.maximum.accumulate(end)[:-1])))
    keep = end > begin
    return row[keep], begin[keep], end[keep]


def sums(key: Ints, *columns: Ints) -> tuple[Ints, ...]:
    """The distinct keys, ascending, and the exact sum of every column over each of them."""
    if not len(key):
        return (key, *columns)
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    return (key[first], *(np.add.reduceat(column[order], first) for column in columns))


def _ascending(begin: Ints, end: Ints) -> tuple[Ints, Ints, Ints]:
    """Non-empty intervals by begin, then row; and their rows."""
    row = np.flatnonzero(end > begin)
    begin, end = begin[row], end[row]
    if len(begin) > 1 and (begin[1:] < begin[:-1]).any():
        order = np.argsort(begin, kind="stable")
        row, begin, end = row[order], begin[order], end[order]
    return begin, end, row
