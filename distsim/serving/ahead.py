"""Batches formed one iteration ahead, while the GPU computes: what arrives meanwhile is looked at an iteration later.

vLLM calls it async scheduling (default from 0.14 on), SGLang the zero-overhead batch scheduler (from 0.4 on), TensorRT-LLM the
overlap scheduler. The host's work is hidden; a request that comes during an iteration misses the next one as well, which was
formed when this one began.
"""

from __future__ import annotations

from itertools import islice

from distsim.serving.batch import Batch
from distsim.serving.request import Request
from distsim.serving.scheduler import Scheduler


class Ahead(Scheduler):
    """To be inherited before a policy, whose rules it leaves alone but for the late part of the queue. vLLM's policies have
    rules of their own for it (``vllm_v1:ahead=true``: seats and blocks come free later, too)."""

    #: requests at the head of the queue that were there when the last batch was formed, and whether others came too late for it
    _seen = 0
    _late = False

    @property
    def ahead(self) -> bool:
        """Whether batches are formed ahead."""
        return True

    def next_batch(self) -> Batch | None:
        """See Scheduler.next_batch: late requests are hidden from the policy, unless there is nothing else to do."""
        waiting = self.waiting
        late: list[Request] = []
        if self.ahead and self.seated:
            while len(waiting) > self._seen:
                late.append(waiting.pop())
        batch = super().next_batch()
        waiting.extend(reversed(late))
        if batch is None and late:
            late = []
            batch = super().next_batch()
        self._seen = len(waiting)
        self._late = bool(late)
        return batch

    def steady(self, batch: Batch) -> int:
        """See Scheduler.steady: one iteration only where somebody waits whom this batch was too early for."""
        return 1 if self._late else super().steady(batch)

    def heeds(self, request: Request) -> bool:
        """See Scheduler.heeds: the queue is looked at a whole iteration after somebody has come."""
        return self.ahead or super().heeds(request)

    def withdraw(self, request: Request) -> bool:
        """See Scheduler.withdraw."""
        known = any(one is request for one in islice(self.waiting, self._seen))
        found = super().withdraw(request)
        if found and known:
            self._seen -= 1
        return found
