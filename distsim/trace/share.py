"""SPMD: ranks whose programs differ only in the names of their groups or in absolute peers share one program.

Writers give every tensor-parallel group a name of its own, so that no two ranks' files are equal although all run the same
code. Here group names become *slots* (the first group that a program names is slot 0, the next slot 1 ...) and peers become
offsets. That is exact if every group sits in the same slot on all ranks that use it; where one does not, or where nothing is
gained, the trace is left as it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.trace.graph import Group, PeerKind, Program
from distsim.trace.groups import absolute

_COLUMNS = tuple(f.name for f in dataclasses.fields(Program))


def share(
    programs: Sequence[Program], rank_program: Sequence[int], names: Sequence[str], groups: Mapping[str, tuple[int, ...]]
) -> tuple[list[Program], NDArray[np.int32], tuple[Group, ...], list[int]]:
    """Fold equal programs.

    Args:
        programs: distinct files; ``group`` indexes ``names``, peers are rank numbers.
        rank_program: program of each rank.
        names: group names; ``groups`` gives their ranks (a name that is not in it gets no members).

    Returns:
        programs, program of each rank, groups, and for every program given the index of the one that stands for it.
    """
    ranks_of: list[list[int]] = [[] for _ in programs]
    for rank, p in enumerate(rank_program):
        ranks_of[p].append(rank)
    slots = [_slots(program.group) for program in programs]
    slot_of: dict[int, int] = {}
    exact = len(programs) > 1
    for order in slots:
        for slot, group in enumerate(order):
            exact = exact and slot_of.setdefault(group, slot) == slot
    plain = tuple(absolute(name, groups.get(name, ())) for name in names)
    as_is = list(programs), np.array(rank_program, np.int32), plain, list(range(len(programs)))
    if not exact:
        return as_is

    kept: list[Program] = []
    stands: list[int] = []
    known: dict[tuple[int, ...], int] = {}
    contents = _Contents()
    for p, program in enumerate(programs):
        folded = _relabelled(program, slots[p], ranks_of[p])
        stands.append(known.setdefault(contents.key(folded), len(kept)))
        if stands[-1] == len(kept):
            kept.append(folded)
    if len(kept) == len(programs):
        return as_is
    merged: list[Group] = []
    for slot in range(max(map(len, slots), default=0)):
        members: dict[int, tuple[int, ...]] = {}
        aliases: dict[int, str] = {}
        for p, order in enumerate(slots):
            if slot < len(order):
                ranks = groups.get(names[order[slot]], ())
                for rank in ranks_of[p]:
                    aliases[rank] = names[order[slot]]
                    if rank in ranks:
                        members[rank] = ranks
        merged.append(Group(_joint_name(set(aliases.values())), members, aliases))
    return kept, np.array([stands[p] for p in rank_program], np.int32), tuple(merged), stands


def _slots(column: NDArray[np.int32]) -> list[int]:
    """Groups in the order in which the program first names them."""
    values, first = np.unique(column, return_index=True)
    return [int(values[k]) for k in np.argsort(first) if values[k] >= 0]


def _relabelled(program: Program, order: list[int], ranks: list[int]) -> Program:
    """The program with slots for groups and, where only one rank runs it, offsets for peers."""
    group, peer, kind = program.group, program.peer, program.peer_kind
    if order and order != list(range(len(order))):
        table = np.full(max(order) + 2, -1, np.int32)
        table[order] = np.arange(len(order))
        group = table[group]
    if len(ranks) == 1:
        said = peer >= 0
        if said.any():
            peer = np.where(said, peer - ranks[0], -1).astype(np.int32)
            kind = np.where(said, PeerKind.OFFSET, kind).astype(np.int8)
    return dataclasses.replace(program, group=group, peer=peer, peer_kind=kind)


class _Contents:
    """Columns by content: a column that many programs hold as one object is looked at once."""

    def __init__(self) -> None:
        self._digests: dict[bytes, int] = {}
        self._columns: dict[int, tuple[NDArray[Any], int]] = {}  # the column is held so that its id stays its own

    def key(self, program: Program) -> tuple[int, ...]:
        """Numbers that only equal programs share."""
        columns = (getattr(program, name) for name in _COLUMNS)
        return tuple(-1 if column is None else self._number(column) for column in columns)

    def _number(self, column: NDArray[Any]) -> int:
        known = self._columns.get(id(column))
        if known is None:
            digest = hashlib.blake2b(column, digest_size=16).digest()  # type: ignore[arg-type]
            known = self._columns[id(column)] = column, self._digests.setdefault(digest, len(self._digests))
        return known[1]


def _joint_name(names: set[str]) -> str:
    """``1..64 (64 groups)`` for groups that share a slot."""
    ordered = sorted(names, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]}..{ordered[-1]} ({len(ordered)} groups)"
