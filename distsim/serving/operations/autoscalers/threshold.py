"""Thresholds: a step up when queues or KV caches fill, a step down when they are empty.

Rules (step scaling, as with AWS Auto Scaling alarms or KEDA on ``vllm:num_requests_waiting`` and ``vllm:kv_cache_usage_perc``):
- More than ``queue`` requests per replica in service wait for admission, or more than ``kv`` of the KV blocks are in use:
  ``step`` replicas more.
- Nobody waits, and less than ``kv_low`` of the KV blocks are in use: one less.
- Replicas that start are waited for before another step up.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from distsim.params import Count
from distsim.registry import register
from distsim.serving.operations.autoscaling import Load, ScalingParams


@register("autoscaler", "threshold")
class Threshold:
    """Steps, when queues or KV use cross a line."""

    class Params(ScalingParams):
        """Lines and steps."""

        queue: float = Field(1.0, ge=0, description="waiting requests per replica above which more replicas are wanted")
        kv: float = Field(0.9, gt=0, le=1, description="share of KV blocks in use above which more are wanted")
        kv_low: float = Field(0.3, ge=0, lt=1, description="share of KV blocks in use below which, with no queue, fewer are")
        step: Count = Field(1, description="replicas of a step up")

        @model_validator(mode="after")
        def _apart(self) -> Threshold.Params:
            if self.kv_low >= self.kv:
                raise ValueError(f"kv_low={self.kv_low} is not less than kv={self.kv}")
            return self

    waits = False

    def __init__(self, params: Params) -> None:
        self._params = params

    def wanted(self, load: Load) -> int:
        """See Autoscaler."""
        params = self._params
        if load.queued > params.queue * load.replicas or load.kv > params.kv:
            return load.current if load.starting else load.current + params.step
        if not load.queued and load.kv < params.kv_low:
            return load.current - 1
        return load.current

    def until(self, now: int) -> int | None:
        """See Autoscaler."""
        return None
