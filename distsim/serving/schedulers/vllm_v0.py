"""vLLM's first scheduler (V0): whole prompts in batches of their own, before any token is generated.

Rules (vLLM up to 0.6; the replica scheduler ``vllm`` of Vidur, 2024, takes the same):
- While the head of the queue fits, it is admitted: blocks for its whole prefill, with a watermark of blocks left over; at most
  ``max_num_seqs`` requests are admitted at once; a batch of prompts counts as many tokens as its longest times their number, at
  most ``max_tokens``. If any is admitted, the batch is those prompts alone.
- Otherwise all that generate advance by a token, in order of arrival. Each needs a free block to go on, even where it begins
  none; if there is none, the youngest of the others is preempted, and at last the request itself.
- A preempted request loses its blocks and goes to the head of the queue: what it had generated is computed anew with its
  prompt. Or (``preemption=swap``) its keys and values are copied to the host, and back as soon as there are blocks for them,
  the watermark and the next token; nobody is admitted before. Both copies hold the iteration up (distsim.serving.kv.swap).
"""

from __future__ import annotations

from pydantic import Field

from distsim.params import Count
from distsim.registry import register
from distsim.serving.batch import Batch
from distsim.serving.kv.blocks import Blocks
from distsim.serving.kv.swap import SwapParams
from distsim.serving.request import Request
from distsim.serving.scheduler import Scheduler, SchedulerParams


@register("scheduler", "vllm_v0")
class VllmV0(Scheduler):
    """Prompts first, in batches of their own; paged KV cache with a watermark; preemption by recomputation."""

    class Params(SwapParams, SchedulerParams):
        """Defaults are vLLM 0.2's, as in Vidur."""

        max_num_seqs: Count = Field(128, description="requests admitted at once")
        max_tokens: Count = Field(4096, description="padded tokens of a batch of prompts")
        watermark: float = Field(0.01, ge=0, lt=1, description="share of the blocks that admission leaves free")

    params: Params

    def __init__(self, params: Params, kv: Blocks, stages: int = 1) -> None:
        """See Scheduler."""
        super().__init__(params, kv, stages)
        self._watermark = int(params.watermark * kv.total)  #: blocks

    def refusal(self, request: Request) -> str:
        """See Scheduler.refusal."""
        tokens = request.prompt + request.output - 1
        if tokens > self.params.max_tokens:
            return "longer than max_tokens"
        return "longer than the KV cache" if self.kv.need(tokens) + self._watermark > self.kv.total else ""

    def next_batch(self) -> Batch | None:
        """See the module."""
        if self.landed:
            self.seat_landed(self.params.max_num_seqs)
        if not self.swapped:
            batch = self._prompts()
            if batch is not None or not self.pool.members:
                return batch
        self.pool.sort()
        pool = self.pool
        most = self.params.max_num_seqs // self.stages or 1
        if len(pool.members) > most or (pool.members and self.kv.free - pool.growth() < 1):
            return self._one_by_one(most)
        self.kv.take(pool.growth())
        if self.swapped:
            self.seat_swapped(min(self.params.max_num_seqs, self.seated + most - len(pool.members)), self._watermark)
        return Batch([], self.take_pool()) if pool.members else None

    def _prompts(self) -> Batch | None:
        waiting, kv, params = self.waiting, self.kv, self.params
        if not waiting:
            return None
        most = params.max_num_seqs // self.stages or 1
        watermark = self._watermark
        chosen: list[tuple[Request, int]] = []
        longest = 0
        while waiting and len(chosen) < most and self.seated < params.max_num_seqs:
            request = waiting[0]
            tokens = request.prefill
            blocks = kv.need(tokens)
            longest = max(longest, tokens)
            if kv.free - blocks < watermark or (len(chosen) + 1) * longest > params.max_tokens:
                break
            waiting.popleft()
            kv.admit(request, 0, blocks)
            self.seated += 1
            chosen.append((request, tokens))
        return Batch(chosen, None) if chosen else None

    def _one_by_one(self, most: int) -> Batch | None:
        """Blocks run short, or more generate than a batch may hold: the rule by its letter."""
        kv, pool = self.kv, self.pool
        rest = list(pool.members)
        rest.reverse()  # the oldest last
        chosen: list[Request] = []
        while rest and len(chosen) < most:
            request = rest.pop()
            while kv.free < max(1, pool.begins(request)):
                victim = rest.pop(0) if rest else request
                self.preempt(victim)
                if victim is request:
                    break
            else:
                kv.take(pool.begins(request))
                chosen.append(request)
        if not chosen:  # batches in flight give blocks back when they end; without any, the queue is all there is
            return None if self.seated else self.next_batch()
        if len(chosen) == len(pool.members):
            return Batch([], self.take_pool())
        return Batch([], pool.split(len(chosen)))

    def steady(self, batch: Batch) -> int:
        """Everyone needs a free block to go on: one must be left over."""
        return self._steady(batch, 1)
