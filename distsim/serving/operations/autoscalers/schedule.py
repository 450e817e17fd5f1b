"""Schedule: numbers of replicas by the time of day, or of the run.

Rules: ``plan=0s@2+8h@8+20h@2`` wants 2 replicas from the start, 8 from hour 8 on, 2 again from hour 20 on; with ``period=24h``
it begins anew every day. Times before the first entry are as after the last with a period, else as the first. The load does
not matter (Kubernetes: a CronJob that scales; KEDA's cron scaler).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from distsim.errors import ConfigError
from distsim.params import SEPARATOR
from distsim.registry import register
from distsim.serving.durations import Duration, SomeTime, ps, timed
from distsim.serving.operations.autoscaling import Load, ScalingParams


def _entries(text: str) -> list[tuple[int, int]]:
    """(ps, replicas) in order. Raises ConfigError."""
    found = []
    for part in text.split(SEPARATOR):
        time, at, count = part.partition("@")
        if not at or not count.strip().isdigit():
            raise ConfigError(f"{part!r} is not TIME@REPLICAS", expected="something like 0s@2+8h@8")
        found.append((timed(time), int(count)))
    if [one for one, _ in found] != sorted({one for one, _ in found}):
        raise ConfigError(f"times of {text!r} do not ascend")
    return found


def _plan(text: str) -> str:
    try:
        _entries(text)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return text


@register("autoscaler", "schedule")
class Schedule:
    """A plan by the clock."""

    class Params(ScalingParams):
        """The plan."""

        plan: Annotated[str, AfterValidator(_plan)] = Field(examples=["0s@2+8h@8"], description="TIME@REPLICAS, joined by +")
        period: SomeTime | None = Field(None, description="begin anew every so often")
        cooldown: Duration = Field("0", description="a replica goes when it was not wanted for so long")

        @model_validator(mode="after")
        def _fits(self) -> Schedule.Params:
            if self.period is not None and _entries(self.plan)[-1][0] >= ps(self.period):
                raise ValueError(f"the plan goes beyond its period={self.period}")
            return self

    waits = False

    def __init__(self, params: Params) -> None:
        entries = _entries(params.plan)
        self._times = [at for at, _ in entries]
        self._counts = [count for _, count in entries]
        self._period = ps(params.period) if params.period else 0

    def wanted(self, load: Load) -> int:
        """See Autoscaler."""
        now = load.now % self._period if self._period else load.now
        at = bisect_right(self._times, now) - 1
        return self._counts[at if at >= 0 or self._period else 0]

    def until(self, now: int) -> int | None:
        """See Autoscaler."""
        if self._period:
            into = now % self._period
            return now - into + next((at for at in self._times if at > into), self._times[0] + self._period)
        return next((at for at in self._times if at > now), None)
