"""A schedule and LogGOPS parameters in, times out; whatever never runs is a DeadlockError."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError, DeadlockError
from distsim.profiles.loggops import kernel
from distsim.profiles.loggops.params import LogGOPS
from distsim.trace.schedule import CALC, KINDS, RECV, SEND, Ints, Schedule

#: a single cost stays below, so that no sum of a time and a cost leaves 63 bits
_MOST = 1 << 60
_SHOWN = 4  #: operations that a DeadlockError names
#: records that are filled at once: they fit a core's cache
_PIECE = 4096
#: (rank, CPU) and (rank, NIC) pairs of a schedule stay below
_MOST_PLACES = 1 << 26


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Per operation and rank, in ps. ``start`` and ``end`` span the CPU time of an operation; of a receive, that of its message
    on the receiver's CPU, which may be before the receive asked for it."""

    start: Ints
    end: Ints
    send: Ints  #: of a receive: the send that it took; -1 of others
    by: Ints  #: operation whose end (or start) released it, -1 for none
    cpu: Ints  #: index (see ``cpus``) of the CPU that was used; a message uses that of its sender's number
    finish: Ints  #: per rank: when its last CPU is free
    busy: Ints  #: per rank and CPU: ps, (ranks, cpus)
    cpus: Ints  #: the CPU numbers that occur
    nics: Ints  #: the NIC numbers that occur
    sent: Ints  #: per (rank, NIC): ps that the NIC was sending, (ranks, nics)
    received: Ints  #: ps that the NIC was receiving
    sent_bytes: Ints
    received_bytes: Ints
    events: int  #: operations and messages, as LogGOPSim counts them


def _cost(first: int, each: Fraction, size: Ints, what: str) -> Ints:
    """first + (size - 1) * each, rounded down to ps; a message of 0 bytes costs what one byte does. ConfigError: too long."""
    more = np.maximum(size - 1, 0)
    if float(more.max(initial=0)) * float(max(each.numerator, 1)) >= _MOST or first >= _MOST:
        what = f"{what} of {int(size.max(initial=0)):,} bytes takes too long"
        raise ConfigError(what, where="--network loggops", expected="less than 2^60 ps")
    return first + more * each.numerator // each.denominator


