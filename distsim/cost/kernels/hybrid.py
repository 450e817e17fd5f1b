"""GEMMs by the tile/wave model times a learned residual, where a calibration brings a learner. Never needed by default.

The learner sees the shape and the terms of the tile/wave model, and corrects the time by at most a factor of e. It knows one
GPU and data type, and only the ranges it was trained on: outside of them, and on any other GPU, the provider says None.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distsim.cost.fit.boosting import Boosted
from distsim.cost.kernel import WIDTH, Answer, Kernel
from distsim.cost.kernels.fits import Fit
from distsim.cost.kernels.tile_wave import TileWaveParameters, evaluate, load_parameters
from distsim.cost.kernels.tile_wave_kernel import (
    ARITHMETIC,
    CACHE,
    DRAM,
    FIELDS,
    SPLIT_K,
    TILE_COLUMNS,
    TILE_ROWS,
    TIME,
    WAVES,
)
from distsim.errors import ConfigError
from distsim.hardware.gpu import Gpu
from distsim.params import Parameters
from distsim.registry import register

Array = NDArray[np.float64]

MODEL = "hybrid"
_MOST = 1.0  #: largest correction, in logarithms


def features(shapes: ArrayLike, gpu: Gpu, dtype: str, parameters: TileWaveParameters) -> tuple[Array, Array]:
    """(seconds of the tile/wave model, what the learner sees of every row)."""
    mnk = np.asarray(shapes, dtype=np.int64).reshape(-1, 3)
    m, n, k = mnk.T.astype(np.float64)
    terms = evaluate(mnk, gpu, dtype, parameters, fields=FIELDS)
    time = terms[:, TIME]
    waves, rows, columns = terms[:, WAVES], terms[:, TILE_ROWS], terms[:, TILE_COLUMNS]
    moved = WIDTH[dtype] * (m * k + k * n) + 2.0 * m * n

    def alignment(size: NDArray[np.int64]) -> Array:
        """Power of two that divides a size, up to 512."""
        return np.minimum(np.log2((size & -size).astype(np.float64)), 9.0)

    seen = [
        np.log2(m), np.log2(n), np.log2(k), np.log2(m * n), np.log2(n * k), np.log2(m * k), np.log2(m * n * k),
        np.log(time), terms[:, ARITHMETIC] / time, terms[:, DRAM] / time, terms[:, CACHE] / time,
        np.log2(waves), np.ceil(waves) / np.maximum(waves, 1.0), np.log2(rows), np.log2(columns), np.log2(terms[:, SPLIT_K]),
        np.ceil(m / rows) * rows / m, np.ceil(n / columns) * columns / n, np.log2(moved / gpu.l2),
        np.log2(m * n * k / moved), np.log2(n / m), np.log2(k / n), np.ceil(m / 128) * 128 / m, np.ceil(n / 128) * 128 / n,
        np.log2(np.ceil(m / 128) * np.ceil(n / 128) / gpu.sms), np.ceil(m / 128) * np.ceil(n / 128) / gpu.sms % 1.0,
        np.ceil(m / 128) * np.ceil(n / 256) / gpu.sms % 1.0, alignment(mnk[:, 0]), alignment(mnk[:, 1]), alignment(mnk[:, 2]),
    ]  # fmt: skip
    return time, np.stack(seen, axis=1)


def predict(shapes: ArrayLike, gpu: Gpu, dtype: str, parameters: TileWaveParameters, learner: Boosted) -> Array:
    """Seconds of many GEMMs."""
    time, seen = features(shapes, gpu, dtype, parameters)
    return time * np.exp(np.clip(learner.predict(seen), -_MOST, _MOST))


def packed(learner: Boosted, shapes: NDArray[np.int64], error: float) -> dict[str, Any]:
    """A learner as it is written into a calibration, with the range that it has seen and its cross-validated error."""
    return {
        "error": error, "least": shapes.min(axis=0).tolist(), "most": shapes.max(axis=0).tolist(), **asdict(learner)
    }  # fmt: skip


@register("kernels", "hybrid")
class Hybrid:
    """GEMMs of GPUs and data types that the calibration has a learner for; source ``hybrid``.

    Args:
        file: a calibration written by ``distsim calibrate compute --residual -o FILE``.
    """

    class Params(Parameters):
        """Options of ``hybrid:...``."""

        file: str

    def __init__(self, *, file: str | Path) -> None:
        self._known: dict[tuple[str, str], tuple[TileWaveParameters, Boosted, Array, Array, float]] = {}
        self._answers: dict[tuple[int, str, tuple[int, ...]], tuple[Gpu, Answer]] = {}
        for fit in load_parameters(file).fits:
            if fit.residual is not None:
                self._known[fit.gpu, fit.dtype] = TileWaveParameters.read(fit, str(file)), *_unpacked(fit, str(file))
        if not self._known:
            raise ConfigError("holds no learned residual", where=str(file),
                              fix="Write it with distsim calibrate compute --residual.")  # fmt: skip

    def answers(self, shapes: ArrayLike, gpu: Gpu, dtype: str) -> Array | None:
        """Seconds of many GEMMs, (n, 3); nan outside of the range that the learner has seen; None without a learner."""
        known = self._known.get((gpu.name, dtype))
        if known is None:
            return None
        parameters, learner, least, most, _ = known
        asked = np.asarray(shapes).reshape(-1, 3)
        inside = ((asked >= least) & (asked <= most)).all(axis=1)
        out = np.full(len(asked), np.nan)
        if inside.any():
            out[inside] = predict(asked[inside], gpu, dtype, parameters, learner)
        return out

    def answer(self, kernel: Kernel, gpu: Gpu) -> Answer | None:
        """See KernelProvider.answer; None for all but GEMMs of known shape ranges, GPU and data type."""
        if kernel.kind != "gemm":
            return None
        key = (id(gpu), kernel.dtype, kernel.shape)
        if key not in self._answers:
            found = self.answers([kernel.shape], gpu, kernel.dtype)
            if found is None or np.isnan(found[0]):
                return None
            # NOTE: the GPU is kept, so that its id stays its own
            self._answers[key] = gpu, Answer(float(found[0]), MODEL, self._known[gpu.name, kernel.dtype][4])
        return self._answers[key][1]


def _unpacked(fit: Fit, where: str) -> tuple[Boosted, Array, Array, float]:
    content = dict(fit.residual or {})
    try:
        error, least, most = float(content.pop("error")), np.array(content.pop("least")), np.array(content.pop("most"))
        learner = Boosted(**content)
        inner = (1 << learner.depth) - 1
        sound = (
            1 <= learner.depth <= 16
            and len(learner.value) == learner.trees * (inner + 1)
            and len(learner.feature) == len(learner.threshold) == learner.trees * inner
            and all(0 <= one < len(learner.edges) for one in learner.feature)
            and least.shape == most.shape == (3,)
        )
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise ConfigError(f"the learned residual of {fit.gpu}, {fit.dtype} is damaged", where=where,
                          expected="what distsim calibrate compute --residual wrote")  # fmt: skip
    return learner, least, most, error
