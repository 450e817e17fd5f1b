"""A steady stretch: what a replica carries through in one event, and can be cut at the end of any of its iterations."""

from __future__ import annotations

from distsim.kernel.clock import Call
from distsim.serving.batch import Batch

#: runs of equal iterations that a stretch is planned ahead for: it may be cut by an arrival, and the rest was in vain
AHEAD = 32


class Stretch:
    """Iterations of a batch that only generates, one after the other, as runs of equal duration.

    runs: (iterations before it, start ps, ps of each, how many). upto: iterations until it ends. waiting: the queue's length
    when it began; who comes while nobody waits cuts it, so that it tells throughout whether anybody waits.
    """

    __slots__ = ("batch", "call", "runs", "upto", "waiting")

    def __init__(self, batch: Batch, runs: list[tuple[int, int, int, int]], upto: int, waiting: int) -> None:
        self.batch = batch
        self.runs = runs
        self.upto = upto
        self.waiting = waiting
        self.call: Call | None = None

    def boundary(self, now: int) -> tuple[int, int]:
        """The first end of an iteration at or after ``now``: (iterations until then, ps)."""
        for before, start, ps, count in self.runs:
            if now <= start + ps * count:
                done = max(1 if before == 0 else 0, -((start - now) // ps)) if ps else count
                return before + done, start + ps * done
        before, start, ps, count = self.runs[-1]
        return before + count, start + ps * count

    def forget(self, count: int) -> None:
        """The first ``count`` iterations have been dealt with: it begins after them."""
        runs = []
        for before, start, ps, number in self.runs:
            over = min(max(count - before, 0), number)
            if over < number:
                runs.append((max(before - count, 0), start + ps * over, ps, number - over))
        self.runs = runs
        self.upto -= count
