"""Run a job under the profile: folded if ranks do alike, interpreted if small, compiled if large."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.errors import DeadlockError
from distsim.profiles.astra import layout as L  # noqa: N812
from distsim.profiles.astra.config import AstraConfig
from distsim.profiles.astra.fold import fold
from distsim.profiles.astra.loop import run
from distsim.profiles.astra.lower import Job, memory_of
from distsim.profiles.astra.memory import Spans

#: events between looks at progress
_SLICE = 2_000_000


@dataclass(frozen=True, slots=True, eq=False)
class AstraRun:
    """What came out. Times in ns. Node columns are per simulated rank, in table (id) order."""

    finish: NDArray[np.int64]  #: per rank
    exposed: NDArray[np.int64]  #: per rank: finish - GPU compute, ASTRA-sim's "exposed communication"
    start: list[NDArray[np.int64]]  #: per rank: start of each node
    end: list[NDArray[np.int64]]
    link_bytes: NDArray[np.int64]
    link_busy: NDArray[np.int64]
    events: int
    messages: int  #: over all ranks
    folded: bool  #: one rank was simulated for all


def simulate(
    job: Job, config: AstraConfig, *, allow_fold: bool = True, progress: Callable[[float], None] | None = None,
    blame: Callable[[list[tuple[int, int, bool]]], str] | None = None,
) -> AstraRun:  # fmt: skip
    """Run to the end. Raises DeadlockError when nothing can happen while ranks still wait.

    progress: told the fraction of nodes that are done now and then. blame: turns [(rank, row, is running)] of unfinished
    nodes into the message of a deadlock.
    """
    folded = fold(job, config) if allow_fold else None
    if folded is not None:
        done = _run(folded, config, True, progress)
        if done is not None:
            return _result(folded, config, done[0], done[1], folded=True)
    done = _run(job, config, False, progress)
    assert done is not None
    m, spans, why = done
    if why == L.STUCK:
        stuck = _unfinished(job, m)
        raise DeadlockError(blame(stuck) if blame else f"{len(stuck)} nodes can never finish")
    return _result(job, config, m, spans, folded=False)


def _run(job: Job, config: AstraConfig, folded: bool, progress: Callable[[float], None] | None):  # type: ignore[no-untyped-def]
    """(memory, bases, why it ended), or None when a folded run met a tie that may not be the same for all ranks."""
    ranks = 1 if folded else config.ranks
    nodes = sum(len(job.tables[t].waiting) for t in job.rank_table[:ranks])
    kernel, compiled = run.for_work(ranks * job.plans.messages_per_rank() * 12 + nodes * 12)
    room = 1
    while True:
        array, f, spans = memory_of(job, config, folded=folded, room=room)
        m = array if compiled else array.tolist()
        floats = f if compiled else f.tolist()
        fired = 0
        while True:
            answer = kernel(m, floats, fired, m[L.EVENTS_DONE] + _SLICE)
            why, fired = answer >> 32, answer & 0xFFFFFFFF
            if why != L.PAUSE:
                break
            if progress:
                left = sum(int(m[m[L.RANK] + rank * L.RANK_W + L.R_LEFT]) for rank in range(ranks))
                progress(1 - left / nodes)
        if why == L.GROW:
            room *= 4  # start again with more room: the pools are small beside the run
            continue
        if folded and why in (L.UNSURE, L.STUCK):
            return None
        return np.asarray(m, dtype=np.int64), spans, why


def _unfinished(job: Job, m: NDArray[np.int64]) -> list[tuple[int, int, bool]]:
    """(rank, row, running) of nodes that are running, or ready but held up."""
    stuck = []
    for rank in range(int(m[L.RANKS])):
        base = int(m[L.RANK]) + rank * L.RANK_W
        table = job.tables[job.rank_table[rank]]
        state = m[m[L.STATE] + m[base + L.R_DYNAMIC] * L.STATE_W :][: len(table.waiting) * L.STATE_W].reshape(-1, L.STATE_W)
        running = (state[:, L.S_START] >= 0) & (state[:, L.S_END] < 0)
        held = (state[:, L.S_START] < 0) & (state[:, L.S_WAITING] == 0)
        stuck += [(rank, int(row), True) for row in np.flatnonzero(running)]
        stuck += [(rank, int(row), False) for row in np.flatnonzero(held)]
    return stuck


def _result(job: Job, config: AstraConfig, m: NDArray[np.int64], spans: Spans, *, folded: bool) -> AstraRun:
    """Read the answer out of the memory."""
    ranks = int(m[L.RANKS])
    rows = m[spans[L.RANK]].reshape(ranks, L.RANK_W)
    start, end = [], []
    for rank in range(ranks):
        n = len(job.tables[job.rank_table[rank]].waiting)
        at = spans[L.STATE].start + int(rows[rank, L.R_DYNAMIC]) * L.STATE_W
        state = m[at : at + n * L.STATE_W].reshape(n, L.STATE_W)
        start.append(state[:, L.S_START].copy())
        end.append(state[:, L.S_END].copy())
    times = config.ranks // ranks
    finish = np.repeat(rows[:, L.R_FINISH], times)
    exposed = np.repeat(rows[:, L.R_FINISH] - rows[:, L.R_GPU_NS], times)
    links = m[spans[L.LINK]].reshape(-1, L.LINK_W)
    return AstraRun(
        finish, exposed, start, end, links[:, L.L_BYTES].copy(), links[:, L.L_BUSY_NS].copy(), int(m[L.EVENTS_DONE]),
        int(m[L.MESSAGES]) * times, folded,
    )  # fmt: skip
