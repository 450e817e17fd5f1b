"""The highest load that a service bears: loads are bracketed and bisected, once per seed.

A *run* tells of a load and a seed whether the service bears it. The first seed starts from what the service does with all
requests at once, later ones from a narrow bracket round the first answer, which widens where it has to. Loads that one seed
puts on the service differ in nothing but the scale of the gaps between arrivals, so that the border is sharp for a seed; how
it moves from seed to seed is what the interval tells.

A service that is overtaxed hides it in a finite run: its last requests wait, and then there are no more. So a load passes only
if, beside the objective, few requests wait for admission when the last one arrives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from distsim.errors import ConfigError

#: 97.5th percentile of Student's t with 1, 2 ... degrees of freedom (any statistics textbook); beyond them Fisher's expansion
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_Z = 1.959964  #: of the normal law
#: of what a service does with all requests at once: the first load to try
_FIRST = 0.8
_RATIO = 1.5  #: between the first loads of the first seed
_NARROW = 3.0  #: later seeds: the first step, in tolerances
_WIDEST = 2.0  #: largest ratio between one load and the next

Progress = Callable[[float | None, str], None]


@dataclass(frozen=True, slots=True)
class Trial:
    """One load, of one seed, put on a service. Times in ps, nan where nothing was served.

    passed: the service bears it. kept: share of the requests within the objective, 1 without one. behind: requests that waited
    for admission when the last one arrived, or were turned away because of the load; most_behind: how many may. worst: what is
    nearest to its bound, or furthest beyond it, such as ``P99 TTFT``; values: by such name (value, bound). by: what limits the
    service there (distsim.analysis.serving_limit). throughput: requests/s over the whole run.
    """

    load: float
    seed: int
    passed: bool
    kept: float = 1.0
    behind: int = 0
    most_behind: int = 0
    requests: int = 0
    throughput: float = math.nan
    output_tokens: float = math.nan  #: per second, in the steady window
    mean_output: float = math.nan
    latency: float = math.nan  #: mean
    span: float = 0.0  #: seconds from the first arrival to the last
    percentiles: Mapping[str, float] = field(default_factory=dict)  #: ``ttft_p50_ps`` ...
    worst: str = ""
    values: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    by: str = ""
    gpus: float = 0.0
    drops: Mapping[str, int] = field(default_factory=dict)  #: requests that were dropped, by reason


Run = Callable[[float, int], Trial]


@dataclass(frozen=True, slots=True)
class Border:
    """Of one seed: the highest load that passed, None where none did, and the lowest above it that did not."""

    seed: int
    passing: Trial | None
    failing: Trial


@dataclass(frozen=True, slots=True)
class Capacity:
    """In requests/s. mean: of the seeds' highest passing loads. low, high: 95 % interval for the mean over seeds, the
    resolution of the search included; None with one seed. borders: by seed, none where not even an idle service passes."""

    mean: float
    low: float | None
    high: float | None
    borders: tuple[Border, ...]
    idle: Trial  #: one request at a time
    trials: tuple[Trial, ...]  #: in the order in which they ran
    tolerance: float

    @property
    def border(self) -> Border | None:
        """That of the first seed."""
        return self.borders[0] if self.borders else None

    @property
    def typical(self) -> Trial:
        """A run at the capacity: of the seed whose border is nearest to the mean; the idle one where no load passes."""
        found = [border.passing for border in self.borders if border.passing is not None]
        return min(found, key=lambda trial: (abs(trial.load - self.mean), trial.seed), default=self.idle)

    @property
    def limited_by(self) -> str:
        """``P99 TPOT (compute)``: of the first seed's lowest load that fails; of the idle service where that fails."""
        trial = self.idle if self.border is None else self.border.failing
        return f"{trial.worst} ({trial.by})" if trial.by else trial.worst


