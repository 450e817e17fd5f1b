"""All requests at time 0: offline batches, and throughput at its highest."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError
from distsim.params import Parameters
from distsim.registry import register
from distsim.serving.requests.process import done


@register("arrivals", "static")
class Static:
    """``static``."""

    class Params(Parameters):
        """None."""

    def __init__(self, params: Params) -> None:
        self.params = params

    @property
    def rate(self) -> float | None:
        """None: they come at once."""
        return None

    def at(self, qps: float) -> Self:
        """Raises ConfigError."""
        raise ConfigError(f"static arrivals come at once, not at {qps:g} requests/s", where="static", expected="no qps")

    def times(self, n: int | None, until: int | None, rng: np.random.Generator) -> NDArray[np.int64]:
        """``n`` zeros. Raises ConfigError without ``n``."""
        if n is None:
            raise ConfigError("a duration does not say how many come at time 0", where="static", expected="a number (n)")
        done(n, 0, n, until, "static")
        return np.zeros(n if until is None or until > 0 else 0, np.int64)
