"""GPipe: all forward passes, then all backward passes.

Source: Huang et al., "GPipe: Efficient Training of Giant Neural Networks using Pipeline Parallelism" (2019). The simplest
order, with the bubble of 1F1B; every stage holds the activations of all micro-batches, so it wants full recomputation.
"""

from __future__ import annotations

from distsim.registry import register
from distsim.workload.training.schedules.fit import one_chunk_per_stage
from distsim.workload.training.schedules.slot import B, F, Slot


@register("pipeline", "gpipe")
class GPipe:
    """Backward passes go in the opposite order of the forward ones: the last to arrive is the first to leave."""

    splits_backward = False
    copies = 1

    def path(self, micro_batch: int, stages: int, virtual: int, micro_batches: int) -> tuple[int, ...]:
        """Chunk c on stage c."""
        return tuple(range(stages))

    def order(self, stage: int, stages: int, virtual: int, micro_batches: int) -> list[Slot]:
        """Raises ConfigError where virtual > 1."""
        one_chunk_per_stage("gpipe", stages, virtual, micro_batches)
        forward = [Slot(F, m, stage) for m in range(micro_batches)]
        return forward + [Slot(B, m, stage) for m in reversed(range(micro_batches))]

    def bubble(self, stages: int, virtual: int, f: float, b: float, w: float) -> float:
        """(pp - 1)(F + B), section 2.3 of the paper."""
        return (stages - 1) * (f + b + w)
