"""Fitting the attention models to measured kernels of one GPU and data type.

Logarithms of the times are fitted (relative errors count), parameters as logarithms, shares as logits. The search is local, so
it starts from several points; the best fit wins. ``distsim/cost/kernels/data/attention.json`` was made by :func:`fit_prefill`
and :func:`fit_decode`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np

from distsim.cost.fit.least import Array, least_deviations
from distsim.cost.kernels.attention_model import Machine, Shape, columns, decode, prefill
from distsim.cost.kernels.attention_parameters import Decode, Prefill

C = TypeVar("C", Prefill, Decode)

#: parameters between 0 and 1; the others are positive
SHARES = ("efficiency", "quantised", "memory", "saturation", "resident")
#: not fitted: a property of the software
GIVEN = ("wide_from",)
#: p-norms are at least 1: fitted is what they exceed it by
NORMS = ("norm",)
#: logarithms and logits stay within it, so that no parameter runs away where the data are silent
BOUND = 14.0
PULL = 1e-5  #: weak: 6,000 rows outweigh it, 40 rows feel it


def fit_prefill(shape: Shape, seconds: Array, gpu: Machine, start: Prefill, *, starts: int = 4, pull: float = PULL) -> Prefill:
    """Constants of :func:`attention_model.prefill`; ``pull`` holds them to ``start``."""
    ops = columns()
    return _fit(start, lambda c: prefill(shape, gpu, c, ops), seconds, starts, pull)


def fit_decode(shape: Shape, seconds: Array, gpu: Machine, start: Decode, *, starts: int = 4, pull: float = PULL) -> Decode:
    """Constants of :func:`attention_model.decode`; ``pull`` holds them to ``start``."""
    ops = columns()
    return _fit(start, lambda c: decode(shape, gpu, c, ops), seconds, starts, pull)


def _fit(start: C, model: Callable[[C], Any], seconds: Array, starts: int, pull: float) -> C:
    kind = type(start)
    values: dict[str, float] = asdict(start)
    names = [name for name in values if name not in GIVEN]
    log = np.log(seconds)

    def constants(at: Array) -> C:
        return kind(**{name: values[name] for name in GIVEN if name in values}, **_values(names, at))

    def residuals(at: Array) -> Array:
        found: Array = np.log(model(constants(at))) - log
        return found

    first = _vector(names, values)
    generator = np.random.default_rng(0)
    best: tuple[Array, float] | None = None
    for number in range(starts):
        begin = first + (generator.normal(size=len(first)) * 0.7 if number else 0.0)
        found = least_deviations(residuals, begin, prior=first, pull=np.full(len(first), pull))
        if best is None or found[1] < best[1]:
            best = found
    assert best is not None
    return constants(best[0])


def _vector(names: list[str], values: dict[str, float]) -> Array:
    found = []
    for name in names:
        value = values[name]
        if name in SHARES:
            share = min(max(value, 1e-4), 1 - 1e-4)
            found.append(np.log(share / (1 - share)))
        else:
            found.append(np.log(max(value - (name in NORMS), 1e-12)))
    return np.array(found)


def _values(names: list[str], at: Array) -> dict[str, float]:
    found = {}
    for name, value in zip(names, at.tolist(), strict=True):
        if name in SHARES:
            found[name] = float(1 / (1 + np.exp(-np.clip(value, -BOUND, BOUND))))
        else:
            # NOTE: seconds are small: their logarithms are about -20
            found[name] = float(np.exp(np.clip(value, -30.0, BOUND))) + (name in NORMS)
    return found
