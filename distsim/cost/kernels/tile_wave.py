"""GEMMs by the tile/wave model with the parameters of the GPU, or of its family (tile_wave_kernel.py has the model).

Parameters are fitted to measured GEMMs: ``data/tile_wave.yaml`` ships four GPUs, :func:`load_parameters` reads what
``distsim calibrate compute -o`` wrote. The figures of the GPU itself (peak, SMs, bandwidth, L2) come from its description,
so that a family's parameters serve chips of another size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distsim.cost.kernel import WIDTH, Answer, Kernel
from distsim.cost.kernels.fits import STAND_INS, Fit, Fits, read_fits, shipped
from distsim.cost.kernels.tile_wave_kernel import CONSTANTS, FIELDS, SPLITS, STEPS, TILES, tile_wave
from distsim.errors import ConfigError
from distsim.hardware.gpu import Gpu
from distsim.params import Parameters
from distsim.registry import register

Array = NDArray[np.float64]

MODEL = "tile_wave"
#: bytes of an element of x before it is quantised, and how many bytes its quantisation moves beside what it writes
_UNQUANTISED = 2.0
_SPLITS = [float(split) for split in SPLITS]
_LOGITS = ("compute_efficiency", "memory_efficiency", "quantisation")


@dataclass(frozen=True, slots=True)
class TileWaveParameters:
    """What is fitted, in natural units. Rates are relative to the GPU's own figures.

    Attributes:
        compute_efficiency, memory_efficiency: reached shares of peak and of memory bandwidth, 0 to 1.
        overhead_us: launch and drain of one kernel.
        tile_area_half: output elements of the tile that computes at half rate.
        k_prologue: steps of k that filling the pipeline costs.
        active_sm_bandwidth: how much slower one SM alone draws from memory than its share of all of them.
        l2_bandwidth_ratio: bandwidth of L2 over that of memory.
        splitk_overhead_us: cost of a second kernel that sums partial results.
        pnorm: how well arithmetic and traffic overlap; 1: not at all.
        quantisation: 1: a started wave costs a whole one; 0: in proportion.
        l2_reuse: how much sooner than at the size of L2 operands stop staying there.
        quantise_bandwidth: bandwidth of quantising x over that of memory; 0: x comes quantised.
    """

    compute_efficiency: float
    memory_efficiency: float
    overhead_us: float
    tile_area_half: float
    k_prologue: float
    active_sm_bandwidth: float
    l2_bandwidth_ratio: float
    splitk_overhead_us: float
    pnorm: float
    quantisation: float
    l2_reuse: float
    quantise_bandwidth: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            most = 1.0 if name in _LOGITS else math.inf
            least = 1.0 if name == "pnorm" else 0.0
            if not (least < value < most or (name == "quantise_bandwidth" and value == 0)):
                raise ConfigError(f"{name} is {value}", where=MODEL, expected=f"between {least:g} and {most:g}")

    @property
    def vector(self) -> Array:
        """Unbounded form for fits: logits of shares, logarithms of the rest."""
        found = [
            math.log(value / (1 - value)) if name in _LOGITS else math.log(value - 1 if name == "pnorm" else value)
            for name, value in asdict(self).items()
            if name != "quantise_bandwidth" or value
        ]
        return np.array(found)

    @classmethod
    def of(cls, vector: Array) -> TileWaveParameters:
        """The inverse of :attr:`vector`; 11 values: x comes quantised."""
        names = [field.name for field in fields(cls)][: len(vector)]
        # NOTE: bounded, so that a search that strays gets a bad answer instead of an overflow
        bounded = np.clip(vector, -30.0, 30.0).tolist()
        return cls(**{name: _natural(name, value) for name, value in zip(names, bounded, strict=True)})

    @classmethod
    def read(cls, fit: Fit, where: str = MODEL) -> TileWaveParameters:
        """Parameters of a fit. Raises ConfigError where it has others."""
        try:
            return cls(**fit.parameters)
        except TypeError:
            listed = ", ".join(field.name for field in fields(cls))
            raise ConfigError(f"parameters of {fit.gpu} are not those of the model", where=where, expected=listed) from None


def _natural(name: str, value: float) -> float:
    if name in _LOGITS:
        return 1 / (1 + math.exp(-value))
    return math.exp(value) + (1.0 if name == "pnorm" else 0.0)


def constants(gpu: Gpu, dtype: str, parameters: TileWaveParameters) -> tuple[list[float], list[float]]:
    """What the kernel is given: its vector of constants, and rows, columns and efficiency of every tile."""
    p = parameters
    width = WIDTH[dtype]
    rate = gpu.rate(dtype) / gpu.sms * p.compute_efficiency
    quantise = 0.0
    if p.quantise_bandwidth and width < _UNQUANTISED:
        quantise = (_UNQUANTISED + width) / (p.quantise_bandwidth * gpu.memory_bandwidth)
    values = [
        float(gpu.sms), rate, float(gpu.memory_bandwidth), float(gpu.l2), width, max(width, 2.0), p.memory_efficiency,
        p.overhead_us * 1e-6, p.k_prologue, p.active_sm_bandwidth, p.l2_bandwidth_ratio, p.splitk_overhead_us * 1e-6,
        p.pnorm, p.quantisation, p.l2_reuse, quantise,
    ]  # fmt: skip
    assert len(values) == CONSTANTS
    tiles: list[float] = []
    for rows, columns in TILES:
        area = rows * columns
        tiles += [float(rows), float(columns), area / (area + p.tile_area_half)]
    return values, tiles


def evaluate(
    shapes: ArrayLike, gpu: Gpu, dtype: str, parameters: TileWaveParameters, *, groups: ArrayLike | None = None,
    fields: int = 1, repeated: int = 1,
) -> Array:  # fmt: skip
    """Array (n, fields): the time in seconds and, with FIELDS, the terms of the fastest candidate (see the kernel).

    repeated: how often the caller will ask; many times are worth the compiler even where one is not.
    """
    mnk = np.ascontiguousarray(np.asarray(shapes, dtype=np.float64).reshape(-1, 3).T)
    count = mnk.shape[1]
    many = np.ones(count) if groups is None else np.ascontiguousarray(np.broadcast_to(np.asarray(groups, np.float64), count))
    values, tiles = constants(gpu, dtype, parameters)
    run, compiled = tile_wave.for_work(count * STEPS * repeated)
    if compiled:
        out = np.zeros(count * fields)
        run(*mnk, many, count, np.array(tiles), np.array(_SPLITS), np.array(values), 0, fields, out)
        return out.reshape(count, fields)
    listed = [0.0] * (count * fields)
    run(*mnk.tolist(), many.tolist(), count, tiles, _SPLITS, values, 0, fields, listed)
    return np.array(listed).reshape(count, fields)


def _alone(groups: int, m: int, n: int, k: int, values: Sequence[float], tiles: Sequence[float]) -> float:
    """``evaluate`` of one shape. values, tiles: as ``constants`` made them."""
    # NOTE: a service asks for thousands of shapes one by one: arrays cost a third of the interpreter's time for one
    run, compiled = tile_wave.for_work(STEPS)
    made: Callable[[Sequence[float]], Any] = np.array if compiled else list
    out = made([0.0])
    run(*(made([float(size)]) for size in (m, n, k, groups)), 1, made(tiles), made(_SPLITS), made(values), 0, 1, out)
    return float(out[0])


def times(
    shapes: ArrayLike, gpu: Gpu, dtype: str = "bf16", parameters: TileWaveParameters | None = None,
    *, groups: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Seconds of many GEMMs at once: ``shapes`` is (n, 3), rows of m, n, k; groups: equal GEMMs of one launch, per row.

    Without parameters those shipped for the GPU or its family. Raises ConfigError where there are none, where the GPU has no
    such data type, or on a shape below 1.
    """
    asked = np.asarray(shapes)
    if asked.ndim != 2 or asked.shape[1] != 3:
        raise ConfigError(f"shapes are an array {asked.shape}", where=MODEL, expected="rows of m, n, k")
    if asked.size and not (asked >= 1).all():
        raise ConfigError("a shape below 1", where=MODEL, expected="m, n and k of at least 1")
    gpu.rate(dtype)
    if parameters is None:
        found = shipped(MODEL).own(gpu, dtype) or shipped(MODEL).borrowed(gpu, dtype)
        if found is None:
            raise ConfigError(f"no parameters for {gpu.name}, {dtype}", where=MODEL,
                              fix="Fit some: distsim calibrate compute --data FILE --gpu NAME.")  # fmt: skip
        parameters = TileWaveParameters.read(found[0])
    return evaluate(asked, gpu, dtype, parameters, groups=groups)[:, 0]


