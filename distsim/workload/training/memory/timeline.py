"""Memory of one rank over the slots of its pipeline schedule: a forward slot adds activations, a backward slot frees them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from distsim.errors import ConfigError
from distsim.hardware.gpu import Gpu
from distsim.models.spec import Model
from distsim.workload.training.memory import in_flight, weights
from distsim.workload.training.memory import stage as stages
from distsim.workload.training.plan import Plan
from distsim.workload.training.schedules import pipeline
from distsim.workload.training.schedules.slot import F, Slot
from distsim.workload.training.stack import Stack


@dataclass(frozen=True, slots=True)
class Point:
    """One slot. during: the most allocated while it runs; after: what stays when it has run. Bytes."""

    slot: Slot
    during: int
    after: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """Allocated memory of one rank through a step. static: what is there before and after; optimizer: the step's peak."""

    stage: int
    static: int
    points: tuple[Point, ...]
    optimizer: int

    @property
    def peak(self) -> int:
        """The most allocated at any time."""
        return max([point.during for point in self.points] + [self.optimizer])

    @property
    def when(self) -> int:
        """Index of the first slot at the peak; the number of slots where the optimizer is."""
        return next((i for i, point in enumerate(self.points) if point.during == self.peak), len(self.points))


def timeline(model: Model, plan: Plan, stack: Stack, gpu: Gpu, stage: int, slots: Iterable[Slot] | None = None) -> Timeline:
    """Memory of a rank of ``stage``. ``slots``: another order than the plan's schedule gives.

    Raises: ConfigError where the plan does not fit, the stage does not exist, or a slot frees what was never there.
    """
    plan.check(model)
    if not 0 <= stage < plan.pp:
        raise ConfigError(f"there is no stage {stage}", where="timeline", expected=f"0 to {plan.pp - 1}")
    chunks = weights.chunks(model, plan)
    numbers = in_flight.chunks_of(plan, stage)
    mine = tuple(chunks[number] for number in numbers)
    parts = stages.parts_of(model, plan, stack, mine, stages.per_parameters(plan, stack, gpu))
    sizes = dict(zip(numbers, parts.chunks, strict=True))
    schedule = pipeline(plan.pipeline)
    order = schedule.order(stage, plan.pp, plan.vpp, plan.micro_batches) if slots is None else slots
    static = sum(parts.static.values())
    transient = {name: sum(terms.values()) for name, terms in parts.moments.items()}
    head = max(transient.get("loss", 0.0), transient.get("head", 0.0))
    live, held, points = 0.0, set[tuple[int, int]](), []
    for slot in order:
        key = (slot.micro_batch, slot.chunk)
        if slot.chunk not in sizes:
            raise ConfigError(f"slot {tuple(slot)} is of a virtual stage that stage {stage} does not hold", where="timeline")
        size = sizes[slot.chunk]
        if slot.phase == F:
            live += size
            held.add(key)
            points.append(Point(slot, round(static + live), round(static + live)))
            continue
        if key not in held:
            raise ConfigError(f"slot {tuple(slot)} comes before its forward pass", where="timeline")
        during = static + live + max(transient["backward"], head if chunks[slot.chunk].last and slot.phase != "W" else 0.0)
        if not (schedule.splits_backward and slot.phase == "B"):
            live -= size
            held.remove(key)
        points.append(Point(slot, round(during), round(static + live)))
    return Timeline(stage, round(static), tuple(points), round(static + transient["optimizer"]))
