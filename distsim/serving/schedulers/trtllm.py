"""TensorRT-LLM's in-flight batching: whole prompts beside generation, no eviction, batches formed one iteration ahead.

Rules (TensorRT-LLM 1.x, ``_torch/pyexecutor/py_executor.py`` and ``scheduler.py``, capacity policy GUARANTEED_NO_EVICT,
without chunked prefill):
- An iteration takes all that generate, one token each, then the queue in order: whole prompts, while tokens stay within
  ``max_num_tokens`` and requests within ``max_batch_size``.
- Admission reserves KV blocks for prompt and output, so nobody is ever preempted.
- *Overlap* (its default for servers): the next batch is formed while the present one computes. What arrives meanwhile has
  missed it, and is looked at one iteration later; so does what arrives while another batch is in flight.
"""

from __future__ import annotations

from itertools import islice

from pydantic import Field

from distsim.params import Count
from distsim.registry import register
from distsim.serving.batch import Batch
from distsim.serving.request import Request
from distsim.serving.scheduler import Scheduler, SchedulerParams


@register("scheduler", "trtllm")
class Trtllm(Scheduler):
    """Whole prompts within a token budget; room for all of a request is reserved; formed one iteration ahead."""

    class Params(SchedulerParams):
        """Defaults are TensorRT-LLM's (``llmapi/llm_args.py``)."""

        max_batch_size: Count = Field(2048, description="requests running at once")
        max_num_tokens: Count = Field(8192, description="tokens of an iteration")
        overlap: bool = Field(True, description="form the next batch while the present one computes")

    params: Params
    reserves = True
    #: requests at the head of the queue that were there when the last batch was formed, and whether others came too late for it
    _seen = 0
    _late = False

    def refusal(self, request: Request) -> str:
        """See Scheduler.refusal."""
        if request.prompt > self.params.max_num_tokens:
            return "longer than max_num_tokens"
        return super().refusal(request)

    def next_batch(self) -> Batch | None:
        """See the module."""
        params = self.params
        if self.landed:
            self.seat_landed(params.max_batch_size)
        pool = self.pool
        count = len(pool.members)
        known = self._seen if params.overlap and self.seated else len(self.waiting)
        prefills = self._admit(known, params.max_num_tokens - count)
        self._seen = len(self.waiting)
        self._late = self._seen > known - len(prefills)
        if not count:
            return Batch(prefills, None) if prefills else None
        return Batch(prefills, self.take_pool())

    def _admit(self, most: int, budget: int) -> list[tuple[Request, int]]:
        """Of the first ``most`` that wait, as many as tokens, seats and blocks are left for."""
        kv, waiting = self.kv, self.waiting
        chosen: list[tuple[Request, int]] = []
        while most > 0 and waiting and self.seated < self.params.max_batch_size:
            request = waiting[0]
            blocks = kv.need(request.prompt + request.output - 1)
            if request.prefill > budget or blocks > kv.free:
                break
            waiting.popleft()
            kv.admit(request, 0, blocks)
            self.seated += 1
            chosen.append((request, request.prefill))
            budget -= request.prefill
            most -= 1
        return chosen

    def steady(self, batch: Batch) -> int:
        """See Scheduler.steady: one iteration only where somebody waits whom this batch was too early for."""
        return 1 if self._late else super().steady(batch)

    def heeds(self, request: Request) -> bool:
        """See Scheduler.heeds: with overlap the queue is looked at a whole iteration after somebody has come."""
        return self.params.overlap or super().heeds(request)

    def withdraw(self, request: Request) -> bool:
        """See Scheduler.withdraw."""
        known = any(one is request for one in islice(self.waiting, self._seen))
        found = super().withdraw(request)
        if found and known:
            self._seen -= 1
        return found
