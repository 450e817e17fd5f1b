"""DualPipe: micro-batches enter at both ends of the pipeline, and forward and backward passes overlap in pairs.

Source: DeepSeek-AI, "DeepSeek-V3 Technical Report" (2024), section 3.2.1, figure 5 and table 2; the eight steps of its
published program (deepseek-ai/DualPipe). Every rank holds the layers of stage s and of stage pp - 1 - s, so the weights are
there twice. Choose it where all-to-alls of experts are worth hiding behind the other pass of a pair.
"""

from __future__ import annotations

from distsim.errors import ConfigError
from distsim.registry import register
from distsim.workload.training.schedules.fit import nearest, one_chunk_per_stage
from distsim.workload.training.schedules.slot import BW, B, F, Slot, W


@register("pipeline", "dualpipe")
class DualPipe:
    """The first half of the micro-batches goes from stage 0 to pp - 1, the second half from pp - 1 to 0.

    Backward passes are split (B, later W) only in the warm-up and the cool-down, else whole (BW). An F directly before a BW
    is a pair whose computation and communication run beside each other.
    """

    splits_backward = True
    copies = 2

    def path(self, micro_batch: int, stages: int, virtual: int, micro_batches: int) -> tuple[int, ...]:
        """Chunk c on stage c, or on stage pp - 1 - c in the second half of the micro-batches."""
        along = range(stages)
        return tuple(along if micro_batch < micro_batches // 2 else reversed(along))

    def order(self, stage: int, stages: int, virtual: int, micro_batches: int) -> list[Slot]:
        """Raises ConfigError unless pp is even, the micro-batches are even and 2 pp or more, and virtual is 1."""
        check(stages, virtual, micro_batches)
        half = stages // 2
        depth = min(stage, stages - 1 - stage)  # places to the nearer end of the pipeline
        out = half - 1 - depth
        lane = _Lane(stage, stages, micro_batches)
        for _ in range(2 * out):
            lane.forward(0)
        for _ in range(depth + 1):
            lane.forward(0)
            lane.forward(1)
        for _ in range(out):
            lane.backward(1, split=True)
            lane.weights()
            lane.forward(1)
        for _ in range(micro_batches // 2 - stages + depth + 1):
            lane.forward(0)
            lane.backward(1)
            lane.forward(1)
            lane.backward(0)
        for _ in range(out):
            lane.backward(1)
            lane.forward(1)
            lane.backward(0)
        # the second half of these 2 (depth + 1) backward passes is split
        for i in range(depth + 1):
            lane.backward(1, split=2 * i > depth)
            lane.backward(0, split=2 * i >= depth)
        for _ in range(out):
            lane.weights()
            lane.backward(0, split=True)
        for _ in range(depth + 1):
            lane.weights()
        return lane.slots

    def bubble(self, stages: int, virtual: int, f: float, b: float, w: float) -> float:
        """(pp/2 - 1)(F&B + B - 3W) with B the whole backward pass and F&B a pair, here without what overlapping it saves:
        F + B. It holds where neither F nor W is longer than the input gradients alone (B - W)."""
        return (stages // 2 - 1) * ((f + b + w) + (b + w) - 3 * w)


def check(stages: int, virtual: int, micro_batches: int) -> None:
    """Raise ConfigError where DualPipe has no schedule for these numbers."""
    one_chunk_per_stage("dualpipe", stages, virtual, micro_batches)
    if stages % 2:
        near = nearest(stages, 2, 2)
        raise ConfigError(f"pp is {stages}, but DualPipe pairs stage s with stage pp - 1 - s", expected="an even pp", near=near)
    if micro_batches % 2 or micro_batches < 2 * stages:
        raise ConfigError(
            f"DualPipe has no schedule for {micro_batches} micro-batches on {stages} stages",
            expected=f"an even number, 2 x pp = {2 * stages} or more", near=nearest(micro_batches, 2, 2 * stages),
            fix="Change the global batch, the micro batch or dp; or choose zb_h1 or 1f1b.",
        )  # fmt: skip


class _Lane:
    """The slots of one rank as they are added. Side 0: micro-batches from the nearer end of the pipeline; side 1: from the
    farther end. Each side goes through its micro-batches in order, and weight gradients wait first in, first out."""

    def __init__(self, stage: int, stages: int, micro_batches: int) -> None:
        second = stage >= stages // 2
        far = micro_batches // 2
        #: by side: chunk, next micro-batch forward and backward
        self._chunk = (stages - 1 - stage, stage) if second else (stage, stages - 1 - stage)
        starts = (far, 0) if second else (0, far)
        self._ahead, self._back = list(starts), list(starts)
        self._kept: list[tuple[int, int]] = []
        self.slots: list[Slot] = []

    def forward(self, side: int) -> None:
        self.slots.append(Slot(F, self._ahead[side], self._chunk[side]))
        self._ahead[side] += 1

    def backward(self, side: int, split: bool = False) -> None:
        micro_batch, chunk = self._back[side], self._chunk[side]
        self._back[side] += 1
        self.slots.append(Slot(B if split else BW, micro_batch, chunk))
        if split:
            self._kept.append((micro_batch, chunk))

    def weights(self) -> None:
        self.slots.append(Slot(W, *self._kept.pop(0)))
