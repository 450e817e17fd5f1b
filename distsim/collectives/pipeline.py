"""From the transfers of one chunk to those of all: how chunks follow one another.

The rule, for every algorithm (``direct`` with a window has its own, stricter one):

* A chunk is an independent copy of the same DAG. There is no barrier: chunk c+1 is under way while chunk c is.
* Rows are ordered by chunk first, so of transfers that are ready at once on one link the earliest chunk leaves first.
* A slot - the same row of the DAG, hence the same sender, receiver and step - carries one chunk at a time: row t of chunk
  c waits for the delivery of row t of chunk c-1. A connection is in order and a sender does not flood its peer with all
  chunks at once (which fair-sharing networks would deliver all together, undoing the pipeline).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.collectives.schedule import Schedule

Columns32 = NDArray[np.int32]
Columns64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The DAG of one chunk: the columns of a Schedule without sizes and payload. Rows with src == dst are joins."""

    src: Columns32
    dst: Columns32
    dep_ptr: Columns64
    dep: Columns32
    reduce: NDArray[np.bool_]


class Builder:
    """Rows that grow block by block."""

    def __init__(self) -> None:
        self.count = 0
        self._parts: list[tuple[Columns32, Columns32, Columns32, Columns32, NDArray[np.bool_]]] = []

    def add(self, src: NDArray[np.integer], dst: NDArray[np.integer], reduce: NDArray[np.bool_] | bool,
            deps: NDArray[np.integer]) -> int:  # fmt: skip
        """Appends rows; ``deps`` is [row, any] where negative means none. Returns the number of the first."""
        begin, rows = self.count, src.size
        counts = np.full(rows, deps.shape[1], np.int32)
        if deps.size and int(deps.min()) < 0:
            given = deps >= 0
            counts = given.sum(axis=1, dtype=np.int32)
            deps = deps[given]
        self._parts.append((
            src.reshape(-1).astype(np.int32), dst.reshape(-1).astype(np.int32), counts,
            deps.reshape(-1).astype(np.int32), np.broadcast_to(reduce, rows),
        ))  # fmt: skip
        self.count += rows
        return begin

    def rows(self) -> Rows:
        """All that was added."""
        src, dst, counts, deps, reduce = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        ptr = np.zeros(self.count + 1, np.int64)
        np.cumsum(counts, out=ptr[1:])
        return Rows(src, dst, ptr, deps, reduce)


def ragged(deps: list[list[int]]) -> tuple[Columns64, Columns32]:
    """Lists of rows as (dep_ptr, dep)."""
    ptr = np.zeros(len(deps) + 1, np.int64)
    np.cumsum([len(d) for d in deps], out=ptr[1:])
    return ptr, np.array([row for d in deps for row in d], np.int32)


def one_each(rows: int, free: int, dep: Columns32) -> tuple[Columns64, Columns32]:
    """(dep_ptr, dep) where the first ``free`` rows wait for nothing and each later one for exactly one row."""
    ptr = np.arange(-free, rows - free + 1, dtype=np.int64)
    ptr[:free] = 0
    return ptr, dep


def pipelined(size: int, rows: Rows, sizes: Columns64, payload: Callable[[int, int], list[int]], pieces: int) -> Schedule:
    """The schedule of ``len(sizes)`` chunks.

    Args:
        size: members of the group.
        rows: the DAG of one chunk.
        sizes: bytes of [chunk, row].
        payload: (chunk, row) -> blocks.
        pieces: pieces of the whole buffer, see ``blocks``.
    """
    chunks, count = sizes.shape
    if chunks == 1:
        return Schedule(
            size, rows.src, rows.dst, sizes.reshape(-1), rows.dep_ptr, rows.dep, rows.reduce, lambda t: payload(0, t), pieces
        )
    slot = rows.src != rows.dst
    before = np.zeros(count + 1, np.int64)
    np.cumsum(slot, out=before[1:])
    later_ptr = rows.dep_ptr + before
    later = np.empty(int(later_ptr[-1]), np.int64)
    is_slot = np.zeros(len(later), np.bool_)
    is_slot[later_ptr[:-1][slot]] = True
    later[is_slot] = np.flatnonzero(slot) - count
    later[~is_slot] = rows.dep
    firsts = np.arange(chunks, dtype=np.int64)[1:, None]
    return Schedule(
        size,
        np.tile(rows.src, chunks),
        np.tile(rows.dst, chunks),
        sizes.reshape(-1),
        np.concatenate([rows.dep_ptr, (len(rows.dep) + (firsts - 1) * len(later) + later_ptr[1:]).reshape(-1)]),
        np.concatenate([rows.dep, (later + firsts * count).astype(np.int32).reshape(-1)]),
        np.tile(rows.reduce, chunks),
        lambda t: payload(*divmod(t, count)),
        pieces,
    )


def exchanges(senders: NDArray[np.int32], own: NDArray[np.int32]) -> tuple[Columns64, Columns32]:
    """(dep_ptr, dep) of step-major rows in which everybody sends and receives once per step.

    A rank enters a step when the last one is complete in both directions, as after MPI_Sendrecv: its row waits for its own
    last send and for what it then received.

    Args:
        senders: from whom each member receives, [step, member]; the last step's are not looked at.
        own: 0 .. n-1.
    """
    steps, n = senders.shape
    base = np.arange(steps - 1, dtype=np.int32)[:, None] * np.int32(n)
    dep = np.stack([base + own, base + senders[:-1]], axis=2).reshape(-1)
    ptr = 2 * np.arange(-n, (steps - 1) * n + 1, dtype=np.int64)
    ptr[:n] = 0
    return ptr, dep
