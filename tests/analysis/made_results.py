"""Results made by hand: spans as tuples, times in ps."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from distsim.record import CollectiveRow
from distsim.result import LinkTable, Result, SpanTable
from distsim.topology.spec import build

KINDS = ("none", "compute", "host", "memory", "send", "recv", "all_reduce", "all_gather")

Span = tuple[int, str, int, int]  #: rank, kind, start, end


def made(
    spans: Iterable[Span],
    *,
    ranks: int = 1,
    makespan: int | None = None,
    collectives: tuple[CollectiveRow, ...] = (),
    groups: tuple[str, ...] = (),
    group: Iterable[int] | None = None,
    size: Iterable[int] | None = None,
    ready: Iterable[int] | None = None,
    stream: Iterable[int] | None = None,
    released_by: Iterable[int] | None = None,
) -> Result:
    """A result with these spans, which must be ordered by rank."""
    rows = list(spans)
    count = len(rows)
    start = np.array([row[2] for row in rows], np.int64)
    end = np.array([row[3] for row in rows], np.int64)

    def column(values: Iterable[int] | None, default: int, kind: type = np.int64) -> np.ndarray:
        return np.array([default] * count if values is None else list(values), kind)

    table = SpanTable(
        rank=np.array([row[0] for row in rows], np.int32), node=np.arange(count),
        kind=np.array([KINDS.index(row[1]) for row in rows], np.int8), stream=column(stream, 0, np.int32),
        group=column(group, -1, np.int32), name=column(None, -1, np.int32), bytes=column(size, 0),
        ready=start if ready is None else column(ready, 0), start=start, end=end, released_by=column(released_by, -1),
        kinds=KINDS, streams=("", "compute", "comm"), groups=groups, names=(),
    )  # fmt: skip
    finish = np.zeros(ranks, np.int64)
    np.maximum.at(finish, table.rank, end)
    topology = build("ring:hosts=2")
    return Result(
        makespan=int(finish.max(initial=0)) if makespan is None else makespan, finish=finish, ranks=ranks, topology=topology,
        links=LinkTable(np.zeros(topology.links, np.int64), np.zeros(topology.links, np.int64)), collectives=collectives,
        spec={}, provenance={}, counts={}, make_spans=lambda: table,
    )  # fmt: skip
