"""The command line that repeats a run, made from its specification: one for summaries, pages and what-if studies.

It names what the specification says in full (a topology with all its keys, what ``distsim train`` chose by itself), so that the
second run infers nothing; other values that are the default are left out.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from distsim.run_spec import RunSpec

#: options of a run that are always said: which network it was is what one looks for first
_SAID_OF_RUNS = ("topo", "network")
#: options that `distsim train` chooses by itself where they are not given
_CHOSEN_BY_TRAIN = ("dp", "global_batch", "seq", "zero", "sequence_parallel")


def is_training(spec: Mapping[str, Any]) -> bool:
    """Whether a result's specification is that of a training step."""
    return isinstance(spec.get("plan"), Mapping) and "model" in spec


def command_of(spec: Mapping[str, Any]) -> str:
    """The command that repeats a replay, a training step, or an experiment in ASTRA-sim's own files."""
    return shlex.join(_train(spec) if is_training(spec) else _run(spec))


def _run(spec: Mapping[str, Any]) -> list[str]:
    trace = spec.get("trace") or ()
    words = ["distsim", "run", *([trace] if isinstance(trace, str) else trace)]
    for name, value in spec.items():
        field = RunSpec.model_fields.get(name)
        usual = field is not None and value == field.default and name not in _SAID_OF_RUNS
        if name != "trace" and value not in (None, "") and not usual:
            words += _option(name, value)
    return words


def _train(spec: Mapping[str, Any]) -> list[str]:
    # NOTE: here, so that the summary of a replay need not load all of training
    from distsim.training import TrainSpec
    from distsim.workload.training.plan import Plan

    plan: Mapping[str, Any] = spec["plan"]
    fields = TrainSpec.model_fields | Plan.model_fields
    words = ["distsim", "train"]
    # NOTE: a result's specification has more names (of the trace that was generated): no options
    for name, value in {**{name: spec.get(name) for name in TrainSpec.model_fields if name != "plan"}, **plan}.items():
        usual = name in fields and value == fields[name].default and name not in _CHOSEN_BY_TRAIN
        if value is not None and not usual:
            words += _option(name, value)
    return words


def _option(name: str, value: Any) -> list[str]:
    """``--cuda-graphs``, ``--no-fold``, ``--layers-per-stage 8,8,8,7``, ``--tp 8``."""
    option = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [option if value else f"--no-{option[2:]}"]
    return [option, ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)]
