"""``kind: training``: a point is a model, a cluster and a parallelism plan; columns as of ``distsim train``."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from distsim.analysis.training import columns
from distsim.registry import register
from distsim.sweep.evaluator import Columns, Evaluator, Point
from distsim.training import TrainSpec, train
from distsim.workload.training.plan import Plan

#: fields that follow from others where they are left out: no default that an expression could use
_FOLLOW = ("dp", "seq", "global_batch", "zero", "sequence_parallel")


def objectives(varied: frozenset[str]) -> Mapping[str, str]:
    """Step time against memory; tokens per second and GPU where steps are not of one size or not on one cluster."""
    if varied & {"model", "cluster", "gpu", "global_batch", "seq"}:
        return {"tokens_per_s_gpu": "max", "memory_bytes": "min"}
    return {"step_ps": "min", "memory_bytes": "min"}


def _fields(*specs: type[BaseModel]) -> dict[str, object]:
    found = {name: field.default for spec in specs for name, field in spec.model_fields.items() if name != "plan"}
    return {name: ... if value is PydanticUndefined or name in _FOLLOW else value for name, value in found.items()}


def evaluate(point: Point) -> Columns:
    """Flat columns of one simulated plan, deterministic values only. Raises as ``distsim.training.train``."""
    return columns(train(TrainSpec.of(point)))


TRAINING = register("study", "training")(
    Evaluator(
        "training", f"{__name__}:evaluate", _fields(TrainSpec, Plan), ("model", "cluster"), "distsim.training:bound",
        objectives, {"memory": "ignore"},
    )
)  # fmt: skip
