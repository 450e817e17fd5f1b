"""One iteration of a captured trace as a result of its own."""

from __future__ import annotations

import dataclasses

import numpy as np

from distsim.analysis.explain.starts import late_rows
from distsim.analysis.intervals import Ints
from distsim.analysis.underway import UnderWay, on_gpu
from distsim.errors import ConfigError, UnknownNameError
from distsim.result import Result

_KEPT = ("rank", "node", "kind", "stream", "group", "name", "bytes", "step")  #: columns that do not tell times


def step_of(result: Result, moving: UnderWay, name: str) -> tuple[Result, UnderWay, Ints]:
    """The tasks of a step, from the start of its first kernel to the end of its last; times count from there.

    What the host did before its first kernel is cut off; the late start of a rank is not. Links keep the use of the whole
    run. The third answer is the new number of every row of the whole run, -1 for those left out.

    Raises: ConfigError where the trace tells no steps, UnknownNameError for a step that is not there.
    """
    spans = result.spans()
    if spans.step is None or not spans.steps:
        raise ConfigError("the run tells no steps", where="--step", fix="Only captured traces have them; leave it out.")
    if name not in spans.steps:
        near = [one for one in spans.steps if one.rpartition("#")[2] == name]
        if len(near) != 1:
            raise UnknownNameError("step", name, spans.steps, where="--step")
        name = near[0]
    mine = np.flatnonzero(spans.step == spans.steps.index(name))
    kernels = mine[on_gpu(spans)[mine]]
    if not len(kernels):
        raise ConfigError(f"step {name} has no work on a GPU", where="--step", expected=f"one of {', '.join(spans.steps)}")
    begin, end = int(spans.start[kernels].min()), int(spans.end[kernels].max())
    starts = late_rows(spans) & (spans.end > begin) & (spans.start < end)
    rows = np.union1d(mine[(spans.end[mine] >= begin) & (spans.start[mine] <= end)], np.flatnonzero(starts))
    new = np.full(len(spans) + 1, -1, np.int64)
    new[rows] = np.arange(len(rows))

    def shifted(column: Ints) -> Ints:
        return np.clip(column, begin, end) - begin

    cut = dataclasses.replace(
        spans, **{column: getattr(spans, column)[rows] for column in _KEPT},
        ready=shifted(spans.ready[rows]), start=shifted(spans.start[rows]), end=shifted(spans.end[rows]),
        released_by=new[spans.released_by[rows]],
        multiplicity=None if spans.multiplicity is None else spans.multiplicity[rows],
    )  # fmt: skip
    finish = np.zeros(result.ranks, np.int64)
    np.maximum.at(finish, cut.rank, cut.end)
    if result.representative is not None:
        finish = finish[result.representative]
    # NOTE: rows of collectives keep their numbers, and so do members; those of other steps lie outside of the window
    collectives = tuple(
        dataclasses.replace(row, first_ps=row.first_ps - begin, start_ps=row.start_ps - begin, end_ps=row.end_ps - begin)
        for row in result.collectives
    )
    send = moving.send[rows]
    inside = UnderWay(shifted(moving.since[rows]), moving.collective[rows], np.where(send >= 0, new[send], -1))
    return dataclasses.replace(
        result, makespan=end - begin, finish=finish, collectives=collectives, make_spans=lambda: cut
    ), inside, new[:-1]  # fmt: skip
