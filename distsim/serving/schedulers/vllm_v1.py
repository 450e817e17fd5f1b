"""vLLM's present scheduler (V1): one budget of tokens per iteration, for prompts and generation alike; shared prefixes.

Rules (vLLM 0.8 and later, ``vllm/v1/core/sched/scheduler.py``, first come first served):
- An iteration computes at most ``max_num_batched_tokens`` tokens. Requests that are running come first, in the order of their
  admission: those that generate take one token each, a prompt that is not finished as much of itself as the budget has left.
- Each takes the KV blocks that it needs for those tokens. Where there are too few, the *last* running request is preempted: it
  loses its blocks and goes to the head of the queue, to compute prompt and generated tokens anew.
  ``preemption=swap`` is no option of vLLM V1; it copies keys and values to the host and back, as vllm_v0 does.
- Only if nobody was preempted, waiting requests are admitted in order, at most ``max_num_seqs`` running at once, as far as
  budget and blocks go. What the prefix cache holds of the prompt is not computed again; the last token always is.
- ``whole_prompt``: a waiting request is admitted only if there are blocks for all that it has to compute, not merely for what
  the budget has left (``scheduler_reserve_full_isl``, on since 0.19). Without it a full cache preempts more.
- ``ahead``: iterations are decided one ahead (``--async-scheduling``, on since 0.14): the next is decided when this one begins,
  so that the GPU never waits for the host. Who arrives during an iteration is not in the next but in the one after it, and the
  seat and blocks of who ends with an iteration are free for the one after the next. An idle replica decides at once.
"""

from __future__ import annotations

from itertools import islice

from pydantic import Field

from distsim.params import Count
from distsim.registry import register
from distsim.serving.batch import Batch
from distsim.serving.kv.blocks import Blocks
from distsim.serving.kv.swap import SwapParams
from distsim.serving.request import Request
from distsim.serving.scheduler import Scheduler, SchedulerParams


