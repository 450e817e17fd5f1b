"""A replica: one copy of the model. It asks its scheduler for batches and lets their durations pass on the clock."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, Protocol

from distsim.kernel.clock import Call, Clock
from distsim.serving.batch import Batch
from distsim.serving.iteration import IterationTimes
from distsim.serving.kv.swap import Swap
from distsim.serving.kv.tiers import Tier
from distsim.serving.log import IterationLog
from distsim.serving.request import Request
from distsim.serving.scheduler import Scheduler
from distsim.serving.stretch import AHEAD, Stretch
from distsim.serving.tally import counters


class Runner(Protocol):
    """Runs iterations of one replica: distsim.serving.network.live."""

    def run(self, shape: Any, speed: float, done: Callable[[int], None]) -> None:
        """Start an iteration. ``done`` is told, at its end, the ps that its first stage took."""
        ...


class Replica:
    """States: idle, or with up to ``stages`` batches in flight.

    A batch that only generates is carried through all the iterations that its scheduler calls steady in one event
    (*fast-forward*), and cut at the next end of an iteration when an arrival could change what comes next. Stepping
    (``stepped``) gives the same times, one event per iteration.
    """

    def __init__(
        self, number: int, clock: Clock, scheduler: Scheduler, times: IterationTimes, log: IterationLog,
        ended: Callable[[Request, Replica], None], stepped: bool = False,
    ) -> None:  # fmt: skip
        """ended: told of every request that is done, at that time."""
        self.number = number
        self.pool = 0  #: number of its pool
        self.role = "both"  #: what it does: prefill, decode, or both
        self.scheduler = scheduler
        self.times = times
        self.stages = times.stages
        self.iterations = 0
        self.busy = 0  #: ps in which the first stage computed
        self.speed = 1.0  #: iterations take so many times as long
        self.runner: Runner | None = None  #: runs iterations where their times are not known beforehand
        self.began: Callable[[Replica, Batch], None] | None = None  #: told of batches with prompts when their iteration begins
        self.since = 0  #: ps from which on it has held its GPUs, -1: it holds none now
        self.held = 0  #: ps that it held them in earlier times
        self.started = 0  #: ps at which it took requests first, -1: never
        self.stopped = -1  #: ps at which it gave its GPUs back last, -1: it has them, or never had
        self.failures = 0
        self.down = 0  #: ps out of service after failures
        self.draining = False  #: takes no more requests, and stops when it is empty
        #: told of every request that its client has given up, once it has left
        self.abandoned: Callable[[Request, Replica], None] | None = None
        self._abandoned: list[Request] = []  #: given up, and to leave with the iteration that they are in
        self._before = {"preemptions": 0, "lookups": 0, "hits": 0}  #: counted before failures
        self.former: list[Tier | Swap] = []  #: what counted in schedulers before failures
        self._pristine: Scheduler | None = None  #: the empty scheduler, of a replica that may fail
        self._clock = clock
        self._env = clock.env  # NOTE: its _now spares the hot path a property
        self._log = log
        self._ended = ended
        self._stepped = stepped
        self._flying = 0
        self._reading: list[Batch] = []  #: batches in flight that compute prompts
        self._stretch: Stretch | None = None
        self._free = [0] * self.stages  #: ps at which each stage has nothing more to do
        self._epoch = 0  #: counts failures: what was in flight before does not end
        self._decision = self._decide  # NOTE: one bound method, so that settling finds it again

    # --- what comes from outside ----------------------------------------------------------------------------------------------

    def arrive(self, request: Request) -> None:
        """A request joins the queue, now."""
        request.replica = self.number
        if self.role == "prefill":
            request.handoff = True
        self.scheduler.enqueue(request)
        if self._flying < self.stages:
            self._clock.settle(self._decision)
        elif self._stretch is not None and self.scheduler.heeds(request):
            self.cut()

    def poke(self) -> None:
        """Something has changed (blocks came free): decide anew at the next opportunity."""
        if self._flying < self.stages:
            self._clock.settle(self._decision)
        elif self._stretch is not None:
            self.cut()

    def cut(self) -> None:
        """End the stretch at the next end of an iteration."""
        stretch = self._stretch
        assert stretch is not None
        upto, at = stretch.boundary(self._env._now)
        if upto < stretch.upto:
            stretch.upto = upto
            stretch.call = self._clock.call_at(at, self._stretched)

    @property
    def outstanding(self) -> int:
        """Requests here, waiting or being served."""
        return self.scheduler.outstanding

    @property
    def queued(self) -> int:
        """Requests that wait for admission."""
        return len(self.scheduler.waiting) + len(self.scheduler.landed)

    @property
    def used(self) -> int:
        """KV blocks in use now, those of iterations under way included."""
        used = self.scheduler.kv.used
        stretch = self._stretch
        if stretch is not None:
            done, _ = stretch.boundary(self._env._now)
            assert stretch.batch.decodes is not None
            used += stretch.batch.decodes.grown(done - 1)
        return used

    @property
    def unread(self) -> int:
        """Tokens of prompts that wait, or whose computation has not ended."""
        read = sum(request.prefill - request.computed for batch in self._reading for request, _ in batch.prefills)
        return self.scheduler.unread + read

    def match(self, request: Request) -> int:
        """Tokens of a request's prefill that are in this replica's cache now."""
        found = self.scheduler.kv.match(request)
        if found and self._stretch is not None:  # blocks that the stretch has taken since may have held some of them
            self.catch_up()
            found = self.scheduler.kv.match(request)
        return found

    def catch_up(self) -> None:
        """Enter what the stretch has done so far, so that scheduler, cache and requests are what they are now: all but the
        iteration under way, or that ends now."""
        stretch = self._stretch
        if stretch is None:
            return
        done = stretch.boundary(self._env._now)[0] - 1
        if done > 0:
            self._write(stretch, done)
            self.scheduler.progress(stretch.batch, done)
            stretch.forget(done)

    # --- what may befall it ---------------------------------------------------------------------------------------------------

    def arm(self) -> None:
        """Be ready to fail, or to be launched: called while it is empty, remembers what that is like."""
        if self._pristine is None:
            self._pristine = deepcopy(self.scheduler)

    def fail(self) -> None:
        """Lose everything: queue, KV cache and the iterations under way. Call :meth:`arm` first; whoever had sent the requests
        must look after them (``Request.lose``). An iteration that ends now has ended; the log keeps one that does not with the
        time it would have taken."""
        stretch = self._stretch
        if stretch is not None:
            upto, at = stretch.boundary(self._env._now)
            if at == self._env._now:
                stretch.upto = upto
                assert stretch.call is not None
                self._stretched(stretch.call)
            else:
                self.catch_up()
                self._write(stretch, 1)
        self.failures += 1
        self._epoch += 1
        self._flying = 0
        self._reading.clear()
        self._stretch = None
        self._free = [0] * self.stages
        self._abandoned.clear()
        self._renew()

    def _renew(self) -> None:
        """Begin anew, with empty queue and cache."""
        made = self._pristine
        assert made is not None, "arm() was not called"
        for name in self._before:
            self._before[name] = self.count(name)
        self._pristine = deepcopy(made)
        self.former += counters(self.scheduler)
        self.scheduler = made

    def launch(self, now: int) -> None:
        """Take its GPUs, with nothing in its cache. Call :meth:`arm` first."""
        self.since, self.stopped, self.draining = now, -1, False
        self._renew()

    def stop(self, now: int) -> None:
        """Give its GPUs back; nobody is there any more."""
        self.held += now - self.since
        self.since, self.stopped, self.draining = -1, now, False

    def spare(self) -> None:
        """Be one that has not been launched."""
        self.since = self.started = -1

    def count(self, name: str) -> int:
        """``preemptions`` of its scheduler, ``lookups`` and ``hits`` of its cache in tokens: of all its lives."""
        scheduler = self.scheduler
        now: int = scheduler.preemptions if name == "preemptions" else getattr(scheduler.kv, name, 0)
        return self._before[name] + now

    def slow(self, factor: float) -> None:
        """From the next iteration on, each takes ``factor`` times as long."""
        self.speed = factor
        if self._stretch is not None:
            self.cut()

    def abandon(self, request: Request) -> None:
        """A client has given up: its request leaves, at once or with the end of the iteration that it is in."""
        if self.scheduler.abort(request):
            self._leave(request)
            self.poke()
        else:
            self._abandoned.append(request)
            if self._stretch is not None:
                self.cut()

    def _let_go(self) -> None:
        """An iteration has ended: whoever was given up meanwhile leaves."""
        waiting, self._abandoned = self._abandoned, []
        for request in waiting:
            if self.scheduler.abort(request):
                self._leave(request)
            elif request.completed < 0 and request.replica == self.number:
                self._abandoned.append(request)

    def _leave(self, request: Request) -> None:
        if self.abandoned is not None:
            self.abandoned(request, self)

    # --- iterations -----------------------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        """End of an instant: start what the scheduler wants, while a stage is left for it."""
        scheduler = self.scheduler
        while self._flying < self.stages:
            batch = scheduler.next_batch()
            if batch is None:
                return
            if scheduler.transfers is not None:
                scheduler.transfers.charge(batch)
            self._flying += 1
            prefills = batch.prefills
            if prefills:
                now = self._env._now
                for request, _ in prefills:
                    if request.scheduled < 0:
                        request.scheduled = now
                self._reading.append(batch)
                if self.began is not None:
                    self.began(self, batch)
            if self.runner is not None:
                self._run(batch)
            elif self.stages > 1:
                self._pass_on(batch)
            elif prefills or self._stepped or batch.wait or batch.behind:
                self._step(batch)
            else:
                self._fast_forward(batch)

    def _step(self, batch: Batch) -> None:
        """One iteration."""
        shape = batch.shape()
        (ps,) = self.times.times(shape)
        if self.speed != 1.0:
            ps = round(ps * self.speed)
        if ps < batch.behind:
            ps = batch.behind
        ps += batch.wait
        now = self._env._now
        scheduler = self.scheduler
        self._log.append((
            self.number, now, ps, 1, shape.sequences, shape.kv, len(shape.prefills), shape.prompt_tokens, shape.attended,
            len(scheduler.waiting), scheduler.kv.used,
        ))  # fmt: skip
        self.iterations += 1
        self.busy += ps
        self._clock.call_at(now + ps, self._stepped_on, (batch, self._epoch))

    def _stepped_on(self, call: Any) -> None:
        batch, epoch = call.subject
        if epoch == self._epoch:
            self._finish(batch, 1)

    def _run(self, batch: Batch) -> None:
        """One iteration that takes as long as it takes."""
        shape, now, epoch = batch.shape(), self._env._now, self._epoch
        scheduler, number = self.scheduler, self.number
        what = (1, shape.sequences, shape.kv, len(shape.prefills), shape.prompt_tokens, shape.attended)
        then = (len(scheduler.waiting), scheduler.kv.used)
        self.iterations += 1

        def ended(busy: int) -> None:
            if epoch != self._epoch:
                return
            self.busy += busy
            over = max(self._env._now, now + batch.behind) + batch.wait
            self._log.append((number, now, over - now, *what, *then))
            if over == self._env._now:
                self._finish(batch, 1)
            else:
                self._clock.call_at(over, self._stepped_on, (batch, epoch))

        assert self.runner is not None
        self.runner.run(shape, self.speed, ended)

    def _pass_on(self, batch: Batch) -> None:
        """One iteration through the stages: each takes batches in the order in which they were formed."""
        shape = batch.shape()
        now = at = self._env._now
        free = self._free
        for stage, ps in enumerate(self.times.times(shape)):
            if self.speed != 1.0:
                ps = round(ps * self.speed)
            if stage == 0:  # all stages copy their own layers at once: those behind are done when the batch comes
                ps = max(ps, batch.behind) + batch.wait
            if free[stage] > at:
                at = free[stage]
            at += ps
            free[stage] = at
            if stage == 0:
                self.busy += ps
        scheduler = self.scheduler
        self._log.append((
            self.number, now, at - now, 1, shape.sequences, shape.kv, len(shape.prefills), shape.prompt_tokens, shape.attended,
            len(scheduler.waiting), scheduler.kv.used,
        ))  # fmt: skip
        self.iterations += 1
        self._clock.call_at(at, self._stepped_on, (batch, self._epoch))

    def _fast_forward(self, batch: Batch) -> None:
        """As many iterations as are alike but for the tokens in cache."""
        runs = self._runs(batch, self.scheduler.steady(batch))
        before, start, ps, count = runs[-1]
        stretch = self._stretch = Stretch(batch, runs, before + count, len(self.scheduler.waiting))
        stretch.call = self._clock.call_at(start + ps * count, self._stretched)

    def _runs(self, batch: Batch, most: int) -> list[tuple[int, int, int, int]]:
        """The next iterations of a batch that only generates, at most ``most`` and not too far ahead, as runs."""
        decodes = batch.decodes
        assert decodes is not None
        n, kv, longest = len(decodes.members), decodes.kv, decodes.longest
        steady, speed = self.times.steady, self.speed
        at = self._env._now
        done = 0
        runs: list[tuple[int, int, int, int]] = []
        while True:
            ps, count = steady(n, kv, longest)
            if speed != 1.0:
                ps = round(ps * speed)
            if done + count >= most:
                runs.append((done, at, ps, most - done))
                return runs
            runs.append((done, at, ps, count))
            if len(runs) == AHEAD:
                return runs
            at += ps * count
            done += count
            kv += n * count
            longest += count

    def _stretched(self, call: Call) -> None:
        """The stretch has ended, here or where it was cut."""
        stretch = self._stretch
        if stretch is None or stretch.call is not call:
            return
        batch, upto = stretch.batch, stretch.upto
        self._stretch = None
        self._write(stretch, upto)
        if upto > 1:
            self.scheduler.extend(batch, upto - 1)
        self._finish(batch, upto)

    def _write(self, stretch: Stretch, upto: int) -> None:
        """Record the first ``upto`` iterations of a stretch."""
        scheduler = self.scheduler
        decodes = stretch.batch.decodes
        assert decodes is not None
        n, kv = len(decodes.members), decodes.kv
        waiting, used = stretch.waiting, scheduler.kv.used
        append, number = self._log.append, self.number
        busy = 0
        for before, start, ps, count in stretch.runs:
            if before >= upto:
                break
            if count > upto - before:
                count = upto - before
            now_used = used + decodes.grown(before) if before else used
            append((number, start, ps, count, n, kv + n * before, 0, 0, 0, waiting, now_used))
            busy += ps * count
        self.busy += busy
        self.iterations += upto

    def _finish(self, batch: Batch, count: int) -> None:
        self._flying -= 1
        if self._reading and batch in self._reading:
            self._reading.remove(batch)
        for request in self.scheduler.finish(batch, count, self._env._now):
            self._ended(request, self)
        if self._abandoned:
            self._let_go()
        self._clock.settle(self._decision)
