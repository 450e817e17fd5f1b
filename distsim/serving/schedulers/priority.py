"""Classes of priority over vLLM V1's mechanics: who is served first, and who gives way when memory is short.

Rules (vLLM V1, ``--scheduling-policy priority``; everything else is distsim.serving.schedulers.vllm_v1):
- Requests wait in order of their class, the smaller number first, and of arrival within it; preempted ones too.
- Where KV blocks are short, the running request of the last class that arrived last is preempted, and gives its tokens of this
  iteration back. If that is the one that needs the blocks, nobody after it is served in this iteration.
- ``preempt`` (vLLM V0's priority policy): where the first in line finds no seat or no blocks, running requests of strictly
  lower classes make room, the last first, if they hold enough.
- ``aging``: strict classes starve the lower ones while the higher keep the service busy. With aging, a class is a delay:
  requests are served in order of ``arrival + class * aging``, so nobody waits for those that came more than ``class * aging``
  later. (Priorities that rise linearly with the time waited never change places, and so need no clock: Kleinrock, 1964.)
"""

from __future__ import annotations

from bisect import bisect_right

from pydantic import Field, model_validator

from distsim.registry import register
from distsim.serving.batch import Batch
from distsim.serving.durations import Duration
from distsim.serving.kv.blocks import Blocks
from distsim.serving.request import Request
from distsim.serving.schedulers.vllm_v1 import VllmV1
from distsim.units import parse_time


