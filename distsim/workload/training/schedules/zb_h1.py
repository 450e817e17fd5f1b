"""ZB-H1: 1F1B whose backward passes are split, so that weight gradients fill what were bubbles; no more memory than 1F1B.

Source: Qi et al., "Zero Bubble Pipeline Parallelism" (2023), section 2.2 (handcrafted schedule ZB-H1); DeepSeek-V3's report
calls it ZB1P. The input gradients (B) go to the stage before at once; weight gradients (W) have no one who waits for them.
"""

from __future__ import annotations

from distsim.registry import register
from distsim.workload.training.schedules.fit import one_chunk_per_stage
from distsim.workload.training.schedules.slot import B, F, Slot, W


@register("pipeline", "zb_h1")
class ZbH1:
    """The order of 1F1B; stage s runs the weight gradients ``s`` micro-batches late.

    So the last stage has pp - 1 of them left for the time in which the others are still waiting for their last backward
    passes. A stage holds a micro-batch until its W: pp of them, everywhere, which is what 1F1B holds on its first stage.
    """

    splits_backward = True
    copies = 1

    def path(self, micro_batch: int, stages: int, virtual: int, micro_batches: int) -> tuple[int, ...]:
        """Chunk c on stage c."""
        return tuple(range(stages))

    def order(self, stage: int, stages: int, virtual: int, micro_batches: int) -> list[Slot]:
        """Raises ConfigError where virtual > 1."""
        one_chunk_per_stage("zb_h1", stages, virtual, micro_batches)
        warm_up = min(stages - 1 - stage, micro_batches)
        slots = [Slot(F, m, stage) for m in range(warm_up)]
        for m in range(micro_batches):
            if m + warm_up < micro_batches:
                slots.append(Slot(F, m + warm_up, stage))
            slots.append(Slot(B, m, stage))
            if m >= stage:
                slots.append(Slot(W, m - stage, stage))
        return slots + [Slot(W, m, stage) for m in range(max(micro_batches - stage, 0), micro_batches)]

    def bubble(self, stages: int, virtual: int, f: float, b: float, w: float) -> float:
        """(pp - 1)(F + B - 2W) with B the whole backward pass (DeepSeek-V3's table 2); Qi et al. write T_B for its inputs
        alone: (pp - 1)(T_F + T_B - T_W). It holds for W <= T_F, W <= T_B and pp micro-batches or more."""
        return (stages - 1) * (f + b - w)
