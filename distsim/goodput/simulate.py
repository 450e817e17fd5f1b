"""One life of a job: from failure to failure, with everything between two of them in closed form.

States: *working* (steps, with a blocking checkpoint after every interval), *detecting* (failed, and nobody knows), *waiting*
(for nodes to be repaired), *restarting*. Failures come to a job that works or restarts.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, fields

import numpy as np

from distsim.goodput.job import Job
from distsim.goodput.slow import slow_spells

_DRAWN = 256  # failures drawn at a time


@dataclass(slots=True)
class Ledger:
    """Where the time went, in seconds; the parts add up to the horizon.

    work: steps that were kept, at their ideal time. slow: what slow nodes added to these steps. shrunk: what missing replicas
    added. checkpoint: work stopped for a checkpoint. lost: work that was done and lost. detection, waiting, restart: see the
    states above. ``failures`` counts them; it is no time.
    """

    work: float = 0.0
    slow: float = 0.0
    shrunk: float = 0.0
    checkpoint: float = 0.0
    lost: float = 0.0
    detection: float = 0.0
    waiting: float = 0.0
    restart: float = 0.0
    failures: int = 0


#: fields of Ledger that are times
PARTS = tuple(field.name for field in fields(Ledger) if field.name != "failures")


class _Work:
    """Work of one interval that no checkpoint holds yet, and what it took beyond its ideal time."""

    __slots__ = ("shrunk", "slow", "work")

    def __init__(self) -> None:
        self.work = self.slow = self.shrunk = 0.0

    def add(self, work: float, slow: float, shrink: float) -> None:
        """Work done while steps take ``slow`` times as long for slow nodes, and ``shrink`` times for missing replicas."""
        self.work += work
        self.slow += work * (slow - 1)
        self.shrunk += work * slow * (shrink - 1)


class _Life:
    """The job as it is now."""

    def __init__(self, job: Job, horizon: float, rng: np.random.Generator) -> None:
        self.job, self.horizon, self.rng = job, horizon, rng
        self.ledger = Ledger()
        self.now = 0.0
        self.gaps: list[float] = []
        self.left = self.gap()  #: exposed time until the next failure
        self.returns: list[float] = []  #: heap: when nodes under repair come back
        self.up = job.replicas
        self.turns = slow_spells(job.nodes, job.slow, job.slow_for, horizon, rng).tolist()[::-1]
        self.is_slow = False
        self.open = _Work()  #: since the last checkpoint
        self.closing: _Work | None = None  #: held by a checkpoint that is still being written
        self.counts_at = 0.0  #: when that one is written
        self.saving = 0.0  #: left of a checkpoint that stops the work

    def run(self) -> Ledger:
        """To the horizon."""
        job = self.job
        while self.now < self.horizon:
            while self.turns and self.turns[-1] <= self.now:
                self.turns.pop()
                self.is_slow = not self.is_slow
            fails_at = self.now + self.left
            grows_at = max(self.returns[0], self.now) if self.returns and self.up < job.replicas else math.inf
            turns_at = self.turns[-1] if self.turns else math.inf
            until = min(self.horizon, fails_at, grows_at, turns_at)
            self.left -= until - self.now
            self.advance(until)
            # NOTE: told by the times themselves; rounding may leave a little of ``left``
            if until == self.horizon:
                break
            if until == fails_at:
                self.fail()
            elif until == grows_at:
                self.grow()
        # what is not saved at the horizon is not lost either
        for work in (self.closing, self.open):
            self.keep(work)
        return self.ledger

    def gap(self) -> float:
        """Time from one failure to the next."""
        if not self.gaps:
            shape = self.job.shape
            drawn = self.rng.weibull(shape, _DRAWN) / math.gamma(1 + 1 / shape)  # of mean 1; shape 1 is exponential
            self.gaps = (drawn * self.job.mtbf).tolist()
        return self.gaps.pop()

    def spend(self, part: str, time: float) -> None:
        """Let time go by, not beyond the horizon."""
        time = max(min(time, self.horizon - self.now), 0.0)  # rounding may have put now just past it
        setattr(self.ledger, part, getattr(self.ledger, part) + time)
        self.now += time

    def keep(self, work: _Work | None) -> None:
        """Book work that is safe."""
        if work is not None:
            self.ledger.work += work.work
            self.ledger.slow += work.slow
            self.ledger.shrunk += work.shrunk

    def lose(self, work: _Work | None) -> None:
        """Book work that is gone."""
        if work is not None:
            self.ledger.lost += work.work + work.slow + work.shrunk

    # --- working -----------------------------------------------------------------------------------------------------------

    def advance(self, until: float) -> None:
        """Work and save up to that time; the pace does not change on the way."""
        job, now = self.job, self.now
        slow = job.slowdown if self.is_slow else 1.0
        shrink = job.replicas / self.up
        pace = slow * shrink  # wall seconds per second of work
        while now < until:
            if self.saving:
                stop = min(now + self.saving, until)
                self.ledger.checkpoint += stop - now
                self.saving = max(self.saving - (stop - now), 0.0) if stop == until else 0.0
                now = stop
                if not self.saving:
                    self.saved(now)
                continue
            due = now + (job.interval - self.open.work) * pace
            if due > until:
                self.open.add((until - now) / pace, slow, shrink)
                now = until
                break
            self.open.add(job.interval - self.open.work, slow, shrink)
            now = due
            if job.checkpoint:
                self.saving = job.checkpoint
                cycle = job.interval * pace + job.checkpoint
                # whole cycles at once, save the last, whose checkpoint may be under way when the pace ends
                whole = int((until - now) / cycle) - 1
            else:
                self.saved(now)
                cycle = job.interval * pace
                whole = int((until - now) / cycle) - 1
            if whole > 0:
                self.skip(whole, cycle, slow, shrink)
                now += whole * cycle
        self.now = until

    def skip(self, cycles: int, cycle: float, slow: float, shrink: float) -> None:
        """Cycles that end in the state in which they began."""
        job = self.job
        self.ledger.checkpoint += cycles * job.checkpoint
        done = _Work()
        done.add(cycles * job.interval, slow, shrink)
        self.keep(done)
        self.counts_at += cycles * cycle

    def saved(self, now: float) -> None:
        """A checkpoint no longer stops the work: the one before it counts, and so will this one when it is written."""
        self.keep(self.closing)
        self.closing, self.open = self.open, _Work()
        self.counts_at = now + self.job.write

    # --- failing -----------------------------------------------------------------------------------------------------------

    def fail(self) -> None:
        """Lose what is not saved, and come back."""
        if self.closing is not None and self.counts_at <= self.now:
            self.keep(self.closing)
        else:
            self.lose(self.closing)
        self.lose(self.open)
        self.closing, self.open, self.saving = None, _Work(), 0.0
        self.down()
        self.restart()

    def down(self) -> None:
        """One failure: it is noticed, and may take a node with it."""
        job = self.job
        self.ledger.failures += 1
        self.left = self.gap()
        self.spend("detection", job.detection)
        if job.repair and self.rng.random() < job.node_loss:
            heapq.heappush(self.returns, self.now + self.rng.exponential(job.repair))

    def restart(self) -> None:
        """Wait for nodes, then start; a failure on the way starts it again."""
        job = self.job
        while self.now < self.horizon:
            self.find_nodes()
            if self.left > job.restart:
                self.left -= job.restart
                self.spend("restart", job.restart)
                return
            self.spend("restart", self.left)
            if self.now < self.horizon:
                self.down()

    def find_nodes(self) -> None:
        """Take what nodes there are; wait while they are too few."""
        job = self.job
        while True:
            while self.returns and self.returns[0] <= self.now:
                heapq.heappop(self.returns)
            whole = min((job.nodes + job.spares - len(self.returns)) // job.replica_nodes, job.replicas)
            if whole == job.replicas or (job.when_short == "shrink" and whole >= 1):
                self.up = whole
                return
            if self.now >= self.horizon:
                return
            self.spend("waiting", self.returns[0] - self.now)

    def grow(self) -> None:
        """Nodes came back: where they make a replica whole, save, and start anew with it."""
        job = self.job
        heapq.heappop(self.returns)
        if (job.nodes + job.spares - len(self.returns)) // job.replica_nodes <= self.up:
            return
        if self.left <= job.checkpoint + job.write:
            return  # a failure comes first, and its restart finds the nodes
        self.left -= job.checkpoint + job.write
        self.spend("checkpoint", job.checkpoint + job.write)
        for work in (self.closing, self.open):
            self.keep(work)
        self.closing, self.open, self.saving = None, _Work(), 0.0
        self.restart()


def simulate(job: Job, horizon: float, rng: np.random.Generator) -> Ledger:
    """One life of a job (:meth:`Job.settled`) over ``horizon`` seconds."""
    return _Life(job, horizon, rng).run()
