"""A lower bound on the step: what no order of slots and no overlap can beat. Sweeps and searches prune by it."""

from __future__ import annotations

from distsim import registry
from distsim.workload.training.costs import Costs


def step_bound(costs: Costs) -> int:
    """ps. A stage works through all micro-batches of its chunks; the first has passed the stages before it, the last still has
    to pass back through them; then the optimizer. Communication that could hide is not counted, nor any bubble beyond that."""
    plan = costs.plan
    schedule = registry.lookup("pipeline", plan.pipeline)()
    split = schedule.splits_backward
    m = plan.micro_batches
    forward = [costs.block(chunk, "forward").span for chunk in range(plan.chunks)]
    whole = [costs.block(chunk, "backward") for chunk in range(plan.chunks)]
    work = [0] * plan.pp
    for batch in range(2 if schedule.copies > 1 else 1):  # the two directions of DualPipe take turns
        path = schedule.path(batch * (m - 1), plan.pp, plan.vpp, m)
        share = m // schedule.copies
        for chunk, stage in enumerate(path):
            work[stage] += share * (forward[chunk] + whole[chunk].span)
    first = schedule.path(0, plan.pp, plan.vpp, m)
    worst = 0
    for stage in range(plan.pp):
        lead = trail = 0
        if schedule.copies == 1:
            own = first.index(stage)
            lead = sum(forward[:own])
            trail = 0 if split else sum(whole[chunk].span for chunk in range(own))  # gradients of weights may fill it
        held = [costs.weights[chunk] for chunk, at in enumerate(first) if at == stage]
        dense, expert = sum(w.dense for w in held), sum(w.expert for w in held)
        if plan.zero:
            dense //= plan.dp * plan.cp
            expert //= plan.expert_dp
        worst = max(worst, lead + work[stage] + trail + costs.optimizer_ps(dense + expert))
    return worst