@register("scheduler", "priority")
class Priority(VllmV1):
    """vLLM V1 with classes: the smaller number goes first; lower classes give way; aging against starvation."""

    class Params(VllmV1.Params):
        """Those of vllm_v1, and:"""

        preempt: bool = Field(False, description="lower classes that run make room for the first in line")
        aging: Duration = Field("0ns", description="a class is worth so much of waiting; 0: classes are strict")

        @model_validator(mode="after")
        def _recomputed(self) -> Priority.Params:
            """Swapped requests come back before anybody is admitted, whatever their class."""
            if self.preemption == "swap":
                raise ValueError("preemption=swap knows no classes")
            return self

    params: Params

    def __init__(self, params: Params, kv: Blocks, stages: int = 1) -> None:
        super().__init__(params, kv, stages)
        self._aging = parse_time(params.aging)
        self._late: list[Request] = []  #: at the end of the queue, not yet in their places
        self._broken = False  #: somebody has not got blocks in this iteration: nobody after it is served

    def rank(self, request: Request) -> tuple[int, int, int]:
        """The smaller is served first."""
        if self._aging:
            return 0, request.arrival + request.priority * self._aging, request.row
        return request.priority, request.arrival, request.row

    # --- the queue ------------------------------------------------------------------------------------------------------------

    def enqueue(self, request: Request) -> None:
        """See Scheduler.enqueue."""
        before = len(self.waiting)
        super().enqueue(request)
        if len(self.waiting) > before:
            self._late.append(request)
            if not self.params.ahead:
                self._sort_in()

    def _sort_in(self) -> None:
        """All that the next decision may know find their places; the others stay at the end."""
        waiting, late = self.waiting, self._late
        hidden = self._fresh if self.params.ahead else 0
        while len(late) > hidden:
            request = late.pop(0)
            if request is waiting[-1]:
                waiting.pop()
            else:
                waiting.remove(request)
            self._insert(request, len(waiting) - len(late))

    def _insert(self, request: Request, known: int) -> None:
        """Among the first ``known`` of those that wait."""
        waiting = self.waiting
        waiting.insert(bisect_right(waiting, self.rank(request), 0, known, key=self.rank), request)

    def withdraw(self, request: Request) -> bool:
        """See Scheduler.withdraw."""
        found = super().withdraw(request)
        if found and request in self._late:
            self._late.remove(request)
        return found

    def preempt(self, request: Request) -> None:
        """See Scheduler.preempt: to its place in the queue."""
        super().preempt(request)
        self._insert(self.waiting.popleft(), len(self.waiting) - len(self._late))

    def heeds(self, request: Request) -> bool:
        """See Scheduler.heeds: who is or will be first."""
        return bool(self.landed) or self.rank(request) <= self.rank(self.waiting[0])

    # --- iterations -----------------------------------------------------------------------------------------------------------

    def _form(self) -> Batch | None:
        """See VllmV1."""
        if self._late:
            self._sort_in()
        self._broken = False
        return super()._form()

    def _make_room(self, most: int) -> int:
        """See VllmV1: the victim is the last by rank, wherever it stands."""
        kv, pool = self.kv, self.pool
        served = 0
        while served < min(most, len(pool.members)):
            request = pool.members[served]
            blocks = pool.begins(request)
            while kv.free < blocks:
                victim = self._last()
                if victim is not request or not self._waits:
                    served -= self._evict(victim, served)
                if victim is request:
                    self._broken = True
                    return served
            kv.take(blocks)
            served += 1
        return served

    def _last(self) -> Request:
        """Of those prefilling and the pool, the last by rank."""
        return max([*self.prefilling, *self.pool.members], key=self.rank)

    def _evict(self, victim: Request, served: int) -> int:
        """Preempt one of those prefilling or of the pool, whose first ``served`` members have their blocks. Returns 1 if it was
        one of those."""
        pool = self.pool
        before = victim.cohort is pool and pool.members.index(victim) < served
        spare = pool.begins(victim) if before else 0
        self.preempt(victim)
        self.kv.give(spare)
        return int(before)

    def _continue(self, budget: int) -> list[tuple[Request, int]]:
        """See VllmV1. Those that generate have been served; they give their blocks back where they are the last by rank."""
        if self._broken:
            return []
        kv, pool = self.kv, self.pool
        chosen: list[tuple[Request, int]] = []
        for request in list(self.prefilling):
            if request not in self.prefilling:
                continue  # preempted for one before it
            new = min(request.prefill - request.computed, budget)
            if new <= 0:
                break
            blocks = kv.need(request.computed + new)
            while blocks - request.blocks > kv.free:
                victim = self._last()
                if victim is not request or not self._waits:
                    budget += self._evict(victim, len(pool.members))
                if victim is request:
                    return chosen
            kv.grow(request, blocks)
            kv.fill(request, request.computed + new)
            self.prefilling.remove(request)
            chosen.append((request, new))
            budget -= new
        return chosen

    def _admit(self, chosen: list[tuple[Request, int]], budget: int) -> None:
        """See VllmV1; then, with ``preempt``, room is made for the first in line."""
        while True:
            before = len(chosen)
            super()._admit(chosen, budget)
            budget -= sum(new for _, new in chosen[before:])
            returned = self._give_way() if self.params.preempt and budget > 0 else -1
            if returned < 0:
                return
            budget += returned

    def _give_way(self) -> int:
        """Lower classes make room for the first in line. Returns how many tokens of this iteration they give back, -1 where
        nobody had to go or could."""
        kv, pool, waiting = self.kv, self.pool, self.waiting
        if len(waiting) <= len(self._late):
            return -1
        request = waiting[0]
        cached = kv.match(request)
        new = request.prefill - cached
        wanted = kv.need(request.prefill) - cached // kv.block - kv.free_without(request, cached)
        seats = self.seated - self.params.max_num_seqs + 1
        if not self.params.chunked and new > self.params.max_num_batched_tokens:
            return -1
        lower = [one for one in (*self.prefilling, *pool.members) if one.priority > request.priority]
        lower.sort(key=self.rank, reverse=True)
        victims = []
        for one in lower:
            if wanted <= 0 and seats <= 0:
                break
            victims.append(one)
            wanted -= kv.need(pool.computed(one)) + pool.begins(one) if one.cohort is pool else one.blocks
            seats -= 1
        if not victims or wanted > 0 or seats > 0:
            return -1
        return sum(self._evict(one, len(pool.members)) for one in victims)
