"""The p-norm roofline: arithmetic and traffic overlap in part, ``(ta^p + tm^p)^(1/p)`` plus a launch. Serves every kernel.

Four parameters, fitted to measured GEMMs of a GPU (``data/pnorm.yaml``); a GPU without any gets the middle of all. It knows
nothing of tiles, so that it can be asked about chips and kernels that nothing else knows.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from distsim.cost.kernel import Answer, Kernel
from distsim.cost.kernels.fits import Fit, shipped
from distsim.errors import ConfigError
from distsim.hardware.gpu import Gpu
from distsim.registry import register

Array = NDArray[np.float64]

MODEL = "pnorm"
_SHARES = ("compute_efficiency", "memory_efficiency")


@dataclass(frozen=True, slots=True)
class PnormParameters:
    """Reached shares of peak and of memory bandwidth, launch in us, and the norm: 1 adds, large takes the longer."""

    compute_efficiency: float
    memory_efficiency: float
    overhead_us: float
    pnorm: float

    @property
    def vector(self) -> Array:
        """Unbounded form for fits."""
        found = [math.log(value / (1 - value)) for value in (self.compute_efficiency, self.memory_efficiency)]
        return np.array([*found, math.log(self.overhead_us), math.log(self.pnorm - 1)])

    @classmethod
    def of(cls, vector: Array) -> PnormParameters:
        """The inverse of :attr:`vector`."""
        a, b, c, d = np.clip(vector, -30.0, 30.0).tolist()
        return cls(1 / (1 + math.exp(-a)), 1 / (1 + math.exp(-b)), math.exp(c), 1 + math.exp(d))

    @classmethod
    def read(cls, fit: Fit) -> PnormParameters:
        """Parameters of a fit. Raises ConfigError where it has others."""
        try:
            return cls(**fit.parameters)
        except TypeError:
            expected = ", ".join(field.name for field in fields(cls))
            raise ConfigError(f"parameters of {fit.gpu} are not those of the model", where=MODEL, expected=expected) from None


def times(flops: Array, moved: Array, gpu: Gpu, dtype: str, parameters: PnormParameters) -> Array:
    """Seconds of kernels with that arithmetic and traffic (bytes). Raises ConfigError where the GPU has no such data type."""
    arithmetic = flops / (gpu.rate(dtype) * parameters.compute_efficiency)
    traffic = moved / (gpu.memory_bandwidth * parameters.memory_efficiency)
    longer = np.maximum(np.maximum(arithmetic, traffic), 1e-15)
    p = parameters.pnorm
    norm = ((arithmetic / longer) ** p + (traffic / longer) ** p) ** (1 / p)
    return np.asarray(longer * norm + parameters.overhead_us * 1e-6)


def parameters_of(gpu: Gpu, dtype: str) -> tuple[PnormParameters, str, float]:
    """Parameters, source and usual error: the GPU's own, else its family's, else the middle of all."""
    fits = shipped(MODEL)
    for found, source in ((fits.own(gpu, dtype), MODEL), (fits.borrowed(gpu, dtype), f"{MODEL} family")):
        if found:
            return PnormParameters.read(found[0]), source, found[1]
    vectors = [PnormParameters.read(fit).vector for fit in fits.fits if fit.dtype == "bf16"]
    return PnormParameters.of(np.mean(vectors, axis=0)), f"{MODEL} typical", fits.borrowed_error


@register("kernels", "pnorm")
class Pnorm:
    """Every kernel whose arithmetic the GPU has a unit for; source ``pnorm``, ``pnorm family`` or ``pnorm typical``."""

    def __init__(self) -> None:
        # NOTE: the GPU is kept, so that its id stays its own
        self._known: dict[tuple[int, str], tuple[Gpu, PnormParameters, str, float]] = {}

    def answer(self, kernel: Kernel, gpu: Gpu) -> Answer | None:
        """See KernelProvider.answer; None where the GPU has no unit for the data type."""
        if kernel.dtype not in gpu.peak:
            return None
        key = (id(gpu), kernel.dtype)
        if key not in self._known:
            self._known[key] = (gpu, *parameters_of(gpu, kernel.dtype))
        _, parameters, source, error = self._known[key]
        seconds = times(np.array([kernel.flops]), np.array([kernel.bytes]), gpu, kernel.dtype, parameters)
        return Answer(float(seconds[0]), source, error)


def described(parameters: PnormParameters) -> dict[str, float]:
    """As it is written into a file."""
    return {name: float(f"{value:.6g}") for name, value in asdict(parameters).items()}
