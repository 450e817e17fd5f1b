"""RunSpec on the command line: every field is an option of its name, with its description as help."""

from __future__ import annotations

import argparse
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from distsim.errors import ConfigError
from distsim.run_spec import RunSpec

#: fields that are no options: the trace is an argument by itself
_POSITIONAL = ("trace",)


def add_options(parser: argparse.ArgumentParser, leave_out: tuple[str, ...] = ()) -> None:
    """Add them; what is not given does not appear in the parsed arguments."""
    for name, field in RunSpec.model_fields.items():
        if name in _POSITIONAL or name in leave_out:
            continue
        option = f"--{name.replace('_', '-')}"
        about = (field.description or "").replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(option, action="store_true", default=argparse.SUPPRESS, help=about)
            continue
        shown = f" (default {field.default})" if field.default not in (None, "") else ""
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else None
        metavar = None if choices else name.rpartition("_")[2].upper()
        parser.add_argument(option, choices=choices, metavar=metavar, default=argparse.SUPPRESS, help=about + shown)


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, by field."""
    return {name: value for name, value in vars(args).items() if name in RunSpec.model_fields and name not in _POSITIONAL}


def spec_of(trace: str | tuple[str, ...], options: dict[str, Any]) -> RunSpec:
    """The run specification. Raises ConfigError on a value that its field does not take."""
    try:
        return RunSpec(trace=trace, **options)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise ConfigError(f"{first['input']!r}: {first['msg']}", where=option) from None
