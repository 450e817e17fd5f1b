"""Pipeline schedules: each a pure function from (stages, virtual stages, micro-batches) to what every rank does in order."""

from __future__ import annotations

from distsim import registry
from distsim.workload.training.schedules.slot import PipelineSchedule


def pipeline(name: str) -> PipelineSchedule:
    """The schedule registered under that name. Raises UnknownNameError with the nearest names."""
    found: PipelineSchedule = registry.lookup("pipeline", name)()
    return found
