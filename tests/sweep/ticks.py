"""A made-up service: every iteration takes 10 ms, whatever is in it."""

from __future__ import annotations

from typing import Any

from distsim.params import Parameters
from distsim.registry import register
from distsim.serving.iteration import Shape

TICK = 10_000_000_000


@register("iteration", "ticks")
class Ticks:
    """``ticks``."""

    stages = 1

    class Params(Parameters):
        """None."""

    def times(self, shape: Shape) -> tuple[int, ...]:
        """See IterationTimes."""
        return (TICK,)

    def steady(self, sequences: int, kv: int, longest: int) -> tuple[int, int]:
        """See IterationTimes."""
        return TICK, 1 << 40


def ticks(**fields: Any) -> dict[str, Any]:
    """A point of kind capacity or serving: one token each, Poisson arrivals, one replica."""
    point = {
        "model": "llama3-8b", "cluster": "dgx_h100:gpus=8", "times": "ticks", "replicas": 1, "kv_blocks": 4096,
        "requests": "poisson", "lengths": "fixed:prompt=16,output=1",
    } | fields  # fmt: skip
    return {name: value for name, value in point.items() if value is not None}
