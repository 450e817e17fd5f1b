"""What is in a trace: counts, bytes by collective and group, compute time, a lower bound of the step time, defects."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from distsim.errors import TraceError
from distsim.trace.check import check_ranks, group_sizes
from distsim.trace.critical import critical_path
from distsim.trace.defect import Defect
from distsim.trace.graph import CollectiveType, NodeType, TaskGraph
from distsim.trace.kineto.measure import StepMeasure, steps_of
from distsim.trace.matching import is_collective


@dataclass(frozen=True, slots=True)
class Traffic:
    """One kind of communication in one group, over all ranks."""

    operation: str
    group: str
    group_sizes: tuple[int, ...]  #: distinct sizes of the group's instances
    nodes: int
    bytes: int  #: sum over ranks of what each hands in
    largest: int  #: bytes of the largest single one


@dataclass(frozen=True, slots=True)
class Captured:
    """What a captured trace says of the run that it was recorded in."""

    gpu: str  #: empty: not said
    world: int  #: ranks of the whole job; 0: not said
    ranks: tuple[int, ...]  #: of the job, of which the trace holds the captures
    steps: tuple[tuple[StepMeasure, ...], ...]  #: of each rank
    streams: tuple[tuple[str, int, int], ...]  #: name, nodes and recorded time (ps) over all ranks; threads of the host too

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "gpu": self.gpu,
            "world": self.world,
            "ranks": list(self.ranks),
            "steps": [
                {"rank": rank, "step": one.step, "kernels": one.kernels, "span_ns": one.span_ps / 1000,
                 "compute_ns": one.compute_ps / 1000, "communication_ns": one.communication_ps / 1000,
                 "overlap_ns": one.overlap_ps / 1000, "exposed_ns": one.exposed_ps / 1000}
                for rank, steps in zip(self.ranks, self.steps, strict=True) for one in steps
            ],
            "streams": [{"stream": name, "nodes": nodes, "busy_ns": busy / 1000} for name, nodes, busy in self.streams],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Summary:
    """The answer of ``distsim trace``. Times in picoseconds; None where the trace does not say."""

    source: str
    ranks: int
    nodes: int
    programs: int
    by_type: dict[str, int]
    traffic: tuple[Traffic, ...]
    num_ops: int  #: over all ranks
    compute_ps: tuple[int, int] | None  #: least and most recorded compute time of a rank
    untimed: int  #: compute nodes (over all ranks) without a recorded duration
    critical_path_ps: int | None  #: with infinite network; None: no durations, or it never ends
    critical_path_ops: int | None  #: longest path in operations
    defects: tuple[Defect, ...]
    captured: Captured | None = None  #: of a captured trace

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "trace": self.source,
            "ranks": self.ranks,
            "nodes": self.nodes,
            "programs": self.programs,
            "nodes_by_type": self.by_type,
            "traffic": [
                {
                    "operation": t.operation,
                    "group": t.group,
                    "group_sizes": list(t.group_sizes),
                    "nodes": t.nodes,
                    "bytes": t.bytes,
                    "largest": t.largest,
                }
                for t in self.traffic
            ],
            "num_ops": self.num_ops,
            "compute_ns": None
            if self.compute_ps is None
            else {"min": self.compute_ps[0] / 1000, "max": self.compute_ps[1] / 1000},
            "untimed_compute_nodes": self.untimed,
            "critical_path_ns": None if self.critical_path_ps is None else self.critical_path_ps / 1000,
            "critical_path_ops": self.critical_path_ops,
            **({"captured": self.captured.document()} if self.captured else {}),
            "defects": [
                {
                    "kind": d.kind,
                    "severity": d.severity,
                    "what": d.what,
                    "where": d.where,
                    "near": list(d.near),
                    "repaired": d.repaired,
                }
                for d in self.defects
            ],
        }


def summarise(graph: TaskGraph, defects: list[Defect]) -> Summary:
    """Summary of a graph; ``defects``: those found while reading, to which the defects between ranks are added."""
    times = np.bincount(graph.rank_program, minlength=len(graph.programs))
    by_type: dict[str, int] = {}
    for program, count in zip(graph.programs, times, strict=True):
        for kind, nodes in zip(*np.unique(program.type, return_counts=True), strict=True):
            name = NodeType(kind).name if 0 <= kind < len(NodeType) else f"type {kind}"
            by_type[name] = by_type.get(name, 0) + int(nodes * count)
    compute = [(p.type == NodeType.COMP) for p in graph.programs]
    timed = [c & (p.duration_ps >= 0) for c, p in zip(compute, graph.programs, strict=True)]
    durations = [int(p.duration_ps[t].sum()) for p, t in zip(graph.programs, timed, strict=True)]
    untimed = sum(int((c & ~t).sum()) * int(k) for c, t, k in zip(compute, timed, times, strict=True))
    any_timed = any(t.any() for t in timed)
    used = [durations[p] for p in graph.rank_program]
    ops = sum(int(np.maximum(p.num_ops, 0).sum()) * int(k) for p, k in zip(graph.programs, times, strict=True))
    path_ps = path_ops = None
    try:
        found = check_ranks(graph)
        path = critical_path(graph)
        if path is None and not found:
            found = [Defect("deadlock", "ranks wait for each other in a circle of collectives and messages", graph.source)]
        path_ps = path if any_timed else None
        path_ops = critical_path(graph, "num_ops") if ops else None
    except TraceError:  # a cycle, which is among the defects
        found = []
    return Summary(
        graph.source,
        graph.ranks,
        graph.nodes,
        len(graph.programs),
        dict(sorted(by_type.items(), key=lambda item: -item[1])),
        _traffic(graph, times),
        ops,
        (min(used), max(used)) if any_timed else None,
        untimed,
        path_ps,
        path_ops,
        (*defects, *found),
        _captured(graph),
    )


def _captured(graph: TaskGraph) -> Captured | None:
    """None for a trace that was not captured, or not from a profiler."""
    steps = steps_of(graph.metadata)
    if not graph.captured or len(steps) != graph.ranks:
        return None
    nodes, busy = np.zeros(len(graph.streams), np.int64), np.zeros(len(graph.streams), np.int64)
    for program in (graph.program(rank) for rank in range(graph.ranks)):
        rows = (program.stream >= 0) & (program.type != NodeType.DELAY)
        np.add.at(nodes, program.stream[rows], 1)
        np.add.at(busy, program.stream[rows], program.duration_ps[rows])
    said = graph.metadata
    ranks = json.loads(said.get("kineto.ranks", "[]")) or range(graph.ranks)
    return Captured(
        said.get("kineto.gpu", ""), int(said.get("kineto.world", "0")), tuple(ranks), tuple(map(tuple, steps)),
        tuple(zip(graph.streams, nodes.tolist(), busy.tolist(), strict=True)),
    )  # fmt: skip


def _traffic(graph: TaskGraph, times: Any) -> tuple[Traffic, ...]:
    totals: dict[tuple[int, int], list[int]] = {}
    for program, count in zip(graph.programs, times, strict=True):
        kind = np.where(is_collective(program), program.collective, -1).astype(np.int64)
        kind[program.type == NodeType.COMM_SEND] = 100
        chosen = np.flatnonzero(kind >= 0)
        keys, inverse = np.unique(np.stack((kind[chosen], program.group[chosen])), axis=1, return_inverse=True)
        for index, (operation, group) in enumerate(keys.T.tolist()):
            sizes = np.maximum(program.bytes[chosen[inverse.ravel() == index]], 0)
            total = totals.setdefault((operation, group), [0, 0, 0])
            total[0] += len(sizes) * int(count)
            total[1] += int(sizes.sum()) * int(count)
            total[2] = max(total[2], int(sizes.max()))
    rows = []
    for (operation, group), (nodes, size, largest) in totals.items():
        name = "send" if operation == 100 else CollectiveType(operation).name.lower() if operation <= 9 else f"type {operation}"
        sizes_ = (2,) if operation == 100 else tuple(sorted(set(group_sizes(graph, group))))
        label = "all ranks" if group < 0 else graph.groups[group].name
        rows.append(Traffic(name, "" if operation == 100 and group < 0 else label, sizes_, nodes, size, largest))
    return tuple(sorted(rows, key=lambda row: -row.bytes))
