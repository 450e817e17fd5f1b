"""The critical path: what the end of the step waited for, by kind, by task, and step by step."""

from __future__ import annotations

import numpy as np

from distsim.analysis.critical import WAITING
from distsim.analysis.intervals import sums
from distsim.analysis.summary import Summary
from distsim.report.html.markup import paragraph, table
from distsim.report.html.section import Section
from distsim.report.html.timeline import Arranged
from distsim.result import Result
from distsim.units import format_time

_TASKS = 40  #: kinds of task, the longest
_STEPS = 60  #: steps of the path, the longest, in order of time


def section(result: Result, summary: Summary, arranged: Arranged) -> Section | None:
    """Tables; None where nothing ran. Rows that stand for a task of the timeline point at it."""
    path, spans = summary.critical, result.spans()
    if not len(path.row) or not result.makespan:
        return None
    whole = result.makespan
    by_kind = [(kind if kind != WAITING else "waiting (no task explains it)", format_time(time), _percent(time / whole))
               for kind, time in path.times.items()]  # fmt: skip
    length = path.end - path.begin
    # by name and kind: what one would make faster
    key = (spans.name[path.row].astype(np.int64) + 1) * len(spans.kinds) + spans.kind[path.row]
    keys, times, counts = sums(key, length, np.ones(len(key), np.int64))
    tasks, task_keys = [], []
    for k in np.lexsort((keys, -times))[:_TASKS].tolist():
        name, kind = divmod(int(keys[k]), len(spans.kinds))
        time, count = int(times[k]), int(counts[k])
        if time:
            said = _name(spans.names, name - 1)
            tasks.append((said, spans.kinds[kind], f"{count:,}", format_time(time), _percent(time / whole)))
            task_keys.append((None, None, count, time, time))
    longest = np.sort(np.lexsort((path.begin, -length))[:_STEPS])
    longest = longest[length[longest] > 0]
    steps, step_keys, links = [], [], []
    for k in longest.tolist():
        row = int(path.row[k])
        group = spans.groups[spans.group[row]] if spans.group[row] >= 0 else ""
        steps.append((
            _name(spans.names, int(spans.name[row])), spans.kinds[spans.kind[row]], group, f"{spans.rank[row]:,}",
            format_time(int(path.begin[k])), format_time(int(length[k])), _percent(int(length[k]) / whole),
        ))  # fmt: skip
        step_keys.append((None, None, None, int(spans.rank[row]), int(path.begin[k]), int(length[k]), int(length[k])))
        links.append({"task": place} if (place := int(arranged.place[row])) >= 0 else {})
    ranks = len(np.unique(spans.rank[path.row]))
    moved = int(np.count_nonzero(np.diff(spans.rank[path.row])))
    told = (
        f"{len(path.row):,} tasks on {ranks:,} rank{'s' if ranks > 1 else ''}; the path changes rank {moved:,} times. From the "
        "last task to end, back to what let it start or go on. Shortening anything else leaves the step as it is."
    )
    html = [
        paragraph(told, "note"), '<div class="columns lead"><div>',
        table(("kind", "time", "share"), by_kind, sort=False, caption="By kind"), "</div><div>",
        table(("task", "kind", "count", "time", "share"), tasks, text=2, keys=task_keys, caption="By task, the longest"),
        "</div></div>",
        table(("task", "kind", "group", "rank", "from", "time", "share"), steps, text=3, keys=step_keys, links=links,
              caption=f"The {len(steps)} longest steps of the path, in order of time"),
    ]  # fmt: skip
    return Section("path", "Critical path", "\n".join(html), {}, ("path.js",))


def _name(names: tuple[str, ...], number: int) -> str:
    return (names[number] if number >= 0 else "") or "(no name)"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
