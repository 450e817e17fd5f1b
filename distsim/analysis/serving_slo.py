"""A service-level objective: bounds on what a request may take, and the share of requests that has to keep them.

Goodput under an objective is the rate of requests that keep all of its bounds (Zhong et al., DistServe, OSDI 2024, which
calls the share that keeps them its attainment). A request that was dropped, or never finished, keeps none.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError
from distsim.serving.durations import timed
from distsim.serving.result import RequestColumns
from distsim.units import format_time

#: bounds by name: what they bound
BOUNDS = {
    "ttft": "time from arrival to the first token",
    "tpot": "mean time per token after the first",
    "latency": "time from arrival to the last token",
    "queueing": "time from arrival to the first iteration",
}
#: percent of requests that have to keep the bounds where nothing else is said
PERCENTILE = 99.0
#: the least that is taken: what is smaller is a share given for a percent, and any service would keep it
LEAST = 50.0


@dataclass(frozen=True, slots=True)
class Slo:
    """Bounds in ps, None for no bound. percentile: percent of requests that have to keep them; text gives 50 to 100."""

    ttft: int | None = None
    tpot: int | None = None
    latency: int | None = None
    queueing: int | None = None
    percentile: float = PERCENTILE

    @classmethod
    def parse(cls, text: str) -> Slo:
        """Of ``ttft=2s,tpot=50ms,percentile=99``. Raises ConfigError: no bound, an unknown one, a value that is no time, a
        percentile below 50.

        >>> Slo.parse("ttft=2s,tpot=50ms").tpot
        50000000000
        """
        bounds: dict[str, int] = {}
        percentile = PERCENTILE
        for item in filter(None, (part.strip() for part in text.split(","))):
            key, equals, value = (part.strip() for part in item.partition("="))
            known = (*BOUNDS, "percentile")
            if not equals or key not in known:
                near = difflib.get_close_matches(key, known, n=2, cutoff=0.5)
                raise ConfigError(
                    f"{item!r} is no objective", where="--slo", near=near, expected="ttft=2s,tpot=50ms,percentile=99"
                )
            if key in bounds:
                raise ConfigError(f"{key!r} is given twice", where="--slo")
            if key == "percentile":
                percentile = _percentile(value)
                continue
            try:
                bounds[key] = timed(value)
            except ConfigError as error:
                raise ConfigError(error.what, where=f"--slo {key}", expected="something like 2s or 50ms") from None
        if not bounds:
            raise ConfigError(f"{text!r} bounds nothing", where="--slo", expected="ttft=2s,tpot=50ms,percentile=99")
        return cls(**bounds, percentile=percentile)

    def __str__(self) -> str:
        said = [f"{name} {format_time(bound)}" for name in BOUNDS if (bound := getattr(self, name)) is not None]
        return f"{', '.join(said)} for {self.percentile:g} %"

    def kept(self, requests: RequestColumns) -> NDArray[np.bool_]:
        """By row: finished, within every bound."""
        good = requests.done.copy()
        values = {
            "ttft": requests.ttft, "tpot": requests.tpot, "latency": requests.latency,
            "queueing": requests.scheduled - requests.arrival,
        }  # fmt: skip
        for name, column in values.items():
            bound = getattr(self, name)
            if bound is not None:
                good &= column <= bound
        return np.asarray(good)


def _percentile(text: str) -> float:
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = 0.0
    if not LEAST <= value <= 100:
        meant = f" Did you mean {100 * value if LEAST <= 100 * value < 100 else PERCENTILE:g}?" if 0 < value < LEAST else ""
        raise ConfigError(
            f"{text!r} is no share of requests in percent", where="--slo percentile",
            expected=f"{LEAST:g} to 100", fix=meant.strip(),
        )  # fmt: skip
    return value
