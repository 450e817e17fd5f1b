"""Who did what when: columns of the tasks that are shown, for a drawing on canvas.

A row of the drawing is a stream of a rank; tasks of one stream that overlap have rows of their own. Within a row tasks follow
one another, so that a page finds those of a window by bisection and what is too small to see by sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.intervals import Ints
from distsim.analysis.summary import Summary
from distsim.analysis.underway import communicates, is_kind
from distsim.report.html.columns import narrow, packed, packed_json
from distsim.report.html.markup import escape, paragraph
from distsim.report.html.section import Section
from distsim.report.html.shown import Shown
from distsim.report.timeline import lanes, stream_title
from distsim.result import Result, SpanTable

#: the clock of the page has at most so many ticks; times are exact in runs up to 2 ms, to 1 part in 2 billion beyond
_TICKS = 1 << 31
SCRIPTS = ("timeline_spans.js", "timeline_paint.js", "timeline.js")


@dataclass(frozen=True, slots=True, eq=False)
class Arranged:
    """The tasks in the order of the drawing: by rank, stream, row of the drawing, then begin."""

    rows: Ints  #: of the span table
    begin: Ints  #: ps from which each is drawn
    waited: Ints  #: ps
    lane: Ints  #: 0, or more for tasks that overlap earlier ones of their stream
    place: Ints  #: per row of the span table (and one more, for row -1) its number in this order, -1 for one that is not drawn


def arrange(result: Result, summary: Summary, shown: Shown) -> Arranged:
    """Spread the shown tasks over rows of the drawing."""
    spans, rows = result.spans(), shown.rows
    waited = (summary.moving.since - spans.start)[rows]
    # NOTE: a receive is drawn from when its message sets out, as it may have been posted long before
    begin = spans.start[rows] + np.where(is_kind(spans, "recv")[rows], waited, 0)
    lane = lanes(spans.rank[rows], spans.stream[rows], begin, spans.end[rows])
    order = np.lexsort((begin, lane, spans.stream[rows], _standing(spans, rows), spans.rank[rows]))
    place = np.full(len(spans) + 1, -1, np.int64)
    place[rows[order]] = np.arange(len(rows))
    return Arranged(rows[order], begin[order], waited[order], lane[order], place)


def _standing(spans: SpanTable, rows: Ints) -> Ints:
    """Per task the place of its stream among those of a rank: that compute, others of the device, of the host, latencies."""
    stream = spans.stream[rows]

    def has(kind: str) -> NDArray[np.bool_]:
        return np.isin(stream, np.unique(stream[is_kind(spans, kind)[rows]]))

    place = np.where(has("compute"), 0, np.where(has("host"), 2, 1))
    return np.where(is_kind(spans, "delay")[rows] & (stream < 0), 3, place)


def section(
    result: Result, summary: Summary, shown: Shown, arranged: Arranged, id: str = "timeline", title: str = "Timeline"
) -> Section | None:
    """The drawing's place and its columns; None where no task took time."""
    if not len(shown.rows):
        return None
    note = paragraph(shown.left_out, "note") if shown.left_out else ""
    html = f'{note}<div class="timeline" id="{escape(id)}-view"></div>'
    return Section(id, title, html, columns(result, summary, shown, arranged), SCRIPTS)


def columns(result: Result, summary: Summary, shown: Shown, arranged: Arranged) -> dict[str, Any]:
    """What is drawn; all columns are as long as there are tasks."""
    spans, rows = result.spans(), arranged.rows
    tick = max(1, -(-result.makespan // _TICKS))
    first = arranged.begin // tick
    path = arranged.place[summary.critical.row]
    critical = np.zeros(len(rows), np.bool_)
    critical[path[path >= 0]] = True
    by = arranged.place[spans.released_by[rows]]
    names, name = _used(spans.name[rows], spans.names)
    groups, group = _used(spans.group[rows], spans.groups)
    sizes, size = np.unique(np.where(communicates(spans)[rows], spans.bytes[rows], 0), return_inverse=True)
    return {
        "makespan": result.makespan, "tick": tick, "kinds": list(spans.kinds), "names": packed_json(names), "groups": groups,
        "ranks": _ranks(result, shown), "rows": _rows(spans, rows, arranged.lane), "sizes": [float(size) for size in sizes],
        "begin": packed(first.astype(np.uint32), delta=True),
        "length": packed(narrow(spans.end[rows] // tick - first)), "wait": packed(narrow(arranged.waited // tick)),
        "kind": packed(spans.kind[rows].astype(np.uint8)), "name": packed(narrow(name)), "group": packed(narrow(group)),
        "size": packed(narrow(size)), "critical": packed(critical),
        "waitedFor": packed(narrow(_waited_for(spans, summary, rows))),
        "releasedBy": packed(narrow(np.where(by >= 0, np.arange(len(rows)) - by, 0))),
        "path": packed(path.astype(np.int32), delta=True), "steps": _steps(spans),
    }  # fmt: skip


def _used(column: NDArray[np.int32], names: tuple[str, ...]) -> tuple[list[str], Ints]:
    """The names that occur, the empty one first, and their numbers."""
    used, number = np.unique(np.append(column, -1), return_inverse=True)
    return [names[k] if k >= 0 else "" for k in used.tolist()], number[:-1]


def _ranks(result: Result, shown: Shown) -> list[dict[str, Any]]:
    stand_for = result.stand_for
    return [{"rank": rank, "why": why, "standsFor": int(stand_for[rank])} for rank, why in shown.ranks]


def _rows(spans: SpanTable, rows: Ints, lane: Ints) -> list[dict[str, Any]]:
    """The rows of the drawing: rank, what it is called, how many tasks."""
    rank, stream = spans.rank[rows], spans.stream[rows]
    new = np.append(True, (rank[1:] != rank[:-1]) | (stream[1:] != stream[:-1]) | (lane[1:] != lane[:-1]))
    first = np.flatnonzero(new)
    counts = np.diff(np.append(first, len(rows)))
    found = []
    for k, count in zip(first.tolist(), counts.tolist(), strict=True):
        title = stream_title(spans, int(stream[k]), int(spans.kind[rows[k]]))
        again = f" ({int(lane[k]) + 1})" if lane[k] else ""
        found.append({"rank": int(rank[k]), "title": title + again, "tasks": count})
    return found


def _waited_for(spans: SpanTable, summary: Summary, rows: Ints) -> Ints:
    """The rank that each task waited for: the member of its collective that came last, or who sent; -1 for none."""
    moving = summary.moving
    found = np.full(len(spans), -1, np.int64)
    members = np.flatnonzero(moving.collective >= 0)
    if len(members):
        members = members[np.lexsort((-members, spans.start[members], moving.collective[members]))]
        number = moving.collective[members]
        last = members[np.append(number[1:] != number[:-1], True)]  # of each collective, of equals the first row
        last_of = np.zeros(int(number.max()) + 1, np.int64)
        last_of[moving.collective[last]] = last
        found[members] = spans.rank[last_of[number]]
    receives = np.flatnonzero(moving.send >= 0)
    found[receives] = spans.rank[moving.send[receives]]
    found[(moving.since == spans.start) | (found == spans.rank)] = -1
    return found[rows]


def _steps(spans: SpanTable) -> list[dict[str, Any]]:
    """Iterations of a captured trace: name, first begin and last end."""
    if spans.step is None:
        return []
    found = []
    for number, name in enumerate(spans.steps):
        mine = spans.step == number
        if mine.any():
            found.append({"name": name, "begin": int(spans.start[mine].min()), "end": int(spans.end[mine].max())})
    return found
