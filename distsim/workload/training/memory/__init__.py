"""Memory of a training step: what every pipeline stage holds, by term; when it peaks; what to change where it does not fit."""

from __future__ import annotations

from distsim.workload.training.memory.fit import check_fit
from distsim.workload.training.memory.stage import Memory, StageMemory, memory_of
from distsim.workload.training.memory.timeline import Timeline, timeline

__all__ = ["Memory", "StageMemory", "Timeline", "check_fit", "memory_of", "timeline"]
