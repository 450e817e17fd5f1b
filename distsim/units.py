"""Units at the edges: text in, text out. Inside, times are integer picoseconds, sizes bytes, rates bytes per second.

``GB`` is 1e9 bytes and ``GiB`` is 2^30; a small ``b`` is a bit (``400Gbps`` = 50e9 bytes/s).
"""

from __future__ import annotations

import math
import re

from distsim.errors import ConfigError

PS_PER_NS = 1_000
PS_PER_US = 1_000_000
PS_PER_MS = 1_000_000_000
PS_PER_S = 1_000_000_000_000

_NUMBER = re.compile(r"^\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*?)\s*$")
_PREFIX = {
    "": 1,
    "k": 10**3,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_TIME = {
    "ps": 1,
    "ns": PS_PER_NS,
    "us": PS_PER_US,
    "µs": PS_PER_US,
    "ms": PS_PER_MS,
    "s": PS_PER_S,
    "min": 60 * PS_PER_S,
    "h": 3600 * PS_PER_S,
}


def _split(text: str | int | float, kind: str, example: str) -> tuple[str, str]:
    match = _NUMBER.match(str(text))
    if match is None:
        raise ConfigError(f"{text!r} is not a {kind}", expected=f"something like {example}")
    return match.group(1), match.group(2)


def _exact(number: str, factor: int) -> int:
    """number * factor, exact where the product is whole, else rounded to the nearest integer."""
    from fractions import Fraction

    if len(number) > 400 or abs(float(number)) > 1e30:
        return (-1 if number.startswith("-") else 1) * (1 << 63)  # out of every bound; 1e999999999 is not worth its digits
    return round(Fraction(number) * factor)


def _bounded(value: int, what: str) -> int:
    """The value; ConfigError where it is negative or beyond 2^62, which no clock or column holds."""
    if value < 0:
        raise ConfigError(f"{what} is negative")
    if value >= 1 << 62:
        raise ConfigError(f"{what} is too large", expected="less than 2^62 (4.6e18 bytes, or 53 days in ps)")
    return value


def parse_size(text: str | int) -> int:
    """Bytes of ``"64MiB"``, ``"1e6"``, ``4096``. Raises ConfigError on anything else, negatives included.

    >>> parse_size("64MiB"), parse_size("1.5GB"), parse_size(7)
    (67108864, 1500000000, 7)
    """
    number, unit = _split(text, "size", "64MiB or 1GB")
    factor = _PREFIX.get(unit.removesuffix("B") if unit.endswith("B") else unit)
    if factor is None:
        raise ConfigError(f"{text!r} has an unknown size unit {unit!r}", expected="B, KB, KiB, MB, MiB, GB, GiB ...")
    return _bounded(_exact(number, factor), f"size {text!r}")


def parse_bandwidth(text: str | int | float) -> float:
    """Bytes per second of ``"400Gbps"`` (bits), ``"50GB/s"``, ``"50GiBps"``; a bare number is bytes/s.

    Text below 1e6 without a unit is refused: the unit was forgotten.

    >>> parse_bandwidth("400Gbps"), parse_bandwidth("50GB/s"), parse_bandwidth("1GiBps")
    (50000000000.0, 50000000000.0, 1073741824.0)
    """
    number, unit = _split(text, "bandwidth", "400Gbps or 50GB/s")
    if unit == "" and isinstance(text, str) and 0 < float(number) < 1e6:
        raise ConfigError(f"bandwidth {text!r} has no unit, and bytes/s can hardly be meant", expected="Gbps, GB/s or GiBps")
    if unit == "":
        value = float(number)
    else:
        stem = unit.removesuffix("/s") if unit.endswith("/s") else unit.removesuffix("ps") if unit.endswith("ps") else None
        if stem is None or not stem.endswith(("b", "B", "bit")):
            near = [f"{number}{unit}bps", f"{number}{unit}B/s"] if unit in _PREFIX else []
            raise ConfigError(
                f"{text!r} has an unknown bandwidth unit {unit!r}", expected="Gbps, GB/s, GBps, GiB/s or GiBps", near=near
            )
        bits = not stem.endswith("B")
        factor = _PREFIX.get(stem.removesuffix("bit") if stem.endswith("bit") else stem[:-1])
        if factor is None:
            raise ConfigError(f"{text!r} has an unknown bandwidth unit {unit!r}", expected="Gbps, GB/s, GBps, GiB/s or GiBps")
        value = float(number) * factor / (8 if bits else 1)
    if not 0 < value < math.inf:
        raise ConfigError(
            f"bandwidth {text!r} must be positive", fix="A link that carries nothing is left out of the topology."
        )
    return value


def parse_time(text: str | int | float, default_unit: str = "ns") -> int:
    """Picoseconds of ``"500ns"``, ``"1.2us"``; a bare number is in ``default_unit``.

    >>> parse_time("500ns"), parse_time("0.5us"), parse_time(3)
    (500000, 500000, 3000)
    """
    number, unit = _split(text, "time", "500ns or 1.2us")
    factor = _TIME.get(unit or default_unit)
    if factor is None:
        raise ConfigError(f"{text!r} has an unknown time unit {unit!r}", expected="ps, ns, us, ms, s, min or h")
    return _bounded(_exact(number, factor), f"time {text!r}")


def parse_flops(text: str | int | float) -> float:
    """Floating-point operations per second of ``"989TFLOPS"`` or ``"100T"``; a bare number is FLOP/s."""
    number, unit = _split(text, "compute rate", "989TFLOPS")
    factor = _PREFIX.get(re.sub(r"(?i)flop(/s|s)?$", "", unit).strip())
    if factor is None:
        raise ConfigError(f"{text!r} has an unknown compute unit {unit!r}", expected="GFLOPS, TFLOPS or PFLOPS")
    value = float(number) * factor
    if not 0 < value < math.inf:
        raise ConfigError(f"compute rate {text!r} must be positive")
    return value


def format_time(ps: int | float) -> str:
    """Four significant digits in the unit that a person would say: ``812.4 ms``.

    >>> format_time(812_400_000_000), format_time(0), format_time(1500)
    ('812.4 ms', '0 s', '1.5 ns')
    """
    if ps == 0:
        return "0 s"
    for unit, factor in (("s", PS_PER_S), ("ms", PS_PER_MS), ("us", PS_PER_US), ("ns", PS_PER_NS)):
        if abs(ps) >= factor:
            return f"{ps / factor:,.4g} {unit}" if abs(ps) < 1000 * factor else f"{ps / factor:,.0f} {unit}"
    return f"{ps:g} ps"


def _scaled(value: float, step: int, units: tuple[str, ...]) -> str:
    at = 0
    while abs(value) >= step and at < len(units) - 1:
        value /= step
        at += 1
    return f"{value:.4g} {units[at]}"


def format_size(size: int | float) -> str:
    """``64 MiB``: powers of 1024, four significant digits."""
    return _scaled(float(size), 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"))


def format_bandwidth(rate: float) -> str:
    """``50 GB/s``: powers of 1000, four significant digits."""
    return _scaled(float(rate), 1000, ("B/s", "KB/s", "MB/s", "GB/s", "TB/s", "PB/s"))
