"""The Pareto front: points that no other is better than in one objective without being worse in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def costs(rows: Sequence[Row], objectives: Mapping[str, str]) -> list[tuple[float, ...] | None]:
    """Of every row its objectives as costs to be made small; None where it lacks one of them."""
    found: list[tuple[float, ...] | None] = []
    for row in rows:
        values = [row.get(column) for column in objectives]
        if any(value is None or isinstance(value, str) for value in values):
            found.append(None)
        else:
            signs = (1 if way == "min" else -1 for way in objectives.values())
            found.append(tuple(sign * value for sign, value in zip(signs, values, strict=True) if value is not None))
    return found


def front(rows: Sequence[Row], objectives: Mapping[str, str]) -> list[int]:
    """Places of the rows on the front, best first objective first. Equal rows are on it together.

    >>> front([{"t": 3, "m": 1}, {"t": 1, "m": 3}, {"t": 3, "m": 2}], {"t": "min", "m": "min"})
    [1, 0]
    """
    ranked = sorted((cost, at) for at, cost in enumerate(costs(rows, objectives)) if cost is not None)
    kept: list[tuple[tuple[float, ...], int]] = []
    for cost, at in ranked:
        # NOTE: in this order nothing later dominates anything earlier
        if not any(other != cost and all(a <= b for a, b in zip(other, cost, strict=True)) for other, _ in kept):
            kept.append((cost, at))
    return [at for _, at in kept]


def best(rows: Sequence[Row], objectives: Mapping[str, str]) -> int | None:
    """Place of the row that is best in the first objective, then in the others, then the first; None where no row has them."""
    ranked = sorted((cost, at) for at, cost in enumerate(costs(rows, objectives)) if cost is not None)
    return ranked[0][1] if ranked else None
