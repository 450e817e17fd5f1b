"""Fits of the tile/wave model to measured GEMMs, and their error on weight shapes that they have not seen."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.cost.fit.boosting import Boosted, boost
from distsim.cost.fit.least import least_deviations
from distsim.cost.kernel import WIDTH
from distsim.cost.kernels.fits import Fit
from distsim.cost.kernels.hybrid import features, predict
from distsim.cost.kernels.pnorm import PnormParameters
from distsim.cost.kernels.pnorm import times as pnorm_times
from distsim.cost.kernels.tile_wave import TileWaveParameters, evaluate
from distsim.errors import ConfigError
from distsim.hardware.gpu import Gpu

Array = NDArray[np.float64]
Shapes = NDArray[np.int64]

#: fewest distinct shapes that a GPU is fitted to
FEWEST = 40
FOLDS = 5
#: pull of each parameter towards the prior, in mean relative error, times rows: a prior's spread of about 1 against errors of
#: about 10 % on every row
PULL = 0.05
_FEW = 1000  #: rows that a large fit begins on
_REPEATED = 1000  #: evaluations of a fit, about
#: quantising starts at this share of memory bandwidth where the prior knows of none
_QUANTISE = 0.5


@dataclass(frozen=True, slots=True)
class Gemms:
    """Measured GEMMs of one GPU and data type: shapes (n, 3) rows of m, n, k, and seconds."""

    gpu: Gpu
    dtype: str
    shapes: Shapes
    seconds: Array

    def only(self, rows: NDArray[np.bool_]) -> Gemms:
        """Some of the rows."""
        return Gemms(self.gpu, self.dtype, self.shapes[rows], self.seconds[rows])


def fold_of(shapes: Shapes, folds: int = FOLDS) -> NDArray[np.int64]:
    """Fold of every row by a hash of (n, k): all rows of a weight matrix are left out together, whatever else is there.

    The hash is the finaliser of splitmix64 (Steele, Lea, Flood, 2014).
    """
    mixed: NDArray[np.uint64] = shapes[:, 1].astype(np.uint64) << np.uint64(32) | shapes[:, 2].astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed % np.uint64(folds)).astype(np.int64)


def fit(gemms: Gemms, prior: TileWaveParameters, *, rounds: int = 40) -> TileWaveParameters:
    """Parameters that minimise the mean absolute log error, near the prior where the rows say little."""
    start = prior.vector
    # NOTE: kernels below 16 bits are measured with the quantisation of x, unless the prior is a fit that says otherwise
    if gemms.dtype in ("fp8", "fp6", "fp4", "int8") and len(start) == 11:
        start = np.append(start, np.log(_QUANTISE))
    if gemms.dtype not in ("fp8", "fp6", "fp4", "int8"):
        start = start[:11]
    begin = start
    if len(gemms.seconds) > 2 * _FEW:
        # NOTE: most of the way on some of the rows, for speed
        some = np.zeros(len(gemms.seconds), dtype=np.bool_)
        some[:: len(some) // _FEW] = True
        begin = fit(gemms.only(some), prior, rounds=rounds).vector
    measured = np.log(gemms.seconds)

    def residuals(vector: Array) -> Array:
        found = evaluate(gemms.shapes, gemms.gpu, gemms.dtype, TileWaveParameters.of(vector), repeated=_REPEATED)
        return np.asarray(np.log(found[:, 0]) - measured)

    pull = np.full(len(start), PULL / len(measured))
    best, _ = least_deviations(residuals, begin, prior=start, pull=pull, rounds=rounds)
    return TileWaveParameters.of(best)


def relative_errors(gemms: Gemms, parameters: TileWaveParameters) -> Array:
    """(model - measured) / measured of every row."""
    return np.asarray(evaluate(gemms.shapes, gemms.gpu, gemms.dtype, parameters)[:, 0] / gemms.seconds - 1)


def left_out_errors(gemms: Gemms, prior: TileWaveParameters, *, rounds: int = 40) -> Array:
    """Relative error of every row under a fit that has seen no row of its (n, k)."""
    fold = fold_of(gemms.shapes)
    errors = np.full(len(fold), np.nan)
    for number in range(FOLDS):
        out = fold == number
        if out.any() and not out.all():
            errors[out] = relative_errors(gemms.only(out), fit(gemms.only(~out), prior, rounds=rounds))
    # NOTE: with a single weight shape there is nothing to leave out whole
    return np.asarray(errors[~np.isnan(errors)])


def calibrated(gemms: Gemms, prior: TileWaveParameters, errors: Array | None = None) -> tuple[Fit, Array]:
    """The fit to all rows, with the error of left-out ones; and those errors (given where they are known already).

    Raises: ConfigError on fewer than FEWEST distinct shapes, or where they are all of one fold.
    """
    distinct = len(np.unique(gemms.shapes, axis=0))
    if distinct < FEWEST:
        raise ConfigError(
            f"{distinct} distinct shapes are too few for a fit of {gemms.gpu.name}, {gemms.dtype}", where="calibrate compute",
            expected=f"at least {FEWEST}",
            fix="Measure more: m of 1 to 16384 on the weight shapes (n, k) of a few models.",
        )  # fmt: skip
    errors = left_out_errors(gemms, prior) if errors is None else errors
    if not len(errors):
        raise ConfigError("all rows are of one weight shape (n, k), so none can be left out", where="calibrate compute",
                          expected="several (n, k)")  # fmt: skip
    found = fit(gemms, prior)
    parameters = {name: float(f"{value:.6g}") for name, value in asdict(found).items() if value}
    fitted = Fit(
        gpu=gemms.gpu.name, dtype=gemms.dtype, error=round(float(np.abs(errors).mean()), 4), rows=len(gemms.seconds),
        parameters=parameters,
    )  # fmt: skip
    return fitted, errors


def learn(gemms: Gemms, parameters: TileWaveParameters, rng: np.random.Generator) -> Boosted:
    """A learner of what the parameters leave unexplained."""
    time, seen = features(gemms.shapes, gemms.gpu, gemms.dtype, parameters)
    return boost(seen, np.log(gemms.seconds / time), rng)


def left_out_both(gemms: Gemms, prior: TileWaveParameters, seed: int = 0) -> tuple[Array, Array]:
    """Relative errors of tile/wave and of the hybrid, every row under fits that have seen no row of its (n, k)."""
    fold = fold_of(gemms.shapes)
    plain, hybrid = np.full(len(fold), np.nan), np.full(len(fold), np.nan)
    for number in range(FOLDS):
        out = fold == number
        if out.any() and not out.all():
            seen = gemms.only(~out)
            parameters = fit(seen, prior)
            learner = learn(seen, parameters, np.random.default_rng(seed))
            left = gemms.only(out)
            plain[out] = relative_errors(left, parameters)
            hybrid[out] = predict(left.shapes, left.gpu, left.dtype, parameters, learner) / left.seconds - 1
    return plain[~np.isnan(plain)], hybrid[~np.isnan(hybrid)]


def fit_pnorm(gemms: Gemms, prior: PnormParameters) -> PnormParameters:
    """Parameters of the p-norm roofline; see :func:`fit`."""
    flops, moved = work(gemms)
    measured = np.log(gemms.seconds)

    def residuals(vector: Array) -> Array:
        found = pnorm_times(flops, moved, gemms.gpu, gemms.dtype, PnormParameters.of(vector))
        return np.asarray(np.log(found) - measured)

    start = prior.vector
    best, _ = least_deviations(residuals, start, prior=start, pull=np.full(len(start), PULL / len(measured)))
    return PnormParameters.of(best)


def pnorm_errors(gemms: Gemms, parameters: PnormParameters) -> Array:
    """(model - measured) / measured of every row."""
    return pnorm_times(*work(gemms), gemms.gpu, gemms.dtype, parameters) / gemms.seconds - 1


def work(gemms: Gemms) -> tuple[Array, Array]:
    """FLOP and bytes of every row, each operand once."""
    m, n, k = gemms.shapes.T.astype(np.float64)
    return 2 * m * n * k, WIDTH[gemms.dtype] * (m * k + k * n) + 2.0 * m * n
