"""The span table of a finished replay: what the trace tells of every task, beside when it ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distsim.engine.executor import Executor
from distsim.record import Spans
from distsim.result import SpanTable
from distsim.trace.graph import CollectiveType, NodeType, TaskGraph
from distsim.workload.replay import Replay

#: kinds of spans, in the order of their numbers
_KINDS = ("none", "compute", "host", "memory", "send", "recv", *(t.name.lower() for t in CollectiveType), "delay")


def span_columns(
    graph: TaskGraph, rows: Callable[[int], np.ndarray[Any, Any]], ranks: Sequence[int] | None = None
) -> dict[str, Any]:
    """The columns of a SpanTable that the trace itself tells; ``rows(rank)``: the program's rows in task order; ``ranks``: of
    these ranks (default: all)."""
    of_type = np.zeros(len(NodeType), dtype=np.int8)
    of_type[NodeType.DELAY] = len(_KINDS) - 1
    of_type[[NodeType.MEM_LOAD, NodeType.MEM_STORE]] = 3
    of_type[NodeType.COMM_SEND], of_type[NodeType.COMM_RECV] = 4, 5
    made: dict[int, tuple[Any, ...]] = {}
    parts: list[tuple[Any, ...]] = []
    for rank in range(graph.ranks) if ranks is None else ranks:
        number = int(graph.rank_program[rank])
        if number not in made:
            program, order = graph.programs[number], rows(rank)
            kind = of_type[program.type]
            kind[program.type == NodeType.COMP] = 1
            kind[(program.type == NodeType.COMP) & program.cpu] = 2
            coll = program.type == NodeType.COMM_COLL
            kind[coll] = 6 + program.collective[coll]
            size = np.where(coll | (kind == 4) | (kind == 5), np.maximum(program.bytes, 0), 0)
            step = np.full(len(order), -1, np.int32) if program.step is None else program.step[order]
            made[number] = (program.id[order], kind[order], program.group[order], program.name[order], size[order], step)
        parts.append((np.full(len(made[number][0]), rank, dtype=np.int32), *made[number]))
    columns = [np.concatenate(column) if parts else np.zeros(0, dtype=np.int64) for column in zip(*parts, strict=True)]
    names = ("rank", "node", "kind", "group", "name", "bytes", "step")
    return dict(zip(names, columns, strict=True)) | {
        "steps": graph.steps,
        "kinds": _KINDS, "groups": tuple(g.name for g in graph.groups), "names": graph.names,
    }  # fmt: skip


def span_table(graph: TaskGraph, workload: Replay, recorded: Spans, executor: Executor) -> SpanTable:
    """The span table of a native replay."""
    stream, streams = executor.stream_names(workload.first_task, len(recorded.start))
    return SpanTable(
        **span_columns(graph, workload.rows, workload.ranks), stream=stream, streams=streams, ready=recorded.ready,
        start=recorded.start, end=recorded.end, released_by=recorded.released_by,
    )  # fmt: skip
