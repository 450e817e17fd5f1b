"""Durations of hours and years, in float seconds: the picosecond clock of a step ends at 53 days."""

from __future__ import annotations

import math
import re

from distsim.errors import ConfigError

MINUTE = 60.0
HOUR = 3600.0
DAY = 86400.0
YEAR = 365.25 * DAY

_UNITS = {"ms": 1e-3, "s": 1.0, "min": MINUTE, "h": HOUR, "d": DAY, "days": DAY, "day": DAY, "y": YEAR, "years": YEAR}
_DURATION = re.compile(r"^\s*(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)\s*([a-z]*)\s*$")


def parse_seconds(text: str, *, where: str = "") -> float:
    """Seconds of ``"90s"``, ``"8min"``, ``"50000h"``, ``"54d"``, ``"5y"``. A bare number is refused: which unit?

    >>> parse_seconds("8min"), parse_seconds("1.5 d")
    (480.0, 129600.0)
    """
    match = _DURATION.match(text)
    expected = "a number and one of ms, s, min, h, d, y, such as 8min"
    if match is None or (match.group(2) and match.group(2) not in _UNITS):
        raise ConfigError(f"{text!r} is not a duration", where=where, expected=expected)
    if not match.group(2) and float(match.group(1)) != 0:
        raise ConfigError(f"duration {text!r} has no unit", where=where, expected=expected)
    seconds = float(match.group(1)) * _UNITS.get(match.group(2), 1.0)
    if not math.isfinite(seconds):
        raise ConfigError(f"duration {text!r} is too large", where=where)
    return seconds


def format_seconds(seconds: float) -> str:
    """Three significant digits in the unit that a person would say.

    >>> format_seconds(480), format_seconds(11134), format_seconds(4.2), format_seconds(259200)
    ('8 min', '3.09 h', '4.2 s', '3 d')
    """
    for unit, size, least in (("d", DAY, 2 * DAY), ("h", HOUR, 2 * HOUR), ("min", MINUTE, 2 * MINUTE)):
        if seconds >= least:
            value = seconds / size
            return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"
    return f"{seconds:.3g} s"
