"""``distsim calibrate compute``: from files of measured GEMMs to fits with their errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distsim.cost.fit.gemm import Gemms, calibrated, learn, left_out_both, relative_errors
from distsim.cost.fit.measured import read_rows
from distsim.cost.kernels.fits import STAND_INS, VERSION, Fit, Fits
from distsim.cost.kernels.hybrid import packed
from distsim.cost.kernels.tile_wave import MODEL, TileWave, TileWaveParameters, typical
from distsim.errors import ConfigError, UnknownNameError
from distsim.hardware.gpu import gpu

#: fewest rows that a residual is learned from: trees of fewer repeat the noise
FEWEST_LEARNED = 1000


def measured(paths: Sequence[str], *, name: str = "", system: str = "", dtype: str = "") -> list[Gemms]:
    """Rows of all files, by GPU and data type.

    Args:
        name: the GPU, where the files do not say or name it otherwise.
        system: only rows of this system, as the files spell it.
        dtype: where the files do not say (bf16 if neither does).

    Raises:
        ConfigError: a file or row that cannot be used, or a GPU that nothing tells.
        UnknownNameError: no such system, GPU or data type.
    """
    shapes: dict[tuple[str, str], list[Any]] = {}
    for path in paths:
        rows = read_rows(Path(path))
        if not rows.system:
            raise ConfigError("holds no rows", where=path)
        listed = sorted(set(rows.system) - {""})
        if system and system not in listed:
            raise UnknownNameError("system", system, listed, where=path)
        if name and not system and len(listed) > 1:
            raise ConfigError(f"holds {len(listed)} systems, and --gpu names one GPU", where=path, near=listed[:6],
                              fix="Pick one with --system, or leave out --gpu.")  # fmt: skip
        chosen = [not system or one == system for one in rows.system]
        bad = [number for number, sound in enumerate(rows.sound.tolist()) if not sound and chosen[number]]
        if bad:
            raise ConfigError("m, n, k or latency_us is no positive number", where=f"{path}: row {bad[0] + 1}")
        for number, taken in enumerate(chosen):
            if taken:
                kind = rows.dtype[number] or dtype or "bf16"
                place = name or rows.system[number]
                shapes.setdefault((place, kind), []).append((*rows.shapes[number].tolist(), rows.seconds[number]))
    found: dict[tuple[str, str], list[Any]] = {}
    for (place, kind), listed_rows in shapes.items():
        if not place:
            raise ConfigError("nothing says which GPU was measured", where=paths[0], expected="--gpu NAME, or a column system")
        device = gpu(place, where="--gpu" if name else paths[0])
        if kind not in STAND_INS:
            raise UnknownNameError("data type", kind, STAND_INS, where=paths[0])
        device.rate(kind)
        found.setdefault((place if place.endswith((".yaml", ".yml")) else device.name, kind), []).extend(listed_rows)
    return [_gemms(place, kind, listed_rows) for (place, kind), listed_rows in sorted(found.items())]


def _gemms(place: str, dtype: str, rows: list[Any]) -> Gemms:
    shapes = np.array([row[:3] for row in rows], dtype=np.int64)
    return Gemms(gpu(place), dtype, shapes, np.array([row[3] for row in rows], dtype=np.float64))


def calibrate(gemms: Gemms, *, residual: bool = False, seed: int = 0) -> tuple[Fit, dict[str, Any]]:
    """A fit, and figures about it, shares: rows, error, bias, p90 (left out), fitted (on the rows themselves), before (with the
    parameters that would have served without it), learned (with the residual, left out).

    Raises ConfigError on too few rows.
    """
    if residual and len(gemms.seconds) < FEWEST_LEARNED:
        raise ConfigError(
            f"{len(gemms.seconds)} rows are too few to learn a residual for {gemms.gpu.name}, {gemms.dtype}",
            where="--residual", expected=f"at least {FEWEST_LEARNED}", fix="Leave out --residual.",
        )  # fmt: skip
    known = TileWave().parameters(gemms.gpu, gemms.dtype)
    prior = known[0] if known else typical(gemms.dtype)
    plain, hybrid = left_out_both(gemms, prior, seed) if residual else (None, None)
    fitted, errors = calibrated(gemms, prior, plain)
    parameters = TileWaveParameters.read(fitted)
    size = np.abs(errors)
    figures: dict[str, Any] = {
        "gpu": gemms.gpu.name, "dtype": gemms.dtype, "rows": len(gemms.seconds), "error": float(size.mean()),
        "bias": float(errors.mean()), "p90": float(np.quantile(size, 0.9)),
        "fitted": float(np.abs(relative_errors(gemms, parameters)).mean()),
        "before": float(np.abs(relative_errors(gemms, prior)).mean()), "prior": known[1] if known else "typical",
    }  # fmt: skip
    if hybrid is not None:
        figures["learned"] = float(np.abs(hybrid).mean())
        learner = learn(gemms, parameters, np.random.default_rng(seed))
        fitted = fitted.model_copy(update={"residual": packed(learner, gemms.shapes, round(figures["learned"], 4))})
    return fitted, figures


def file_of(fits: Iterable[Fit], paths: Sequence[str]) -> Fits:
    """What is written: fits, and the files that they come from."""
    names = ", ".join(Path(path).name for path in paths)
    source = f"distsim calibrate compute, {names}"
    return Fits(version=VERSION, model=MODEL, borrowed_error=0.0, source=source, fits=tuple(fits))
