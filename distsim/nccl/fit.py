"""Fitting factors to measurements: relative errors, few parameters, close to the defaults where the data say little.

One fit per algorithm and protocol, over all operations, ranks and sizes at once: minimise the mean relative error of
``parts x factors`` (least absolute deviations, by re-weighted least squares) with factors >= 0, plus a pull towards the
defaults of the generation that weighs as much as a fraction of one point. Only numpy is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError
from distsim.nccl.model import Calibration, Factors, chosen, default_factors, time_us
from distsim.nccl.shape import shape
from distsim.nccl.system import System

#: base, intra, inter, transfer, ramp in us
Parts = tuple[float, float, float, float, float]
#: weight of the pull towards the defaults, in points
PULL = 0.003
#: residuals below this share are not told apart (timing noise; keeps the weights finite)
_NOISE = 0.02
_ROUNDS = 15
#: parts of a cross-validation
FOLDS = 10
#: which parts may be positive: every choice but all
_SUBSETS = [np.flatnonzero([mask >> part & 1 for part in range(5)]) for mask in range(1, (1 << 5) - 1)]
#: fewest distinct (operation, ranks, size) points that a system is fitted to
FEWEST = 8


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured collective: nBytes as NCCL counts them, on a system, and its time in us."""

    operation: str
    size: int
    system: System
    time_us: float


def fit(samples: Sequence[Sample], *, pull: float = PULL) -> Calibration:
    """Factors of one system.

    Raises: ConfigError on samples of several GPUs, of one and of several nodes at once, or on too few of them.
    """
    first = _one_system(samples)
    groups: dict[tuple[str, str], tuple[list[Parts], list[float]]] = {}
    known: dict[tuple[str, int, System], tuple[str, str, Parts]] = {}
    for sample in samples:
        # NOTE: measurements repeat points; the model is asked once for each
        key = (sample.operation, sample.size, sample.system)
        if key not in known:
            at = chosen(*key)
            known[key] = at.algorithm, at.protocol, shape(key[0], at.algorithm, at.protocol, *key[1:]).parts()
        algorithm, protocol, parts = known[key]
        columns, measured = groups.setdefault((algorithm, protocol), ([], []))
        columns.append(parts)
        measured.append(sample.time_us)
    found = []
    for (algorithm, protocol), (columns, measured) in sorted(groups.items()):
        relative = np.array(columns) / np.array(measured)[:, None]
        found.append((algorithm, protocol, _factors(relative, first, algorithm, pull)))
    return Calibration(first.gpu, first.nodes > 1, tuple(found))


def _one_system(samples: Sequence[Sample]) -> System:
    points = {(one.operation, one.size, one.system.ranks) for one in samples}
    if len(points) < FEWEST:
        raise ConfigError(
            f"{len(points)} distinct points are too few for a fit", where="calibrate nccl", expected=f"at least {FEWEST}",
            fix="Measure more sizes: -b 1K -e 1G -f 2.",
        )  # fmt: skip
    systems = {(one.system.gpu, one.system.nodes > 1) for one in samples}
    if len(systems) > 1:
        listed = ", ".join(f"{gpu} on {'several nodes' if many else 'one node'}" for gpu, many in sorted(systems))
        raise ConfigError(f"the measurements are of several systems: {listed}", where="calibrate nccl", expected="one",
                          fix="Pick one with --system, or calibrate each on its own.")  # fmt: skip
    return samples[0].system


def _factors(relative: NDArray[np.float64], system: System, algorithm: str, pull: float) -> Factors:
    """Non-negative factors that bring ``relative @ factors`` near one; parts that the data do not have keep their default."""
    default = np.array(default_factors(system, algorithm))
    scale = np.where(default > 0, default, system.generation.transfer)
    columns = relative * scale  # unknowns in units of the defaults
    target = (default > 0).astype(float)
    weights = np.ones(len(columns))
    unknown = target.copy()
    for _ in range(_ROUNDS):
        gram = (columns * weights[:, None]).T @ columns + pull * np.eye(len(target))
        right = (columns * weights[:, None]).sum(axis=0) + pull * target
        unknown = _non_negative(gram, right)
        weights = 1 / np.maximum(np.abs(columns @ unknown - 1), _NOISE)
        weights /= weights.mean()
    return Factors(*(float(value) for value in unknown * scale))


def _non_negative(gram: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minimiser of x'Gx/2 - r'x over x >= 0 (G positive definite): the best of all choices of which are zero."""
    free = np.asarray(np.linalg.solve(gram, right), dtype=np.float64)
    if (free >= 0).all():
        return free
    best, least = np.zeros(len(right)), 0.0
    for positive in _SUBSETS:
        value = np.linalg.solve(gram[np.ix_(positive, positive)], right[positive])
        gain = -float(right[positive] @ value) / 2
        if gain < least and (value >= 0).all():
            best, least = np.zeros(len(right)), gain
            best[positive] = value
    return best


def relative_errors(samples: Sequence[Sample], calibration: Calibration | None = None) -> NDArray[np.float64]:
    """(model - measured) / measured of every sample."""
    known: dict[tuple[str, int, System], float] = {}
    errors = np.empty(len(samples))
    for place, one in enumerate(samples):
        key = (one.operation, one.size, one.system)
        if key not in known:
            known[key] = time_us(*key, calibration)
        errors[place] = known[key] / one.time_us - 1
    return errors


def left_out_errors(
    samples: Sequence[Sample], rng: np.random.Generator, *, folds: int = FOLDS, pull: float = PULL
) -> NDArray[np.float64]:
    """Relative error of every sample under a fit that has not seen it.

    A fold leaves out whole points: all captures of one operation, size and number of ranks, so that no repetition of a point
    tells the fit about it.
    """
    _one_system(samples)
    points = sorted({(one.operation, one.size, one.system.ranks) for one in samples})
    fold_of = {point: number % folds for number, point in zip(rng.permutation(len(points)), points, strict=True)}
    fold = np.array([fold_of[one.operation, one.size, one.system.ranks] for one in samples])
    errors = np.empty(len(samples))
    for number in range(folds):
        out = fold == number
        if out.any():
            found = fit([one for one, left in zip(samples, out, strict=True) if not left], pull=pull)
            errors[out] = relative_errors([one for one, left in zip(samples, out, strict=True) if left], found)
    return errors
