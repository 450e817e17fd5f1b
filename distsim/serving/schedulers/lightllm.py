"""LightLLM's router: KV cache by the token, and admission by looking ahead to the fullest moment.

Rules (ModelTC LightLLM, ``router/req_queue``; the replica scheduler ``lightllm`` of Vidur):
- Prompts run in batches of their own: when nobody generates, or after ``max_waiting_iters`` iterations of generation.
- The queue is admitted in order, up to ``max_tokens`` prompt tokens a batch and ``max_num_seqs`` requests in all, while the
  cache will hold everyone to the end: with the running and the new ones sorted by what they have still to generate, longest
  first, ``remaining of the i-th * i + tokens of the first i`` stays below the cache's size for every i. Output lengths are
  taken as known.
- Otherwise all that generate advance by a token. Nobody is ever preempted. One pipeline stage, blocks of one token.
"""

from __future__ import annotations

from bisect import insort

from pydantic import Field

from distsim.errors import ConfigError
from distsim.params import Count
from distsim.registry import register
from distsim.serving.batch import Batch
from distsim.serving.kv.blocks import Blocks
from distsim.serving.request import Request
from distsim.serving.scheduler import Scheduler, SchedulerParams


@register("scheduler", "lightllm")
class Lightllm(Scheduler):
    """Prompts now and then, in batches of their own; the cache's fullest moment is foreseen; no preemption."""

    class Params(SchedulerParams):
        """Defaults are Vidur's."""

        block: int = Field(1, ge=1, le=1, description="tokens of a KV block: one")
        max_num_seqs: Count = Field(128, description="requests admitted at once")
        max_tokens: Count = Field(4096, description="tokens of a batch of prompts")
        max_waiting_iters: Count = Field(10, description="iterations of generation before the queue is looked at")

    params: Params
    speculates = False  # its look ahead counts one token per iteration

    def __init__(self, params: Params, kv: Blocks, stages: int = 1) -> None:
        """Raises ConfigError for more than one pipeline stage."""
        if stages != 1:
            raise ConfigError(
                f"lightllm runs one pipeline stage, not {stages}", where="scheduler", fix="Choose sarathi, vllm_v0 or vllm_v1."
            )
        super().__init__(params, kv, stages)
        self._waited = 0  #: iterations of generation since the queue was looked at

    def refusal(self, request: Request) -> str:
        """See Scheduler.refusal."""
        if request.prompt > self.params.max_tokens:
            return "prompt longer than max_tokens"
        fullest = max(request.prompt + request.output - 1, request.prompt + 1)
        return "longer than the KV cache" if fullest >= self.kv.total else ""

    def next_batch(self) -> Batch | None:
        """See the module."""
        if self.landed:
            self.seat_landed(self.params.max_num_seqs)
        if not self.pool.members:
            batch = self._prompts()
            if batch is not None:
                self._waited = 0
            return batch
        if self._waited >= self.params.max_waiting_iters:
            self._waited = 0
            batch = self._prompts()
            if batch is not None:
                return batch
        self._waited += 1
        self.kv.take(self.pool.growth())
        return Batch([], self.take_pool())

    def _prompts(self) -> Batch | None:
        waiting, kv, params = self.waiting, self.kv, self.params
        if not waiting:
            return None
        ahead = self._ahead()
        chosen: list[tuple[Request, int]] = []
        tokens = 0
        while waiting and self.seated < params.max_num_seqs:
            request = waiting[0]
            # what had come out before its replica failed is in its prefill: alone it fits, since it has not been refused
            alone = not self.seated and not self.handed
            if tokens + request.prefill > params.max_tokens and not alone:
                break
            insort(ahead, (min(0, 2 - request.left), request.prefill + 1))
            if _fullest(ahead) >= kv.total - self.handed and not alone:
                break
            waiting.popleft()
            kv.admit(request, 0, request.prefill)
            self.seated += 1
            tokens += request.prefill
            chosen.append((request, request.prefill))
        return Batch(chosen, None) if chosen else None

    def _ahead(self) -> list[tuple[int, int]]:
        """(-tokens to come, tokens) of all that generate, those whose keys and values are coming among them, ascending: the
        order among equals does not change the largest sum."""
        pool = self.pool
        coming = [(1 - one.left, one.computed + 1) for one in self.fetching]
        return sorted(coming + [(1 - pool.left(one), pool.computed(one) + 1) for one in pool.members])

    def seat_landed(self, most: int) -> None:
        """See Scheduler.seat_landed: as far as the cache will hold everyone to the end."""
        while self.landed and self.seated < most:
            request = self.landed[0]
            ahead = self._ahead()
            insort(ahead, (1 - request.left, request.computed + 1))
            if _fullest(ahead) >= self.kv.total - self.handed:
                return
            self.landed.popleft()
            self.kv.admit(request, 0, request.computed)
            self.join(request)

    def steady(self, batch: Batch) -> int:
        """Until the first is done; with a queue, until it is looked at. Who has landed is looked at before every iteration, and
        the fullest moment to come shrinks as tokens come out."""
        decodes = batch.decodes
        assert decodes is not None
        if self.landed:
            return 1
        stretch = decodes.until_end()
        return min(stretch, 1 + self.params.max_waiting_iters - self._waited) if self.waiting else stretch

    def extend(self, batch: Batch, count: int) -> None:
        """See Scheduler.extend."""
        super().extend(batch, count)
        self._waited = (self._waited - 1 + count) % self.params.max_waiting_iters + 1


def _fullest(ahead: list[tuple[int, int]]) -> int:
    """Tokens in cache at the fullest moment to come."""
    held = most = 0
    for number, (left, tokens) in enumerate(ahead, 1):
        held += tokens
        most = max(most, held - left * number)
    return most
