"""Target tracking: so many requests per replica.

Rules (Kubernetes' horizontal pod autoscaler; Ray Serve's ``target_ongoing_requests``; Knative's concurrency target): wanted =
ceil(requests / ``outstanding``), where requests are all that wait or are served; within ``tolerance`` of the target per replica
in service nothing changes.
"""

from __future__ import annotations

import math

from pydantic import Field

from distsim.registry import register
from distsim.serving.operations.autoscaling import Load, ScalingParams


@register("autoscaler", "target")
class Target:
    """A number of requests per replica."""

    class Params(ScalingParams):
        """The tolerance is Kubernetes's default."""

        outstanding: float = Field(gt=0, examples=[8], description="requests per replica, waiting or served")
        tolerance: float = Field(0.1, ge=0, lt=1, description="relative distance from the target that changes nothing")

    waits = False

    def __init__(self, params: Params) -> None:
        self._params = params

    def wanted(self, load: Load) -> int:
        """See Autoscaler."""
        target = self._params.outstanding
        if load.current and abs(load.outstanding / load.current / target - 1) <= self._params.tolerance:
            return load.current
        return math.ceil(load.outstanding / target)

    def until(self, now: int) -> int | None:
        """See Autoscaler."""
        return None
