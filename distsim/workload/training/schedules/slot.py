"""The seam of pipeline schedules: one slot is one block of work of one rank."""

from __future__ import annotations

from typing import NamedTuple, Protocol

F, B, W = "F", "B", "W"
#: a whole backward pass where the schedule splits others (DualPipe): inputs leave and activations go when all of it is done
BW = "BW"


class Slot(NamedTuple):
    """phase: F forward, B backward (where the schedule splits it: of the inputs only), W weight gradients of a split backward,
    BW a backward that stays whole in a schedule that splits others. micro_batch: from 0. chunk: virtual stage in model order,
    0 .. chunks - 1."""

    phase: str
    micro_batch: int
    chunk: int


class PipelineSchedule(Protocol):
    """The role ``pipeline``. A pure function of its arguments."""

    #: whether B slots are of the inputs only and W slots follow
    splits_backward: bool

    #: copies of every weight that the schedule keeps (DualPipe: 2)
    copies: int

    def path(self, micro_batch: int, stages: int, virtual: int, micro_batches: int) -> tuple[int, ...]:
        """Stage (0 .. stages - 1) that runs each chunk of this micro-batch, in model order."""
        ...

    def order(self, stage: int, stages: int, virtual: int, micro_batches: int) -> list[Slot]:
        """The slots of one stage, in the order in which it runs them. Raises ConfigError where the numbers do not fit."""
        ...

    def bubble(self, stages: int, virtual: int, f: float, b: float, w: float) -> float:
        """Idle time of a stage in one step with equal stages: f, b and w are the times of a micro-batch over *all* chunks of
        a stage (b of the inputs, w of the weights). The published formula, its source in the docstring."""
        ...
