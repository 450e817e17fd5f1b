"""How fast a device computes, as a function of time that is known before the run: constant by pieces.

A *pace* is how many times as long computation takes: 1 as measured, 1.3 slower, None not at all (a lost device).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction

from distsim.kernel.clock import END_OF_TIME


class Speed:
    """Pieces (from ps, pace), ascending; the first from 0 on, the last of a pace that is not None or for ever idle."""

    def __init__(self, pieces: Sequence[tuple[int, Fraction | None]]) -> None:
        self._times = [time for time, _ in pieces]
        self._paces = [pace for _, pace in pieces]

    def end(self, start: int, work: int) -> int:
        """When work of ``work`` ps (at pace 1) is done that starts at ``start``: rounded up to ps; END_OF_TIME for never.

        >>> Speed([(0, Fraction(1)), (100, Fraction(2))]).end(50, 100)      # 50 at full speed, 50 at half
        200
        """
        at = bisect_right(self._times, start) - 1
        now, left = Fraction(start), Fraction(work)
        while True:
            pace = self._paces[at]
            last = at + 1 == len(self._times)
            if pace is not None and (last or now + left * pace <= self._times[at + 1]):
                return min(math.ceil(now + left * pace), END_OF_TIME)
            if last:
                return END_OF_TIME
            at += 1
            if pace is not None:
                left -= (self._times[at] - now) / pace
            now = Fraction(self._times[at])

    def back(self, now: int) -> int:
        """``now`` if the device is there, else when it comes back (END_OF_TIME: never)."""
        at = bisect_right(self._times, now) - 1
        if self._paces[at] is not None:
            return now
        while at + 1 < len(self._times):
            at += 1
            if self._paces[at] is not None:
                return self._times[at]
        return END_OF_TIME
