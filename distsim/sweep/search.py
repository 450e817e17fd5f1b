"""The best point of a space, with proof: bounds for all, simulations in the order of bounds, until no bound is below the best.

A point whose lower bound is not below the best simulated time cannot beat it, and those after it in the order cannot either: so
the search ends with the optimum of its space whenever bounds are true, and says so; every simulated point is checked against
its bound. Where time runs out first, it says how many points are left unproven, and how much they could gain at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field
from typing import Any

from distsim.errors import ConfigError, OutOfMemoryError
from distsim.sweep.evaluator import Columns, Evaluator, Outcome, Point, Refusal, alike, function, plain, refusal
from distsim.sweep.executors import Crew
from distsim.sweep.points import Numbered, Refused, Tally
from distsim.sweep.runner import Progress, WorkersLostError, run_batch

_BATCH = 256  #: points of one batch of bounds
_FOR_BOUNDS = 0.5  #: share of the time that bounds may take


@dataclass(frozen=True, slots=True)
class Limits:
    """What a search may spend, and what a plan may.

    Attributes:
        seconds: wall time; None: until proven.
        memory: bytes per device; None: what the evaluator's own bound allows.
    """

    seconds: float | None = None
    memory: int | None = None
    objective: str = "step_ps"
    memory_column: str = "memory_bytes"


@dataclass(frozen=True, slots=True)
class Trial:
    """A point that was simulated."""

    number: int  #: in the space; -1: the plan to be compared with
    point: Mapping[str, object]
    bounds: Columns
    columns: Columns
    value: float  #: of the objective


@dataclass(slots=True)
class Search:
    """What a search found, and what became of every point that it did not simulate."""

    size: int  #: points of the space
    best: Trial | None = None
    against: Trial | None = None
    against_why: str = ""  #: why the plan to be compared with could not be simulated
    trials: list[Trial] = field(default_factory=list)  #: fastest first
    refused: list[Refused] = field(default_factory=list)
    bounded: int = 0  #: points with a bound
    by_bound: int = 0  #: not simulated, as their bound is not below the best
    smallest_pruned: float | None = None  #: smallest bound among those
    unproven: int = 0  #: left when time ran out, bounds below the best
    smallest_unproven: float | None = None
    unbounded: int = 0  #: left without a bound when time ran out
    cannot_run: int = 0  #: refused by the simulation itself; among ``refused``
    failed: int = 0  #: simulated without a result, by a mistake or for want of memory here: they prove nothing
    first_failure: str = ""
    over_memory: int = 0  #: simulated, and found to need more memory than the limit
    false_bounds: int = 0  #: simulated faster than their bound, which proves nothing then
    seconds_bounds: float = 0.0
    seconds: float = 0.0

    @property
    def proven(self) -> bool:
        """Whether no plan of the space can be faster than the best."""
        return self.best is not None and not (self.unproven or self.unbounded or self.false_bounds or self.failed)


def search(
    evaluator: Evaluator, points: Sequence[Numbered], size: int, refused: Tally, workers: Crew, limits: Limits,
    against: Point | None = None, progress: Progress = lambda fraction, what: None, now: Callable[[], float] = time.monotonic,
) -> Search:  # fmt: skip
    """The point with the smallest objective.

    Args:
        points: that meet the constraints of the space; refused: the others, by reason (bounds add theirs).
        size: points of the space in all.
        against: a plan to be compared with; it is simulated first, so that its time prunes too.

    Raises: WorkersLostError.
    """
    begin = now()
    deadline = None if limits.seconds is None else begin + limits.seconds
    found = Search(size)
    try:
        ordered = _bounds(evaluator, points, refused, workers, limits, found, deadline, progress, now)
        found.seconds_bounds = now() - begin
        if against is not None:
            _compare(evaluator, against, limits, found)
        _simulate(evaluator, ordered, refused, workers, limits, found, deadline, progress, now)
    except BrokenExecutor:
        fix = "Use fewer --workers if memory was short."
        raise WorkersLostError("a worker process died", where="search", fix=fix) from None
    found.refused = refused.rows()
    found.trials.sort(key=lambda trial: (trial.value, trial.number))
    found.seconds = now() - begin
    return found


_Bound = tuple[float, Numbered, Columns]


def bound_batch(bound: str, points: Sequence[Point]) -> list[Columns | Refusal]:
    """In a worker: the bounds of points, or why they are refused."""
    made: list[Columns | Refusal] = []
    found = function(bound)
    for point in points:
        try:
            made.append(plain(found(point), "bound"))
        except ConfigError as error:
            made.append(refusal(error))
    return made


def _bounds(
    evaluator: Evaluator, points: Sequence[Numbered], refused: Tally, workers: Crew, limits: Limits, found: Search,
    deadline: float | None, progress: Progress, now: Callable[[], float],
) -> list[_Bound]:  # fmt: skip
    """Points by bound, of equals by number; what their bounds refuse goes to ``refused``."""
    stop = None if deadline is None else now() + _FOR_BOUNDS * (deadline - now())
    ordered: list[_Bound] = []
    done = 0
    for some, results in _in_order(workers, evaluator.bound, points, stop, now):
        progress(done / len(points), f"bounding plan {done:,} of {len(points):,}")
        done += len(some)
        for one, result in zip(some, results, strict=True):
            why = result if isinstance(result, Refusal) else _over(result, limits)
            if why is not None:
                refused.add(one.number, why)
            elif not isinstance(result, Refusal):
                ordered.append((_value(result.get(limits.objective)) or 0.0, one, result))
    found.unbounded = len(points) - done
    found.bounded = len(ordered)
    return sorted(ordered, key=lambda bound: (bound[0], bound[1].number))


def _in_order(
    workers: Crew, bound: str, points: Sequence[Numbered], stop: float | None, now: Callable[[], float]
) -> Iterator[tuple[Sequence[Numbered], list[Columns | Refusal]]]:
    """Batches and their bounds, in order; no more are begun after ``stop``."""
    batches = (points[at : at + _BATCH] for at in range(0, len(points), _BATCH))
    waiting: list[tuple[Sequence[Numbered], Future[list[Columns | Refusal]]]] = []
    for some in batches:
        if stop is not None and now() > stop:
            break
        waiting.append((some, workers.executor.submit(bound_batch, bound, [dict(one.point) for one in some])))
        if len(waiting) > 2 * workers.width:
            first, future = waiting.pop(0)
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()


def _over(columns: Columns, limits: Limits) -> Refusal | None:
    """The refusal of a plan whose memory is beyond the limit, by its lower bound."""
    from distsim.units import format_size

    needs = _value(columns.get(limits.memory_column))
    if limits.memory is None or needs is None or needs <= limits.memory:
        return None
    return Refusal("memory", f"needs more than {format_size(limits.memory)}", f"at least {format_size(needs)}")


def _value(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _compare(evaluator: Evaluator, against: Point, limits: Limits, found: Search) -> None:
    """Simulate the plan to be compared with, also one that does not fit in memory: it is no candidate then."""
    point, unfit = against, ""
    try:
        try:
            bounds = plain(function(evaluator.bound)(point), "bound")
        except OutOfMemoryError as error:
            point, unfit = {**against, **evaluator.lenient}, error.what
            bounds = plain(function(evaluator.bound)(point), "bound")
    except ConfigError as error:
        found.against_why = str(error)
        return
    over = _over(bounds, limits)
    _, (outcome,), _ = run_batch(evaluator.evaluate, [point])
    trial = _trial(-1, against, bounds, outcome, limits)
    if trial is None:
        found.against_why = outcome.failed or f"gives no {limits.objective}"
        return
    found.against = trial
    if unfit:
        found.against_why = f"does not fit in memory: {unfit}"
    elif over is None and not _too_large(trial, limits):
        found.best = trial
        found.trials.append(trial)
    else:
        found.against_why = "needs more memory than the limit"


def _trial(number: int, point: Point, bounds: Columns, outcome: Outcome, limits: Limits) -> Trial | None:
    value = None if outcome.columns is None else _value(outcome.columns.get(limits.objective))
    return None if value is None or outcome.columns is None else Trial(number, point, bounds, outcome.columns, value)


def _too_large(trial: Trial, limits: Limits) -> bool:
    needs = _value(trial.columns.get(limits.memory_column))
    return limits.memory is not None and needs is not None and needs > limits.memory


def _simulate(
    evaluator: Evaluator, ordered: Sequence[_Bound], refused: Tally, workers: Crew, limits: Limits, found: Search,
    deadline: float | None, progress: Progress, now: Callable[[], float],
) -> None:  # fmt: skip
    """Best first. Results count in the order of bounds, as if one worker had run them all: others only run ahead."""
    finished: dict[int, Outcome] = {}
    under_way: dict[Future[Any], int] = {}
    at, submitted, late, cost = 0, 0, False, 0.0
    while at < len(ordered) and not _done(ordered[at][0], found):
        late = late or (deadline is not None and now() + cost > deadline)
        while not late and submitted < len(ordered) and len(under_way) < workers.width:
            if _done(ordered[submitted][0], found):
                break
            job = workers.executor.submit(run_batch, evaluator.evaluate, [dict(ordered[submitted][1].point)])
            under_way[job] = submitted
            submitted += 1
        if under_way:
            ready, _ = wait(under_way, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in ready:
                _, (finished[under_way.pop(future)],), took = future.result()
                cost = max(0.5 * cost, took)
        while at in finished and not _done(ordered[at][0], found):
            _count(ordered[at], finished.pop(at), refused, limits, found)
            at += 1
        progress(None if found.best is None else at / len(ordered), f"simulating, {len(found.trials):,} plans so far")
        if late and not under_way and at not in finished:
            break
    for future in under_way:
        future.cancel()
    left = ordered[at:]
    below = [bound for bound, _, _ in left if not _done(bound, found)]
    beyond = [bound for bound, _, _ in left if _done(bound, found)]
    found.unproven, found.smallest_unproven = len(below), min(below, default=None)
    found.by_bound, found.smallest_pruned = len(beyond), min(beyond, default=None)


def _done(bound: float, found: Search) -> bool:
    """Whether a bound is not below the best."""
    return found.best is not None and bound >= found.best.value


def _count(bound: _Bound, outcome: Outcome, refused: Tally, limits: Limits, found: Search) -> None:
    """Take one result into account."""
    value, one, bounds = bound
    trial = _trial(one.number, one.point, bounds, outcome, limits)
    if trial is None and outcome.failed and not outcome.passing:
        what = outcome.failed.splitlines()[0]
        refused.add(one.number, Refusal("simulation", alike(what), what))
        found.cannot_run += 1
        return
    if trial is None:
        found.failed += 1
        found.first_failure = found.first_failure or outcome.failed or f"no {limits.objective}"
        return
    found.false_bounds += trial.value < value
    if _too_large(trial, limits):
        found.over_memory += 1
        return
    found.trials.append(trial)
    if found.best is None or trial.value < found.best.value:
        found.best = trial
