"""Chakra traces from the field: what converters leave out of graphs of real runs, found and mended.

- Host operators that only issue a collective (``c10d::broadcast_``) stand as collectives without a kind: they are host work.
- Collective kernels have no kind and no size but their name and recorded duration: replayed with that, waiting included.
- GPU nodes stand in the order of their ids, which need not be that of their stream: where the file gives streams and times,
  they follow each other by time. Otherwise a collective that nothing waits for would be issued too early.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np
from numpy.typing import NDArray

from distsim.trace.defect import Defect
from distsim.trace.graph import CollectiveType, NodeType, Program, TaskGraph
from distsim.trace.kineto.facts import operation_of
from distsim.trace.order import find_cycle

_KERNEL = re.compile(r"^\w*?nccl(?:dev)?kernel_", re.IGNORECASE)


def mend(graph: TaskGraph) -> tuple[TaskGraph, list[Defect]]:
    """The graph as it was meant, and what was mended in it; a graph that wants nothing comes back as it is."""
    programs: list[Program] = []
    hosts = named = ordered = tied = 0
    for program in graph.programs:
        untold = (program.type == NodeType.COMM_COLL) & (program.collective < 0)
        host = untold & program.cpu
        if host.any():
            program = dataclasses.replace(program, type=np.where(host, NodeType.COMP, program.type).astype(np.int8))
            hosts += int(host.sum())
        kernels = np.flatnonzero(untold & ~host)
        if len(kernels):
            kinds = np.array([_operation(graph.names[n] if n >= 0 else "") for n in program.name[kernels]], np.int8)
            collective = program.collective.copy()
            collective[kernels] = kinds
            program = dataclasses.replace(program, collective=collective)
            named += int((kinds >= 0).sum())
        program, added = _by_time(program)
        ordered += max(added, 0)
        tied += added < 0
        programs.append(program)
    if not (hosts or named or ordered or tied):
        return graph, []
    found = [
        _told(hosts, "host operator that issues", "host operators that issue", "collectives: taken for host work", graph),
        _told(named, "collective kernel", "collective kernels", "without a comm_type: taken from the name", graph),
        _told(ordered, "GPU node", "GPU nodes", "in another order than their times on their stream: ordered by time", graph),
        _told(tied, "program", "programs", "whose times contradict its dependencies: left in the order of ids", graph),
    ]
    return (
        dataclasses.replace(graph, programs=tuple(programs), captured=graph.captured or _timed_only(programs)),
        [defect for defect in found if defect is not None],
    )


def _told(count: int, one: str, many: str, what: str, graph: TaskGraph) -> Defect | None:
    text = f"{count:,} {one if count == 1 else many} {what}"
    return Defect("field", text, graph.source, severity="warning", repaired=True) if count else None


def _operation(name: str) -> int:
    """CollectiveType of an NCCL kernel's name, -1 where it tells none."""
    operation = operation_of(_KERNEL.sub("", name))
    if isinstance(operation, CollectiveType):
        return int(operation)
    return int(CollectiveType.ALL_TO_ALL) if operation else -1


def _timed_only(programs: list[Program]) -> bool:
    """Whether collectives have recorded durations and no sizes: only a replay of what was recorded is possible."""
    rows = [(p.bytes[p.type == NodeType.COMM_COLL], p.duration_ps[p.type == NodeType.COMM_COLL]) for p in programs]
    size, duration = (np.concatenate(column) for column in zip(*rows, strict=True))
    return len(size) > 0 and bool((size < 0).all() and (duration >= 0).all())


def _by_time(program: Program) -> tuple[Program, int]:
    """GPU nodes of one stream that do not stand in the order of their times are made to follow each other; how many, -1 where
    that contradicts dependencies."""
    rows = np.flatnonzero((program.stream >= 0) & (program.start_ps >= 0) & ~program.cpu)
    order = rows[np.lexsort((rows, program.start_ps[rows], program.stream[rows]))]
    first, second = order[:-1], order[1:]
    wrong = (program.stream[first] == program.stream[second]) & (first > second)
    if not wrong.any():
        return program, 0
    # the whole of such a stream follows its times: one edge alone would leave the rest in the order of ids
    late = np.isin(program.stream[first], np.unique(program.stream[first[wrong]]))
    tie = late & (program.stream[first] == program.stream[second])
    mended = _with(program, first[tie], second[tie])
    return (program, -1) if find_cycle(mended) else (mended, int(wrong.sum()))


def _with(program: Program, before: NDArray[np.int64], after: NDArray[np.int64]) -> Program:
    """The program with further dependencies: ``after[k]`` waits for ``before[k]``."""
    owner = np.concatenate((np.repeat(np.arange(len(program)), np.diff(program.dep_ptr)), after))
    dep = np.concatenate((program.dep.astype(np.int64), before))
    order = np.argsort(owner, kind="stable")
    pairs = np.stack((owner[order], dep[order]))
    counts = np.bincount(pairs[0], minlength=len(program))
    return dataclasses.replace(
        program, dep_ptr=np.concatenate(([0], np.cumsum(counts))).astype(np.int64), dep=pairs[1].astype(np.int32)
    )
