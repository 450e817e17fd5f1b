"""Does a plan fit the GPU, what breaks it, and the nearest change that fits."""

from __future__ import annotations

from collections.abc import Iterator

from distsim.errors import ConfigError, OutOfMemoryError
from distsim.hardware.gpu import Gpu
from distsim.units import format_size
from distsim.workload.training.memory.stage import Memory, memory_of
from distsim.workload.training.plan import Plan

_MOST_TP = 8  #: tensor parallelism stays inside a server of eight


def check_fit(memory: Memory, gpu: Gpu, *, advise: bool = True) -> None:
    """Raise OutOfMemoryError where a stage needs more than the GPU has; it names the nearest change that fits, unless
    ``advise`` is off: bounds refuse plans by the thousand.

    Changes are tried one at a time, those that cost least time first, with the same GPUs and the same global batch:
    sharding the optimizer, selective recomputation, sequence parallelism, smaller micro-batches, sharding gradients, full
    recomputation, then more tensor, pipeline, context or expert parallelism instead of replicas, at last sharded weights.
    """
    worst = memory.worst
    if worst.device <= gpu.memory:
        return
    over = worst.device - gpu.memory
    advice = nearest(memory, gpu) if advise else None
    largest = worst.largest
    raise OutOfMemoryError(
        f"stage {worst.stage} needs {format_size(worst.device)} of {format_size(gpu.memory)}, {format_size(over)} too much; "
        f"the largest term is {largest}, {format_size(worst.terms[largest])} (peak: {worst.moment})",
        where=f"{memory.model.name} on {gpu.name}", stage=worst.stage, term=largest, over=over,
        fix=f"{advice[0]} fits: {format_size(advice[1])}." if advice else
        "No single change fits: take more GPUs, or a smaller model or sequence." if advise else "",
    )  # fmt: skip


def nearest(memory: Memory, gpu: Gpu) -> tuple[str, int] | None:
    """The cheapest single change after which the plan fits, in words, and the bytes then needed; None: there is none."""
    for said, plan in changes(memory):
        try:
            needed = memory_of(memory.model, plan, memory.stack, gpu).device
        except ConfigError:
            continue
        if needed <= gpu.memory:
            return said, needed
    return None


def changes(memory: Memory) -> Iterator[tuple[str, Plan]]:
    """Plans that differ in one thing, with what it is, cheapest first."""
    plan, replicas = memory.plan, memory.plan.dp * memory.plan.cp
    if plan.zero == 0 and replicas > 1:
        yield "--zero 1 (optimizer sharded over replicas)", plan.model_copy(update={"zero": 1})
    if plan.recompute == "none":
        yield "--recompute selective", plan.model_copy(update={"recompute": "selective"})
    if plan.tp > 1 and not plan.sequence_parallel:
        yield "--sequence-parallel", plan.model_copy(update={"sequence_parallel": True})
    for size in range(plan.micro_batch - 1, 0, -1):
        if plan.micro_batch % size == 0:
            yield f"--micro-batch {size}", plan.model_copy(update={"micro_batch": size})
    if plan.zero == 1 and replicas > 1:
        yield "--zero 2 (gradients sharded too)", plan.model_copy(update={"zero": 2})
    if plan.recompute != "full":
        yield "--recompute full", plan.model_copy(update={"recompute": "full"})
    yield from _more_parallel(plan)
    if plan.zero < 3 and replicas > 1:
        yield "--zero 3 (weights sharded too)", plan.model_copy(update={"zero": 3})


def _more_parallel(plan: Plan) -> Iterator[tuple[str, Plan]]:
    factor = 2
    while plan.dp % factor == 0:
        dp = plan.dp // factor
        if plan.tp * factor <= _MOST_TP:
            update = {"tp": plan.tp * factor, "dp": dp, "sequence_parallel": plan.sequence_parallel or plan.tp == 1}
            yield f"--tp {plan.tp * factor} --dp {dp}", plan.model_copy(update=update)
        if plan.layers_per_stage is None:
            yield f"--pp {plan.pp * factor} --dp {dp}", plan.model_copy(update={"pp": plan.pp * factor, "dp": dp})
        yield f"--cp {plan.cp * factor} --dp {dp}", plan.model_copy(update={"cp": plan.cp * factor, "dp": dp})
        factor *= 2
    factor = 2
    while plan.ep * factor * plan.etp <= plan.tp * plan.cp * plan.dp:
        yield f"--ep {plan.ep * factor}", plan.model_copy(update={"ep": plan.ep * factor})
        factor *= 2
