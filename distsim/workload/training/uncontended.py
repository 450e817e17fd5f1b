"""The step on links that nobody shares: the longest path through the execution graph.

What the engine finds at ``network=analytic`` and without interference, many times faster: streams are in order and every
duration is known beforehand, so that ends follow from starts in one pass over the nodes. Sweeps rank plans by it.
"""

from __future__ import annotations

from dataclasses import dataclass

from distsim.errors import DeadlockError
from distsim.trace.graph import CollectiveType, NodeType, PeerKind, Program, TaskGraph
from distsim.workload.training.costs import Costs

_COMP, _SEND, _RECV = (int(kind) for kind in (NodeType.COMP, NodeType.COMM_SEND, NodeType.COMM_RECV))
_ACROSS = ("world", "embedding", "mirror")  #: communicators that join stages
_SENDS = 1 << 40  #: streams of sends, one per peer, are numbered around it
_RING = int(PeerKind.IN_GROUP)
_OPERATION = {int(kind): kind.name.lower() for kind in CollectiveType}


@dataclass(slots=True)
class _Stage:
    """A program as lists, and how far it has been worked out."""

    rows: list[tuple[int, int, int, int, int, int, int, int, int]]
    deps: list[list[int]]
    at: int = 0


def step_ps(graph: TaskGraph, costs: Costs) -> int:
    """ps from the start of the step to the end of its last node. Raises DeadlockError where stages wait for each other."""
    inner = costs.plan.world // costs.plan.pp
    stages = [_stage(program) for program in graph.programs]
    ends: list[list[int]] = [[] for _ in stages]
    free: list[dict[int, int]] = [{} for _ in stages]
    sent: dict[tuple[int, int, int], int] = {}
    meetings: dict[tuple[object, ...], dict[int, int]] = {}
    counts: dict[tuple[int, str], int] = {}
    moving = True
    while moving:
        moving = False
        for s, stage in enumerate(stages):
            moving |= _advance(graph, costs, inner, s, stage, ends[s], free[s], sent, meetings, counts)
    stuck = [s for s, stage in enumerate(stages) if stage.at < len(stage.rows)]
    if stuck:
        raise DeadlockError(f"pipeline stages {', '.join(map(str, stuck))} wait for each other", where=graph.source)
    return max((max(stage, default=0) for stage in ends), default=0)


def _stage(program: Program) -> _Stage:
    columns = (program.type, program.duration_ps, program.stream, program.peer, program.tag, program.bytes, program.group,
               program.collective, program.peer_kind)  # fmt: skip
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    pointers = program.dep_ptr.tolist()
    flat = program.dep.tolist()
    deps = [flat[pointers[i] : pointers[i + 1]] for i in range(len(rows))]
    return _Stage(rows, deps)


def _advance(
    graph: TaskGraph, costs: Costs, inner: int, s: int, stage: _Stage, ends: list[int], free: dict[int, int],
    sent: dict[tuple[int, int, int], int], meetings: dict[tuple[object, ...], dict[int, int]],
    counts: dict[tuple[int, str], int],
) -> bool:  # fmt: skip
    """Work out the stage's nodes up to one that waits for another stage. Returns whether any was."""
    began = stage.at
    rows, deps = stage.rows, stage.deps
    while stage.at < len(rows):
        kind, duration, stream, peer, tag, size, group, collective, by = rows[stage.at]
        start = 0
        for dep in deps[stage.at]:
            if ends[dep] > start:
                start = ends[dep]
        if kind == _RECV:
            arrived = sent.get((s if by == _RING else s + peer // inner, s, tag))
            if arrived is None:
                break
            ends.append(max(start, arrived))
        elif kind == _COMP:
            start = max(start, free.get(stream, 0))
            ends.append(start + duration)
            free[stream] = start + duration
        elif kind == _SEND:
            key = _SENDS + peer
            start = max(start, free.get(key, 0))
            if by == _RING:
                key, other = _SENDS, s
                end = start + costs.collectives.time("send", size, graph.groups[group].name, s * inner)
            else:
                other = s + peer // inner
                end = start + costs.collectives.message(size, s * inner, other * inner)
            ends.append(end)
            free[key] = sent[s, other, tag] = end
        else:
            name = graph.groups[group].name
            start = max(start, free.get(stream, 0))
            joined = {rank // inner for rank in graph.members(s * inner, group)} if name in _ACROSS else {s}
            if len(joined) > 1:
                number = counts.get((s, name), 0)
                met = meetings.setdefault((name, min(joined), number), {})
                met[s] = start
                if len(met) < len(joined):
                    break
                counts[s, name] = number + 1
                start = max(met.values())
            end = start + costs.collectives.time(_OPERATION[collective], size, name, s * inner)
            ends.append(end)
            free[stream] = end
        stage.at += 1
    return stage.at > began
