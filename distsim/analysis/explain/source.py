"""The trace that a result came from, read again: spans name only the dependency that ended last, the trace names all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from distsim.analysis.intervals import Ints
from distsim.errors import DistsimError
from distsim.profiles.loggops.params import is_loggops
from distsim.result import Result
from distsim.scenario import scenario_of
from distsim.trace.graph import TaskGraph
from distsim.trace.order import program_order
from distsim.training import Job


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What a result was made from, as far as it could be had again."""

    graph: TaskGraph | None
    orders: tuple[Ints, ...] = ()  #: per program: row of each of its tasks, in task order
    job: Job | None = None  #: of a training step
    lacking: str = ""  #: why there is no graph


def source_of(result: Result, graph: TaskGraph | None = None) -> Source:
    """Read or build it again by the result's specification; ``graph``: where it is at hand.

    Never raises on account of the trace: a source that has gone, or has changed, is ``lacking``.
    """
    work = None
    try:
        if graph is None:
            scenario = scenario_of(result.spec)
            if scenario.profile or is_loggops(str(result.spec.get("network"))):
                return Source(None, lacking="a compatibility profile has tasks of its own")
            graph, work = scenario.graph, scenario.job if scenario.trains else None
        orders = tuple(np.asarray(program_order(program), np.int64) for program in graph.programs)
    except (DistsimError, OSError) as error:
        return Source(None, lacking=str(error).splitlines()[0])
    if not _same(result, graph, orders):
        return Source(None, lacking=f"{graph.source} is not what was run any more")
    return Source(graph, orders, work)


def _same(result: Result, graph: TaskGraph, orders: tuple[Ints, ...]) -> bool:
    """Whether the spans are of this graph: as many nodes of the same ids, on every rank that has spans."""
    spans = result.spans()
    if graph.ranks != result.ranks:
        return False
    first, count = rank_rows(spans.rank)
    for rank, low, size in zip(spans.rank[first].tolist(), first.tolist(), count.tolist(), strict=True):
        number = int(graph.rank_program[rank])
        if not np.array_equal(graph.programs[number].id[orders[number]], spans.node[low : low + size]):
            return False
    return True


def rank_rows(rank: Any) -> tuple[Ints, Ints]:
    """(first row, number of rows) of every rank that occurs; the column is ascending."""
    new = np.append(True, rank[1:] != rank[:-1])[: len(rank)]
    first = np.flatnonzero(new)
    return first, np.diff(np.append(first, len(rank)))
