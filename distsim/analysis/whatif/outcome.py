"""Before, estimate and re-simulation side by side, and why the last two differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distsim.analysis.activity import once_moving
from distsim.analysis.steps import median_ps, steps
from distsim.analysis.underway import is_kind, under_way
from distsim.analysis.whatif.estimate import Estimate, Recorded
from distsim.result import Result
from distsim.units import format_time

#: an estimate this close to the simulation is called exact
_EXACT = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A change: what it was estimated to give, and what it gives. Times in ps.

    ``iterations``: of a captured trace, how many it holds; ``step`` and ``step_after``: their median, before and after.
    """

    before: int
    estimate: Estimate
    after: int | None = None  #: re-simulated
    why: tuple[str, ...] = ()  #: sentences on what the estimate missed
    iterations: int = 0
    step: int | None = None
    step_after: int | None = None

    @property
    def error(self) -> float | None:
        """Of the estimate, over the re-simulated makespan."""
        if self.after is None or self.estimate.makespan is None or not self.after:
            return None
        return self.estimate.makespan / self.after - 1


def outcome(recorded: Recorded, estimate: Estimate, after: Result | None) -> Outcome:
    """Compare. ``after``: the re-simulated run, if there is one."""
    before, known = recorded.result.makespan, estimate.path is not None and estimate.durations is not None
    count, step = _steps(recorded.result)
    if after is None:
        return Outcome(before, estimate, iterations=count, step=step)
    why = tuple(_why(recorded, estimate, after)) if known and estimate.makespan is not None else ()
    return Outcome(before, estimate, after.makespan, why, count, step, _steps(after)[1])


def _steps(result: Result) -> tuple[int, int | None]:
    """(iterations, median ps of one)."""
    found = steps(result)
    return len(found), median_ps(found) if found else None


def _why(recorded: Recorded, estimate: Estimate, after: Result) -> list[str]:
    assert estimate.path is not None
    assert estimate.durations is not None
    assert estimate.makespan is not None
    found = []
    if estimate.stayed < 0.995:
        found.append(f"another path became the longest: {100 * (1 - estimate.stayed):.0f} % of it was not on the recorded one")
    missed = after.makespan - estimate.makespan
    if abs(missed) <= _EXACT * after.makespan:
        return [*found, "the estimate is exact: durations alone decide here"]
    spans, rows = recorded.result.spans(), estimate.path.rows
    if len(after.spans()) != len(spans):
        return [*found, "ranks fold in another way"]
    took = once_moving(after.spans(), under_way(after))[rows] - estimate.durations[rows]
    talks = ~is_kind(spans, "compute", "host", "memory", "none", "delay")[rows]
    for mine, what in ((talks, "communication"), (~talks, "computation")):
        more = float(took[mine].sum())
        if abs(more) > 0.1 * abs(missed):
            cause = "it meets other traffic" if what == "communication" else "more or less communication runs beside it"
            found.append(
                f"{what} on the estimated path took {format_time(abs(round(more)))} "
                f"{'longer' if more > 0 else 'less'} than estimated: {cause}"
            )
    changed = reordered(recorded.result, after)
    if changed:
        who = "1 stream took its" if changed == 1 else f"{changed:,} streams took their"
        found.append(f"{who} tasks in another order")
    return found or ["tasks off the estimated path came later than estimated, and became the longest path"]


def reordered(before: Result, after: Result) -> int:
    """Streams that ran their tasks in another order."""
    one, two = before.spans(), after.spans()
    if len(one) != len(two):
        return 0
    stream = one.rank * np.int64(len(one.streams) + 1) + one.stream
    rows = np.flatnonzero((stream >= 0) & np.array([bool(name) for name in (*one.streams, "")])[one.stream])
    orders = [rows[np.lexsort((rows, spans.end[rows], spans.start[rows], stream[rows]))] for spans in (one, two)]
    return len(np.unique(stream[orders[0][orders[0] != orders[1]]]))
