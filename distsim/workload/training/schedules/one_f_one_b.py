"""1F1B: one forward, one backward; the order of PipeDream-Flush and of Megatron-LM.

Source: Narayanan et al., "Memory-Efficient Pipeline-Parallel DNN Training" (2021) and "Efficient Large-Scale Language Model
Training on GPU Clusters Using Megatron-LM" (SC21), section 2.2.1. The bubble of GPipe, but stage s holds the activations of
at most pp - s micro-batches instead of all.
"""

from __future__ import annotations

from distsim.registry import register
from distsim.workload.training.schedules.fit import one_chunk_per_stage
from distsim.workload.training.schedules.slot import B, F, Slot


@register("pipeline", "1f1b")
class OneFOneB:
    """Warm-up: pp - 1 - stage forwards; steady: forward and backward in turn; cool-down: the backwards left over."""

    splits_backward = False
    copies = 1

    def path(self, micro_batch: int, stages: int, virtual: int, micro_batches: int) -> tuple[int, ...]:
        """Chunk c on stage c."""
        return tuple(range(stages))

    def order(self, stage: int, stages: int, virtual: int, micro_batches: int) -> list[Slot]:
        """Raises ConfigError where virtual > 1."""
        one_chunk_per_stage("1f1b", stages, virtual, micro_batches)
        warm_up = min(stages - 1 - stage, micro_batches)
        slots = [Slot(F, m, stage) for m in range(warm_up)]
        for m in range(warm_up, micro_batches):
            slots += (Slot(F, m, stage), Slot(B, m - warm_up, stage))
        return slots + [Slot(B, m, stage) for m in range(micro_batches - warm_up, micro_batches)]

    def bubble(self, stages: int, virtual: int, f: float, b: float, w: float) -> float:
        """(pp - 1)(F + B), SC21 section 2.2.1."""
        return (stages - 1) * (f + b + w)
