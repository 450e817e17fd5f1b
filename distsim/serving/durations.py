"""Times in options of a service: text with a unit, checked when read, kept as written."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from distsim.errors import ConfigError
from distsim.units import parse_time


def ps(text: str) -> int:
    """Picoseconds of a checked time."""
    return parse_time(text)


def _plain(value: Any) -> Any:
    """Numbers as text: YAML makes 0 an integer."""
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _time(text: str) -> str:
    try:
        parse_time(text)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    if re.fullmatch(r"\s*[+-]?[\d.eE+-]+\s*", text) and float(text) != 0:
        raise ValueError(f"{text!r} has no unit; write {text}s, {text}ms ...")
    return text


def _some_time(text: str) -> str:
    if parse_time(_time(text)) == 0:
        raise ValueError("must be more than 0")
    return text


#: ``30s``, ``2min``, ``0``
Duration = Annotated[str, BeforeValidator(_plain), AfterValidator(_time)]
#: the same, more than nothing
SomeTime = Annotated[str, BeforeValidator(_plain), AfterValidator(_some_time)]
