"""Fair shares between tenants over vLLM V1's mechanics: a virtual token counter (VTC) for each.

Rules (Sheng et al., "Fairness in serving large language models", OSDI 2024, algorithm 2; everything else is
distsim.serving.schedulers.vllm_v1):
- Every tenant has a counter of the service it has had: ``input_weight`` for a token of a prompt, when the request is admitted;
  ``output_weight`` for a token that comes out; divided by the tenant's weight.
- Whoever of those with waiting requests has the smallest counter is admitted next, its first request; if that does not fit,
  nobody is. Among equals the smaller number of a tenant goes first.
- A tenant whose first request joins the queue is lifted to the smallest counter of those that wait, or, where nobody does, to
  that of the last to leave the queue: being away earns no credit.
- A preempted request goes to the head of its tenant's line and is not charged for its prompt again; tokens that are found in
  the prefix cache are charged as any.

Counters are looked at between iterations: a tenant is lifted when the next batch is formed.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from distsim.params import SEPARATOR
from distsim.registry import register
from distsim.serving.batch import Batch
from distsim.serving.cohort import Cohort
from distsim.serving.kv.blocks import Blocks
from distsim.serving.request import Request
from distsim.serving.schedulers.vllm_v1 import VllmV1

#: counts of a counter for a token of weight 1: counters are integers, so that sums do not depend on their order
_UNIT = 1 << 20


def _weights(text: str) -> str:
    for part in text.split(SEPARATOR):
        try:
            good = 0 < float(part) < 1e6
        except ValueError:
            good = False
        if not good:
            raise ValueError(f"{part!r} is no weight: expected positive numbers joined by {SEPARATOR!r}")
    return text


@register("scheduler", "fair_share")
class FairShare(VllmV1):
    """vLLM V1, admitting whose tenant has had the least service for its weight (VTC)."""

    class Params(VllmV1.Params):
        """Those of vllm_v1, and the paper's weights of tokens."""

        input_weight: float = Field(1.0, ge=0, lt=1e6, description="of a token of a prompt")
        output_weight: float = Field(2.0, ge=0, lt=1e6, description="of a token that comes out")
        weights: Annotated[str, BeforeValidator(str), AfterValidator(_weights)] = Field(
            "1", description="of tenants 0, 1, 2 ... joined by +; the last is that of all others"
        )

    params: Params

    def __init__(self, params: Params, kv: Blocks, stages: int = 1) -> None:
        super().__init__(params, kv, stages)
        self._shares = [float(part) for part in params.weights.split(SEPARATOR)]
        self._lines: dict[int, deque[Request]] = {}  #: tenant -> its known waiting requests, in order; none is empty
        self._counts: dict[int, int] = {}
        self._late: list[Request] = []  #: waiting, in no line yet
        self._last: int | None = None  #: tenant that left the queue last

    def service(self, tenant: int) -> float:
        """What a tenant has had, in weighted tokens over its weight."""
        return self._counts.get(tenant, 0) / _UNIT

    def _token(self, tenant: int, weight: float) -> int:
        """What a token of ``weight`` counts for a tenant."""
        return round(weight / self._shares[min(tenant, len(self._shares) - 1)] * _UNIT)

    def _charge(self, tenant: int, tokens: int, weight: float) -> None:
        self._counts[tenant] = self._counts.get(tenant, 0) + tokens * self._token(tenant, weight)

    # --- the queue ------------------------------------------------------------------------------------------------------------

    def enqueue(self, request: Request) -> None:
        """See Scheduler.enqueue."""
        before = len(self.waiting)
        super().enqueue(request)
        if len(self.waiting) > before:
            self._late.append(request)

    def _line_up(self) -> None:
        """All that the next decision may know join their lines."""
        known = len(self._late) - (self._fresh if self.params.ahead else 0)
        for request in self._late[:known]:
            tenant = request.tenant
            if tenant not in self._lines:
                mine = self._counts.get(tenant, 0)
                if self._lines:
                    mine = max(mine, min(self._counts.get(other, 0) for other in self._lines))
                elif self._last is not None:
                    mine = max(mine, self._counts.get(self._last, 0))
                self._counts[tenant] = mine
            self._lines.setdefault(tenant, deque()).append(request)
        del self._late[:known]

    def _step_out(self, request: Request) -> None:
        line = self._lines[request.tenant]
        line.remove(request)
        if not line:
            del self._lines[request.tenant]

    def withdraw(self, request: Request) -> bool:
        """See Scheduler.withdraw."""
        found = super().withdraw(request)
        if found and request in self._late:
            self._late.remove(request)
        elif found:
            self._step_out(request)
        return found

    def preempt(self, request: Request) -> None:
        """See Scheduler.preempt: to the head of its tenant's line."""
        super().preempt(request)
        if not self.swapped or self.swapped[0] is not request:
            self._lines.setdefault(request.tenant, deque()).appendleft(request)

    def _least(self) -> int:
        """Of the tenants that wait, the one with the smallest counter."""
        return min(self._lines, key=lambda tenant: (self._counts.get(tenant, 0), tenant))

    def first_in_line(self) -> Request:
        """See VllmV1."""
        request = self._lines[self._least()][0]
        if self.waiting[0] is not request:
            self.waiting.remove(request)
            self.waiting.appendleft(request)
        return request

    def heeds(self, request: Request) -> bool:
        """See Scheduler.heeds: one whose tenant waits already stands behind others; another may have the smallest counter."""
        return bool(self.landed) or request.tenant not in self._lines

    # --- iterations -----------------------------------------------------------------------------------------------------------

    def _form(self) -> Batch | None:
        """See VllmV1."""
        if self._late:
            self._line_up()
        return super()._form()

    def leave_line(self) -> None:
        """See VllmV1: it is charged for its prompt."""
        request = self.waiting[0]
        super().leave_line()
        self._step_out(request)
        self._last = request.tenant
        if not request.restarts:
            self._charge(request.tenant, request.prompt, self.params.input_weight)

    def steady(self, batch: Batch) -> int:
        """See Scheduler.steady: until somebody else has the smallest counter, whose first request may fit."""
        count = super().steady(batch)
        if count == 1 or len(self._lines) < 2 or self.seated >= self.params.max_num_seqs:
            return count
        assert batch.decodes is not None
        served = Counter(request.tenant for request in batch.decodes.members)
        least = self._least()
        mine, rate = self._counts[least], served[least] * self._token(least, self.params.output_weight)
        for other in self._lines:
            closer = rate - served[other] * self._token(other, self.params.output_weight)
            if other != least and closer > 0:
                apart = self._counts[other] - mine
                count = min(count, max(1, -(-apart // closer) if other < least else apart // closer + 1))
        return count

    def finish(self, batch: Batch, count: int, now: int) -> list[Request]:
        """See Scheduler.finish: tokens that come out are charged."""
        for request, new in batch.prefills:
            if request.computed + new >= request.prefill:
                self._charge(request.tenant, 1, self.params.output_weight)
        decodes = batch.decodes
        if decodes is None:
            return super().finish(batch, count, now)
        if decodes.width == 1:
            self._generated(decodes, count)
            return super().finish(batch, count, now)
        before = [(request, request.left) for request in decodes.members]
        done = super().finish(batch, count, now)
        for request, left in before:
            self._charge(request.tenant, left - request.left, self.params.output_weight)
        return done

    def progress(self, batch: Batch, count: int) -> None:
        """See Scheduler.progress."""
        assert batch.decodes is not None
        self._generated(batch.decodes, count)
        super().progress(batch, count)

    def _generated(self, decodes: Cohort, count: int) -> None:
        """A token of each, ``count`` times."""
        for tenant, members in Counter(request.tenant for request in decodes.members).items():
            self._charge(tenant, members * count, self.params.output_weight)
