"""The contract of pipeline schedules, checked by running them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from distsim import registry
from distsim.errors import ConfigError, DistsimError
from distsim.workload.training.schedules.slot import BW, B, F, PipelineSchedule, W
from distsim.workload.training.timing import run


def check_pipeline_schedule(
    name: str,
    *,
    stages: Iterable[int] = range(1, 9),
    virtual: Iterable[int] = (1, 2, 3),
    micro_batches: Iterable[int] = (1, 2, 4, 7, 8, 13, 16, 24),
) -> list[tuple[int, int, int]]:
    """Proves, for every combination, that the schedule runs the whole step: every chunk of every micro-batch once forward and
    once backward, each on the stage that the path names, in an order that comes to an end.

    It may refuse numbers, with a ConfigError; the same question must get the same answer twice.

    Args:
        name: under which it is registered as a ``pipeline``.

    Returns:
        (stages, virtual, micro_batches) that it serves.

    Raises:
        AssertionError: what is wrong, and for which numbers.
        UnknownNameError: no such schedule.
    """
    schedule = registry.lookup("pipeline", name)()
    assert isinstance(schedule.splits_backward, bool), f"{name}: splits_backward is {schedule.splits_backward!r}"
    assert isinstance(schedule.copies, int), f"{name}: copies is {schedule.copies!r}"
    assert schedule.copies >= 1, f"{name}: copies is {schedule.copies!r}"
    virtual, micro_batches = list(virtual), list(micro_batches)
    asked = [(p, v, m) for p in stages for v in virtual for m in micro_batches]
    served = [numbers for numbers in asked if _serves(name, schedule, *numbers)]
    assert served, f"{name} refuses all of {asked}"
    return served


def _serves(name: str, schedule: PipelineSchedule, stages: int, virtual: int, micro_batches: int) -> bool:
    """False where the schedule refuses."""
    numbers = (stages, virtual, micro_batches)
    at = f"{name} with {stages} stages, {virtual} virtual, {micro_batches} micro-batches"
    try:
        orders = [schedule.order(stage, *numbers) for stage in range(stages)]
    except ConfigError as refusal:
        if not any(str(number) in str(refusal) for number in numbers):
            raise AssertionError(f"{at}: refused without saying which number is wrong: {refusal}") from refusal
        return False
    paths = [schedule.path(m, *numbers) for m in range(micro_batches)]
    assert [schedule.order(stage, *numbers) for stage in range(stages)] == orders, f"{at}: answers differently when asked twice"
    chunks = stages * virtual
    for micro_batch, path in enumerate(paths):
        assert len(path) == chunks, f"{at}: micro-batch {micro_batch} passes {len(path)} of {chunks} chunks"
        assert set(path) == set(range(stages)), f"{at}: micro-batch {micro_batch} goes over stages {path}"
    whole = [(m, c) for m in range(micro_batches) for c in range(chunks)]
    slots = [slot for order in orders for slot in order]
    done = {phase: Counter((s.micro_batch, s.chunk) for s in slots if s.phase == phase) for phase in (F, B, BW, W)}
    assert sorted(done[F].elements()) == whole, f"{at}: not every chunk forward once"
    assert sorted((done[B] + done[BW]).elements()) == whole, f"{at}: not every chunk backward once"
    if schedule.splits_backward:
        assert done[W] == done[B], f"{at}: not one W for every B"
    else:
        assert not done[W] + done[BW], f"{at}: W or BW, but splits_backward is false"
    times = {(phase, chunk): 1 for phase in (F, B, W) for chunk in range(chunks)}
    try:
        timeline = run(orders, paths, times)
    except DistsimError as fault:
        raise AssertionError(f"{at}: {fault}") from fault
    assert min(timeline.idle) >= 0, f"{at}: negative idle time"
    assert schedule.bubble(stages, virtual, 1.0, 1.0, 1.0) >= 0, f"{at}: negative bubble"
    return True
