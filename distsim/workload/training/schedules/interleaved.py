"""Interleaved 1F1B: every stage holds several chunks of the model, so a micro-batch passes it ``virtual`` times.

Source: Narayanan et al., SC21, section 2.2.2, in the order of Megatron-LM (megatron/core/pipeline_parallel/schedules.py).
The bubble shrinks ``virtual``-fold; messages grow as much in number, and a few more chunks' activations are held.
"""

from __future__ import annotations

from distsim.registry import register
from distsim.workload.training.schedules.fit import check_numbers
from distsim.workload.training.schedules.slot import B, F, Slot


@register("pipeline", "interleaved")
class Interleaved:
    """Micro-batches go in groups: one chunk does the whole group, then the next chunk does.

    Warm-up: (pp - 1 - stage) * 2 + (virtual - 1) * group forwards, then forward and backward in turn. Virtual stage v of
    stage s is chunk v * pp + s. Groups have pp micro-batches where that divides them, else :func:`group_size`.
    """

    splits_backward = False
    copies = 1

    def path(self, micro_batch: int, stages: int, virtual: int, micro_batches: int) -> tuple[int, ...]:
        """Round and round."""
        return tuple(range(stages)) * virtual

    def order(self, stage: int, stages: int, virtual: int, micro_batches: int) -> list[Slot]:
        """Raises ConfigError where one of the numbers is below 1."""
        check_numbers("interleaved", stages, virtual, micro_batches)
        group = group_size(stages, micro_batches)
        forward, backward = [], []
        for first in range(0, micro_batches, group):
            members = range(first, min(first + group, micro_batches))
            forward += [Slot(F, m, v * stages + stage) for v in range(virtual) for m in members]
            backward += [Slot(B, m, v * stages + stage) for v in reversed(range(virtual)) for m in members]
        warm_up = min((stages - 1 - stage) * 2 + (virtual - 1) * group, len(forward))
        slots = forward[:warm_up]
        for ahead, back in zip(forward[warm_up:], backward, strict=False):
            slots += (ahead, back)
        return slots + backward[len(forward) - warm_up :]

    def bubble(self, stages: int, virtual: int, f: float, b: float, w: float) -> float:
        """(pp - 1)(F + B) / virtual, SC21 section 2.2.2. It holds where pp divides the micro-batches."""
        return (stages - 1) * (f + b + w) / virtual


def group_size(stages: int, micro_batches: int) -> int:
    """The smallest group of at least ``stages`` whose remainder is nothing or at least ``stages`` (the rule of Megatron's
    ``microbatch_group_size_per_vp_stage``); fewer micro-batches than stages are one group (PyTorch allows it).

    >>> group_size(4, 8), group_size(4, 10), group_size(4, 7), group_size(4, 3)
    (4, 5, 7, 3)
    """
    sizes = range(stages, micro_batches)
    return next((size for size in sizes if not 0 < micro_batches % size < stages), micro_batches)