def simulate(schedule: Schedule, params: LogGOPS) -> Outcome:
    """Run a schedule.

    Raises:
        DeadlockError: operations that never run, or messages that nobody receives. ConfigError: a time beyond 2^62 ps.
    """
    n, ranks = len(schedule), schedule.ranks
    kind, rank = schedule.kind, schedule.rank
    cpus, own_cpu = _numbered(schedule.cpu)
    nics, own_nic = _numbered(schedule.nic)
    if ranks * (len(cpus) + 2 * len(nics)) > _MOST_PLACES:
        raise ConfigError(f"{ranks:,} ranks of {len(cpus):,} CPUs and {len(nics):,} NICs are too many", where=schedule.source)
    sends, calc = kind == SEND, kind == CALC
    size = np.where(calc, 0, schedule.bytes)
    gap = _cost(params.gap, params.gap_per_byte, size, "a message")
    busy = np.where(calc, schedule.duration, _cost(params.overhead, params.overhead_per_byte, size, "sending a message"))
    take = np.maximum(busy, _cost(params.overhead, params.gap_per_byte, size, "receiving a message"))
    nic_base = ranks * len(cpus)
    far_base, idle = nic_base + ranks * len(nics), nic_base + 2 * ranks * len(nics)
    cpu, nic = rank * len(cpus) + own_cpu, nic_base + rank * len(nics) + own_nic
    peer = np.where(sends, schedule.peer, 0)
    far_cpu, far_nic = peer * len(cpus) + own_cpu, far_base + peer * len(nics) + own_nic
    line_of, line_in, line_cpu, line_nic = _lines(kind, rank, peer, own_cpu, own_nic, (ranks, len(cpus), len(nics)))
    lane, lanes = _lanes(schedule)
    run, compiled = kernel.run.for_work(20 * n)

    def held(column: NDArray[Any]) -> Any:
        return np.ascontiguousarray(column, np.int64) if compiled else column.tolist()

    def new(length: int, value: int = 0) -> Any:
        if not compiled:
            return [value] * length
        return np.full(length, value, np.int64) if value else np.zeros(length, np.int64)  # zeros: pages untouched until used

    waiting = np.bincount(schedule.child, minlength=n)
    roots = np.flatnonzero(waiting == 0)
    follow, followers = _followers(schedule)
    op = _records(n, kernel.OP, {
        kernel.KIND: kind, kernel.RANK: rank, kernel.CPU: cpu, kernel.NIC: nic, kernel.BUSY: busy, kernel.GAP: gap,
        kernel.LATE: schedule.bytes > params.eager, kernel.LANE: lane, kernel.LINE: line_of, kernel.IN_LINE: line_in,
        kernel.IN_CPU: far_cpu, kernel.IN_NIC: far_nic, kernel.TAKE: take, kernel.SRC: np.where(sends, rank, schedule.peer),
        kernel.TAG: schedule.tag,
    })  # fmt: skip
    live = held(_records(n, kernel.LIVE, {
        kernel.WAITING: waiting, kernel.START: -1, kernel.TAKEN: -1, kernel.PARTNER: -1, kernel.BY: -1
    }))  # fmt: skip
    lines = _records(len(line_cpu), kernel.WAIT, {
        kernel.FIRST: -1, kernel.LAST: -1, kernel.LINE_CPU: line_cpu, kernel.LINE_NIC: line_nic
    })  # fmt: skip
    free = new(idle + 1)
    # receives, arrivals, and of lines: one entry for each member that joined
    queue = new((4 * n + 16) * kernel.ENTRY)
    events = int(run(
        n, ranks, len(cpus), len(nics), params.latency + params.overhead, held(op), live, new(2 * n * kernel.MEMBER),
        held(lines), new(lanes * kernel.PLACE, -1), queue, free, held(follow), held(followers), held(roots),
        held(np.searchsorted(rank[roots], np.arange(ranks + 1))), new(n + 1), new(n + 1), new(2 * n + 2),
    ))  # fmt: skip
    times = np.asarray(free, np.int64)
    if events == kernel.TOO_LONG or times.max(initial=0) >= kernel.FAR:
        raise ConfigError("the run leaves the range of the clock", where=schedule.source, expected="less than 2^62 ps, 53 days")
    became = np.asarray(live, np.int64).reshape(n, kernel.LIVE)
    start, taken, partner = (became[:, column] for column in (kernel.START, kernel.TAKEN, kernel.PARTNER))
    _refuse_unfinished(schedule, became[:, kernel.DONE] > 0, start >= 0, partner)
    message = np.where(kind == RECV, partner, 0) if n else partner
    begin = np.where(kind == RECV, taken[message], start)
    end = begin + np.where(kind == RECV, take[message], busy)
    used = np.where(kind == RECV, own_cpu[message], own_cpu)
    by_cpu, by_nic = rank * len(cpus) + used, rank * len(nics) + np.where(kind == RECV, own_nic[message], own_nic)

    def per_nic(rows: NDArray[np.bool_], what: Ints) -> Ints:
        return _sums(by_nic[rows], what[rows], ranks * len(nics)).reshape(ranks, -1)

    receives = kind == RECV
    released = np.where(receives, partner, became[:, kernel.BY])
    return Outcome(
        begin, end, np.where(receives, partner, -1), released, used, times[:nic_base].reshape(ranks, -1).max(axis=1),
        _sums(by_cpu, end - begin, nic_base).reshape(ranks, -1), cpus, nics, per_nic(sends, gap),
        per_nic(receives, gap[message]), per_nic(sends, size), per_nic(receives, size[message]), events,
    )  # fmt: skip


def _sums(place: Ints, what: Ints, places: int) -> Ints:
    total = np.zeros(places, np.int64)
    np.add.at(total, place, what)
    return total


def _numbered(column: Ints) -> tuple[Ints, Ints]:
    """(the numbers that occur, index of each entry among them); at least one number."""
    if not column.any():
        return np.zeros(1, np.int64), column
    found, index = np.unique(np.append(column, 0), return_inverse=True)
    return found.astype(np.int64), index.ravel()[:-1].astype(np.int64)


def _lines(
    kind: Ints, rank: Ints, peer: Ints, own_cpu: Ints, own_nic: Ints, sizes: tuple[int, int, int]
) -> tuple[Ints, Ints, Ints, Ints]:
    """(line of each operation, line that its message joins at the receiver, CPU of each line, NIC of each line).

    ``sizes``: ranks, CPUs, NICs. CPUs are numbered first, then sending NICs, receiving NICs, and a NIC that is always free.
    """
    ranks, cpus, nics = sizes
    here = (rank * cpus + own_cpu) * nics + own_nic
    there = (peer * cpus + own_cpu) * nics + own_nic
    span = ranks * cpus * nics  # calcs of a CPU and NIC; sends; arriving messages
    line_of, line_in = np.where(kind == SEND, span, 0) + here, 2 * span + there
    used = np.arange(3 * span)
    if 3 * span > 4 * len(kind) + 1024:
        used, index = np.unique(np.concatenate([line_of, line_in]), return_inverse=True)
        line_of, line_in = index.ravel()[: len(kind)], index.ravel()[len(kind) :]
    what, place = used // span, used % span
    at_nic = place // nics // cpus * nics + place % nics
    nic = ranks * cpus + np.where(what == 0, 2 * ranks * nics, np.where(what == 1, 0, ranks * nics) + at_nic)
    return line_of, line_in, place // nics, nic


