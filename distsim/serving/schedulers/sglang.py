"""SGLang's scheduler: prompts before generation, those first whose beginning is cached longest; room kept by an estimate.

Rules (SGLang 0.4 and 0.5, ``managers/scheduler.py``, ``schedule_policy.py``, ``schedule_batch.py``; Zheng et al., 2024):
- Prompts run in batches of their own as long as any are admitted; else all that generate advance by a token. ``mixed``: those
  that generate come along with prompts.
- ``lpm``: the queue is sorted by cached tokens, longest first; of requests that would compute the same new prefix (32 tokens or
  more, with no more than 32 cached) only the first, the others go last, so that they find it cached. With more than 128
  waiting, and with ``fcfs``, the queue is left as it is.
- A request is admitted while ``tokens to compute + tokens to generate < room``, where room is what is free or can be thrown
  out, less what those that run are expected to take: ``new_token_ratio`` of what they may still generate. Its prompt has to
  fit the batch's ``max_tokens`` unless it is the first, and is cut where ``chunk`` is used up; the rest goes first in the next
  batch. Clients ask for as many tokens as they get (or ``max_new_tokens``), of which 4096 are counted at most.
- If somebody did not fit, or all seats are taken, nobody is looked at until a request has left; one that leaves while
  generating is noticed one iteration later.
- ``new_token_ratio`` begins at 0.7 times ``conservativeness`` and sinks to 0.14 of that in 600 iterations of generation.
- Where the next tokens find no room, requests are *retracted* until there is room for 20 more tokens of each that stays: the
  one with the fewest tokens generated first, of those the one with the longest prompt. They go to the end of the queue and
  are computed anew; the ratio becomes (tokens generated + 20 per request) / tokens they may generate. It starts afresh when
  nobody is left.
- Two differences: a request that nobody else keeps from it is admitted if its prompt fits; of prompts that were cut and fill
  the cache together (in a pipeline there may be several) the last to come gives way. SGLang may wait for ever there.
- What a prompt has computed is cached when its iteration ends (distsim.serving.kv.radix).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from distsim.params import Count
from distsim.registry import register
from distsim.serving.batch import Batch
from distsim.serving.kv.blocks import Blocks
from distsim.serving.kv.radix import RadixBlocks
from distsim.serving.request import Request
from distsim.serving.scheduler import Scheduler, SchedulerParams

#: SGLANG_INIT_NEW_TOKEN_RATIO, _MIN_NEW_TOKEN_RATIO_FACTOR, _NEW_TOKEN_RATIO_DECAY_STEPS, _RETRACT_DECODE_STEPS
_RATIO, _LEAST, _DECAY, _RETRACT = 0.7, 0.14, 600, 20
#: SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION
_CLIP = 4096
#: queue length from which on prefixes are not looked up, and the two IN_BATCH_PREFIX_CACHING thresholds, which are equal
_LONG_QUEUE, _ALIKE = 128, 32


@register("scheduler", "sglang")
class Sglang(Scheduler):
    """Prompts first, longest cached prefix first; radix cache; room reserved by an estimate, retraction where it was wrong."""

    Cache = RadixBlocks

    class Params(SchedulerParams):
        """Defaults are SGLang's for GPUs of 80 GB (``server_args.py``); it takes pages of one token, or of 16 and more with
        some kernels."""

        max_num_seqs: Count = Field(2048, description="requests running at once (max_running_requests)")
        chunk: Count = Field(8192, description="tokens of a part of a prompt (chunked_prefill_size)")
        max_tokens: Count = Field(16384, description="prompt tokens of a batch (max_prefill_tokens)")
        policy: Literal["lpm", "fcfs"] = Field("lpm", description="order of the queue: longest cached prefix first, or arrival")
        mixed: bool = Field(False, description="generate along with prompts (enable_mixed_chunk)")
        conservativeness: float = Field(
            1.0, ge=0, description="factor of the tokens that are expected (schedule_conservativeness)"
        )
        max_new_tokens: int = Field(0, ge=0, description="what clients ask for; 0, or where they get more: what they get")
        prefix_caching: bool = Field(True, description="keep prefixes in the radix cache")

        @model_validator(mode="after")
        def _whole_blocks(self) -> Sglang.Params:
            """Parts of prompts are whole blocks."""
            if self.chunk < self.block:
                raise ValueError(f"chunk={self.chunk} holds no block of {self.block} tokens")
            return self

    params: Params

    def __init__(self, params: Params, kv: Blocks, stages: int = 1) -> None:
        super().__init__(params, kv, stages)
        self._start = self._base = min(_RATIO * params.conservativeness, 1.0)
        self._steps = 0  #: iterations of generation since the ratio was ``_base``
        self._full = False  #: nobody is looked at until a request has left
        self._left = False  #: one has, while generating

    # --- room -----------------------------------------------------------------------------------------------------------------

    def ratio(self) -> float:
        """Share of the tokens they may still generate that running requests are expected to."""
        least = self._start * _LEAST
        return max(self._base - self._steps * (self._start - least) / _DECAY, least)

    def _asked(self, request: Request) -> int:
        """Tokens that the client asks for."""
        return max(self.params.max_new_tokens, request.output)

    def _coming(self, request: Request, left: int) -> int:
        """Tokens that a request may still generate, as far as they are counted."""
        return min(self._asked(request) - request.output + left, _CLIP)

    def refusal(self, request: Request) -> str:
        """See Scheduler.refusal."""
        if request.prompt + min(self._asked(request), _CLIP) >= self.kv.total * self.kv.block:
            return "longer than the KV cache"
        return super().refusal(request)

    # --- batches --------------------------------------------------------------------------------------------------------------

    def next_batch(self) -> Batch | None:
        """See the module."""
        if self.landed:
            self.seat_landed(self.params.max_num_seqs)
        batch = self._prompts()
        if batch is not None:
            return batch
        if not self.pool.members:
            if self._full:
                self._full = self._left = False
                batch = self._prompts()
            while batch is None and len(self.prefilling) > 1 and not self.in_flight:
                self.preempt(max(self.prefilling, key=lambda one: (one.arrival, one.row)))
                batch = self._prompts()
            if not self.seated:
                self._base, self._steps = self._start, 0
            return batch
        if self._left:
            self._full = self._left = False
        pool, kv = self.pool, self.kv
        if pool.growth() > kv.free:
            self._retract()
            self._full = False
            if pool.growth() > kv.free:
                return None  # batches in flight hold the rest
        else:
            self._steps += 1
        kv.take(pool.growth())
        return Batch([], self.take_pool())

    def _prompts(self) -> Batch | None:
        params, kv, pool = self.params, self.kv, self.pool
        if not self.prefilling and (self._full or not self.waiting):
            return None
        if not self.prefilling and self.seated >= params.max_num_seqs:
            self._full = True
            return None
        growth, running = 0, 0
        if params.mixed and pool.members:
            growth, running = pool.growth(), len(pool.members)
            if growth > kv.free:
                if not self.prefilling:
                    return None
                growth = running = 0
        kv.take(growth)
        chosen: list[tuple[Request, int]] = []
        chunk, tokens = self._continue(chosen, params.chunk - running, params.max_tokens - running, running)
        if self.waiting and not self._full and not self.prefilling:
            self._admit(chosen, chunk, tokens, running)
        if not chosen:
            kv.give(growth)
            return None
        return Batch(chosen, self.take_pool() if running else None)

    def _continue(self, chosen: list[tuple[Request, int]], chunk: int, tokens: int, running: int) -> tuple[int, int]:
        """Prompts that were cut; returns tokens left of the chunk and of the batch. They have room, unless others generated in
        between: those give way, or, where they come along, the prompt waits for them."""
        kv, pool = self.kv, self.pool
        rest, self.prefilling = self.prefilling, []
        for request in rest:
            new = min(request.prefill - request.computed, max(chunk, 0))
            if new < request.prefill - request.computed:
                new -= new % kv.block
            if new <= 0:
                self.prefilling.append(request)
                continue
            blocks = kv.need(request.computed + new)
            while blocks - request.blocks > kv.free and pool.members and not running:
                self.preempt(self._victim())
            if blocks - request.blocks > kv.free:
                self.prefilling.append(request)
                continue
            kv.grow(request, blocks)
            chosen.append((request, new))
            chunk, tokens = chunk - self._pages(new), tokens - self._pages(new)
        return chunk, tokens

    def _pages(self, tokens: int) -> int:
        """Tokens, rounded up to whole blocks."""
        return self.kv.need(tokens) * self.kv.block

    def _admit(self, chosen: list[tuple[Request, int]], chunk: int, tokens: int, running: int) -> None:
        kv, waiting, params = self.kv, self.waiting, self.params
        self._sort()
        ratio, pool = self.ratio(), self.pool
        expected = sum(self._coming(one, pool.left(one)) for one in pool.members) * ratio + running
        expected += sum(self._coming(one, one.left) for one, new in chosen if one.computed + new >= one.prefill)
        while waiting:
            if self.seated >= params.max_num_seqs:
                self._full = True
                return
            request = waiting[0]
            cached = kv.match(request) if kv.shares else 0
            if isinstance(kv, RadixBlocks):
                kv.touch(request, cached)
            new = request.prefill - cached
            coming = self._coming(request, request.left)
            free = kv.free_without(request, cached) if cached else kv.free
            alone = not self.seated and self._pages(new) <= free * kv.block
            if new + coming >= free * kv.block - expected and not alone:
                self._full = True
                return
            if chosen and self._pages(new) >= tokens:
                return
            cut = self._pages(new) > chunk
            if cut:
                new = chunk // kv.block * kv.block
                if new <= 0:
                    return
            waiting.popleft()
            kv.admit(request, cached, kv.need(cached + new))
            if not request.restarts:
                request.cached = cached
            request.computed = cached
            self.seated += 1
            chosen.append((request, new))
            chunk, tokens = chunk - self._pages(new), tokens - self._pages(new)
            expected += 0 if cut else coming
            if kv.free * kv.block - expected <= 0:
                self._full = True
                return
            if tokens <= 0 or chunk <= 0:
                return

    def _sort(self) -> None:
        """The queue, longest cached prefix first."""
        kv, waiting = self.kv, self.waiting
        if self.params.policy != "lpm" or not isinstance(kv, RadixBlocks) or len(waiting) > _LONG_QUEUE or len(waiting) < 2:
            return
        coming: set[int] = set()
        order: dict[Request, int] = {}
        for request in waiting:
            cached = kv.match(request)
            kv.touch(request, cached)
            order[request] = -cached
            if cached > _ALIKE:
                continue
            alike = 0
            while alike < len(request.hashes) and request.hashes[alike] in coming:
                alike += 1
            if alike * kv.hash_block >= _ALIKE:
                order[request] = 1
            else:
                coming.update(request.hashes)
        ordered = sorted(waiting, key=order.__getitem__)
        waiting.clear()
        waiting.extend(ordered)

    def _victim(self) -> Request:
        """Who is retracted next: the fewest tokens generated, the longest prompt, the last to come."""
        pool = self.pool
        return min(reversed(pool.members), key=lambda one: (one.output - pool.left(one), -one.prompt))

    def _retract(self) -> None:
        """Some of those that generate give up their room."""
        kv, pool = self.kv, self.pool
        while len(pool.members) > 1:
            self.preempt(self._victim())
            if kv.free * kv.block >= _RETRACT * len(pool.members):
                break
        done = sum(one.output - pool.left(one) for one in pool.members)
        asked = sum(self._asked(one) for one in pool.members)
        self._base, self._steps = min(1.0, (done + _RETRACT * len(pool.members)) / (asked + 1)), 0

    # --- what happens to requests ---------------------------------------------------------------------------------------------

    def preempt(self, request: Request) -> None:
        """See Scheduler.preempt: to the end of the queue."""
        super().preempt(request)
        self.waiting.rotate(-1)

    def extend(self, batch: Batch, count: int) -> None:
        """See Scheduler.extend."""
        super().extend(batch, count)
        self._steps += count

    def steady(self, batch: Batch) -> int:
        """See Scheduler.steady: one iteration only where the queue is to be looked at again."""
        return 1 if self.waiting and not self._full else super().steady(batch)

    def heeds(self, request: Request) -> bool:
        """See Scheduler.heeds: anyone may come first, unless nobody is looked at."""
        return bool(self.landed) or not self._full

    def finish(self, batch: Batch, count: int, now: int) -> list[Request]:
        """See Scheduler.finish: prefixes are cached now."""
        for request, new in batch.prefills:
            self.kv.fill(request, request.computed + new)
        seated, prompts = self.seated, len(batch.prefills)
        done = super().finish(batch, count, now)
        if done:
            ended = {request for request, _ in batch.prefills} if prompts else set()
            if any(request in ended for request in done):
                self._full = False
            if any(request not in ended for request in done) and self.seated < seated:
                self._left = True
        return done
