"""A group of level ``analytic`` that is under way while the network changes: it goes on at another pace.

What it has done at a change is a share of the whole; the rest takes that share of what the whole would take from then on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from distsim.network.answer import Answer
from distsim.network.model import NEVER, Finished


@dataclass(slots=True, eq=False)
class Pace:
    """A group's progress, a share from 0 to 1. It stands still where its route is down."""

    since: int  #: ps of the last change
    answer: Answer | None  #: what the whole does on the network as it is, None where it is stuck
    done: Fraction = Fraction(0)  #: by ``since``
    counted: Answer | None = None  #: what the links' use was counted by
    shares: list[tuple[int, Fraction]] | None = None  #: (host, progress at its last delivery)
    ended: dict[int, int] = field(default_factory=dict)  #: host -> ps of its last delivery, of those that have had it

    def turn(self, now: int, answer: Answer | None) -> None:
        """From now on it does what ``answer`` says."""
        if self.answer is not None:
            self._note_shares(self.answer)
            assert self.shares is not None
            before = self.done
            self.done += Fraction(now - self.since, max(1, self.answer.duration))
            for host, share in self.shares:
                if share <= self.done and host not in self.ended:
                    self.ended[host] = self._at(share, before, self.answer)
        self.since, self.answer = now, answer

    def end(self) -> int:
        """ps at which it finishes; NEVER while it is stuck."""
        return NEVER if self.answer is None else self._at(Fraction(1), self.done, self.answer)

    def finished(self, group: int) -> Finished:
        """Its report."""
        assert self.answer is not None
        self._note_shares(self.answer)
        assert self.shares is not None
        ends = {host: self.ended.get(host, -1) for host, _ in self.shares}
        for host, share in self.shares:
            if ends[host] < 0:
                ends[host] = self._at(share, self.done, self.answer)
        return Finished(group, self.end(), ends)

    def rest(self, column: NDArray[np.int64]) -> NDArray[np.int64]:
        """What is left to do of a column of totals."""
        rest: NDArray[np.int64] = np.rint(column * float(1 - self.done)).astype(np.int64)
        return rest

    def _note_shares(self, answer: Answer) -> None:
        if self.shares is None:
            self.shares = [(host, Fraction(end, max(1, answer.duration))) for host, end in answer.host_end]

    def _at(self, share: Fraction, done: Fraction, answer: Answer) -> int:
        return self.since + math.ceil(max(Fraction(0), share - done) * answer.duration)
