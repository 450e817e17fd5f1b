"""What of a run a timeline shows: all of it where that can be looked at, else the ranks that say most, with what is left out.

Ranks come in this order: the one that ends last, the one that ends first, those that the critical path runs over (the longest
there first), then others spread evenly. Of a rank with more tasks than there is room for, the longest are shown, and those on
the critical path.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distsim.analysis.intervals import Ints, sums
from distsim.analysis.summary import Summary
from distsim.analysis.underway import is_kind
from distsim.result import Result
from distsim.units import format_time

RANKS = 64  #: at most
SPANS = 200_000  #: at most


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """Rows of the span table, and what one is told about the choice."""

    rows: Ints  #: ascending
    ranks: tuple[tuple[int, str], ...]  #: ascending; with why it is among them, where others are not
    left_out: str  #: a sentence; empty where all is shown


def chosen(result: Result, summary: Summary, ranks: int = RANKS, spans: int = SPANS) -> Shown:
    """Choose. Tasks that took no time are never shown."""
    table = result.spans()
    takes_time = (table.end > table.start) & ~is_kind(table, "none")
    present = np.unique(table.rank[takes_time]).astype(np.int64)
    first, last = np.searchsorted(table.rank, present), np.searchsorted(table.rank, present, side="right")
    rows_of = {rank: np.flatnonzero(takes_time[a:b]) + a for rank, a, b in zip(present.tolist(), first, last, strict=True)}
    taken: dict[int, tuple[str, Ints]] = {}
    critical = np.zeros(len(table), np.bool_)
    critical[summary.critical.row] = True
    room, thinned = spans, ""
    for rank, why in _in_order(result, summary, present):
        if len(taken) == ranks or rank in taken or rank not in rows_of:
            continue
        rows = rows_of[rank]
        if len(rows) > room:
            if taken:
                continue  # NOTE: whole ranks; a shorter one may still fit
            took = table.end[rows] - table.start[rows]
            kept = np.sort(np.lexsort((-took, ~critical[rows]))[:room])
            thinned = f"Of {len(rows):,} tasks of rank {rank} the {room:,} longest are drawn."
            rows = rows[kept]
        taken[rank] = why, rows
        room -= len(rows)
    all_rows = np.sort(np.concatenate([rows for _, rows in taken.values()])) if taken else np.zeros(0, np.int64)
    cut = len(taken) < len(present)
    said = tuple((rank, taken[rank][0] if cut else "") for rank in sorted(taken))
    return Shown(all_rows, said, " ".join(filter(None, (_left_out(result, taken, rows_of), thinned))))


def _in_order(result: Result, summary: Summary, present: Ints) -> list[tuple[int, str]]:
    """(rank, why), the most telling first; a rank may come again. A folded rank is its representative."""

    def standing(rank: int) -> int:
        return rank if result.representative is None else int(result.representative[rank])

    found = []
    if summary.slowest is not None and summary.fastest is not None:
        found = [(standing(summary.slowest), "ends last"), (standing(summary.fastest), "ends first")]
        if result.finish[summary.slowest] == result.finish[summary.fastest]:
            found = found[:1] if len(present) <= 1 else [(standing(summary.slowest), "ends with all")]
    path = summary.critical
    on_path, times = sums(result.spans().rank[path.row].astype(np.int64), path.end - path.begin)
    for k in np.lexsort((on_path, -times)).tolist():
        found.append((int(on_path[k]), f"path: {format_time(int(times[k]))}"))
    # NOTE: evenly spread whatever the number that is taken: bit-reversed order of places
    bits = max(1, int(len(present) - 1).bit_length())
    order = sorted(range(len(present)), key=lambda k: int(f"{k:0{bits}b}"[::-1], 2))
    return [*found, *((int(present[k]), "sample") for k in order)]


def _left_out(result: Result, taken: dict[int, tuple[str, Ints]], rows_of: dict[int, Ints]) -> str:
    """What is not drawn, in words."""
    tasks, all_tasks = sum(len(rows) for _, rows in taken.values()), sum(map(len, rows_of.values()))
    classes = len(rows_of)
    if result.representative is not None and classes < result.ranks:
        folded = f"{result.ranks:,} ranks were folded into {classes:,} that differ"
        if len(taken) == classes:
            return f"{folded}: each is drawn once."
        return f"{folded}: {len(taken)} of these are drawn, {tasks:,} of {all_tasks:,} tasks."
    if len(taken) == len(rows_of):
        return ""
    return (
        f"{len(taken)} of {len(rows_of):,} ranks are drawn, {tasks:,} of {all_tasks:,} tasks: the slowest, the fastest, those "
        "on the critical path, and others spread evenly. The results folder holds all."
    )
