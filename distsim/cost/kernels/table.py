"""Measured kernels: an exact hit is the measurement; between measurements, the model below corrected by its nearest neighbours.

The four nearest rows (logarithms of the shape) say by how much the model errs there; their ratios measured / model, weighted by
distance, scale the model's answer. Only within the measured range: outside it the table says nothing, unless ``extrapolate`` is
set, and then its answers say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from distsim.cost.kernel import Answer, Kernel, KernelProvider, attention, gemm, grouped_gemm, memory
from distsim.cost.kernels.table_file import Measured, read
from distsim.errors import ConfigError
from distsim.hardware.gpu import Gpu
from distsim.params import Parameters
from distsim.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: usual relative difference of two measurements of one shape (frameworks differ by 5-12 %)
NOISE = 0.05
NEIGHBOURS = 4
#: a neighbour further than this factor in some size tells nothing
REACH = 4.0
#: sizes that choose a kernel, rather than how long it runs: they have to be equal
_CHOICES = {"attention": (5, 6, 7, 8), "attention_backward": (5, 6, 7, 8), "decode_attention": (1, 5, 6, 7, 8)}

OUTSIDE = "outside the measured range"
FAR = "no measured neighbour within a factor of 4"
NO_ROWS = "no rows of this kind, data type and GPU"
NO_MODEL = "no model to interpolate over"


@register("kernels", "table")
class Table:
    """Rows of one file, for every GPU that they name; rows that name none are of any GPU.

    refused: reason -> kernels that the table could not serve.
    """

    class Params(Parameters):
        """path: CSV or Parquet. extrapolate: answer outside the measured range too."""

        path: str
        extrapolate: bool = False

    def __init__(self, path: str, *, extrapolate: bool = False, over: KernelProvider | None = None) -> None:
        """over: the model that interpolation corrects. Raises ConfigError on a file that is no table."""
        self._fill(read(Path(path)), over, extrapolate)

    @classmethod
    def of(cls, rows: Iterable[Measured], *, extrapolate: bool = False, over: KernelProvider | None = None) -> Table:
        """A table of rows that are already read."""
        found = cls.__new__(cls)
        found._fill(rows, over, extrapolate)
        return found

    def _fill(self, rows: Iterable[Measured], over: KernelProvider | None, extrapolate: bool) -> None:
        self.refused: Counter[str] = Counter()
        self._over = over
        self._extrapolate = extrapolate
        exact: dict[tuple[str, str, str, tuple[int, ...]], list[float]] = {}
        for row in rows:
            exact.setdefault(row[:4], []).append(row.seconds)
        self._exact = {key: _median(times) for key, times in exact.items()}
        if not self._exact:
            raise ConfigError("the table holds no rows", expected="at least one measured kernel")
        self._groups: dict[tuple[str, str, str, tuple[int, ...]], list[tuple[tuple[int, ...], float]]] = {}
        for (system, kind, dtype, shape), seconds in self._exact.items():
            self._groups.setdefault((system, kind, dtype, _choice(kind, shape)), []).append((shape, seconds))
        self._spaces: dict[tuple[str, str, str, tuple[int, ...]], _Space] = {}

    def __len__(self) -> int:
        """Different kernels measured."""
        return len(self._exact)

    def answer(self, kernel: Kernel, gpu: Gpu) -> Answer | None:
        """See KernelProvider.answer; None, counted in ``refused``, where the table does not reach."""
        shape = kernel.shape if kernel.kind != "memory" else (round(kernel.bytes),)
        for system in (gpu.name, ""):
            hit = self._exact.get((system, kernel.kind, kernel.dtype, shape))
            if hit is not None:
                return Answer(hit, "table", NOISE)
        choice = _choice(kernel.kind, shape)
        for system in (gpu.name, ""):
            key = system, kernel.kind, kernel.dtype, choice
            if key in self._groups:
                return self._between(key, kernel, shape, gpu)
        self.refused[NO_ROWS] += 1
        return None

    def _between(
        self, key: tuple[str, str, str, tuple[int, ...]], kernel: Kernel, shape: tuple[int, ...], gpu: Gpu
    ) -> Answer | None:
        model = self._over.answer(kernel, gpu) if self._over is not None else None
        if model is None or self._over is None:
            self.refused[NO_MODEL] += 1
            return None
        if key not in self._spaces:
            self._spaces[key] = _Space(self._groups[key])
        space = self._spaces[key]
        at = space.place(shape)
        reason = space.unreached(at)
        if reason and not self._extrapolate:
            self.refused[reason] += 1
            return None
        ratios, weights = [], []
        for place, distance in space.nearest(at):
            there = self._over.answer(_kernel(kernel.kind, space.shapes[place], kernel.dtype), gpu)
            if there is not None:
                ratios.append(space.seconds[place] / there.seconds)
                weights.append(1.0 / (distance + 0.1))
        if not ratios:
            self.refused[NO_MODEL] += 1
            return None
        ratio, spread = _mean(ratios, weights)
        source = "interpolated" if not reason else "extrapolated"
        return Answer(model.seconds * ratio, source, max(NOISE, spread) if not reason else max(model.error, spread, NOISE))


class _Space:
    """Rows that differ in sizes only, as points: logarithms to base 2."""

    def __init__(self, rows: list[tuple[tuple[int, ...], float]]) -> None:
        import numpy as np

        self._np = np
        self.shapes = [shape for shape, _ in rows]
        self.seconds = [seconds for _, seconds in rows]
        self.points: NDArray[np.float64] = np.log2(np.maximum(np.array(self.shapes, dtype=np.float64), 0.5))
        self.low, self.high = self.points.min(axis=0), self.points.max(axis=0)

    def place(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        point: NDArray[np.float64] = self._np.log2(self._np.maximum(self._np.array(shape, dtype=self._np.float64), 0.5))
        return point

    def unreached(self, at: NDArray[np.float64]) -> str:
        """Why the rows say nothing about this point, or ""."""
        np = self._np
        if bool((at < self.low - 1e-9).any() or (at > self.high + 1e-9).any()):
            return OUTSIDE
        furthest = np.abs(self.points - at).max(axis=1).min()
        return FAR if furthest > np.log2(REACH) + 1e-9 else ""

    def nearest(self, at: NDArray[np.float64]) -> list[tuple[int, float]]:
        """Places and distances of the nearest rows, nearest first, ties by place."""
        np = self._np
        distances = np.sqrt(((self.points - at) ** 2).sum(axis=1))
        order = np.argsort(distances, kind="stable")[:NEIGHBOURS]
        return [(int(place), float(distances[place])) for place in order]


def _choice(kind: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[place] for place in _CHOICES.get(kind, ()))


def _kernel(kind: str, shape: tuple[int, ...], dtype: str) -> Kernel:
    """The kernel of a measured shape."""
    if kind == "gemm":
        m, n, k = shape
        return gemm(m, n, k, dtype)
    if kind == "grouped_gemm":
        groups, m, n, k = shape
        return grouped_gemm(groups, m, n, k, dtype)
    if kind == "memory":
        return memory(float(shape[0]), dtype)
    batch, q, kv, heads, kv_heads, qk, v, causal, window = shape
    back = kind == "attention_backward"
    made = attention(batch, q, kv, heads, kv_heads, qk, v, dtype, causal=bool(causal), window=window, backward=back)
    return made._replace(kind=kind)


def _median(times: list[float]) -> float:
    ordered = sorted(times)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _mean(ratios: list[float], weights: list[float]) -> tuple[float, float]:
    """Weighted geometric mean, and the weighted mean distance from it."""
    import math

    total = sum(weights)
    middle = sum(weight * math.log(ratio) for ratio, weight in zip(ratios, weights, strict=True)) / total
    spread = sum(weight * abs(math.log(ratio) - middle) for ratio, weight in zip(ratios, weights, strict=True)) / total
    return math.exp(middle), spread
