"""Which operations of two ranks are the same one, and by how much the clocks of their hosts differ.

Ranks of a communicator do the same operations in the same order, but a capture may begin or end a few operations earlier than
another. Clocks of hosts differ; the members of a collective end within microseconds of each other (1 to 7 us in HTA's 8-rank
capture), so the median of the differences of their ends tells the difference of their clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """The operations of one rank on one communicator, in order."""

    kind: Ints  #: equal where two operations may be the same one; -1: not known
    bytes: Ints  #: -1 where not told, or where members may differ
    number: Ints  #: that the communicator itself gave; -1: not told
    step: tuple[str, ...]  #: name of the step of each operation, empty outside all
    end_ps: Ints

    def __len__(self) -> int:
        return len(self.kind)


def pair(first: History, other: History) -> Ints:
    """For each operation of ``other``, the place in ``first`` of the same one; -1 where it has none.

    By number where the communicator numbers its operations, else within steps of one name, in order; places rise.
    """
    place = np.full(len(other), -1, np.int64)
    if _numbered(first) and _numbered(other):
        order = np.argsort(first.number)
        at = np.searchsorted(first.number, other.number, sorter=order)
        found = order[np.minimum(at, len(order) - 1)]
        place = np.where(first.number[found] == other.number, found, -1)
    if not (place >= 0).any():  # not numbered, or each rank by its own count
        mine, theirs = _blocks(first.step), _blocks(other.step)
        for key, rows in theirs.items():
            if key in mine:
                place[rows] = _within(first, mine[key], other, rows, key)
    same = place >= 0
    there, here = first.kind[place[same]], other.kind[same]
    same[same] = (there == here) | (there < 0) | (here < 0)
    place[~same] = -1
    return _rising(place)


def _numbered(one: History) -> bool:
    return len(one) > 0 and bool((one.number >= 0).all()) and len(np.unique(one.number)) == len(one)


def _blocks(steps: tuple[str, ...]) -> dict[tuple[str, str], Ints]:
    """Rows by step; those outside all steps as before the first, after the last or in between."""
    blocks: dict[tuple[str, str], list[int]] = {}
    inside = [k for k, name in enumerate(steps) if name]
    low, high = (inside[0], inside[-1]) if inside else (len(steps), -1)
    previous = ""
    for k, name in enumerate(steps):
        previous = name or previous
        where = ("step", name) if name else ("before", "") if k < low else ("after", "") if k > high else ("between", previous)
        if not inside:
            where = ("step", "")
        blocks.setdefault(where, []).append(k)
    return {key: np.array(rows, np.int64) for key, rows in blocks.items()}


def _within(first: History, mine: Ints, other: History, rows: Ints, key: tuple[str, str]) -> Ints:
    """Places in ``first`` of these rows of ``other``, of one block."""
    a, b = (np.stack((one.kind[part], one.bytes[part])) for one, part in ((first, mine), (other, rows)))
    if len(mine) == len(rows) and _alike(a, b).all():
        return mine
    if key[0] == "before":  # what was under way as the captures began: they have the last of it in common
        shift = len(mine) - len(rows)
    elif key[0] == "after":
        shift = 0
    else:
        shift = _shift(a, first.end_ps[mine], b, other.end_ps[rows])
    at = np.arange(len(rows)) + shift
    inside = (at >= 0) & (at < len(mine))
    found = np.full(len(rows), -1, np.int64)
    found[inside] = mine[at[inside]]
    return found


def _alike(a: Ints, b: Ints) -> NDArray[np.bool_]:
    """Kinds and bytes are equal, where both are told."""
    alike: NDArray[np.bool_] = ((a == b) | (a < 0) | (b < 0)).all(axis=0)
    return alike


def _shift(a: Ints, a_end: Ints, b: Ints, b_end: Ints) -> int:
    """How far ``b`` is to be moved along ``a``: where most agree, then where ends keep the most constant distance."""
    n, m = a.shape[1], b.shape[1]
    best, chosen = -1, [0]
    for shift in sorted(range(-(m - 1), n), key=abs):
        low, high = max(0, shift), min(n, m + shift)
        agreed = int(_alike(a[:, low:high], b[:, low - shift : high - shift]).sum())
        if agreed > best:
            best, chosen = agreed, [shift]
        elif agreed == best:
            chosen.append(shift)

    def spread(shift: int) -> float:
        low, high = max(0, shift), min(n, m + shift)
        apart = a_end[low:high] - b_end[low - shift : high - shift]
        return float(np.abs(apart - np.median(apart)).mean())

    return min(chosen, key=lambda shift: (spread(shift), abs(shift)))


def _rising(place: Ints) -> Ints:
    """Places that do not rise are dropped: order is what makes operations the same."""
    kept = np.flatnonzero(place >= 0)
    if len(kept) and (np.diff(place[kept]) <= 0).any():
        highest = np.maximum.accumulate(place[kept])
        bad = np.concatenate(([False], place[kept][1:] <= highest[:-1]))
        place[kept[bad]] = -1
    return place


def clock_shifts(rank: Ints, meeting: Ints, end_ps: Ints, ranks: int, start: Sequence[int]) -> list[int]:
    """What to add to the times of each rank, ps, so that members of one meeting end together.

    Args:
        rank, meeting, end_ps: one entry per member of a meeting, ends by the member's own clock.
        ranks: how many.
        start: shifts as the clocks themselves have it; they serve ranks that share no meeting with any other.

    Ranks are reached one after the other over the meetings that they share; then every rank is moved by the median of its
    distances from the middle of its meetings until nothing moves.
    """
    shifts = [int(one) for one in start]
    if not shifts:
        return shifts
    reference = shifts[0]
    known = np.zeros(ranks, np.bool_)
    relative = np.array([one - reference for one in shifts], np.float64)  # exact to 1 ps up to 2.5 hours
    shared = np.bincount(meeting, minlength=int(meeting.max(initial=-1)) + 1)
    use = shared[meeting] > 1
    rank, meeting, end = rank[use], meeting[use], end_ps[use].astype(np.float64)
    while not known.all():
        known[int(np.argmin(known))] = True
        while True:
            middle = _middle(meeting, end + relative[rank], known[rank], len(shared))
            near = ~known[rank] & ~np.isnan(middle[meeting])
            if not near.any():
                break
            best = int(np.argmax(np.bincount(rank[near], minlength=ranks)))
            mine = near & (rank == best)
            relative[best] = np.median(middle[meeting[mine]] - end[mine])
            known[best] = True
    for _ in range(8):
        middle = _middle(meeting, end + relative[rank], known[rank], len(shared))
        apart = middle[meeting] - end - relative[rank]
        moved = np.zeros(ranks)
        order = np.argsort(rank, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(rank[order])) + 1) if len(order) else []:
            moved[rank[part[0]]] = np.median(apart[part])
        moved -= moved[0]
        relative += moved
        if np.abs(moved).max(initial=0) < 1e3:  # 1 ns
            break
    return [reference + round(one) for one in relative.tolist()]


def _middle(meeting: Ints, end: NDArray[np.float64], known: NDArray[np.bool_], n: int) -> NDArray[np.float64]:
    """Median end of the known members of each meeting; NaN where none is known."""
    middle = np.full(n, np.nan)
    order = np.lexsort((end[known], meeting[known]))
    at, values = meeting[known][order], end[known][order]
    if len(at):
        first = np.flatnonzero(np.concatenate(([True], np.diff(at) > 0)))
        count = np.diff(np.append(first, len(at)))
        middle[at[first]] = (values[first + (count - 1) // 2] + values[first + count // 2]) / 2
    return middle
