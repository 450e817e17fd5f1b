"""How many micro-batches of each virtual stage a pipeline stage holds activations of, at most."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from distsim.workload.training.memory.weights import Chunk
from distsim.workload.training.plan import Plan
from distsim.workload.training.schedules import pipeline
from distsim.workload.training.schedules.fit import one_chunk_per_stage
from distsim.workload.training.timing import peak_in_flight

#: after that many micro-batches per (virtual) stage the count no longer grows, in all schedules but GPipe
_SATURATED = 4


def held(plan: Plan, stage: int, mine: Sequence[Chunk]) -> dict[int, int]:
    """Micro-batches held of each virtual stage of :func:`chunks_of` (``mine``) when the stage holds most.

    Raises: ConfigError where the schedule does not fit.
    """
    name, count = plan.pipeline, plan.micro_batches
    if plan.pp == 1 and plan.vpp == 1:
        return {0: count if name == "gpipe" else min(count, 1)}
    if name in ("1f1b", "gpipe"):
        one_chunk_per_stage(name, plan.pp, plan.vpp, count)
    if name == "1f1b":
        return {stage: min(count, plan.pp - stage)}
    if name == "gpipe":
        return {stage: count}
    most = _SATURATED * plan.pp
    if count > most:
        count = most + (count - most) % (2 * plan.pp)  # what divides stays what it is
    numbers = chunks_of(plan, stage)
    layers = tuple(chunk.dense + chunk.sparse for chunk in mine)
    uneven = layers if len(set(layers)) > 1 else None
    live = dict(_peak(name, stage, plan.pp, plan.vpp, count, numbers, uneven))
    return {chunk: live.get(chunk, 0) for chunk in numbers}


@lru_cache(maxsize=4096)
def _peak(
    name: str,
    stage: int,
    stages: int,
    virtual: int,
    micro_batches: int,
    numbers: tuple[int, ...],
    layers: tuple[int, ...] | None,
) -> tuple[tuple[int, int], ...]:
    """The counts at the fullest moment of the stage's slots, where virtual stages count by their layers."""
    sizes = None if layers is None else {number: float(size) for number, size in zip(numbers, layers, strict=True)}
    return tuple(peak_in_flight(pipeline(name), stage, stages, virtual, micro_batches, sizes).items())


def chunks_of(plan: Plan, stage: int) -> tuple[int, ...]:
    """Virtual stages that a pipeline stage holds the weights of."""
    if pipeline_copies(plan.pipeline) == 2:
        return tuple(sorted({stage, plan.pp - 1 - stage}))
    return tuple(v * plan.pp + stage for v in range(plan.vpp))


@lru_cache(maxsize=64)
def pipeline_copies(name: str) -> int:
    """Copies of every weight that a schedule keeps."""
    return 1 if name in ("1f1b", "interleaved", "gpipe") else pipeline(name).copies
