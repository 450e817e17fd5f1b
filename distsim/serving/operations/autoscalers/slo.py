"""SLO: replicas until first tokens come in time.

Rules: of the times to the first token since the last decision (of requests that have none yet: how long they have waited so
far) the quantile ``quantile`` is compared with ``ttft``.
- Above it: ceil(current * quantile / ttft) replicas, at most twice as many as there are, but at least one more; those that
  start are waited for first (Kubernetes' proportional rule, with its limit of doubling).
- Below ``low`` of it, or with no request to see: one less.
"""

from __future__ import annotations

import math

from pydantic import Field

from distsim.registry import register
from distsim.serving.durations import SomeTime, ps
from distsim.serving.operations.autoscaling import Load, ScalingParams


@register("autoscaler", "slo")
class Slo:
    """The time to the first token that was promised."""

    class Params(ScalingParams):
        """The promise."""

        ttft: SomeTime = Field(examples=["1s"], description="time to the first token that is promised")
        quantile: float = Field(0.9, gt=0, le=1, description="share of requests that shall have it in time")
        low: float = Field(0.5, ge=0, lt=1, description="share of the promise below which one replica less is tried")

    waits = True

    def __init__(self, params: Params) -> None:
        self._params = params
        self._ttft = ps(params.ttft)

    def wanted(self, load: Load) -> int:
        """See Autoscaler."""
        if not load.waits:
            return load.current - 1
        ordered = sorted(load.waits)
        seen = ordered[math.ceil(self._params.quantile * len(ordered)) - 1]
        if seen > self._ttft:
            if load.starting:
                return load.current
            more = math.ceil(load.current * seen / self._ttft)
            return max(load.current + 1, min(more, 2 * load.current))
        return load.current - 1 if seen < self._params.low * self._ttft else load.current

    def until(self, now: int) -> int | None:
        """See Autoscaler."""
        return None
