"""A timeline in Chrome's trace format (``traceEvents``): opens in https://ui.perfetto.dev and chrome://tracing.

A process per rank, a thread per stream (more, where tasks of one stream overlap); a slice per task, in microseconds, with
bytes, group, and how long it waited for other ranks. A receive is drawn from when its message sets out, as it may have been
posted long before; latencies beside all streams are left out. Large runs are cut to ``RANKS`` ranks, the slowest and then the
first, and to ``SPANS`` slices, whole ranks as far as possible; ``otherData`` says what is shown.
"""

from __future__ import annotations

import gzip
import heapq
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from distsim.analysis.intervals import Ints
from distsim.analysis.summary import Summary
from distsim.analysis.underway import communicates, is_kind
from distsim.result import Result, SpanTable

RANKS = 64  #: ranks shown at most
SPANS = 300_000  #: slices shown at most


def write_timeline(path: Path, result: Result, summary: Summary, ranks: int = RANKS, spans: int = SPANS) -> None:
    """Write ``timeline.json.gz``. Equal results give equal bytes."""
    rows, shown = _chosen(result, summary, ranks, spans)
    note = f"ranks {shown} of {result.ranks}, {len(rows)} of {len(result.spans())} tasks"
    head = {"displayTimeUnit": "ns", "otherData": {"shown": note, "makespan_us": _us(result.makespan)}}
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=5, fileobj=raw, mtime=0) as file:
        file.write(json.dumps(head)[:-1].encode() + b', "traceEvents": [\n')
        separator = b""
        for event in _events(result, summary, rows):
            file.write(separator + event.encode())
            separator = b",\n"
        file.write(b"\n]}\n")


def _chosen(result: Result, summary: Summary, ranks: int, spans: int) -> tuple[Ints, int]:
    """Rows to be shown, by rank, and the number of ranks they are of."""
    table = result.spans()
    order = list(range(result.ranks))
    if summary.slowest is not None:
        order.insert(0, order.pop(summary.slowest))
    edges = np.searchsorted(table.rank, np.arange(result.ranks + 1))
    # NOTE: latencies of launches and events are gaps between other tasks, thousands of them, of no stream
    visible = ~is_kind(table, "none") & ~(is_kind(table, "delay") & (table.stream < 0))
    taken: list[Ints] = []
    room = spans
    for rank in order[:ranks]:
        rows = np.flatnonzero(visible[edges[rank] : edges[rank + 1]]) + edges[rank]
        if taken and len(rows) > room:
            break
        taken.append(rows[:room])
        room -= len(taken[-1])
    return (np.sort(np.concatenate(taken)) if taken else np.zeros(0, np.int64)), len(taken)


def _events(result: Result, summary: Summary, rows: Ints) -> Iterator[str]:
    spans = result.spans()
    waited = (summary.moving.since - spans.start)[rows]
    begin = spans.start[rows] + np.where(is_kind(spans, "recv")[rows], waited, 0)
    lane = lanes(spans.rank[rows], spans.stream[rows], begin, spans.end[rows])
    kinds, names, groups = ([json.dumps(text) for text in texts] for texts in (spans.kinds, spans.names, ("", *spans.groups)))
    whole = (spans.rank, spans.stream, spans.kind, spans.name, spans.group, spans.end, communicates(spans), spans.bytes)
    columns = (column.tolist() for column in (rows, lane, begin, waited, *(column[rows] for column in whole)))
    known: set[int] = set()
    threads: dict[tuple[int, int, int], int] = {}
    for row, number, start, wait, rank, stream, kind, name, group, end, talks, size in zip(*columns, strict=True):
        if rank not in known:
            known.add(rank)
            yield f'{{"ph":"M","name":"process_name","pid":{rank},"args":{{"name":"rank {rank}"}}}}'
            yield f'{{"ph":"M","name":"process_sort_index","pid":{rank},"args":{{"sort_index":{rank}}}}}'
        thread = threads.get((rank, stream, number))
        if thread is None:
            thread = threads[rank, stream, number] = len(threads)
            title = stream_title(spans, stream, kind) + (f" ({number + 1})" if number else "")
            yield f'{{"ph":"M","name":"thread_name","pid":{rank},"tid":{thread},"args":{{"name":{json.dumps(title)}}}}}'
        args = f'"row":{row}'
        if talks:
            args += f',"bytes":{size},"group":{groups[group + 1]},"waited_us":{_us(wait)}'
        title = names[name] if name >= 0 and spans.names[name] else kinds[kind]
        place = f'"pid":{rank},"tid":{thread},"ts":{_us(start)},"dur":{_us(end - start)}'
        yield f'{{"ph":"X","name":{title},"cat":{kinds[kind]},{place},"args":{{{args}}}}}'


def stream_title(spans: SpanTable, stream: int, kind: int) -> str:
    """What a row is called: its stream, or, where a task has none, by what its kind is. Numbers as in the table."""
    if stream < 0 and spans.kinds[kind] == "delay":
        return "latencies"
    return (spans.streams[stream] if stream >= 0 else "") or spans.kinds[kind]


def _us(ps: int) -> str:
    """Microseconds, exact."""
    return f"{ps // 1_000_000}.{ps % 1_000_000:06d}"


def lanes(rank: Any, stream: Any, begin: Ints, end: Ints) -> Ints:
    """0 for tasks that follow one another on their stream; one that begins before the last has ended goes to a free lane."""
    order = np.lexsort((end, begin, stream, rank))
    lanes = np.zeros(len(order), np.int64)
    busy: list[tuple[int, int]] = []  #: heap of (end of the last task, lane)
    last: tuple[int, int] | None = None
    columns = (column[order].tolist() for column in (rank, stream, begin, end))
    for at, r, s, start, stop in zip(order.tolist(), *columns, strict=True):
        if (r, s) != last:
            last, busy = (r, s), []
        if busy and busy[0][0] <= start:
            lanes[at] = busy[0][1]
            heapq.heapreplace(busy, (stop, busy[0][1]))
        else:
            lanes[at] = len(busy)
            heapq.heappush(busy, (stop, len(busy)))
    return lanes
