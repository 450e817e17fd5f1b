"""Many lives of a job: means, how sure they are, and goodput against the checkpoint interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError
from distsim.goodput.daly import daly_goodput
from distsim.goodput.durations import DAY
from distsim.goodput.job import Job
from distsim.goodput.simulate import PARTS, simulate

#: failures, all runs together, beyond which a study is refused: about a minute
_MOST = 10_000_000

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean of the runs, its 95 % confidence interval, and the standard deviation from run to run."""

    mean: float
    low: float
    high: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What :func:`study` found.

    job: as it ran, with the interval settled. goodput: ideal time of the steps that were kept over the time that went by.
    effective: the same with the time that those steps took (with slow nodes and missing replicas). failures: per run.
    shares: mean share of the time by part (PARTS); they add up to 1. steps: kept, mean; ideal_steps: without any loss.
    daly: goodput by Daly's formula, for what it knows of.
    """

    job: Job
    horizon: float
    runs: int
    goodput: Estimate
    effective: Estimate
    failures: Estimate
    shares: dict[str, float]
    steps: float
    ideal_steps: float
    daly: float


def study(job: Job, horizon: float, *, runs: int = 100, seed: int = 0) -> Answer:
    """Simulate ``runs`` lives of ``horizon`` seconds. Run r draws from ``default_rng([seed, r])``: the same on every machine.

    Raises ConfigError where nothing can come of it: no runs, a horizon below one step, or more failures than can be run.
    """
    _feasible(job, horizon, runs)
    settled = job.settled()
    lives = [simulate(settled, horizon, np.random.default_rng([seed, run])) for run in range(runs)]
    parts = {part: np.array([getattr(life, part) for life in lives]) / horizon for part in PARTS}
    return Answer(
        job=settled,
        horizon=horizon,
        runs=runs,
        goodput=_estimate(parts["work"]),
        effective=_estimate(parts["work"] + parts["slow"] + parts["shrunk"]),
        failures=_estimate(np.array([float(life.failures) for life in lives])),
        shares={part: float(values.mean()) for part, values in parts.items()},
        steps=float(parts["work"].mean()) * horizon / job.step,
        ideal_steps=horizon / job.step,
        daly=expected(settled),
    )


def expected(job: Job) -> float:
    """Daly's goodput of a job whose interval is settled: no slow nodes, no shortage of nodes, exponential failures."""
    return daly_goodput(job.interval, job.checkpoint, job.mtbf, job.restart, job.detection, job.write)


def intervals_around(job: Job, count: int = 13, reach: float = 8.0) -> list[float]:
    """Checkpoint intervals (s) from ``1 / reach`` to ``reach`` times the job's own, evenly in ratio, each possible.

    >>> from distsim.goodput.job import Job
    >>> intervals_around(Job(step=1.0, nodes=1, mtbf=5000, checkpoint=1, restart=0, interval=100), 3)
    [12.0, 100.0, 800.0]
    """
    centre = job.settled().interval
    wanted = (centre * reach ** (2 * i / (count - 1) - 1) for i in range(count))
    return sorted({replace(job, interval=max(each, job.write, job.step)).settled().interval for each in wanted})


def curve(job: Job, horizon: float, intervals: Sequence[float], *, runs: int = 100, seed: int = 0) -> list[Answer]:
    """One study per interval, all with the same failures."""
    return [study(replace(job, interval=interval), horizon, runs=runs, seed=seed) for interval in intervals]


def _feasible(job: Job, horizon: float, runs: int) -> None:
    if runs < 1:
        raise ConfigError(f"{runs} runs", where="goodput", expected="1 or more")
    if not job.step <= horizon < math.inf:
        raise ConfigError(
            f"{horizon / DAY:g} days are no time to run steps of {job.step:g} s", where="goodput", expected="at least one step"
        )
    many = runs * horizon / job.mtbf
    if many > _MOST:
        raise ConfigError(
            f"{many:.3g} failures in all runs are more than can be simulated", where="goodput", expected=f"below {_MOST:,}",
            fix="Fewer days or runs, or check the unit of the time between failures.",
        )  # fmt: skip


def _estimate(values: NDArray[np.float64]) -> Estimate:
    """Of the mean, by Student's t (Cornish-Fisher from the normal: within 1 % from 5 runs on); one run says nothing of it."""
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return Estimate(mean, math.nan, math.nan, math.nan)
    deviation = float(values.std(ddof=1))
    z, free = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2), count - 1
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    half = t * deviation / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half, deviation)
