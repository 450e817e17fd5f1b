"""The plans that a search looks at: a study (:mod:`distsim.sweep.study`) made from a model and a cluster.

So the space is what a person could have written: axes, derived fields and constraints in plain text, which the proof of a
search repeats. What can never pay is left out by a constraint that says so; nothing is left out silently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distsim.errors import ConfigError, UnknownNameError
from distsim.models.spec import Model
from distsim.registry import names
from distsim.sweep.study import Study, study
from distsim.topology.presets import PRESETS
from distsim.topology.spec import build, parse
from distsim.training import TrainSpec
from distsim.units import parse_size
from distsim.workload.training.stack import Stack, stack

_PADDING = 1.25  #: largest stage over the mean: beyond this the others wait a fifth of the time
_LEAST_TOKENS = 2048  #: tokens of a sequence per context-parallel rank below which attention kernels starve
_LARGEST_MICRO_BATCH = 16
_LARGEST_VPP = 16
#: fields that a search may vary, in the order of its axes
AXES = ("tp", "cp", "pp", "vpp", "schedule", "ep", "micro_batch", "zero", "recompute")


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a cluster shapes the space."""

    gpus: int
    domain: int  #: GPUs of a scale-up (NVLink) domain: tensor parallelism stays inside


def shape(cluster: str, gpus: int | None = None) -> Shape:
    """Of a cluster's text; ``gpus``: where it is to be used in part. Raises TopologyError, ConfigError."""
    domain = 0
    counted = gpus
    if not cluster.endswith((".yaml", ".yml")) and not cluster.startswith("simai:"):
        name, options = parse(cluster)
        preset = PRESETS.get(name)
        node = options.get("gpus_per_node") or (preset.options().get("gpus_per_node") if preset else None)
        domain = int(node) if node and str(node).isdigit() else 0
        if counted is None and options.get("gpus"):
            counted = _count(options["gpus"], cluster)
    if counted is None:
        counted = build(cluster).hosts
    return Shape(counted, min(domain or 8, counted))


def _count(text: str, where: str) -> int:
    try:
        return parse_size(text)
    except ConfigError:
        raise ConfigError(f"{text!r} is no number of GPUs", where=where) from None


def space(model: Model, cluster: Shape, base: Mapping[str, Any], only: Mapping[str, Sequence[Any]]) -> Study:
    """The study of all plans.

    Args:
        base: fields that are given: model, cluster, seq, global_batch, and any of the plan; those are not varied.
        only: field -> values, in place of the usual ones.

    Raises: UnknownNameError for a field in ``only`` that a search does not vary; ConfigError.
    """
    for name in only:
        if name not in AXES:
            raise UnknownNameError("field of a search", name, AXES, where="--only")
    batch, seq = int(base["global_batch"]), int(base["seq"])
    software = stack(str(base.get("stack", TrainSpec.model_fields["stack"].default)))
    usual = _axes(model, cluster, batch, seq, software)
    grid = {name: list(only.get(name, usual[name])) for name in AXES if name not in base}
    derived = {"dp": "gpus / (tp * cp * pp)", "sequence_parallel": "tp > 1"}
    constraints = [
        "global_batch % (micro_batch * dp) == 0",
        "dp * micro_batch <= global_batch",
        "pp * vpp <= layers",
        f"ceil(layers / pp) * pp <= {_PADDING} * layers",
        "(vpp > 1) == (schedule == 'interleaved')",
        "pp > 1 or schedule == '1f1b'",
        "schedule != 'dualpipe' or pp % 2 == 0",
        "tp * cp * dp % ep == 0",
        "cp == 1 or seq % (2 * cp) == 0",
        "zero < 3 or pp == 1",
        "zero != 2 or dp * cp > 1",
    ]
    document = {
        "kind": "training", "name": "search", "base": dict(base), "grid": grid,
        "variables": {"gpus": cluster.gpus, "layers": model.layers},
        "derived": {name: text for name, text in derived.items() if name not in base}, "constraints": constraints,
        "objectives": {"step_ps": "min"},
    }  # fmt: skip
    return study(document, "search")


def _axes(model: Model, cluster: Shape, batch: int, seq: int, software: Stack) -> dict[str, list[Any]]:
    """The usual values of every field."""
    # what selective recomputation of the attention core drops, flash attention never keeps: the same plan twice
    same = software.attention != "unfused" and software.selective == "attention"
    schedules = [name for name in names("pipeline") if name != "gpipe"]  # 1F1B is as fast and holds less
    experts = model.moe.experts if model.moe is not None else 1
    return {
        "tp": [n for n in _powers(cluster.domain) if model.heads % n == 0],
        "cp": _powers(max(1, seq // _LEAST_TOKENS)),
        "pp": [n for n in range(1, min(model.layers, cluster.gpus) + 1) if cluster.gpus % n == 0],
        "vpp": list(range(1, min(_LARGEST_VPP, model.layers) + 1)),
        "schedule": schedules,
        "ep": [n for n in _powers(experts) if experts % n == 0],
        "micro_batch": _powers(min(batch, _LARGEST_MICRO_BATCH)),
        "zero": [1, 2, 3],
        "recompute": ["none", "full"] if same else ["none", "selective", "full"],
    }


def _powers(most: int) -> list[int]:
    """1, 2, 4 ... up to ``most``."""
    return [1 << k for k in range(most.bit_length()) if 1 << k <= most]
