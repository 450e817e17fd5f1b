"""Least absolute deviations by damped, re-weighted least squares (Levenberg-Marquardt), with a pull towards a prior.

Kernel times have a few rows that no model explains; squares would bend the fit to them, and what is reported is a mean absolute
error, so that is what is minimised: the squares are weighted by 1 / |residual|. Source: Marquardt, "An Algorithm for
Least-Squares Estimation of Nonlinear Parameters" (1963); weights as in Holland and Welsch (1977).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: residuals below this are not told apart (timing noise; keeps the weights finite)
NOISE = 0.02
_STEP = 1e-3  #: of the finite differences; a parameter is a logarithm or a logit
_LEAST = 1e-4  #: a round that gains less than this share ends the search
_MOST_DAMPING = 1e6


def least_deviations(
    residuals: Callable[[Array], Array], start: Array, *, prior: Array, pull: Array, rounds: int = 40
) -> tuple[Array, float]:
    """Parameters that minimise ``mean |r| + sum pull (x - prior)^2``, and that sum; a local search from ``start``.

    pull: how strongly each parameter is held, in the unit of the residuals; 0 leaves it free.
    """

    def cost(found: Array, residual: Array) -> float:
        return float(_smooth(residual).mean() + (pull * (found - prior) ** 2).sum())

    at = start.astype(np.float64)
    residual = residuals(at)
    value = cost(at, residual)
    damping = 1e-2
    for _ in range(rounds):
        jacobian = np.empty((len(residual), len(at)))
        for place in range(len(at)):
            # NOTE: central differences; the fastest of many candidates has kinks
            up, down = at.copy(), at.copy()
            up[place] += _STEP
            down[place] -= _STEP
            jacobian[:, place] = (residuals(up) - residuals(down)) / (2 * _STEP)
        weights = 1 / np.maximum(np.abs(residual), NOISE) / len(residual)
        gram = (jacobian * weights[:, None]).T @ jacobian + 2 * np.diag(pull)
        slope = (jacobian * weights[:, None]).T @ residual + 2 * pull * (at - prior)
        scale = np.diag(np.maximum(np.diag(gram), 1e-9))
        before = value
        while damping < _MOST_DAMPING:
            step = np.clip(np.linalg.solve(gram + damping * scale, -slope), -1.0, 1.0)
            tried = residuals(at + step)
            found = cost(at + step, tried)
            if found < value:
                at, residual, value = at + step, tried, found
                damping = max(damping / 5, 1e-6)
                break
            damping *= 4
        if before - value < _LEAST * before:
            break
    return at, value


def _smooth(residual: Array) -> Array:
    """|r|, a parabola below the noise, as the weights have it."""
    size = np.abs(residual)
    return np.where(size > NOISE, size, (size**2 / NOISE + NOISE) / 2)
