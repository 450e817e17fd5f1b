"""GEMMs of the suite ``compute``: y = x W in the rows of ``gemm_measured.parquet``.

Rows below 16 bits are timed with the quantisation of x; the tile/wave parameters of such data types know it, the rooflines do
not.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distsim.cost.fit.measured import COLUMNS, read_rows
from distsim.cost.kernel import WIDTH
from distsim.cost.kernels import pnorm
from distsim.cost.kernels.tile_wave import TileWave
from distsim.errors import UnknownNameError
from distsim.hardware.gpu import Gpu, gpu
from distsim.validation.compute_part import Judged, refuse
from distsim.validation.suite import Progress, Report

Array = NDArray[np.float64]


class GemmPart:
    """Rows of gemm_measured.parquet."""

    metric = "gemm_mape"
    files: tuple[str, ...] = ("gemm_measured.parquet",)

    def judge(self, path: Path, report: Report, progress: Progress) -> Iterable[Judged]:
        """See Part.judge."""
        progress(0.0, "reading GEMMs")
        sets, refused = read_gemms(path)
        for reason, rows in refused.items():
            report.rows += rows
            refuse(report, reason, rows)
        tile_wave = TileWave()
        for number, ((system, dtype), (shapes, seconds)) in enumerate(sorted(sets.items())):
            progress(number / len(sets), f"GEMMs of {system}, {dtype}")
            report.rows += len(seconds)
            try:
                device = gpu(system)
            except UnknownNameError:
                refuse(report, f"GEMM: unknown GPU {system!r}", len(seconds))
                continue
            if dtype not in device.peak or dtype not in WIDTH:
                refuse(report, f"GEMM: {system} has no {dtype} peak", len(seconds))
                continue

            def what(place: int, shapes: NDArray[np.int64] = shapes, title: str = f"{system}, {dtype}") -> str:
                m, n, k = shapes[place].tolist()
                return f"{title}: GEMM m {m}, n {n}, k {k}"

            served = False
            for name, model in _models(tile_wave, shapes, device, dtype):
                yield Judged(f"gemm, {system}, {dtype}, {name}", len(seconds), seconds, model, what, not served)
                served = True


def _models(tile_wave: TileWave, shapes: NDArray[np.int64], device: Gpu, dtype: str) -> Iterable[tuple[str, Array]]:
    """Every shipped provider that serves the rows, in the order of the chain: its name and its seconds."""
    found = tile_wave.answers(shapes, device, dtype)
    if found is not None:
        yield "tile_wave", found
    m, n, k = shapes.T.astype(np.float64)
    flops, moved = 2 * m * n * k, WIDTH[dtype] * (m * k + k * n) + 2 * m * n
    parameters, *_ = pnorm.parameters_of(device, dtype)
    yield "pnorm", pnorm.times(flops, moved, device, dtype, parameters)
    yield "roofline", np.maximum(flops / device.rate(dtype), moved / device.memory_bandwidth)


def read_gemms(path: Path) -> tuple[dict[tuple[str, str], tuple[NDArray[np.int64], Array]], dict[str, int]]:
    """Shapes (n, 3) and seconds by system and dtype, and rows that are none, by reason.

    Raises ConfigError where the file is no table with the columns system, dtype, m, n, k and latency_us.
    """
    rows = read_rows(path, ("system", "dtype", *COLUMNS))
    system, dtype = np.array(rows.system, dtype=object), np.array(rows.dtype, dtype=object)
    found = {}
    for key in sorted(set(zip(rows.system, rows.dtype, strict=True))):
        mine = rows.sound & (system == key[0]) & (dtype == key[1])
        if mine.any():
            found[key] = rows.shapes[mine], rows.seconds[mine]
    bad = int((~rows.sound).sum())
    return found, ({"GEMM: m, n, k or latency_us is no positive number": bad} if bad else {})
