"""Where a training step goes: computation by class of kernel, exposed communication, bubble, optimizer, idle.

All figures are of the compute stream, averaged over ranks, and add up to the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from distsim.result import SpanTable
from distsim.trace.graph import NodeType
from distsim.training import Training
from distsim.workload.training.blocks import BlockTime
from distsim.workload.training.graph import HOST

#: part of the step -> what it is, in the order of the report
PARTS = {
    "gemm": "matrix products", "attention": "attention", "experts": "experts' matrix products",
    "memory": "norms, activations, residuals, loss", "optimizer": "gradient norm and optimizer",
    "launch": "waiting for the CPU to issue kernels", "interference": "slower beside communication",
    "tp": "exposed tensor-parallel communication", "cp": "exposed context-parallel communication",
    "ep": "exposed expert-parallel communication", "pp": "exposed pipeline messages",
    "dp": "exposed gradients and weights", "bubble": "pipeline bubble", "overhead": "between steps", "idle": "idle",
}  # fmt: skip
#: communicators that count as another one's part
_SAME = {"edp": "dp", "etp": "ep", "embedding": "dp", "mirror": "dp", "shard": "dp", "replica": "dp", "world": "bubble"}


@dataclass(frozen=True, slots=True)
class Breakdown:
    """ps of the step by part (see PARTS), averaged over ranks; ``stages``: the same for every pipeline stage."""

    parts: Mapping[str, float]
    stages: tuple[Mapping[str, float], ...]

    def share(self, part: str) -> float:
        """Of the step."""
        total = sum(self.parts.values())
        return self.parts.get(part, 0.0) / total if total else 0.0

    @property
    def computing(self) -> float:
        """Share of the step in which kernels run."""
        return sum(self.share(part) for part in ("gemm", "attention", "experts", "memory", "optimizer", "interference"))


def breakdown(training: Training) -> Breakdown:
    """Take a simulated step apart."""
    spans, result = training.result.spans(), training.result
    ranks = np.unique(spans.rank)
    inner = training.job.plan.world // training.job.plan.pp
    by_stage: dict[int, list[dict[str, float]]] = {}
    for rank in ranks.tolist():
        by_stage.setdefault(rank // inner, []).append(_rank(training, spans, rank, result.makespan))
    stages = tuple(_mean(by_stage[stage]) for stage in sorted(by_stage))
    return Breakdown(_mean(stages), stages)


def _mean(parts: Any) -> dict[str, float]:
    return {name: sum(part.get(name, 0.0) for part in parts) / len(parts) for name in PARTS}


def _rank(training: Training, spans: SpanTable, rank: int, makespan: int) -> dict[str, float]:
    """ps by part of one rank."""
    rows = np.flatnonzero((spans.rank == rank) & (spans.kind == spans.kinds.index("compute")))
    rows = rows[np.argsort(spans.start[rows], kind="stable")]
    start, end = spans.start[rows], spans.end[rows]
    parts = dict.fromkeys(PARTS, 0.0)
    took = np.bincount(spans.name[rows], weights=end - start, minlength=len(spans.names))
    program = training.graph.program(rank)
    computing = program.type == NodeType.COMP
    alone = np.bincount(program.name[computing], weights=program.duration_ps[computing], minlength=len(spans.names))
    parts["interference"] += float((took - alone).sum())
    for name in np.flatnonzero(alone).tolist():
        _share_out(training, spans.names[name], float(alone[name]), parts)
    before = np.concatenate(([0], end[:-1]))
    gap = start - before
    waited = np.flatnonzero(gap > 0)
    message = 0
    if training.job.plan.pp > 1:
        message = training.job.costs.collectives.message(training.job.costs.message_bytes, 0, training.job.plan.world
                                                         // training.job.plan.pp)  # fmt: skip
    for i in waited.tolist():
        by = int(spans.released_by[rows[i]])
        kind = spans.kinds[spans.kind[by]] if by >= 0 else "none"
        if kind in ("recv", "send"):
            flight = min(int(gap[i]), message)
            parts["pp"] += flight
            parts["bubble"] += int(gap[i]) - flight
        elif kind in ("none", "compute"):
            parts["idle"] += int(gap[i])
        else:
            group = spans.groups[spans.group[by]]
            parts[_SAME.get(group, group)] += int(gap[i])
    parts["idle"] += makespan - (int(end[-1]) if len(end) else 0)
    return parts


def _share_out(training: Training, name: str, took: float, parts: dict[str, float]) -> None:
    """Time of the compute nodes of one name, by part."""
    words = name.split()
    if words[0] in ("forward", "backward") and len(words) > 1 and words[1].isdigit():
        block = training.job.costs.block(int(words[1]), words[0])
        for part, fraction in _fractions(block).items():
            parts[part] += took * fraction
    elif name in ("optimizer", "norm of gradients"):
        parts["optimizer"] += took
    elif name == HOST:
        parts["launch"] += took
    elif name == "between steps":
        parts["overhead"] += took
    else:
        parts[_of_operation(training, name)] += took


def _fractions(block: BlockTime) -> dict[str, float]:
    """What a block is made of."""
    parts = {**block.computing, "launch": block.launch}
    for group, waited in block.exposed.items():
        part = _SAME.get(group, group)
        parts[part] = parts.get(part, 0) + waited
    total = sum(parts.values()) or 1
    return {part: value / total for part, value in parts.items() if value}


def _of_operation(training: Training, name: str) -> str:
    """Class of a kernel by its name, where kernels are nodes."""
    for units in training.job.costs.units:
        for unit in units:
            for operation in (*unit.forward, *unit.backward):
                if operation.name == name:
                    return operation.kind
    return "memory"


def providers(training: Training) -> dict[str, tuple[int, float, float]]:
    """Source of kernel times -> (kernels, seconds, usual relative error) of one micro-batch through all stages.

    The most seconds first. The error is the mean over the source's kernels, weighted by their seconds.
    """
    costs = training.job.costs
    totals: dict[str, list[float]] = {}
    for units in costs.units:
        for unit in units:
            for operation in (*unit.forward, *unit.backward):
                if operation.kernel is not None:
                    answer = costs.answer(operation.kernel)
                    seconds = costs.kernel_ps(operation) / 1e12
                    total = totals.setdefault(answer.source, [0, 0.0, 0.0])
                    total[0], total[1], total[2] = total[0] + 1, total[1] + seconds, total[2] + seconds * answer.error
    ordered = sorted(totals.items(), key=lambda item: (-item[1][1], item[0]))
    return {source: (int(n), seconds, weighed / seconds if seconds else 0.0) for source, (n, seconds, weighed) in ordered}


def columns(training: Training) -> dict[str, Any]:
    """Flat figures of a step, for tables: times in ps, shares of the step, memory in bytes."""
    parts = breakdown(training)
    return {
        "step_ps": training.step_ps, "tokens_per_s_gpu": training.tokens_per_s_gpu, "mfu": training.mfu, "hfu": training.hfu,
        "tflops_per_gpu": training.flops_per_gpu / 1e12, "memory_bytes": training.memory.device,
        "world": training.job.plan.world, "micro_batches": training.job.plan.micro_batches,
        **{f"{part}_share": parts.share(part) for part in PARTS},
    }  # fmt: skip
