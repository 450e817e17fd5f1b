"""What every compute-duration provider must keep to; shipped, so that others can hold theirs against it."""

from __future__ import annotations

from typing import Any

import numpy as np

from distsim.cost.recorded import timed_rows
from distsim.trace.graph import Program


def check_cost_provider(provider: Any, program: Program) -> None:
    """Durations of a program that the provider can serve. Raises AssertionError.

    One whole number of ps >= 0 per row, 0 for rows that take no time of their own, the same when asked again, and each row
    for itself: a row's duration does not depend on the rows around it.
    """
    durations = provider.durations(program, "check")
    assert durations.dtype == np.int64, "durations are int64 ps"
    assert durations.shape == (len(program),), "one duration per row"
    assert np.all(durations >= 0), "no negative duration"
    assert not np.any(durations[~timed_rows(program)]), "rows that are not timed take no time"
    assert np.array_equal(durations, provider.durations(program, "check")), "asked again, answers the same"
    for row in range(len(program)):
        alone = provider.durations(single(program, row), "check")
        assert alone[0] == durations[row], f"row {row} alone takes another time"


def single(program: Program, row: int) -> Program:
    """One row of a program, without its dependencies."""
    names = [name for name in Program.__slots__ if name not in ("dep", "dep_ptr") and getattr(program, name) is not None]
    columns = {name: getattr(program, name)[row : row + 1] for name in names}
    return Program(dep=np.zeros(0, dtype=np.int32), dep_ptr=np.zeros(2, dtype=np.int64), **columns)
