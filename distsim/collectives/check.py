"""Proof that a schedule does what its collective promises, by executing it on symbols instead of bytes.

Every (rank, block) holds a multiset: how often each member's contribution is in it. Blocks, and who starts and must end
with which contributions, are defined in ``blocks.py``. A transfer carries what its sender has in the payload blocks; the
receiver adds it (``reduce``) or stores it in place of what it had.

What a sender *has* is what its causal past brought: transfers that precede it by dependencies. Anything else that may have
arrived lies in a receive buffer (as with MPI_Sendrecv, where both sides of an exchange send before they add). So one pass
in row order decides for every order of execution at once. Beyond this proof:

* A store must be ordered with every other arrival in the same block; otherwise the outcome is open, and refused.
* Schedules that need no receive buffer (nothing read by a transfer is written by one unordered with it; ``in_place`` of the
  report) are executed three more times on current contents alone, in row order, in the most adverse order (of what is
  ready, the last row first) and in a random one, and must end alike: the proof is itself put to the test.

A barrier's token is knowledge, not data: it is united, not added; hearing twice is no fault, and storing does not forget.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

import numpy as np

from distsim.collectives.blocks import Layout
from distsim.collectives.schedule import Collective, Schedule
from distsim.errors import CollectiveError

_BITS = 16  # a multiset is one int, 16 bits per member: adding ints adds multisets, as no count on its way exceeds 1


@dataclass(frozen=True, slots=True)
class Proof:
    """What the checker found out about a correct schedule.

    Attributes:
        bytes: moved in all; never below ``Layout.least_bytes``.
        sent, received: bytes of each member.
        steps: transfers on the longest chain of dependencies, slot order of chunks included.
        in_place: no receive buffers are needed.
    """

    bytes: int
    sent: list[int]
    received: list[int]
    steps: int
    in_place: bool


@dataclass(slots=True)
class _Cell:
    """One block at one rank: its versions since the start, each a value stored and the addends that came after it."""

    versions: list[tuple[int, int]]  # (row that stored it or -1, value)
    addends: list[list[tuple[int, int]]] = field(default_factory=lambda: [[]])  # per version: (row, value)
    stores: int = 0  # rows that stored, as a bitmask
    writes: int = 0  # rows that stored or added
    reads: int = 0

    def seen_by(self, past: int) -> int:
        """The content as the rows in ``past`` made it. Stores are totally ordered, so the last one in ``past`` counts."""
        at = max(i for i, (row, _) in enumerate(self.versions) if row < 0 or past >> row & 1)
        return self.versions[at][1] + sum(value for row, value in self.addends[at] if past >> row & 1)


def check(schedule: Schedule, collective: Collective, *, seed: int = 0) -> Proof:
    """Executes the schedule on symbols.

    Time and memory grow with the square of the rows: meant for up to some 20,000 of them.

    Args:
        schedule: what an algorithm answered to ``collective``.
        collective: the question.
        seed: of the random order.

    Raises:
        CollectiveError: naming the row, ranks and block: malformed columns, a dependency on a later row or on a stranger's
            transfer, bytes unlike the payload's, a block sent that the sender does not have, a contribution that is missing
            or counted twice, an open outcome, fewer bytes than possible.
    """
    layout = Layout(collective, schedule.pieces)
    steps = _structure(schedule, layout)
    if collective.operation == "barrier":
        _barrier(schedule, collective)
        in_place = False
    else:
        in_place = _prove(schedule, layout)
        if in_place:
            for order in _orders(schedule, seed):
                _execute(schedule, layout, order)
    total = int(schedule.bytes.sum())
    # NOTE: where switches add and copy, everybody still has to send its vector and to get the result
    least = collective.size * collective.bytes if schedule.in_network else layout.least_bytes()
    if total < least:
        raise CollectiveError(f"{total} bytes in all", expected=f"at least {least} for {collective}")
    sent, received = (
        np.bincount(end, weights=schedule.bytes, minlength=schedule.size).astype(np.int64).tolist()
        for end in (schedule.src, schedule.dst)
    )
    return Proof(total, sent, received, steps, in_place)


def _deps(schedule: Schedule, row: int) -> list[int]:
    return [int(d) for d in schedule.dep[schedule.dep_ptr[row] : schedule.dep_ptr[row + 1]]]


def _place(schedule: Schedule, row: int) -> str:
    return f"row {row} ({schedule.src[row]} -> {schedule.dst[row]})"


def _structure(schedule: Schedule, layout: Layout) -> int:
    """Columns, dependencies, sizes. Returns the longest chain."""
    rows, size = len(schedule), schedule.size
    lengths = [len(column) for column in (schedule.dst, schedule.bytes, schedule.reduce)]
    ptr = schedule.dep_ptr
    if size != layout.collective.size or lengths != [rows] * 3 or len(ptr) != rows + 1:
        raise CollectiveError(f"columns of {[rows, *lengths, len(ptr)]} rows for {size} members", expected="equal lengths")
    if int(ptr[0]) != 0 or int(ptr[-1]) != len(schedule.dep) or bool((np.diff(ptr) < 0).any()):
        raise CollectiveError("dep_ptr does not cut dep into rows", expected="0 = dep_ptr[0] <= ... <= dep_ptr[-1] = len(dep)")
    ends = np.concatenate([schedule.src, schedule.dst])
    if rows and not 0 <= int(ends.min()) <= int(ends.max()) < size:
        raise CollectiveError("src or dst is not a member", expected=f"0 .. {size - 1}")
    block_bytes = layout.block_bytes()
    chain = [0] * rows
    for row in range(rows):
        src, dst, payload = int(schedule.src[row]), int(schedule.dst[row]), schedule.payload(row)
        for d in _deps(schedule, row):
            if not 0 <= d < row:
                raise CollectiveError(f"depends on row {d}", where=_place(schedule, row), expected="an earlier row")
            if not {src, dst} & {int(schedule.src[d]), int(schedule.dst[d])}:
                raise CollectiveError(f"depends on {_place(schedule, d)}, of which neither of its ends knows",
                                      where=_place(schedule, row))  # fmt: skip
            chain[row] = max(chain[row], chain[d])
        chain[row] += src != dst
        if len(set(payload)) != len(payload) or not all(0 <= b < len(block_bytes) for b in payload):
            raise CollectiveError(
                f"payload {payload}", where=_place(schedule, row), expected=f"different blocks below {len(block_bytes)}"
            )
        if (src == dst) != (not payload):
            raise CollectiveError("payload of a join, or transfer without", where=_place(schedule, row))
        if not schedule.in_network and int(schedule.bytes[row]) != sum(block_bytes[b] for b in payload):
            raise CollectiveError(f"{schedule.bytes[row]} bytes", where=_place(schedule, row),
                                  expected=f"{sum(block_bytes[b] for b in payload)}, the sum of blocks {payload}")  # fmt: skip
    return max(chain, default=0)


def _pasts(schedule: Schedule) -> list[int]:
    """Per row the bitmask of the rows that precede it by dependencies."""
    pasts: list[int] = []
    for row in range(len(schedule)):
        past = 0
        for d in _deps(schedule, row):
            past |= pasts[d] | 1 << d
        pasts.append(past)
    return pasts


def _own(layout: Layout, rank: int, block: int) -> int:
    return 1 << _BITS * rank if layout.starts_with(rank, block) else 0


def _refuse_fault(value: int, size: int, wanted: list[int] | None, where: str) -> None:
    """Raises where a contribution is counted twice or, if ``wanted`` says so, is missing or foreign."""
    counts = [value >> _BITS * member & (1 << _BITS) - 1 for member in range(size)]
    twice = [member for member, count in enumerate(counts) if count > 1]
    if twice:
        raise CollectiveError(f"contributions of {twice} are counted more than once", where=where)
    if wanted is not None:
        missing = sorted(set(wanted) - {member for member, count in enumerate(counts) if count})
        if missing or sum(counts) != len(wanted):
            raise CollectiveError(f"contributions of {missing} are missing", where=where, expected=f"{wanted} once each")


def _prove(schedule: Schedule, layout: Layout) -> bool:
    """One pass over the causal pasts. Returns whether the schedule works in place."""
    pasts = _pasts(schedule)
    cells: dict[tuple[int, int], _Cell] = {}

    def cell(rank: int, block: int) -> _Cell:
        if (rank, block) not in cells:
            cells[rank, block] = _Cell([(-1, _own(layout, rank, block))])
        return cells[rank, block]

    in_place = True
    for row in range(len(schedule)):
        src, dst, past = int(schedule.src[row]), int(schedule.dst[row]), pasts[row]
        for block in schedule.payload(row):
            where = f"{_place(schedule, row)}, block {block}"
            source, target = cell(src, block), cell(dst, block)
            value = source.seen_by(past)
            if not value:
                raise CollectiveError("the sender does not have this block", where=where)
            in_place &= not source.writes & ~past
            source.reads |= 1 << row
            reducing = bool(schedule.reduce[row])
            in_place &= not target.reads & ~past
            if (target.stores if reducing else target.writes) & ~past:
                raise CollectiveError("unordered with an earlier arrival there: the outcome is open", where=where)
            target.writes |= 1 << row
            if reducing:
                target.addends[-1].append((row, value))
                _refuse_fault(target.seen_by(-1), layout.collective.size, None, where)
            else:
                target.stores |= 1 << row
                target.versions.append((row, value))
                target.addends.append([])
    for rank in range(schedule.size):
        for block in layout.blocks():
            wanted = layout.must_end_with(rank, block)
            if wanted is not None:
                value = cells[rank, block].seen_by(-1) if (rank, block) in cells else _own(layout, rank, block)
                _refuse_fault(value, schedule.size, wanted, f"rank {rank} at the end, block {block}")
    return in_place


def _orders(schedule: Schedule, seed: int) -> list[list[int]]:
    """Row order, the latest ready row first, and a random one: all respect the dependencies."""
    rows, rng = len(schedule), random.Random(seed)
    after: list[list[int]] = [[] for _ in range(rows)]
    for row in range(rows):
        for d in _deps(schedule, row):
            after[d].append(row)

    def by(priority: list[int]) -> list[int]:
        waits = np.diff(schedule.dep_ptr).tolist()
        ready = [(priority[row], row) for row in range(rows) if not waits[row]]
        heapq.heapify(ready)
        order = []
        while ready:
            _, row = heapq.heappop(ready)
            order.append(row)
            for follower in after[row]:
                waits[follower] -= 1
                if not waits[follower]:
                    heapq.heappush(ready, (priority[follower], follower))
        return order

    return [list(range(rows)), by([-row for row in range(rows)]), by(rng.sample(range(rows), rows))]


def _execute(schedule: Schedule, layout: Layout, order: list[int]) -> None:
    """Plain execution on current contents, one transfer after the other."""
    now: dict[tuple[int, int], int] = {}
    for row in order:
        src, dst = int(schedule.src[row]), int(schedule.dst[row])
        for block in schedule.payload(row):
            value = now.get((src, block), _own(layout, src, block))
            had = now.get((dst, block), _own(layout, dst, block)) if schedule.reduce[row] else 0
            now[dst, block] = had + value
    for rank in range(schedule.size):
        for block in layout.blocks():
            wanted = layout.must_end_with(rank, block)
            if wanted is not None:
                where = f"rank {rank} after an execution in another order, block {block}"
                _refuse_fault(now.get((rank, block), _own(layout, rank, block)), schedule.size, wanted, where)


def _barrier(schedule: Schedule, collective: Collective) -> None:
    """Everybody has surely heard from everybody: a token tells what the rows it depends on told its sender."""
    told: list[int] = []  # per row: of whom its sender had heard
    knows = [1 << rank for rank in range(schedule.size)]
    for row in range(len(schedule)):
        known = 1 << int(schedule.src[row])
        for d in _deps(schedule, row):
            known |= told[d]
        told.append(known)
        knows[int(schedule.dst[row])] |= known
    everybody = (1 << schedule.size) - 1
    for rank, known in enumerate(knows):
        if known != everybody:
            missing = [member for member in range(schedule.size) if not known >> member & 1]
            raise CollectiveError(f"leaves the barrier without having heard of {missing}", where=f"rank {rank} of {collective}")
