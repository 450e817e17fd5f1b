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

from pydantic import Field

from distsim.params import Count
from distsim.registry import register
from distsim.serving.ahead import Ahead
from distsim.serving.batch import Batch
from distsim.serving.request import Request
from distsim.serving.scheduler import Scheduler, SchedulerParams


class InFlight(Scheduler):
    """Whole prompts within a token budget, beside generation; room for all of a request is reserved."""

    class Params(SchedulerParams):
        """Defaults are TensorRT-LLM's (``llmapi/llm_args.py``)."""

        max_batch_size: Count = Field(2048, description="requests running at once")
        max_num_tokens: Count = Field(8192, description="tokens of an iteration")
        overlap: bool = Field(True, description="form the next batch while the present one computes")

    params: Params
    reserves = True

    def refusal(self, request: Request) -> str:
        """See Scheduler.refusal."""
        if request.prompt > self.params.max_num_tokens:
            return "longer than max_num_tokens"
        return super().refusal(request)

    def next_batch(self) -> Batch | None:
        """See the module."""
        if self.landed:
            self.seat_landed(self.params.max_batch_size)
        count = len(self.pool.members)
        prefills = self._admit(self.params.max_num_tokens - count)
        if not count:
            return Batch(prefills, None) if prefills else None
        return Batch(prefills, self.take_pool())

    def _admit(self, budget: int) -> list[tuple[Request, int]]:
        """Of those that wait, in order, as many as tokens, seats and blocks are left for."""
        kv, waiting = self.kv, self.waiting
        chosen: list[tuple[Request, int]] = []
        while waiting and self.seated < self.params.max_batch_size:
            request = waiting[0]
            blocks = kv.need(request.prompt + request.output - 1)
            if request.prefill > budget or blocks > kv.free:
                break
            waiting.popleft()
            kv.admit(request, 0, blocks)
            self.seated += 1
            chosen.append((request, request.prefill))
            budget -= request.prefill
        return chosen


@register("scheduler", "trtllm")
class Trtllm(Ahead, InFlight):
    """Whole prompts beside generation, room for all of a request reserved; formed one ahead unless ``overlap`` is off."""

    @property
    def ahead(self) -> bool:
        """See Ahead.ahead."""
        return self.params.overlap
