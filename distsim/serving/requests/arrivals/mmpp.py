"""A Markov-modulated Poisson process: bursts. The stream is Poisson at a rate that depends on a hidden state, which holds for
an exponential time and then gives way to the next (the last to the first).

``mmpp:qps=1+20,sojourn=60s+5s`` is quiet for a minute on average and busy for five seconds. Rate 0 makes an on-off source. The
long-run mean is sum(rate * sojourn) / sum(sojourn); ``at`` scales all rates and leaves the sojourns. The process begins in its
stationary state.

Source: Fischer and Meier-Hellstern, "The Markov-modulated Poisson process (MMPP) cookbook" (1993).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from distsim.errors import ConfigError
from distsim.params import SEPARATOR, Parameters
from distsim.registry import register
from distsim.serving.durations import Durations
from distsim.serving.requests.process import MOST, cut, done
from distsim.units import PS_PER_S, parse_time

_LATEST_S = (1 << 62) / PS_PER_S


def _rates(text: str) -> str:
    for part in text.split(SEPARATOR):
        try:
            rate = float(part)
        except ValueError:
            raise ValueError(f"{part!r} is no rate in requests/s") from None
        if not 0 <= rate <= 1e9:
            raise ValueError("rates are from 0 to 1e9 requests/s")
    return text


def _text(value: Any) -> Any:
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


@register("arrivals", "mmpp")
class MarkovModulated:
    """``mmpp:qps=1+20,sojourn=60s+5s``."""

    class Params(Parameters):
        """Of one stream; states in the order in which they follow each other."""

        qps: Annotated[str, BeforeValidator(_text), AfterValidator(_rates)] = Field(
            examples=["1+20"], description="requests per second in each state, joined by +"
        )
        sojourn: Durations = Field(examples=["60s+5s"], description="mean time in each state, joined by +")

        @model_validator(mode="after")
        def _fit(self) -> Self:
            rates, sojourns = self.rates(), self.sojourns()
            if len(rates) < 2 or len(rates) != len(sojourns):
                raise ValueError(f"{len(rates)} rates and {len(sojourns)} sojourns: two or more of each are needed")
            if min(sojourns) <= 0:
                raise ValueError("sojourns must be positive")
            if max(rates) <= 0:
                raise ValueError("no state has a rate")
            return self

        def rates(self) -> list[float]:
            """requests/s by state."""
            return [float(part) for part in self.qps.split(SEPARATOR)]

        def sojourns(self) -> list[float]:
            """Mean seconds by state."""
            return [parse_time(part) / PS_PER_S for part in self.sojourn.split(SEPARATOR)]

    def __init__(self, params: Params) -> None:
        self.params = params

    @property
    def rate(self) -> float | None:
        """Long-run mean, requests/s."""
        rates, sojourns = self.params.rates(), self.params.sojourns()
        return math.fsum(rate * time for rate, time in zip(rates, sojourns, strict=True)) / math.fsum(sojourns)

    def at(self, qps: float) -> Self:
        """All rates times one factor: bursts stay as long and as strong, relative to the mean."""
        mean = self.rate
        assert mean is not None
        scaled = SEPARATOR.join(repr(rate * qps / mean) for rate in self.params.rates()).replace("e+", "e")
        return type(self)(self.params.model_copy(update={"qps": scaled}))

    def times(self, n: int | None, until: int | None, rng: np.random.Generator) -> NDArray[np.int64]:
        """See ArrivalProcess.

        Arrivals of a Poisson process of rate 1, in whose time the hidden state's rate has been integrated; so the states do not
        depend on the load, nor what is drawn on how much is asked for.
        """
        states, arrivals = rng.spawn(2)
        done(0, 0, n, until, "mmpp")
        drawn = np.empty(0) if n is None else np.cumsum(arrivals.standard_exponential(n))
        if n == 0:
            return np.empty(0, np.int64)
        begin, rate, passed = self._segments(None if n is None else float(drawn[-1]), until, states)
        whole = float(passed[-1])
        while n is None and (not len(drawn) or drawn[-1] < whole):
            done(len(drawn), 0, n, until, "mmpp")
            more = arrivals.standard_exponential(max(1024, len(drawn)))
            more[0] += drawn[-1] if len(drawn) else 0.0  # NOTE: before summing: the same sum, to the last bit, as of one draw
            drawn = np.concatenate((drawn, np.cumsum(more)))
        drawn = drawn[: int(np.searchsorted(drawn, whole))]
        at = np.searchsorted(passed[1:], drawn)  # NOTE: the first stretch that reaches it, so never one of rate 0
        seconds = begin[at] + (drawn - passed[at]) / rate[at]
        return cut(np.rint(seconds * PS_PER_S).astype(np.int64), n, until)

    def _segments(
        self, passed: float | None, until: int | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Sojourns until ``passed`` arrivals are expected or ``until`` is reached: (begin in seconds, rate) of each, and the
        arrivals expected before each and at the end."""
        rates, sojourns = np.array(self.params.rates()), np.array(self.params.sojourns())
        first = int(np.searchsorted(np.cumsum(sojourns) / sojourns.sum(), rng.random(), side="right")) % len(rates)
        end = _LATEST_S if until is None else until / PS_PER_S
        lasting = np.empty(0)
        while True:
            lasting = np.concatenate((lasting, rng.standard_exponential(max(1024, len(lasting)))))
            state = (first + np.arange(len(lasting))) % len(rates)
            ends = np.cumsum(lasting * sojourns[state])
            expected = np.cumsum(lasting * sojourns[state] * rates[state])
            if (passed is not None and expected[-1] > passed) or ends[-1] >= end:
                break
            if len(lasting) > MOST:
                raise ConfigError(
                    f"more than {MOST:,} changes of state", where="mmpp", fix="Lengthen the sojourns or ask for less."
                )
        kept = int(np.searchsorted(ends, end))  # sojourns that are over before the end
        if until is None and kept < len(ends) and passed is not None and (expected[kept - 1] if kept else 0.0) < passed:
            raise ConfigError("arrivals go beyond 2^62 ps (53 days)", where="mmpp", fix="Raise the rates or ask for fewer.")
        begin = np.concatenate(([0.0], ends[:-1]))[: kept + 1]
        rate = rates[state][: kept + 1]
        return begin, rate, np.concatenate(([0.0], expected[: kept + 1]))