def capacity(
    run: Run, idle: Trial, floor: float, ceiling: float, seeds: Sequence[int], tolerance: float,
    say: Progress = lambda fraction, what: None,
) -> Capacity:  # fmt: skip
    """Search.

    Args:
        run: of a load in [floor, ceiling] and a seed.
        idle: the service with one request at a time; if that does not pass, no load does.
        floor: below it no load is tried; ceiling: at it all requests arrive as good as at once.
        seeds: at least one; tolerance: ratio of the failing load over the passing one, less one.

    Raises: ConfigError where the service bears the ceiling, so that no load is too high.
    """
    if not idle.passed:
        return Capacity(0.0, None, None, (), idle, (idle,), tolerance)
    trials: list[Trial] = []
    borders: list[Border] = []

    def tried(seed: int) -> Callable[[float], Trial]:
        def one(load: float) -> Trial:
            place = f"seed {len(borders) + 1} of {len(seeds)}"
            said = "all requests at once" if load == ceiling else f"{load:.4g} requests/s"
            say(None, f"{place}, run {len(trials) + 1}: {said}")
            trials.append(run(load, seed))
            return trials[-1]

        return one

    burst = tried(seeds[0])(ceiling)
    if burst.passed:
        raise _unbounded(burst)
    start, ratio = _FIRST * burst.throughput if burst.throughput > 0 else math.sqrt(floor * ceiling), _RATIO
    for seed in seeds:
        borders.append(_border(tried(seed), seed, start, ratio, floor, ceiling, tolerance))
        first = borders[0].passing
        if first is not None:
            start, ratio = first.load, 1 + _NARROW * tolerance
    mean, low, high = _interval(borders)
    return Capacity(mean, low, high, tuple(borders), idle, (idle, *trials), tolerance)


def _border(
    run: Callable[[float], Trial], seed: int, start: float, ratio: float, floor: float, ceiling: float, tolerance: float
) -> Border:
    """Between a load that passes and one that fails, at most ``tolerance`` apart. It ends: every step before that is by a
    factor, within [floor, ceiling]; every one after it halves the (logarithmic) gap."""
    low: Trial | None = None
    high: Trial | None = None
    at = _rounded(min(max(start, floor), ceiling))
    while low is None or high is None:
        trial = run(at)
        if trial.passed:
            low = trial
            if at >= ceiling:
                raise _unbounded(trial)
            at = min(_rounded(at * ratio), ceiling)
        else:
            high = trial
            if at <= floor:
                return Border(seed, None, high)
            at = max(_rounded(at / ratio), floor)
        ratio = min(ratio * ratio, _WIDEST)
    while high.load > low.load * (1 + tolerance):
        middle = _rounded(math.sqrt(low.load * high.load))
        if not low.load < middle < high.load:
            break
        trial = run(middle)
        low, high = (trial, high) if trial.passed else (low, trial)
    return Border(seed, low, high)


def _rounded(load: float) -> float:
    """To six digits: a load that one can write down, and run again."""
    return float(f"{load:.6g}")


def _unbounded(trial: Trial) -> ConfigError:
    return ConfigError(
        f"no load is too high: even {trial.requests:,} requests at once pass", where="capacity",
        fix="Take more requests (--n), or an objective (--slo ttft=2s).",
    )  # fmt: skip


def _interval(borders: Sequence[Border]) -> tuple[float, float | None, float | None]:
    """Mean of the passing loads; the t-interval of the seeds from the passing loads down and from the failing ones up."""
    passing = [border.passing.load if border.passing is not None else 0.0 for border in borders]
    failing = [border.failing.load for border in borders]
    mean = sum(passing) / len(passing)
    if len(borders) < 2:
        return mean, None, None
    return mean, max(0.0, mean - _half(passing)), sum(failing) / len(failing) + _half(failing)


def _half(values: Sequence[float]) -> float:
    """Half of the 95 % interval for the mean of normal values."""
    count = len(values)
    mean = sum(values) / count
    return student(count - 1) * math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)


def student(freedom: int) -> float:
    """97.5th percentile of Student's t. Beyond ten degrees of freedom by the first terms of the expansion in 1/freedom
    (Abramowitz and Stegun, 26.7.5), good to three digits.

    >>> student(2), round(student(30), 3)
    (4.303, 2.042)
    """
    if freedom <= len(_T):
        return _T[freedom - 1]
    z, n = _Z, freedom
    terms = (z, (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return math.fsum(term / float(n) ** power for power, term in enumerate(terms))
