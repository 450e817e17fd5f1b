"""What arrival processes have in common: an open loop of times, drawn from a seeded generator.

A process draws its numbers in order, so that the first k arrivals are the same however many are asked for; and rates only
scale what was drawn, so that loads compared under one seed differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distsim.errors import ConfigError
from distsim.units import PS_PER_S

#: requests per second; a mean gap of at least 1 ns, so that picoseconds resolve it
Rate = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
#: requests that one process may draw: more is a slip in the rate or the duration
MOST = 50_000_000
_FIRST, _LARGEST = 1024, 1 << 18
_LATEST = float(1 << 62)


class ArrivalProcess(Protocol):
    """The role ``arrivals``; made from its ``Params``."""

    @property
    def rate(self) -> float | None:
        """Mean requests/s in the long run; None where the spec does not say (or where there is none, as in ``static``)."""
        ...

    def at(self, qps: float) -> Self:
        """The same process at another mean rate. Raises ConfigError where it has none."""
        ...

    def times(self, n: int | None, until: int | None, rng: np.random.Generator) -> NDArray[np.int64]:
        """The first ``n`` arrivals, those before ``until`` ps, or, with both, whatever ends first; ps, ascending.

        Raises ConfigError where neither is given, the rate is missing, or a time is beyond 2^62 ps.
        """
        ...


def needed(qps: float | None, name: str) -> float:
    """The rate. Raises ConfigError where there is none."""
    if qps is None:
        raise ConfigError("the process has no rate", where=name, expected=f"qps, such as {name}:qps=4 or --qps 4")
    return qps


def renewal(gaps: Callable[[int], NDArray[np.float64]], n: int | None, until: int | None, name: str) -> NDArray[np.int64]:
    """Arrivals after independent gaps, of which ``gaps(k)`` draws the next k, in seconds; the first comes after a gap.

    NOTE: each gap is rounded to ps and the sum is of whole numbers, so that no digit is lost late in a long run.
    """
    block = n if n is not None and until is None else _FIRST
    parts: list[NDArray[np.int64]] = []
    last, count = 0, 0
    while not done(count, last, n, until, name):
        drawn = np.rint(gaps(block) * PS_PER_S)
        if last + float(drawn.sum()) >= _LATEST:
            # only a tail beyond the clock may be cut off, and only where the end is before it
            drawn = drawn[: int(np.searchsorted(np.cumsum(drawn) + last, _LATEST))]
            if until is None or not len(drawn) or last + float(drawn.sum()) < until:
                raise ConfigError("arrivals go beyond 2^62 ps (53 days)", where=name, fix="Raise the rate or ask for fewer.")
        times = last + np.cumsum(drawn.astype(np.int64))
        parts.append(times)
        count, last = count + len(times), int(times[-1])
        block = min(2 * block, _LARGEST)
    return cut(np.concatenate(parts) if parts else np.empty(0, np.int64), n, until)


def done(count: int, last: int, n: int | None, until: int | None, name: str) -> bool:
    """Whether ``count`` arrivals up to ``last`` ps suffice. Raises ConfigError where no end is set or there are too many."""
    if n is None and until is None:
        raise ConfigError("nothing says how many requests there are", where=name, expected="a number or a duration")
    if max(count, n or 0) > MOST:
        raise ConfigError(f"more than {MOST:,} requests", where=name, fix="Lower the rate, the number or the duration.")
    return (n is not None and count >= n) or (until is not None and last >= until)


def cut(times: NDArray[np.int64], n: int | None, until: int | None) -> NDArray[np.int64]:
    """What is asked for, of ascending times."""
    if until is not None:
        times = times[: int(np.searchsorted(times, until))]
    return times if n is None else times[:n]
