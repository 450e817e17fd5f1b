"""All that is to be said about a run, computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from distsim.analysis.activity import activities
from distsim.analysis.breakdown import breakdown
from distsim.analysis.critical import critical_path
from distsim.analysis.explain.bounds import Bound, bounds
from distsim.analysis.explain.classes import left_of, shares_of
from distsim.analysis.explain.late import Late, latecomers
from distsim.analysis.explain.links import PathCommunication, Place, path_communications
from distsim.analysis.explain.ranks import RankTime, Straggler, rank_times, stragglers
from distsim.analysis.explain.slack import Slack, slack
from distsim.analysis.explain.starts import LateStart, late_starts
from distsim.analysis.explain.step import step_of
from distsim.analysis.explain.story import Story, story
from distsim.analysis.source import source_of, told_by, with_senders
from distsim.analysis.underway import under_way
from distsim.errors import ConfigError, DistsimError
from distsim.result import Result
from distsim.trace.graph import TaskGraph

Progress = Callable[[float | None, str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Findings about one run, or one step of a captured one."""

    result: Result  #: what the findings are of: the step, where one was asked for
    step: str  #: empty: the whole run
    rank: int | None  #: the path is that to this rank's end; None: to the end of the run
    end_ps: int  #: of the path
    story: Story
    communications: tuple[PathCommunication, ...]
    places: Mapping[int, Place]  #: of communications of the path, by row of the span table
    latecomers: tuple[Late, ...]
    stragglers: tuple[Straggler, ...]
    late_starts: tuple[LateStart, ...]  #: of the whole run
    slack: Slack | None  #: None where spans contradict each other
    ranks: tuple[RankTime, ...]
    bounds: tuple[Bound, ...]
    notes: tuple[str, ...]  #: what is not known, or known only roughly


def explain(
    result: Result, *, step: str = "", rank: int | None = None, top: int = 12, graph: TaskGraph | None = None,
    progress: Progress | None = None,
) -> Explanation:  # fmt: skip
    """Explain a run.

    Args:
        step: one step of a captured trace, by name or number.
        rank: tell the path to the end of this rank instead of that of the run.
        top: latecomers, chains at most.
        graph: what was run, where it is at hand; else it is read again by the result's specification.
        progress: told what is going on.

    Raises: ConfigError for a step or rank that is not there.
    """
    say = progress or (lambda fraction, what: None)
    if rank is not None and not 0 <= rank < result.ranks:
        raise ConfigError(f"there is no rank {rank}", where="--rank", expected=f"0 to {result.ranks - 1}")
    notes = []
    say(None, "reading the trace again")
    source = source_of(result, graph)
    if source.graph is None:
        notes.append(
            f"of every task only the dependency that ended last is known ({source.lacking}): slack may be less than told, "
            "bounds may be higher"
        )
    say(None, "following the critical path")
    moving = under_way(result)
    told = told_by(result, source)
    moving = with_senders(moving, told, result.spans())
    starts = late_starts(result)
    if step:
        result, moving, new = step_of(result, moving, step)
        told = None if told is None else told.among(new)
    spans = result.spans()
    if step and spans.step is not None:
        step = spans.steps[int(spans.step[0])]
    shares = shares_of(spans.names, source)
    last = None
    if rank is not None:
        of = rank if result.representative is None else int(result.representative[rank])
        mine = np.flatnonzero(spans.rank == of)
        if len(mine):
            last = int(mine[np.argmax(spans.end[mine])])
    end = result.makespan if rank is None else 0 if last is None else int(spans.end[last])
    path = critical_path(result, moving, last)
    tale = story(result, path, moving, shares, end)
    say(None, "summing up ranks")
    split = breakdown(result, moving, waiting_first=True)
    ranks = rank_times(result, split, shares)
    say(None, "working back from the end")
    free: Slack | None = None
    slower = source.job is not None and source.job.stack.interference > 1
    limits: tuple[Bound, ...] = ()
    try:
        network = activities(result, moving, told)
        free = slack(result, network, top)
        limits = bounds(result, moving, network, ranks, left_of(spans.names, source), slower)
    except DistsimError as error:
        notes.append(f"no slack and no bounds: {error}")
    say(None, "looking at links")
    communications, places = path_communications(result, tale.legs, moving, source)
    return Explanation(
        result, step, rank, end, tale, communications, places, latecomers(result, tale.legs, moving, shares, top),
        stragglers(result, moving.since, moving.collective), starts, free, ranks, limits, tuple(notes),
    )  # fmt: skip
