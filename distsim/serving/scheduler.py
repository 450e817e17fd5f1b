"""What all batching policies have in common: the queue, who computes a prompt, who generates, what an iteration does to them.

A policy is one file in ``schedulers/``: a subclass with ``next_batch``, and ``steady`` where its own rules end a stretch
earlier than those here do.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from pydantic import Field

from distsim.params import Parameters
from distsim.serving.batch import Batch
from distsim.serving.cohort import Cohort
from distsim.serving.kv.blocks import Blocks
from distsim.serving.request import Request


class SchedulerParams(Parameters):
    """What every policy can be told."""

    block: int = Field(16, ge=1, description="tokens of a KV block")


class Scheduler:
    """Decides, whenever a replica may start an iteration, what it computes. It knows no time.

    waiting: not admitted, first come first. prefilling: admitted, with part of the prefill to compute, in order.
    pool: those that generate. What is in a batch that runs is in none of them until ``finish``.
    """

    Params: type[SchedulerParams] = SchedulerParams
    #: requests reserve the blocks they will need at admission, and do not take blocks as they grow
    reserves = False

    def __init__(self, params: Any, kv: Blocks, stages: int = 1) -> None:
        """stages: pipeline stages, that is, batches that may run at once."""
        self.params = params
        self.kv = kv
        self.stages = stages
        self.waiting: deque[Request] = deque()
        self.landed: deque[Request] = deque()  #: came with keys and values and their first token, from another replica
        self.prefilling: list[Request] = []
        self.pool = self.cohort()
        self._spare: Cohort | None = None  #: an empty cohort for the next take_pool
        self.seated = 0  #: requests admitted and not finished, those in running batches included
        self.preemptions = 0
        self._preempted = 0  #: preemptions that steady() has seen

    def cohort(self) -> Cohort:
        """An empty cohort of this policy's kind."""
        return Cohort(0 if self.reserves else self.kv.block)

    # --- what a policy decides ------------------------------------------------------------------------------------------------

    def next_batch(self) -> Batch | None:
        """The batch of the next iteration, with its KV blocks taken; None if there is nothing to compute, or nothing fits."""
        raise NotImplementedError

    def steady(self, batch: Batch) -> int:
        """next_batch() has just returned ``batch``, which only generates: for how many iterations in all (at least 1) would it
        return the same if nobody arrived? A short answer is never wrong, only slower.

        Here: until the first of them is done, and while there are blocks for all of them. What waits stays blocked meanwhile:
        free blocks only become fewer, and nobody leaves.
        """
        return self._steady(batch, 0)

    def _steady(self, batch: Batch, spare: int) -> int:
        """The same, with ``spare`` blocks that have to stay free."""
        decodes = batch.decodes
        assert decodes is not None
        # NOTE: whoever has just been preempted has not been considered for admission yet
        if self.preemptions != self._preempted or self.pool.members or self.prefilling:
            self._preempted = self.preemptions
            return 1
        return 1 + decodes.headroom(self.kv.free - spare, decodes.until_end() - 1)

    def heeds(self, request: Request) -> bool:
        """Whether ``request``, which has just joined the queue, may change what next_batch returns next: not if others wait
        before it, which are blocked until somebody leaves."""
        queue = self.landed or self.waiting
        return queue[0] is request

    def refusal(self, request: Request) -> str:
        """Why a request can never be served, empty if it can."""
        need = self.kv.need(request.prompt + request.output - 1)
        return "longer than the KV cache" if need > self.kv.total else ""

    # --- what happens to requests ------------------------------------------------------------------------------------------

    def enqueue(self, request: Request) -> None:
        """A request has come to this replica."""
        (self.landed if request.computed >= request.prefill else self.waiting).append(request)

    @property
    def idle(self) -> bool:
        """Nobody waits and nobody is served."""
        return not self.waiting and not self.seated and not self.landed

    @property
    def outstanding(self) -> int:
        """Requests here, waiting or admitted."""
        return len(self.waiting) + len(self.landed) + self.seated

    def take_pool(self) -> Cohort:
        """All that generate, for a batch."""
        taken = self.pool
        self.pool = self.cohort() if self._spare is None else self._spare
        self._spare = None
        return taken

    def extend(self, batch: Batch, count: int) -> None:
        """A batch that only generates runs ``count`` further iterations, as ``steady`` allowed: blocks for them."""
        decodes = batch.decodes
        assert decodes is not None
        blocks = decodes.grown(count)
        if blocks:
            self.kv.take(blocks)

    def seat_landed(self, most: int) -> None:
        """Requests that have come with their keys and values generate from now on, while fewer than ``most`` are admitted and
        there are blocks for what they bring and the next token. A policy calls this before it looks at its pool."""
        while self.landed and self.seated < most:
            request = self.landed[0]
            blocks = self.kv.need(request.computed)
            if blocks + (request.computed % self.kv.block == 0) > self.kv.free:
                return
            self.landed.popleft()
            self.kv.admit(request, 0, blocks)
            self.seated += 1
            self.pool.add(request)

    def preempt(self, request: Request) -> None:
        """Recompute later: one of the pool or of those prefilling gives up its blocks and goes to the head of the queue."""
        if request.cohort is not None:
            request.cohort.remove(request)
        else:
            self.prefilling.remove(request)
        self.kv.release(request)
        request.restart()
        self.seated -= 1
        self.preemptions += 1
        self.waiting.appendleft(request)

    def finish(self, batch: Batch, count: int, now: int) -> list[Request]:
        """``count`` iterations of a batch have ended now (more than one only of a batch that only generates): tokens come out.
        Returns the requests that are done here; blocks of those that are handed on are still taken."""
        done: list[Request] = []
        decodes = batch.decodes
        if decodes is not None:
            done = decodes.advance(count)
            if not self.pool.members:
                self._spare, self.pool = self.pool, decodes
            else:
                self.pool.absorb(decodes)
        for request, new in batch.prefills:
            request.computed += new
            if request.computed < request.prefill:
                self.prefilling.append(request)
                continue
            request.left -= 1
            if request.first < 0:
                request.first = now
            if request.left and not request.handoff:
                self.pool.add(request)
            else:
                done.append(request)
        for request in done:
            if request.left:
                self.seated -= 1
                continue  # handed on: its blocks are released when they have been sent
            request.completed = now
            self.vacate(request)
        return done

    def vacate(self, request: Request) -> None:
        """A request is done: its seat and its blocks are free."""
        self.seated -= 1
        self.kv.release(request)

    def withdraw(self, request: Request) -> bool:
        """Take a request out of the queue (its client has given up). False if it is not waiting."""
        try:
            self.waiting.remove(request)
        except ValueError:
            return False
        return True
