"""Arrivals whose rate follows the day: a Poisson process with a rate that depends on the time.

Without a profile the rate is ``qps * (1 + amplitude * cos(2 pi (t - peak) / period))``; with ``profile=3+2+2+5+9+7`` the period
is divided into that many even parts, whose rates are to each other as those numbers. ``qps`` is the mean over a period.
Drawn by thinning: candidates come at the highest rate, each stays with probability rate(t) / highest.

Source: Lewis and Shedler, "Simulation of nonhomogeneous Poisson processes by thinning" (1979).
"""

from __future__ import annotations

import math
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from distsim.errors import ConfigError
from distsim.params import SEPARATOR, Parameters
from distsim.registry import register
from distsim.serving.durations import Duration
from distsim.serving.requests.process import Rate, cut, done, needed
from distsim.units import PS_PER_S, parse_time

_LATEST_S = (1 << 62) / PS_PER_S
_FIRST, _LARGEST = 8192, 1 << 18  #: candidates drawn at a time


def _profile(text: str) -> str:
    try:
        values = [float(part) for part in text.split(SEPARATOR)]
    except ValueError:
        raise ValueError("a profile is numbers joined by +, such as 3+2+2+5+9+7") from None
    if not all(0 <= value < math.inf for value in values) or max(values) <= 0:
        raise ValueError("a profile is numbers from 0 on, not all 0")
    return text


@register("arrivals", "diurnal")
class Diurnal:
    """``diurnal:qps=4,amplitude=0.8,peak=14h``."""

    class Params(Parameters):
        """Of one stream."""

        qps: Rate | None = Field(None, description="requests per second, mean over a period")
        period: Duration = Field("24h", description="after which all repeats")
        amplitude: Annotated[float, Field(ge=0, le=1)] = Field(0.5, description="of the sinusoid, relative to the mean")
        peak: Duration = Field("14h", description="time of the highest rate; the run begins at 0")
        profile: Annotated[str, AfterValidator(_profile)] | None = Field(
            None, description="rates of even parts of the period, joined by +, instead of the sinusoid"
        )

        @model_validator(mode="after")
        def _fit(self) -> Self:
            if parse_time(self.period) <= 0:
                raise ValueError("the period must be positive")
            if self.profile is not None and self.model_fields_set & {"amplitude", "peak"}:
                raise ValueError("amplitude and peak are of the sinusoid, which the profile replaces")
            return self

    def __init__(self, params: Params) -> None:
        self.params = params
        self._period = parse_time(params.period) / PS_PER_S
        self._peak = parse_time(params.peak) / PS_PER_S
        self._levels: NDArray[np.float64] | None = None
        if params.profile is not None:
            levels = np.array([float(part) for part in params.profile.split(SEPARATOR)])
            self._levels = levels / levels.mean()

    @property
    def rate(self) -> float | None:
        """Mean over a period, requests/s."""
        return self.params.qps

    def at(self, qps: float) -> Self:
        """The same days, busier or quieter."""
        return type(self)(self.params.model_copy(update={"qps": qps}))

    def relative(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rate at these times over the mean rate."""
        if self._levels is None:
            return 1 + self.params.amplitude * np.cos((seconds - self._peak) * (2 * np.pi / self._period))
        part = (seconds % self._period) * (len(self._levels) / self._period)
        return self._levels[np.minimum(part.astype(np.int64), len(self._levels) - 1)]

    def times(self, n: int | None, until: int | None, rng: np.random.Generator) -> NDArray[np.int64]:
        """See ArrivalProcess."""
        highest = 1 + self.params.amplitude if self._levels is None else float(self._levels.max())
        gap = 1 / (needed(self.params.qps, "diurnal") * highest)
        candidates, chances = rng.spawn(2)  # NOTE: a stream each, so that the size of the batches changes nothing
        start, count, batch = 0.0, 0, _FIRST
        parts: list[NDArray[np.int64]] = []
        while not done(count, int(start * PS_PER_S), n, until, "diurnal"):
            seconds = start + np.cumsum(candidates.standard_exponential(batch)) * gap
            kept = seconds[chances.random(batch) * highest < self.relative(seconds)]
            start, batch = float(seconds[-1]), min(2 * batch, _LARGEST)
            kept = kept[kept < _LATEST_S]
            parts.append(np.rint(kept * PS_PER_S).astype(np.int64))
            count += len(kept)
            if start >= _LATEST_S and until is None and n is not None and count < n:
                raise ConfigError("arrivals go beyond 2^62 ps (53 days)", where="diurnal", fix="Raise the rate.")
        return cut(np.concatenate(parts) if parts else np.empty(0, np.int64), n, until)
