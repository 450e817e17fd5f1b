"""What only a captured trace has: its iterations, and what ranks spend in communication kernels: waiting, then transfer."""

from __future__ import annotations

import numpy as np

from distsim.analysis.breakdown import breakdown
from distsim.analysis.explain.step import step_of
from distsim.analysis.intervals import Ints
from distsim.analysis.steps import steps
from distsim.analysis.summary import Summary
from distsim.analysis.underway import communicates, on_gpu
from distsim.report.html.markup import paragraph, table
from distsim.report.html.section import Section
from distsim.result import Result
from distsim.units import format_time

#: iterations that have a row, the first of them
_STEPS = 100
#: ranks that have a row
_RANKS = 1024


def section(result: Result, summary: Summary) -> Section | None:
    """The section; None of any other run."""
    if not is_captured(result):
        return None
    html = [_iterations(result, summary), _communication(result, summary)]
    return Section("iterations", "Captured steps", "\n".join(filter(None, html)), {}, ("path.js",)) if any(html) else None


def is_captured(result: Result) -> bool:
    """Whether the run is of a captured trace: only of these it is decided where the times of communication come from."""
    return result.spec.get("communication") in ("recorded", "simulated")


def _iterations(result: Result, summary: Summary) -> str:
    found = steps(result)
    spans = result.spans()
    if not found or spans.step is None:
        return ""
    several = result.ranks > 1
    work = on_gpu(spans)
    cells, keys, links = [], [], []
    for one in found[:_STEPS]:
        mine = work & (spans.step == spans.steps.index(one.name))
        begin, end = int(spans.start[mine].min()), int(spans.end[mine].max())
        cut, moving, _ = step_of(result, summary.moving, one.name)
        split = breakdown(cut, moving)
        columns = (split.compute, split.exposed, split.hidden, *((split.waiting,) if several else ()))
        parts = [float(column.mean()) for column in columns]
        times = (begin, one.span_ps, *parts)
        shown = (*map(format_time, times[:2]), *(f"{format_time(ps)} ({_percent(ps, cut.makespan)})" for ps in parts))
        cells.append((one.name, *shown, *((f"{one.rank:,}",) if several else ())))
        keys.append((None, *times, *((one.rank,) if several else ())))
        links.append({"begin": begin, "end": end})
    said = "A step is the work on GPUs that was launched in it" + (", on the rank where it takes longest" if several else "")
    more = f" The first {_STEPS} of {len(found):,} are shown." if len(found) > _STEPS else ""
    note = paragraph(f"{said}{'; the parts are means over ranks' if several else ''}.{more}", "note")
    head = ("step", "from", "time", "compute", "exposed communication", "hidden communication",
            *(("waiting for other ranks", "rank") if several else ()))  # fmt: skip
    return note + table(head, cells, keys=keys, links=links, caption="Steps")


def _communication(result: Result, summary: Summary) -> str:
    """Waiting and transfer of every rank's communication kernels."""
    spans = result.spans()
    rows = np.flatnonzero(communicates(spans) & (spans.end > spans.start))
    if result.ranks < 2 or not len(rows):
        return ""
    rank, since = spans.rank[rows], summary.moving.since[rows]

    def of_ranks(ps: Ints) -> Ints:
        each = np.zeros(result.ranks, np.int64)
        np.add.at(each, rank, ps)
        return each if result.representative is None else each[result.representative]

    waiting, transfer = of_ranks(since - spans.start[rows]), of_ranks(spans.end[rows] - since)
    kernels = of_ranks(np.ones(len(rows), np.int64))
    cells, keys = [], []
    for k in range(min(result.ranks, _RANKS)):
        both = int(waiting[k] + transfer[k])
        times = (int(waiting[k]), int(transfer[k]))
        share = _percent(times[0], both)
        cells.append((f"{k:,}", f"{int(kernels[k]):,}", format_time(both), *map(format_time, times), share))
        keys.append((k, int(kernels[k]), both, *times, times[0] / both if both else 0.0))
    said = "A communication kernel waits for the last member, then transfers: only the transfer is the network's."
    head = ("rank", "kernels", "in kernels", "waiting", "transfer", "of it waiting")
    more = f", the first {_RANKS:,} of {result.ranks:,}" if result.ranks > _RANKS else ""
    return paragraph(said, "note") + table(head, cells, keys=keys, caption=f"Communication kernels of every rank{more}")


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"