def load_parameters(path: str | Path) -> Fits:
    """A calibration that ``distsim calibrate compute -o`` wrote. Raises ConfigError."""
    found = read_fits(path, MODEL)
    for fit in found.fits:
        TileWaveParameters.read(fit, str(path))
    return found


@register("kernels", "tile_wave")
class TileWave:
    """GEMMs and grouped GEMMs; source ``tile_wave``, or ``tile_wave family`` with the parameters of a relative.

    Args:
        file: a calibration, asked before the shipped parameters.
    """

    class Params(Parameters):
        """Options of ``tile_wave:...``."""

        file: str | None = None

    def __init__(self, *, file: str | Path | None = None) -> None:
        self._files = [load_parameters(file)] if file else []
        self._files.append(shipped(MODEL))
        # NOTE: the GPU is kept with what is known of it, so that its id stays its own
        self._known: dict[tuple[int, str], tuple[Gpu, tuple[TileWaveParameters, str, float] | None]] = {}
        self._constants: dict[tuple[int, str], tuple[list[float], list[float]]] = {}
        self._answers: dict[tuple[int, str, str, tuple[int, ...]], Answer] = {}

    def answer(self, kernel: Kernel, gpu: Gpu) -> Answer | None:
        """See KernelProvider.answer; None for other kernels, and where no parameters serve the GPU and data type."""
        if kernel.kind not in ("gemm", "grouped_gemm"):
            return None
        key = (id(gpu), kernel.kind, kernel.dtype, kernel.shape)
        answer = self._answers.get(key)
        if answer is None:
            found = self.parameters(gpu, kernel.dtype)
            if found is None or min(kernel.shape) < 1:
                return None
            place = (id(gpu), kernel.dtype)
            if place not in self._constants:
                self._constants[place] = constants(gpu, kernel.dtype, found[0])
            groups, m, n, k = kernel.shape if kernel.kind == "grouped_gemm" else (1, *kernel.shape)
            seconds = _alone(groups, m, n, k, *self._constants[place])
            answer = self._answers[key] = Answer(seconds, found[1], found[2])
        return answer

    def parameters(self, gpu: Gpu, dtype: str) -> tuple[TileWaveParameters, str, float] | None:
        """Parameters, source and usual error; None where nothing serves."""
        key = (id(gpu), dtype)
        if key not in self._known:
            self._known[key] = gpu, self._find(gpu, dtype)
        return self._known[key][1]

    def _find(self, gpu: Gpu, dtype: str) -> tuple[TileWaveParameters, str, float] | None:
        if dtype not in gpu.peak:
            return None
        for file in self._files:
            for found, source in ((file.own(gpu, dtype), MODEL), (file.borrowed(gpu, dtype), f"{MODEL} family")):
                if found:
                    return TileWaveParameters.read(found[0]), source, found[1]
        return None

    def answers(self, shapes: ArrayLike, gpu: Gpu, dtype: str) -> Array | None:
        """Seconds of many GEMMs, (n, 3); None where :meth:`answer` says None."""
        found = self.parameters(gpu, dtype)
        return None if found is None else times(shapes, gpu, dtype, found[0])


def detail(shape: tuple[int, int, int], gpu: Gpu, dtype: str, parameters: TileWaveParameters) -> dict[str, Any]:
    """The fastest candidate of one GEMM: its time, terms, waves, tile and split of k."""
    names = ("seconds", "arithmetic", "memory", "l2", "waves", "tile_rows", "tile_columns", "split_k")
    found = evaluate([shape], gpu, dtype, parameters, fields=FIELDS)[0].tolist()
    return dict(zip(names, found, strict=True))


def typical(dtype: str, but: str = "") -> TileWaveParameters:
    """Middle of the shipped fits of a data type (or of what stands in for it), without the GPU ``but``."""
    fits = shipped(MODEL).fits
    for other in STAND_INS.get(dtype, ("bf16",)):
        vectors = [TileWaveParameters.read(fit).vector for fit in fits if fit.dtype == other and fit.gpu != but]
        if vectors:
            return TileWaveParameters.of(np.mean(vectors, axis=0))
    raise ConfigError(f"nothing to start from for {dtype}", where=MODEL, expected=", ".join(STAND_INS))
