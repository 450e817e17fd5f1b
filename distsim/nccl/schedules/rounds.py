"""Schedules that repeat: the rows of one *round* written out once, and laid one after the other for all rounds of a pipeline.

A round is one piece of the data on every rail. Rounds take turns among a few templates (the two trees).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from distsim.collectives.schedule import Schedule
from distsim.nccl.schedules.pace import Columns64, Paced

# What the hop of a row is, and which bytes it has: an index into the table of a schedule.
START = 0  #: a join that lets a piece in


@dataclass(slots=True)
class Round:
    """The rows of one round, in an order in which dependencies come first."""

    src: list[int] = field(default_factory=list)
    dst: list[int] = field(default_factory=list)
    dep: list[list[int]] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)  #: START or a kind of the schedule's own
    rail: list[int] = field(default_factory=list)
    reduce: list[bool] = field(default_factory=list)

    def add(self, src: int, dst: int, dep: list[int], kind: int, rail: int, *, reduce: bool = False) -> int:
        """Appends a row and returns its number."""
        self.src.append(src)
        self.dst.append(dst)
        self.dep.append(dep)
        self.kind.append(kind)
        self.rail.append(rail)
        self.reduce.append(reduce)
        return len(self.src) - 1


def laid_out(
    size: int, templates: Sequence[Round], rounds: int, rails: int, sizes: Callable[[int, Round], Columns64],
    hop_of: NDArray[np.float64], base: float, gap: float, payload: Callable[[int, Round, int], list[int]], *,
    in_network: bool = False,
) -> Paced:  # fmt: skip
    """All rounds; round k follows template ``k % len(templates)``.

    Args:
        size: members.
        templates: the rounds.
        rounds: how many there are.
        rails: pieces of a round.
        sizes: (round, template) -> bytes of its rows.
        hop_of: ps of the hops of every kind; of START nothing.
        base, gap: piece ``round * rails + rail`` may start ``base + gap * piece`` ps after the schedule.
        payload: (round, template, row of it) -> blocks.
        in_network: see Schedule.
    """
    shapes = [_Columns.of(template) for template in templates]
    firsts = np.cumsum([0, *(len(shapes[k % len(shapes)].src) for k in range(rounds))])
    parts = [(shapes[k % len(shapes)], sizes(k, templates[k % len(templates)])) for k in range(rounds)]
    schedule = Schedule(
        size,
        np.concatenate([shape.src for shape, _ in parts]),
        np.concatenate([shape.dst for shape, _ in parts]),
        np.concatenate([amounts for _, amounts in parts]),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate([shape.counts for shape, _ in parts]))]),
        np.concatenate([shape.dep + first for (shape, _), first in zip(parts, firsts[:-1], strict=True)]).astype(np.int32),
        np.concatenate([shape.reduce for shape, _ in parts]),
        lambda row: _payload(row, firsts, templates, payload),
        rounds * rails,
        in_network=in_network,
    )
    hop = np.concatenate([
        np.where(shape.kind == START, base + gap * (k * rails + shape.rail), hop_of[shape.kind])
        for k, (shape, _) in enumerate(parts)
    ])  # fmt: skip
    return Paced(schedule, np.round(np.maximum(0.0, hop)).astype(np.int64))


def _payload(
    row: int, firsts: Columns64, templates: Sequence[Round], payload: Callable[[int, Round, int], list[int]]
) -> list[int]:
    number = int(np.searchsorted(firsts, row, side="right")) - 1
    template = templates[number % len(templates)]
    at = row - int(firsts[number])
    return [] if template.src[at] == template.dst[at] else payload(number, template, at)


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """A Round as arrays."""

    src: NDArray[np.int32]
    dst: NDArray[np.int32]
    counts: Columns64
    dep: Columns64
    kind: Columns64
    rail: Columns64
    reduce: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: Round) -> _Columns:
        return cls(
            np.array(rows.src, np.int32), np.array(rows.dst, np.int32), np.array([len(dep) for dep in rows.dep], np.int64),
            np.array([row for dep in rows.dep for row in dep], np.int64), np.array(rows.kind, np.int64),
            np.array(rows.rail, np.int64), np.array(rows.reduce, np.bool_),
        )  # fmt: skip