def _lanes(schedule: Schedule) -> tuple[Ints, int]:
    """(where a send and its receive look for each other, number of such lanes): one per (receiver, sender, tag), and one for a
    whole receiver where it takes messages from anywhere."""
    kind, receives = schedule.kind, schedule.kind == RECV
    src, dst = np.where(receives, schedule.peer, schedule.rank), np.where(receives, schedule.rank, schedule.peer)
    wild = np.zeros(schedule.ranks, np.bool_)
    wild[dst[(kind != CALC) & ((src < 0) | (schedule.tag < 0))]] = True
    shared = wild[dst] | (kind == CALC)
    pair = dst * (schedule.ranks + 1) + np.where(shared, -1, src) + 1
    tag = np.where(shared, 0, schedule.tag)
    if int(tag.max(initial=0) + 1) * int(pair.max(initial=0) + 1) >= 1 << 62:
        tag = np.unique(tag, return_inverse=True)[1].ravel()
    key = pair * (int(tag.max(initial=0)) + 1) + tag
    order = np.argsort(key, kind="stable")
    new = np.ones(len(key), np.bool_)
    new[1:] = key[order][1:] != key[order][:-1]
    lane = np.empty(len(key), np.int64)
    lane[order] = np.cumsum(new) - 1
    return lane, int(new.sum()) if len(key) else 0


def _records(count: int, width: int, columns: dict[int, Any]) -> NDArray[np.int64]:
    """Records of so many numbers, one after the other; what no column gives is 0."""
    table = np.zeros((count, width), np.int64)
    for first in range(0, count, _PIECE):
        piece = table[first : first + _PIECE]
        for place, column in columns.items():
            piece[:, place] = column if isinstance(column, int) else column[first : first + _PIECE]
    return table.ravel()


def _followers(schedule: Schedule) -> tuple[Ints, Ints]:
    """(where the followers of each one's end, then of its start, begin; operations that wait), in the order of the text."""
    key = schedule.parent * kernel.FOLLOW + schedule.at_start
    order = np.argsort(key, kind="stable")
    begin = np.zeros(len(schedule) * kernel.FOLLOW + 1, np.int64)
    np.cumsum(np.bincount(key, minlength=len(begin) - 1), out=begin[1:])
    return begin, schedule.child[order]


def _refuse_unfinished(schedule: Schedule, done: NDArray[np.bool_], begun: NDArray[np.bool_], partner: Ints) -> None:
    """DeadlockError where an operation has not run, a receive not got its message or a message no receive."""
    kind = schedule.kind
    matched = np.zeros(len(schedule), np.bool_)
    matched[partner[partner >= 0]] = True
    lost = (kind == SEND) & begun & ~matched
    dry = (kind == RECV) & begun & (partner < 0)
    never = ~begun
    if not (lost.any() or dry.any() or never.any()):
        return
    told = [*(f"{schedule.describe(op)} is never received" for op in np.flatnonzero(lost)[:_SHOWN].tolist()),
            *(f"{schedule.describe(op)} gets no message" for op in np.flatnonzero(dry)[:_SHOWN].tolist())]  # fmt: skip
    waits = np.flatnonzero(never)
    if not told:  # nothing but a circle of dependencies
        told = [f"{schedule.describe(op)} waits for {_missing(schedule, op, done, begun)}" for op in waits[:_SHOWN].tolist()]
    counts = [f"{int(count):,} {what}" for count, what in (
        (np.count_nonzero(lost), "sends are never received"), (np.count_nonzero(dry), "receives get no message"),
        (len(waits), "operations never run"),
    ) if count]  # fmt: skip
    raise DeadlockError(
        f"{', '.join(counts)} of {len(schedule):,}: {'; '.join(told)}",
        where=schedule.source,
        fix="Every send needs a receive of its sender, receiver and tag that can begin, and no operation may wait for itself.",
    )


def _missing(schedule: Schedule, op: int, done: NDArray[np.bool_], begun: NDArray[np.bool_]) -> str:
    """What an operation that never ran waits for."""
    rows = np.flatnonzero(schedule.child == op)
    open_ = [int(p) for p, at_start in zip(schedule.parent[rows], schedule.at_start[rows], strict=True)
             if not (begun[p] if at_start else done[p])]  # fmt: skip
    return f'{KINDS[int(schedule.kind[open_[0]])]} "{schedule.label(open_[0])}"' if open_ else "nothing"
