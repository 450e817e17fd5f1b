"""Sarathi-Serve: prompts in chunks that ride along with generation, so that nobody's next token waits for a whole prompt.

Rules (Agrawal et al., "Taming throughput-latency tradeoff in LLM inference with Sarathi-Serve", OSDI 2024; the replica
scheduler ``sarathi`` of Vidur):
- An iteration computes at most ``chunk`` tokens of prompts and generation together, of at most ``max_num_seqs`` requests
  (divided by the pipeline stages).
- First all that generate, one token each. Each needs a free block to go on, even where it begins none; if there is none, the
  last of the running is preempted: a prompt that was begun last, else the last that generates, at last the request itself.
- Then prompts that have been begun, as far as tokens are left; what gets none waits for its turn.
- Then the queue in order: blocks for the whole prompt, with a watermark of blocks left over, and at least one token.
- A preempted request loses its blocks and goes to the head of the queue; all that it had is computed anew.
"""

from __future__ import annotations

from pydantic import Field

from distsim.params import Count
from distsim.registry import register
from distsim.serving.batch import Batch
from distsim.serving.kv.blocks import Blocks
from distsim.serving.request import Request
from distsim.serving.scheduler import Scheduler, SchedulerParams


@register("scheduler", "sarathi")
class Sarathi(Scheduler):
    """Chunked prefill beside generation; paged KV cache with a watermark; preemption by recomputation."""

    class Params(SchedulerParams):
        """Defaults are Vidur's."""

        chunk: Count = Field(512, description="tokens of an iteration")
        max_num_seqs: Count = Field(128, description="requests admitted at once")
        watermark: float = Field(0.01, ge=0, lt=1, description="share of the blocks that admission leaves free")
        forgetful: bool = Field(
            False, description="as Vidur: who is preempted within its prompt generates the rest of the prompt"
        )

    params: Params

    def __init__(self, params: Params, kv: Blocks, stages: int = 1) -> None:
        super().__init__(params, kv, stages)
        self._most = params.max_num_seqs // stages or 1
        self._watermark = int(params.watermark * kv.total)
        self._skipped = 0  #: of ``prefilling``, how many at its head got no token from the last batch

    def refusal(self, request: Request) -> str:
        """See Scheduler.refusal."""
        need = self.kv.need(request.prompt + request.output - 1)
        return "longer than the KV cache" if need + self._watermark > self.kv.total else ""

    def next_batch(self) -> Batch | None:
        """See the module."""
        kv, pool = self.kv, self.pool
        if self.landed:
            self.seat_landed(self.params.max_num_seqs)
        count = len(pool.members)
        if count:
            growth = pool.growth()
            if count <= self._most and kv.free > growth:
                kv.take(growth)
            else:
                count = self._one_by_one()
        prefills: list[tuple[Request, int]] = []
        budget = self.params.chunk - count
        if self.prefilling:
            budget = self._continue(prefills, budget)
        if self.waiting:
            self._admit(prefills, budget, count)
        if not count:
            return Batch(prefills, None) if prefills else None
        return Batch(prefills, self.take_pool() if count == len(self.pool.members) else self.pool.split(count))

    def _one_by_one(self) -> int:
        """Blocks run short, or more generate than a batch may hold: the rule by its letter. Returns how many go on, from the
        head of the pool."""
        kv, pool = self.kv, self.pool
        begun = self.prefilling[self._skipped :]
        served = 0
        while served < min(self._most, len(pool.members)):
            request = pool.members[served]
            while kv.free < max(1, pool.begins(request)):
                victim = begun.pop() if begun else pool.members[-1]
                self.preempt(victim)
                if victim is request:
                    return served
            kv.take(pool.begins(request))
            served += 1
        return served

    def _continue(self, chosen: list[tuple[Request, int]], budget: int) -> int:
        """Prompts that have been begun; returns the tokens that are left."""
        rest, self.prefilling = self.prefilling, []
        for request in rest:
            new = min(request.prefill - request.computed, budget)
            if new > 0:
                chosen.append((request, new))
                budget -= new
            else:
                self.prefilling.append(request)
        self.prefilling.sort(key=lambda one: (one.arrival, one.row))
        self._skipped = len(self.prefilling)
        return budget

    def _admit(self, chosen: list[tuple[Request, int]], budget: int, generating: int) -> None:
        """Waiting requests, in order, as far as tokens, seats and blocks go."""
        kv, waiting = self.kv, self.waiting
        most = self._most - generating
        while waiting and budget > 0 and len(chosen) < most and self.seated < self.params.max_num_seqs:
            request = waiting[0]
            blocks = kv.need(request.prefill)
            if kv.free - blocks < self._watermark:
                break
            waiting.popleft()
            kv.admit(request, 0, blocks)
            self.seated += 1
            new = min(request.prefill, budget)
            chosen.append((request, new))
            budget -= new

    def preempt(self, request: Request) -> None:
        """See Scheduler.preempt."""
        begun = request.computed if request.cohort is None else 0
        super().preempt(request)
        if begun and self.params.forgetful:
            request.left += request.prefill - begun
            request.prefill = begun

    def steady(self, batch: Batch) -> int:
        """Everyone needs a free block to go on: one must be left over."""
        return self._steady(batch, 1)
