"""Accuracy and speed of the GEMM models on measured GEMMs; with --write, the fitted parameters that ship.

  python scripts/bench_gemm.py --data ../shared/reference/compute             5 folds, whole weight shapes (n, k) left out
  python scripts/bench_gemm.py --data ../shared/reference/compute --unseen    a GPU left out: the middle of the others'
                                                                              parameters, then 40 points of its own
  python scripts/bench_gemm.py --data ../shared/reference/compute --write     fit all rows, write distsim/cost/kernels/data

Every figure is a mean absolute relative error, in percent. Parameters are fitted anew for every fold, from a start that knows
nothing of the GPU (the middle of the other GPUs).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import yaml

from distsim.cost.fit.gemm import (
    Gemms,
    calibrated,
    fit,
    fit_pnorm,
    fold_of,
    left_out_both,
    pnorm_errors,
    relative_errors,
)
from distsim.cost.kernels.fits import DATA, Fit
from distsim.cost.kernels.pnorm import PnormParameters
from distsim.cost.kernels.tile_wave import TileWaveParameters, times, typical
from distsim.hardware.gpu import gpu
from distsim.validation.compute_gemm import read_gemms

POINTS = 40
#: what a fit of the p-norm roofline starts from
ROOFLINE = PnormParameters(0.75, 0.75, 3.0, 2.0)
#: GPUs and generations -> the measured GPU that is nearest
FAMILIES = {
    "volta": "a100_sxm", "ampere": "a100_sxm", "hopper": "h100_sxm", "ada": "l40s", "blackwell": "b200_sxm",
    "rtx_pro_6000_server": "l40s",
}  # fmt: skip


def percent(errors: np.ndarray) -> float:
    return 100 * float(np.abs(errors).mean())


def table(sets: list[Gemms]) -> None:
    print(f"{'gpu':<12}{'dtype':<7}{'rows':>6}{'pnorm':>8}{'tile/wave':>11}{'hybrid':>8}{'seconds':>9}")
    for gemms in sets:
        begin = time.perf_counter()
        fold = fold_of(gemms.shapes)
        pnorm = [pnorm_errors(gemms.only(fold == at), fit_pnorm(gemms.only(fold != at), ROOFLINE)) for at in range(5)]
        plain, hybrid = left_out_both(gemms, typical(gemms.dtype, gemms.gpu.name))
        found = f"{percent(np.concatenate(pnorm)):>8.1f}{percent(plain):>11.1f}{percent(hybrid):>8.1f}"
        print(f"{gemms.gpu.name:<12}{gemms.dtype:<7}{len(fold):>6}{found}{time.perf_counter() - begin:>9.0f}", flush=True)
    many = np.random.default_rng(0).integers(1, 16384, (100_000, 3))
    times(many[:1000], gpu("h100_sxm"))
    begin = time.perf_counter()
    times(many, gpu("h100_sxm"))
    print(f"100,000 shapes in {time.perf_counter() - begin:.2f} s")


def borrowed(gemms: Gemms, sets: list[Gemms]) -> tuple[np.ndarray, np.ndarray]:
    """Errors with the parameters of the other GPUs of that data type: tile/wave and p-norm."""
    vectors = [fit_pnorm(one, ROOFLINE).vector for one in sets if one.dtype == gemms.dtype and one.gpu != gemms.gpu]
    pnorm = pnorm_errors(gemms, PnormParameters.of(np.mean(vectors, axis=0)))
    return relative_errors(gemms, typical(gemms.dtype, gemms.gpu.name)), pnorm


def unseen(sets: list[Gemms]) -> None:
    print(f"{'gpu':<12}{'dtype':<7}{'pnorm':>8}{'tile/wave':>11}{'+ 40 points':>13}   (middle and range of 8 draws)")
    for gemms in sets:
        plain, pnorm = borrowed(gemms, sets)
        found = []
        for seed in range(8):
            picked = np.zeros(len(gemms.seconds), dtype=bool)
            picked[np.random.default_rng(seed).choice(len(picked), POINTS, replace=False)] = True
            own = fit(gemms.only(picked), typical(gemms.dtype, gemms.gpu.name))
            found.append(percent(relative_errors(gemms.only(~picked), own)))
        found.sort()
        print(
            f"{gemms.gpu.name:<12}{gemms.dtype:<7}{percent(pnorm):>8.1f}{percent(plain):>11.1f}{np.median(found):>13.1f}"
            f"   {found[0]:.1f} to {found[-1]:.1f}", flush=True,
        )  # fmt: skip


def write(sets: list[Gemms], source: str) -> None:
    waves, rooflines, far, far_roofline = [], [], [], []
    for gemms in sets:
        fitted, _ = calibrated(gemms, typical(gemms.dtype, gemms.gpu.name))
        waves.append(fitted)
        fold = fold_of(gemms.shapes)
        errors = [pnorm_errors(gemms.only(fold == at), fit_pnorm(gemms.only(fold != at), ROOFLINE)) for at in range(5)]
        rooflines.append(
            Fit(
                gpu=gemms.gpu.name, dtype=gemms.dtype, error=round(percent(np.concatenate(errors)) / 100, 4),
                rows=len(fold), parameters={k: float(f"{v:.6g}") for k, v in asdict(fit_pnorm(gemms, ROOFLINE)).items()},
            )
        )  # fmt: skip
        plain, pnorm = borrowed(gemms, sets)
        far.append(percent(plain) / 100)
        far_roofline.append(percent(pnorm) / 100)
        print(fitted.gpu, fitted.dtype, fitted.error, flush=True)
    for model, fits, error in (("tile_wave", waves, far), ("pnorm", rooflines, far_roofline)):
        content = {
            "version": 1, "model": model, "source": source, "families": FAMILIES,
            "borrowed_error": round(float(np.mean(error)), 3), "fits": [one.model_dump(exclude_none=True) for one in fits],
        }  # fmt: skip
        target = DATA / f"{model}.yaml"
        target.write_text(f"# Written by scripts/bench_gemm.py --write.\n{yaml.safe_dump(content, sort_keys=False, width=120)}")
        TileWaveParameters.read(fits[0]) if model == "tile_wave" else PnormParameters.read(fits[0])
        print(f"wrote {target.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--unseen", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--dtype", help="only rows of this data type")
    args = parser.parse_args()
    found, _ = read_gemms(args.data / "gemm_measured.parquet")
    sets = [
        Gemms(gpu(system), dtype, shapes, seconds)
        for (system, dtype), (shapes, seconds) in found.items()
        if args.dtype in (None, dtype)
    ]
    if args.write:
        write(sets, "fits to GEMMs of A100, H100, B200 and L40S measured by the TensorRT-LLM and SGLang collectors of "
              "aiconfigurator-core 0.12.0 (Apache-2.0); error: 5 folds, whole weight shapes (n, k) left out; borrowed_error: "
              "mean error of every GPU with the middle of the others' parameters")  # fmt: skip
    elif args.unseen:
        unseen(sets)
    else:
        table(sets)


if __name__ == "__main__":
    main()
