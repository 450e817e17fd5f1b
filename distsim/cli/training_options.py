"""TrainSpec and Plan on the command line: every field is an option of its name, with its description as help."""

from __future__ import annotations

import argparse
from typing import Any, Literal, get_args, get_origin

from distsim.errors import ConfigError
from distsim.training import TrainSpec
from distsim.workload.training.plan import Plan


def add_options(parser: argparse.ArgumentParser, leave_out: tuple[str, ...] = ()) -> None:
    """Add them; what is not given does not appear in the parsed arguments."""
    what = parser.add_argument_group("what runs where")
    how = parser.add_argument_group("plan (overlaps and CUDA graphs that are not given: as the software does it)")
    for group, model in ((what, TrainSpec), (how, Plan)):
        for name, field in model.model_fields.items():
            if name != "plan" and name not in leave_out:
                _add(group, name, field)


def _add(group: Any, name: str, field: Any) -> None:
    option, about = f"--{name.replace('_', '-')}", (field.description or "").replace("%", "%%")
    kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not type(None)]
    default = argparse.SUPPRESS
    if bool in kinds:
        group.add_argument(option, action=argparse.BooleanOptionalAction, default=default, help=about)
        return
    said = "(train" in about  # a default of its own
    shown = f" (default {field.default})" if field.default not in (None, "", 0) and not field.is_required() and not said else ""
    about = about.replace("(train: ", "(default: ").replace("(what train takes)", "(the default)")
    literal = next((kind for kind in (field.annotation, *kinds) if get_origin(kind) is Literal), None)
    choices = get_args(literal) if literal else None
    kind = int if kinds == [int] else float if kinds == [float] else str
    group.add_argument(
        option, choices=choices, type=kind, metavar=None if choices else name.rpartition("_")[2].upper(), default=default,
        help=about + shown,
    )  # fmt: skip


def point(args: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, flat. Raises ConfigError for a list that is none."""
    names = {*TrainSpec.model_fields, *Plan.model_fields} - {"plan"}
    found = {name: value for name, value in vars(args).items() if name in names}
    layers = found.get("layers_per_stage")
    if isinstance(layers, str):
        try:
            found["layers_per_stage"] = tuple(int(part) for part in layers.split(","))
        except ValueError:
            raise ConfigError(f"{layers!r} is no list of numbers", where="--layers-per-stage", expected="8,8,8,7") from None
    return found
