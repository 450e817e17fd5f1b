"""Captures of several ranks as one job: one clock, operations matched across ranks, waiting told from transfer.

The recorded duration of a collective kernel is waiting for the last member plus transfer. On the common clock the last member
arrives at the latest start; what follows until a member's recorded end is its transfer, what came before its waiting. A replay
that lets every member take its transfer from when the last has come meets every recorded end, and waiting is simulated.

A member whose peers' files are missing stands alone with its recorded duration, waiting included; so does one that ended before
the last had come (the source of a broadcast may leave early), and an operation that only some of the captures hold.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from distsim.trace.defect import Defect
from distsim.trace.graph import Group
from distsim.trace.kineto.align import clock_shifts
from distsim.trace.kineto.capture import Capture
from distsim.trace.kineto.comms import Kernels, identify
from distsim.trace.kineto.communicators import Common, labels, unite
from distsim.trace.kineto.facts import Facts
from distsim.trace.kineto.meetings import Table, ends_of, meet, table_of
from distsim.units import format_time

Ints = NDArray[np.int64]

_PS_PER_US = 1_000_000
#: clocks that differ by more are told of, no more than that: well above what ends of one collective differ by (1 to 7 us)
_TOLD_PS = 50 * _PS_PER_US
#: clocks that differ by more do not count the same time at all: the captures are taken to begin together
_COMPARABLE_PS = 3600 * 10**12
#: a member that ended by no more before the last came is within the resolution of the clocks (older profilers: 1 us)
_EARLY_PS = 2 * _PS_PER_US


@dataclass(frozen=True, slots=True, eq=False)
class Communication:
    """The communicating kernels of one rank, as columns of its program, in order of their starts."""

    row: Ints  #: of Capture.kernels
    collective: NDArray[np.int8]  #: CollectiveType
    bytes: Ints  #: per-rank input, the same for all members; -1: not told
    group: NDArray[np.int32]  #: index into Matched.groups
    root: NDArray[np.int32]  #: index in the group
    transfer_ps: Ints  #: from the last member's arrival to the recorded end
    waiting_ps: Ints  #: before that; both add up to the recorded duration. 0 where it cannot be told from the transfer


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """What :func:`match` finds; ranks are numbered in the order of the captures."""

    ranks: tuple[Communication, ...]
    groups: tuple[Group, ...]
    shift_ps: tuple[int, ...]  #: time of each capture's own zero on the common clock; that of the earliest is 0
    defects: tuple[Defect, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)  #: for TaskGraph.metadata; expand.py reads it


def match(
    captures: Sequence[Capture], numbers: Sequence[int] | None = None, told: Sequence[Mapping[int, Facts] | None] | None = None
) -> Matched:
    """Communication of the captures of one job.

    Args:
        captures: one per rank, in order of the ranks.
        numbers: rank of each in the whole job; default: as the captures say, else as they come.
        told: of each capture, what its execution trace says (:func:`distsim.trace.kineto.execution_trace.link`).
    """
    ranks = tuple(numbers if numbers is not None else (c.rank if c.rank >= 0 else k for k, c in enumerate(captures)))
    kernels = [identify(capture, told[k] if told else None, ranks[k]) for k, capture in enumerate(captures)]
    world = max([c.world_size for c in captures] + [rank + 1 for rank in ranks], default=1)
    commons = unite(kernels, ranks, world)
    table = table_of(captures, kernels, commons)
    commons = meet(captures, kernels, commons, table, ranks)
    base = captures[0].base_ps if captures else 0
    own = [c.base_ps - base for c in captures]
    own = [one if abs(one) <= _COMPARABLE_PS else 0 for one in own]
    shifts = clock_shifts(*ends_of(table), len(captures), own)
    defects = _clock_defects(captures, own, shifts)
    transfer, waiting, early = _separate(table, shifts)
    groups, which, alone = _groups(commons, labels(commons, world), table, early, ranks)
    _agree(table, defects)
    defects += _defects(commons, table, early, kernels, world)
    columns = []
    for k in range(len(captures)):
        mine = slice(*np.searchsorted(table.capture, [k, k + 1]).tolist())
        columns.append(Communication(
            table.row[mine], table.operation[mine].astype(np.int8), table.bytes[mine], which[mine].astype(np.int32),
            _roots(table, commons, ranks, mine), transfer[mine], waiting[mine],
        ))  # fmt: skip
    metadata = {
        "kineto.world": str(world), "kineto.ranks": json.dumps(list(ranks)), "kineto.groups": json.dumps(alone),
        "kineto.waiting_ps": json.dumps([int(one.waiting_ps.sum()) for one in columns]),
    }  # fmt: skip
    lowest = min(shifts, default=0)
    return Matched(tuple(columns), tuple(groups), tuple(one - lowest for one in shifts), tuple(defects), metadata)


def _separate(table: Table, shifts: Sequence[int]) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """(transfer, waiting, left early) of every entry."""
    low = min(shifts, default=0)
    move = np.array([one - low for one in shifts] or [0], np.int64)[table.capture]
    start, end = table.start + move, table.end + move
    transfer, waiting = table.end - table.start, np.zeros(len(table.start), np.int64)
    met = np.flatnonzero(table.meeting >= 0)
    early = np.zeros(len(start), np.bool_)
    if len(met):
        last = np.full(int(table.meeting.max()) + 1, np.iinfo(np.int64).min)
        np.maximum.at(last, table.meeting[met], start[met])
        arrived = last[table.meeting[met]]
        left = end[met] - arrived
        early[met] = left < -_EARLY_PS
        stays = met[left >= -_EARLY_PS]
        transfer[stays] = np.maximum(left, 0)[left >= -_EARLY_PS]
        waiting[stays] = table.end[stays] - table.start[stays] - transfer[stays]
    return transfer, waiting, early


def _groups(
    commons: Sequence[Common], labelled: Sequence[str], table: Table, early: NDArray[np.bool_], ranks: Sequence[int]
) -> tuple[list[Group], Ints, list[dict[str, object]]]:
    """Groups, the group of every entry, and what expand.py wants to know of each group."""
    groups: list[Group] = []
    told: list[dict[str, object]] = []
    which = np.full(len(table.capture), -1, np.int64)
    place = {rank: k for k, rank in enumerate(ranks)}

    def put(name: str, members: Mapping[int, tuple[int, ...]], of: int, common: Common) -> int:
        groups.append(Group(name, members))
        told.append({
            "ranks": common.ranks, "size": common.size, "missing": common.missing, "kind": common.kind, "of": of,
        })  # fmt: skip
        return len(groups) - 1

    for number, (common, label) in enumerate(zip(commons, labelled, strict=True)):
        here = table.common == number
        if not here.any():
            continue
        present = tuple(place[r] for r in common.ranks if r in place and place[r] in common.local) or tuple(common.local)
        met, left = here & (table.meeting >= 0), here & early
        apart = here & ~met
        main = -1
        single = {k: (k,) for k in sorted(common.local)}
        if met.any():
            main = put(label, dict.fromkeys(present, present), -1, common)
            which[met] = main
        if left.any():
            which[left] = put(f"{label}, left early", single, main, common)
            for stayed, entries in _without(table, here & ~early, left).items():
                members = tuple(k for k in present if k in stayed)
                which[entries] = put(f"{label}, the others", dict.fromkeys(members, members), main, common)
        if apart.any():
            which[apart] = put(f"{label}, unmatched" if main >= 0 else label, single, -1, common)
    return groups, which, told


def _without(table: Table, here: NDArray[np.bool_], left: NDArray[np.bool_]) -> dict[frozenset[int], list[int]]:
    """Entries of ``here`` whose meetings some members (``left``) left early, by who stayed: they meet without those."""
    stayed: dict[int, list[int]] = {}
    for entry in np.flatnonzero(here & np.isin(table.meeting, table.meeting[left])).tolist():
        stayed.setdefault(int(table.meeting[entry]), []).append(entry)
    found: dict[frozenset[int], list[int]] = {}
    for entries in stayed.values():
        found.setdefault(frozenset(table.capture[entries].tolist()), []).extend(entries)
    return found


def _agree(table: Table, defects: list[Defect]) -> None:
    """Members of a meeting take one operation and one size: of the one that knows, else the first, and the largest."""
    met = np.flatnonzero(table.meeting >= 0)
    if not len(met):
        return
    n = int(table.meeting.max()) + 1
    of = table.meeting[met]
    kind = np.full(n, -1, np.int64)
    kind[of[::-1]] = table.operation[met[::-1]]  # where names of kernels are all there is: the first member's
    sure = met[~table.guessed[met]]
    kind[table.meeting[sure]] = table.operation[sure]
    table.operation[met] = kind[of]
    largest, smallest = np.full(n, -1, np.int64), np.full(n, np.iinfo(np.int64).max)
    np.maximum.at(largest, of, table.bytes[met])
    np.minimum.at(smallest, of, np.where(table.bytes[met] < 0, np.iinfo(np.int64).max, table.bytes[met]))
    differing = (largest >= 0) & (smallest < largest)
    uneven = np.zeros(n, np.bool_)
    uneven[of[table.uneven[met]]] = True
    for chosen, what, one, several in (
        (differing, "whose members bring different sizes", "counts as having the largest for all",
         "count as having the largest for all"),
        (uneven & ~differing, "with uneven splits", "counts as an even one", "count as even ones"),
    ):
        if chosen.any():
            taken = one if int(chosen.sum()) == 1 else several
            defects.append(Defect(
                "collective", f"{_count(int(chosen.sum()), 'collective')} {what} {taken}, where the network is simulated",
                severity="warning", repaired=True,
            ))  # fmt: skip
    table.bytes[met] = largest[of]


def _roots(table: Table, commons: Sequence[Common], ranks: Sequence[int], mine: slice) -> NDArray[np.int32]:
    """Roots as index in the group of those present."""
    roots = np.zeros(len(table.root[mine]), np.int32)
    for at, (number, root, meeting) in enumerate(
        zip(table.common[mine].tolist(), table.root[mine].tolist(), table.meeting[mine].tolist(), strict=True)
    ):
        if root < 0 or meeting < 0:
            continue
        common = commons[number]
        rank = root if common.kind == "pair" else common.ranks[root] if root < len(common.ranks) else -1
        present = [r for r in common.ranks if r in ranks and ranks.index(r) in common.local]
        roots[at] = present.index(rank) if rank in present else 0
    return roots


def _clock_defects(captures: Sequence[Capture], own: Sequence[int], shifts: Sequence[int]) -> list[Defect]:
    """Clocks that had to be moved."""
    incomparable = sum(abs(c.base_ps - captures[0].base_ps) > _COMPARABLE_PS for c in captures)
    moved = [shift - one for shift, one in zip(shifts, own, strict=True)]
    apart = max(moved, default=0) - min(moved, default=0)
    found = []
    if incomparable:
        what = f"clocks of {_count(incomparable, 'rank')} do not count from the same time as the first's: aligned by the "
        found.append(Defect("clock", what + "ends of their collectives alone", severity="warning", repaired=True))
    elif apart > _TOLD_PS:
        what = f"clocks of the ranks differ by up to {format_time(apart)}: aligned by the ends of their collectives"
        found.append(Defect("clock", what, severity="warning", repaired=True))
    return found


def _defects(
    commons: Sequence[Common], table: Table, early: NDArray[np.bool_], kernels: Sequence[Kernels], world: int
) -> list[Defect]:
    """What is not known, and how it was taken."""
    found: list[Defect] = []

    def say(kind: str, what: str, repaired: bool = True) -> None:
        found.append(Defect(kind, what, severity="warning", repaired=repaired))

    lone: Counter[str] = Counter()
    partial: Counter[str] = Counter()
    for number, common in enumerate(commons):
        here = table.common == number
        count = int(here.sum())
        if common.kind == "batch":
            say("message", f"{_count(count, 'batch', 'es')} of messages to several peers {_keep(count, False)} recorded time, "
                "waiting included")  # fmt: skip
        elif len(common.local) == 1 and common.size != 1:
            lone["kernels"] += count
            lone["groups"] += 1
        elif not common.ranks:
            say("group", f"nothing tells which ranks are in {common.name}: {_count(count, 'kernel')} "
                f"{_keep(count, False)} recorded time, waiting included")  # fmt: skip
        else:
            if common.missing:
                partial["kernels"] += count
                partial["groups"] += 1
            apart = int((here & (table.meeting < 0)).sum())
            if apart:
                say("collective", f"{_count(apart, 'operation')} of {common.name} {_has(apart)} no counterpart on every member "
                    f"that is there: {_keep(apart)} recorded time, waiting included")  # fmt: skip
        if common.split:
            lone["split"] += 1
        if common.assumed and world > 1:
            say("group", f"nothing names the ranks of {common.name} ({_count(count, 'operation')}): taken for all {world}")
    if lone["split"]:
        say("group", f"nothing names the ranks of {_count(lone['split'], 'communicator')}: told by which kernels end together")
    if lone["kernels"]:
        say("missing", f"files of the peers of {_count(lone['kernels'], 'collective')} "
            f"({_count(lone['groups'], 'communicator')}) are not there: replayed, {_keep(lone['kernels'])} recorded time, "
            "waiting included")  # fmt: skip
    if partial:
        say("missing", f"{_count(partial['kernels'], 'operation')} of {_count(partial['groups'], 'communicator')} "
            + ("lacks the files of some members: it waits" if partial["kernels"] == 1
               else "lack the files of some members: they wait") + " for those that are there")  # fmt: skip
    left = int(early.sum())
    if left:
        nobody = "waits for nobody and nobody for it" if left == 1 else "wait for nobody and nobody for them"
        say("collective", f"{_count(left, 'operation')} ended before the last member had come: {_keep(left)} recorded time, "
            + nobody)  # fmt: skip
    unknown = int((table.bytes < 0).sum())
    if unknown:
        say("size", f"the bytes of {unknown:,} of {_count(len(table.bytes), 'communicating kernel')} are not told: "
            f"{'it' if unknown == 1 else 'they'} can only be replayed with recorded times", repaired=False)  # fmt: skip
    guessed = sum(int(own.guessed.sum()) for own in kernels)
    if guessed:
        say("collective", f"nothing but the kernel's name tells the operation of {_count(guessed, 'communicating kernel')}")
    return found


def _has(number: int) -> str:
    return "has" if number == 1 else "have"


def _keep(number: int, named: bool = True) -> str:
    """``they keep their``, or ``it keeps its`` of one; not ``named``: without the pronoun."""
    words = ("it", "keeps its") if number == 1 else ("they", "keep their")
    return " ".join(words if named else words[1:])


def _count(number: int, what: str, plural: str = "s") -> str:
    """``1 rank``, ``1,200 ranks``."""
    return f"{number:,} {what}{'' if number == 1 else plural}"
