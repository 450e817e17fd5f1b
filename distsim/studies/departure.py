"""Where one curve leaves another: at which x two answers lie further apart than a tolerance, interpolated between points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Departure:
    """Stretches of x in which |error| exceeds the tolerance, ascending; of the range that was looked at, low to high."""

    low: float
    high: float
    stretches: tuple[tuple[float, float], ...]

    @property
    def words(self) -> str:
        """``never``, ``always``, ``below 1.7``, ``above 3``, ``from 0.8 to 1.7``, or several of these."""
        if not self.stretches:
            return "never"
        said = []
        for begin, end in self.stretches:
            if begin <= self.low and end >= self.high:
                return "always"
            if begin <= self.low:
                said.append(f"below {end:.3g}")
            elif end >= self.high:
                said.append(f"above {begin:.3g}")
            else:
                said.append(f"from {begin:.3g} to {end:.3g}")
        return " and ".join(said)

    @property
    def highest(self) -> float | None:
        """The greatest x at which the tolerance is exceeded; None where it never is. Infinite: at the end of the range."""
        if not self.stretches:
            return None
        return math.inf if self.stretches[-1][1] >= self.high else self.stretches[-1][1]


def departure(x: Sequence[float], error: Sequence[float], tolerance: float) -> Departure:
    """Stretches in which |error| is above the tolerance. Between points the error is linear in the logarithm of x.

    Args:
        x: positive; points of equal x count as one, of the largest |error|.
        error: signed, relative.

    >>> departure([1, 10, 100], [0.2, 0.0, 0.0], 0.1).words
    'below 3.16'
    """
    at: dict[float, float] = {}
    for place, value in zip(x, error, strict=True):
        if abs(value) >= abs(at.get(place, 0.0)):
            at[place] = value
    places = sorted(at)
    logs = [math.log(place) for place in places]
    found: list[tuple[float, float]] = []
    for k, place in enumerate(places):
        if abs(at[place]) > tolerance:
            begin = places[k] if k == 0 else math.exp(_inward(logs[k], at[place], logs[k - 1], at[places[k - 1]], tolerance))
            last = k == len(places) - 1
            end = place if last else math.exp(_inward(logs[k], at[place], logs[k + 1], at[places[k + 1]], tolerance))
            if found and begin <= found[-1][1] * (1 + 1e-12):
                found[-1] = found[-1][0], end
            else:
                found.append((begin, end))
    return Departure(places[0] if places else math.nan, places[-1] if places else math.nan, tuple(found))


def _inward(here: float, mine: float, there: float, other: float, tolerance: float) -> float:
    """From a point that exceeds the tolerance to its neighbour: where the line comes within it; the neighbour, if nowhere."""
    bound = math.copysign(tolerance, mine)
    if (other - bound) * (mine - bound) > 0:
        return there
    return here + (there - here) * (mine - bound) / (mine - other)
