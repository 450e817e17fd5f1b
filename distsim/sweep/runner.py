"""Runs the points of a study on an executor, keeps each in the journal as it finishes, and never runs one twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass
from typing import Any

import numpy as np

from distsim.errors import ConfigError, DistsimError
from distsim.sweep.evaluator import Evaluator, Outcome, Point, Refusal, function, outcome, plain, refusal
from distsim.sweep.executors import Crew
from distsim.sweep.journal import Journal, code, point_key
from distsim.sweep.points import Numbered, Tally

Progress = Callable[[float | None, str], None]
_BATCH = 1.0  #: seconds that one batch is to take: what a kill costs a worker at most
_LARGEST = 256  #: points in one batch
_AHEAD = 2  #: batches submitted per worker


@dataclass(frozen=True, slots=True)
class Task:
    """A point that passed all checks, with its key and the bounds of its columns."""

    numbered: Numbered
    key: str
    bounds: dict[str, Any]


class WorkersLostError(DistsimError):
    """Worker processes died (killed, out of memory): what is finished is kept, and the study goes on when run again."""


def screen(
    evaluator: Evaluator, points: Sequence[Numbered], refused: Tally, progress: Progress, sample: int = 0, seed: int = 0
) -> list[Task]:
    """The points that ``bound`` does not refuse, by number; the others are added to ``refused``.

    Args:
        sample: keep at most this many of them, drawn with ``seed``; 0: all. Only as many are checked as it takes.
    """
    bound = function(evaluator.bound) if evaluator.bound else None
    order = list(np.random.default_rng(seed).permutation(len(points))) if sample else range(len(points))
    tasks: list[Task] = []
    for at, place in enumerate(order):
        one = points[place]
        if sample and len(tasks) == sample:
            first = min(points[other].number for other in order[at:])
            why = Refusal("constraint", f"not in the sample of {sample}", f"point {first}")
            refused.add(first, why, len(points) - at)
            break
        if at % 64 == 0:
            progress(at / len(points), f"checking point {at:,} of {len(points):,}")
        try:
            bounds = {} if bound is None else plain(bound(one.point), "bound")
        except ConfigError as error:
            refused.add(one.number, refusal(error))
            continue
        tasks.append(Task(one, point_key(evaluator, one.point), bounds))
    return sorted(tasks, key=lambda task: task.numbered.number)


def run_batch(evaluate: str, points: Sequence[Point]) -> tuple[str, list[Outcome], float]:
    """In a worker: its code, the outcomes in order, and the seconds that they took."""
    begin = time.perf_counter()
    found = function(evaluate)
    return code(), [outcome(found, point) for point in points], time.perf_counter() - begin


def run(evaluator: Evaluator, tasks: Sequence[Task], workers: Crew, journal: Journal, progress: Progress) -> dict[str, Outcome]:
    """Outcomes of all tasks by key: from the journal where it has them, else run now.

    Raises: WorkersLostError; ConfigError where a worker runs other code than this process.
    """
    left = [task for task in tasks if task.key not in journal.done]
    passing: dict[str, Outcome] = {}
    under_way: dict[Future[Any], list[Task]] = {}
    size, at, finished = 1, 0, 0
    try:
        while at < len(left) or under_way:
            while at < len(left) and len(under_way) < _AHEAD * workers.width:
                # towards the end batches get small, so that all workers end together
                some = left[at : at + max(1, min(size, (len(left) - at) // (_AHEAD * workers.width)))]
                at += len(some)
                points = [dict(task.numbered.point) for task in some]
                under_way[workers.executor.submit(run_batch, evaluator.evaluate, points)] = some
            progress(finished / len(left), f"running point {finished:,} of {len(left):,}")
            done, _ = wait(under_way, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in done:
                some = under_way.pop(future)
                theirs, outcomes, took = future.result()
                if workers.remote and theirs != code():
                    raise ConfigError(
                        f"a worker runs distsim {theirs}, this process {code()}", where="--dask",
                        fix="Install the same version on all workers.",
                    )  # fmt: skip
                pairs = [(task.key, one) for task, one in zip(some, outcomes, strict=True)]
                journal.append([pair for pair in pairs if not pair[1].passing])
                passing.update(pair for pair in pairs if pair[1].passing)
                finished += len(some)
                size = max(1, min(_LARGEST, int(_BATCH * len(some) / max(took, 1e-6)), 2 * size))
    except BrokenExecutor:
        raise WorkersLostError(
            f"a worker process died; {finished:,} of {len(left):,} points are kept", where="sweep",
            fix="Run the same command again to go on; with fewer --workers if memory was short.",
        ) from None  # fmt: skip
    finally:
        for future in under_way:
            future.cancel()
    return {task.key: journal.done.get(task.key) or passing[task.key] for task in tasks}
