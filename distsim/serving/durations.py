"""Times in options of a service: text with a unit, checked when read, kept as written."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from distsim.errors import ConfigError
from distsim.params import SEPARATOR
from distsim.units import parse_time


def ps(text: str) -> int:
    """Picoseconds of a checked time."""
    return parse_time(text)


def _plain(value: Any) -> Any:
    """Numbers as text: YAML makes 0 an integer."""
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def timed(text: str) -> int:
    """Picoseconds of a time with its unit; 0 needs none. Raises ConfigError.

    >>> timed("50ms"), timed("0")
    (50000000000, 0)
    """
    found = parse_time(text)
    if found and re.fullmatch(r"\s*[+-]?[\d.eE+-]+\s*", text):
        raise ConfigError(f"{text!r} has no unit: expected something like 2s or 50ms")
    return found


def _time(text: str) -> str:
    try:
        timed(text)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return text


def _times(text: str) -> str:
    for part in text.split(SEPARATOR):
        _time(part)
    return text


def _some_time(text: str) -> str:
    if parse_time(_time(text)) == 0:
        raise ValueError("must be more than 0")
    return text


#: ``30s``, ``2min``, ``0``
Duration = Annotated[str, BeforeValidator(_plain), AfterValidator(_time)]
#: the same, more than nothing
SomeTime = Annotated[str, BeforeValidator(_plain), AfterValidator(_some_time)]
#: one or several, joined by ``+``
Durations = Annotated[str, BeforeValidator(_plain), AfterValidator(_times)]
