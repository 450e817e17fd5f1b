"""A training step on one network level: what it computes, what it communicates, and how much of that shows.

*compute* is time in kernels, *communication* the sum of all collectives and received messages from when their last member has
come, both per rank (mean). Of a block that is one task (``grain=block``), the kernels count as compute, and the collectives
inside it, which take closed forms at every level, as communication.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from distsim.analysis.training import breakdown
from distsim.analysis.underway import communicates, is_kind, under_way
from distsim.api import replay
from distsim.result import Result
from distsim.run_spec import RunSpec
from distsim.topology.graph import Topology
from distsim.trace.graph import TaskGraph
from distsim.training import Job, Training
from distsim.workload.training.memory import Memory

#: parts of a step (analysis/training.py) that are kernels, and those that are communication which computation waits for
KERNELS = ("gemm", "attention", "experts", "memory", "optimizer")
EXPOSED = ("tp", "cp", "ep", "pp", "dp")


@dataclass(frozen=True, slots=True)
class Balance:
    """ps of one step, means over ranks; cpu_s: CPU seconds of the simulation."""

    step: int
    compute: float
    communication: float
    exposed: float
    cpu_s: float

    @property
    def overlap(self) -> float:
        """Share of the communication that is hidden behind something else: 1 is all of it."""
        return max(0.0, 1.0 - self.exposed / self.communication) if self.communication else 1.0

    @property
    def exposed_share(self) -> float:
        """Of the step."""
        return self.exposed / self.step if self.step else 0.0


def balance(
    work: Job, graph: TaskGraph, topology: Topology, level: str, memory: Memory, collectives: str,
    progress: Callable[[float | None, str], None] = lambda fraction, what: None,
) -> Balance:  # fmt: skip
    """Replay the step's graph natively on a level. Raises as :func:`distsim.api.replay`."""
    began = time.process_time()
    spec = RunSpec.model_validate(
        {"trace": graph.source, "topo": topology.spec, "network": level, "collectives": collectives}
    )
    result = replay(graph, topology, spec, progress)
    cpu = time.process_time() - began
    parts = breakdown(Training(work, graph, result, memory)).parts
    return Balance(
        result.makespan, sum(parts[name] for name in KERNELS), inside(work) + between(result),
        sum(parts[name] for name in EXPOSED), cpu,
    )  # fmt: skip


def inside(work: Job) -> float:
    """ps of communication inside the blocks of a step, per rank; 0 where every collective is a task of its own."""
    if work.spec.grain == "kernel":
        return 0.0
    blocks = (work.costs.block(chunk, way) for chunk in range(work.plan.chunks) for way in ("forward", "backward"))
    total = sum(sum(block.exposed.values()) + sum(block.hidden.values()) for block in blocks)
    return total * work.plan.micro_batches / work.plan.pp


def between(result: Result) -> float:
    """ps of communication that is a task, per rank: every collective at each member, every message at its receiver."""
    spans = result.spans()
    rows = np.flatnonzero(communicates(spans) & ~is_kind(spans, "send"))
    took = spans.end[rows] - under_way(result).since[rows]
    if spans.multiplicity is not None:
        took = took * spans.multiplicity[rows]
    return float(took.sum()) / result.ranks


def columns(found: Mapping[str, Balance], idle: Balance) -> dict[str, float | int]:
    """Flat figures of one point at all levels, the last the finest; ``idle``: the step on links without contention."""
    finest = found[list(found)[-1]]
    made: dict[str, float | int] = {
        "ratio": idle.compute / idle.communication if idle.communication else float("inf"),
        "compute_ps": round(idle.compute), "communication_ps": round(idle.communication),
    }  # fmt: skip
    for level, one in found.items():
        made |= {
            f"{level} step_ps": one.step, f"{level} error": one.step / finest.step - 1 if finest.step else 0.0,
            f"{level} exposed_share": one.exposed_share, f"{level} overlap": one.overlap,
        }  # fmt: skip
    return made
