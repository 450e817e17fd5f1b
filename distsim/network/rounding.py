"""The one rule by which every level turns bytes into time."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from distsim.kernel.jit import kernel
from distsim.network.model import LONGEST


@kernel
def serialisation(size: int, bandwidth: float) -> int:
    """ps that ``size`` bytes keep a link of ``bandwidth`` bytes/s busy: ``ceil(size * 1e12 / bandwidth)`` in float64.

    A link of 50 GB/s takes 20 ps a byte; one byte at 3 GB/s takes 334 ps. LONGEST stands for anything longer.
    """
    exact = size * 1e12 / bandwidth
    if exact >= LONGEST:
        return LONGEST
    return math.ceil(exact)


def serialisations(size: NDArray[np.int64], bandwidth: NDArray[np.float64]) -> NDArray[np.int64]:
    """:func:`serialisation` of whole columns."""
    return np.minimum(np.ceil(size * 1e12 / bandwidth), LONGEST).astype(np.int64)
