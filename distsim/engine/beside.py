"""Computation beside communication: a device computes slower while collectives of some communicators run on it.

NCCL's kernels take multiprocessors and memory bandwidth from those that compute. The slowdown depends on what happens in the
run, unlike engine/speed.py, whose paces are known before it.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from fractions import Fraction

from distsim.engine.stream import Stream


class Beside:
    """One device. While several such collectives are under way, the largest of their factors counts.

    Work is counted in integers, in units so small that a ps at any pace is a whole number of them: nothing is lost however
    often the pace changes. A task ends at the first ps at which its work is done.

    Args:
        factors: all that can occur: how many times as long computation takes.
    """

    def __init__(self, factors: Collection[Fraction]) -> None:
        self.streams: set[int] = set()  #: numbers of the streams that are slowed
        self._unit = math.lcm(*(factor.numerator for factor in factors))  # work per ps at full pace
        self._under_way: dict[Fraction, int] = {}
        self._rate = self._unit  # work per ps now
        self._was = self._unit  # and before the last change
        self._left: dict[Stream, tuple[int, int]] = {}  # work left, as of

    def start(self, stream: Stream, now: int, work: int) -> int:
        """A task that takes ``work`` ps by itself begins on a stream; when it ends as things are."""
        self._left[stream] = (work * self._unit, now)
        return self._end(stream)

    def change(self, factor: Fraction, by: int) -> bool:
        """So many more collectives of this factor are under way; whether that changes the pace."""
        self._under_way[factor] = self._under_way.get(factor, 0) + by
        slowest = max((f for f, count in self._under_way.items() if count), default=Fraction(1))
        self._was, self._rate = self._rate, self._unit * slowest.denominator // slowest.numerator
        return self._was != self._rate

    def turn(self, stream: Stream, now: int) -> int:
        """The pace has just changed: when the stream's task ends now."""
        left, since = self._left[stream]
        self._left[stream] = (max(0, left - (now - since) * self._was), now)
        return self._end(stream)

    def _end(self, stream: Stream) -> int:
        left, since = self._left[stream]
        return since + -(-left // self._rate)
