"""Which kernels of which ranks are one operation.

Communicators that nothing but a stream names may be several of the same stream number on different ranks. Members of a
collective end together, so that the distance of the ends of two members is the difference of their clocks, the same every time;
ranks whose distance wanders are not in one communicator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.trace.graph import CollectiveType
from distsim.trace.kineto.align import History, pair
from distsim.trace.kineto.capture import Capture
from distsim.trace.kineto.comms import Kernels
from distsim.trace.kineto.communicators import Common

Ints = NDArray[np.int64]

#: all members end together, so that their ends tell the clocks
_TOGETHER = (
    CollectiveType.ALL_REDUCE, CollectiveType.ALL_GATHER, CollectiveType.REDUCE_SCATTER, CollectiveType.ALL_TO_ALL,
    CollectiveType.BARRIER,
)  # fmt: skip
#: distances of the ends of two members wander by less (measured over 8 ranks: 1 to 7 us)
_WANDER_PS = 25_000_000
#: as many of them, at least, do: a few operations end late on one member
_SHARE = 0.8
#: operations that it takes to tell
_ENOUGH = 3


@dataclass(slots=True, eq=False)
class Table:
    """All communicating kernels of all captures, one entry each; those of a capture lie together, in order."""

    capture: Ints
    row: Ints
    start: Ints  #: own clock
    end: Ints
    operation: Ints
    bytes: Ints
    uneven: NDArray[np.bool_]
    guessed: NDArray[np.bool_]
    root: Ints
    common: Ints  #: index into the list of commons
    meeting: Ints  #: -1: stands alone


def table_of(captures: Sequence[Capture], kernels: Sequence[Kernels], commons: Sequence[Common]) -> Table:
    """Columns of all captures, one after the other."""
    number = {(k, c): at for at, common in enumerate(commons) for k, c in common.local.items()}
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in Table.__slots__}
    for k, (capture, own) in enumerate(zip(captures, kernels, strict=True)):
        here = np.array([number[k, c] for c in range(len(own.communicators))] or [-1], np.int64)
        for name, values in (
            ("capture", np.full(len(own), k)), ("row", own.row), ("start", capture.kernels.start_ps[own.row]),
            ("end", capture.kernels.end_ps[own.row]), ("operation", own.operation), ("bytes", own.bytes),
            ("uneven", own.uneven), ("guessed", own.guessed), ("root", own.root), ("common", here[own.communicator]),
            ("meeting", np.full(len(own), -1)),
        ):  # fmt: skip
            columns[name].append(values)
    flags = ("uneven", "guessed")
    whole: dict[str, Any] = {
        name: np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.bool_ if name in flags else np.int64)
        for name, parts in columns.items()
    }
    return Table(**whole)


def meet(
    captures: Sequence[Capture], kernels: Sequence[Kernels], commons: Sequence[Common], table: Table, numbers: Sequence[int]
) -> list[Common]:
    """Number, in ``table``, the operations that all present members of a communicator have done.

    Returns: the communicators, of which some may have been split; ``table.common`` counts these.
    """
    first = np.searchsorted(table.capture, np.arange(len(captures)))
    settled: list[Common] = []
    waiting = list(commons)
    kept = np.full(len(table.common), -1, np.int64)
    meetings = 0
    for number, common in enumerate(waiting):  # NOTE grows while it is walked: the parts of what was split come again
        at = {k: np.flatnonzero((table.common == number) & (table.capture == k)) for k in sorted(common.local)}
        places: dict[int, Ints] = {}
        if len(at) > 1 and common.ranks:
            orders = {k: _history(captures[k], kernels[k], table, rows, int(first[k]), common) for k, rows in at.items()}
            longest = max(orders, key=lambda k: (len(orders[k]), -k))
            places = {k: pair(orders[longest], order) for k, order in orders.items()}
            whole = _in_all(places, len(orders[longest]))
            if common.kind == "stream" and not common.split and len(at) > 2:
                ends = np.stack([table.end[at[k]][_taken(places[k], whole)] for k in at])
                parts = _clusters(ends)
                if len(parts) > 1:
                    members = list(at)
                    for place, part in enumerate(parts, 1):
                        local = {members[j]: common.local[members[j]] for j in part}
                        ranks = tuple(sorted(numbers[k] for k in local))
                        for k in local:
                            table.common[at[k]] = len(waiting)
                        waiting.append(dataclasses.replace(
                            common, name=f"{common.name} ({place} of {len(parts)})", ranks=ranks, size=len(ranks), local=local,
                            assumed=False, split=len(parts),
                        ))  # fmt: skip
                    continue
            name = np.full(len(orders[longest]) + 1, -1, np.int64)  # the last entry serves place -1
            name[whole] = meetings + np.arange(len(whole))
            meetings += len(whole)
            for k, rows in at.items():
                table.meeting[rows] = name[places[k]]
        for rows in at.values():
            kept[rows] = len(settled)
        settled.append(common)
    table.common[:] = kept
    return settled


def _in_all(places: dict[int, Ints], count: int) -> Ints:
    """Operations that every member has done."""
    met = np.zeros(count, np.int64)
    for place in places.values():
        met[place[place >= 0]] += 1
    return np.flatnonzero(met == len(places))


def _taken(place: Ints, whole: Ints) -> Ints:
    """Where a member has the operations ``whole``; its places rise."""
    return np.flatnonzero(np.isin(place, whole))


def _clusters(ends: Ints) -> list[list[int]]:
    """Rows whose distances do not wander, together; one cluster where there are too few columns to tell."""
    count = len(ends)
    if ends.shape[1] < _ENOUGH:
        return [list(range(count))]
    left = list(range(count))
    parts = []
    while left:
        apart = ends[left] - ends[left[0]]
        wander = np.quantile(np.abs(apart - np.median(apart, axis=1, keepdims=True)), _SHARE, axis=1)
        near = [row for row, far in zip(left, wander.tolist(), strict=True) if far <= _WANDER_PS]
        parts.append(near)
        left = [row for row in left if row not in near]
    return parts


def _history(capture: Capture, own: Kernels, table: Table, rows: Ints, first: int, common: Common) -> History:
    """The operations of a rank on a communicator, as align.pair wants them."""
    local = rows - first
    kind = table.operation[rows] * (1 << 32) + (table.root[rows] + 1 if common.kind == "pair" else 0)
    kind[table.guessed[rows]] = -1
    differ = table.uneven[rows] | (table.operation[rows] == CollectiveType.ALL_TO_ALL)
    steps = capture.kernels.step[table.row[rows]].tolist()
    names = tuple(capture.steps[step].name if step >= 0 else "" for step in steps)
    # NOTE ranks count their messages over all their peers, so that both sides of one have different numbers
    number = np.full(len(rows), -1) if common.kind == "pair" else own.sequence[local]
    return History(kind, np.where(differ, -1, table.bytes[rows]), number, names, table.end[rows])


def ends_of(table: Table) -> tuple[Ints, Ints, Ints]:
    """(capture, meeting, end) of members that end together; of all members for a rank that has none of that kind."""
    met = table.meeting >= 0
    together = met & np.isin(table.operation, _TOGETHER)
    lonely = np.setdiff1d(table.capture[met], table.capture[together])
    touched = np.isin(table.meeting, table.meeting[met & np.isin(table.capture, lonely)])
    chosen = together | (met & touched)
    return table.capture[chosen], table.meeting[chosen], table.end[chosen]