@register("scheduler", "vllm_v1")
class VllmV1(Scheduler):
    """Chunked prefill within one token budget; paged KV cache with shared prefixes; preemption by recomputation."""

    class Params(SwapParams, SchedulerParams):
        """Defaults are vLLM 0.19's for online serving (``EngineArgs``, 80 GB GPUs take 8192 batched tokens)."""

        max_num_seqs: Count = Field(256, description="requests running at once; default of serve: the backend's")
        max_num_batched_tokens: Count = Field(8192, description="tokens of an iteration")
        prefix_caching: bool = Field(True, description="find the beginnings of prompts in the KV cache")
        chunked: bool = Field(True, description="compute a prompt in parts where the budget is short")
        whole_prompt: bool = Field(True, description="admit a prompt only where all of it fits the cache")
        ahead: bool = Field(False, description="decide every iteration while the one before it runs")

    params: Params

    def __init__(self, params: Params, kv: Blocks, stages: int = 1) -> None:
        """See Scheduler."""
        super().__init__(params, kv, stages)
        self._fresh = 0  #: at the end of the queue: came since the last decision, of which the next one does not know
        self._leaving: list[Request] = []  #: done, and the next decision does not know
        self._hidden = False  #: the last decision did not know all
        self._waits = False  #: batches are in flight, whose requests nobody can preempt now

    def refusal(self, request: Request) -> str:
        """See Scheduler.refusal."""
        if not self.params.chunked and request.prompt + request.output - 1 > self.params.max_num_batched_tokens:
            return "longer than max_num_batched_tokens, with chunked=false"
        return super().refusal(request)

    def next_batch(self) -> Batch | None:
        """See the module."""
        if not self.params.ahead:
            self._fresh = 0
            return self._decide()
        self._hidden = self._fresh > 0 or bool(self._leaving)
        batch = self._decide()
        self._fresh = 0
        for request in self._leaving:
            super().vacate(request)
        self._leaving.clear()
        if batch is None and self._hidden:  # nothing was decided ahead
            self._hidden = False
            batch = self._decide()
        return batch

    def steady(self, batch: Batch) -> int:
        """See Scheduler.steady."""
        return 1 if self._hidden else self._steady(batch, 0)

    def enqueue(self, request: Request) -> None:
        """See Scheduler.enqueue."""
        before = len(self.waiting)
        super().enqueue(request)
        self._fresh += len(self.waiting) - before

    def withdraw(self, request: Request) -> bool:
        """See Scheduler.withdraw."""
        known = len(self.waiting) - self._fresh
        fresh = any(request is one for one in islice(self.waiting, known, None))
        found = super().withdraw(request)
        self._fresh -= found and fresh
        return found

    def vacate(self, request: Request) -> None:
        """See Scheduler.vacate."""
        if self.params.ahead:
            self._leaving.append(request)
        else:
            super().vacate(request)

    def _decide(self) -> Batch | None:
        """A batch; where all that were to be served have given way, the next one: an iteration of nobody takes no time."""
        while True:
            before = self.preemptions
            batch = self._form()
            if batch is not None or self.preemptions == before or self.in_flight:
                return batch

    def _line_up_returned(self) -> None:
        """With several batches in flight: those that are back stand in order of arrival, as in vLLM's one list of running
        requests. The last of that list may be in flight, where nobody can preempt it: who needs blocks waits for it."""
        self.pool.sort()
        self.prefilling.sort(key=lambda one: (one.arrival, one.row))
        self._waits = self.in_flight > 0

    def _form(self) -> Batch | None:
        """A batch of what is known."""
        kv, pool = self.kv, self.pool
        if self.landed:
            self.seat_landed(self.params.max_num_seqs)
        if self.stages > 1:
            self._line_up_returned()
        budget = self.params.max_num_batched_tokens
        before = self.preemptions
        everyone = len(pool.members)
        count = wanted = everyone if everyone < budget else budget
        if count:
            growth = pool.growth()
            if count < everyone or growth > kv.free:
                count = self._make_room(count)
            elif growth:
                kv.take(growth)
            budget -= count
        prefills = self._continue(budget) if self.prefilling else []
        for _, new in prefills:
            budget -= new
        if self.swapped and self.preemptions == before and count == len(pool.members):
            came = self.seat_swapped(min(self.params.max_num_seqs, self.seated + budget))
            count += came
            budget -= came
        if self.waiting and not self.swapped and count >= wanted and not self.prefilling and self.preemptions == before:
            self._admit(prefills, budget)
        everyone = len(self.pool.members)
        if not count or not everyone:
            return Batch(prefills, None) if prefills else None
        decodes = self.take_pool() if count >= everyone else self.pool.split(count)
        return Batch(prefills, decodes)

    def _make_room(self, most: int) -> int:
        """Blocks for the first ``most`` that generate, one after the other; returns how many got theirs."""
        kv, pool = self.kv, self.pool
        served = 0
        while served < min(most, len(pool.members)):
            request = pool.members[served]
            blocks = pool.begins(request)
            while kv.free < blocks:
                victim = self.prefilling[-1] if self.prefilling else pool.members[-1]
                if victim is request and self._waits:
                    return served
                self.preempt(victim)
                if victim is request:
                    return served
            kv.take(blocks)
            served += 1
        return served

    def _continue(self, budget: int) -> list[tuple[Request, int]]:
        """Prompts that have been begun."""
        kv = self.kv
        chosen: list[tuple[Request, int]] = []
        rest, self.prefilling = self.prefilling, []
        for at, request in enumerate(rest):
            new = min(request.prefill - request.computed, budget)
            if new <= 0:
                self.prefilling.extend(rest[at:])
                break
            blocks = kv.need(request.computed + new)
            while blocks - request.blocks > kv.free:
                victim = rest.pop()
                self.prefilling.append(victim)
                if victim is request and self._waits:
                    return chosen
                self.preempt(victim)
                if victim is request:
                    return chosen
            kv.grow(request, blocks)
            kv.fill(request, request.computed + new)
            chosen.append((request, new))
            budget -= new
        return chosen

    def first_in_line(self) -> Request:
        """Who of those that wait is admitted next; the head of the queue when this returns."""
        return self.waiting[0]

    def leave_line(self) -> None:
        """The head of the queue is admitted."""
        self.waiting.popleft()

    def _admit(self, chosen: list[tuple[Request, int]], budget: int) -> None:
        """Waiting requests, in order, as far as budget, seats and blocks go."""
        kv, waiting, params = self.kv, self.waiting, self.params
        hidden = self._fresh if params.ahead else 0
        while len(waiting) > hidden and budget > 0 and self.seated < params.max_num_seqs:
            request = self.first_in_line()
            cached = kv.match(request) if kv.shares else 0
            new = request.prefill - cached
            if new > budget:
                if not params.chunked:
                    break
                new = budget
            blocks = kv.need(cached + new)
            wanted = kv.need(request.prefill) if params.whole_prompt else blocks
            if wanted - cached // kv.block > (kv.free_without(request, cached) if cached else kv.free):
                break
            self.leave_line()
            kv.admit(request, cached, blocks)
            if not request.restarts:
                request.cached = cached
            request.computed = cached
            kv.fill(request, cached + new)
            self.seated += 1
            chosen.append((request, new))
            budget -= new
