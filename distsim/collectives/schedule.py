"""What an algorithm is asked for (:class:`Collective`) and what it answers (:class:`Schedule`).

A schedule is data: a DAG of transfers in columns, in an order in which dependencies come first. Nothing in it knows of
time, links or ranks of a cluster: members are numbered 0 .. size-1 within the group. What each transfer carries is part
of the data, so that a checker can prove, without running a network, that every rank ends with what it should.

Sizes follow Chakra and ASTRA-sim: ``bytes`` is the per-rank *input*. For all_gather that is the shard, for reduce_scatter
and all_to_all the whole buffer, for broadcast, reduce, gather and scatter: the root's or each member's buffer as listed in
``blocks.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from distsim import registry
from distsim.errors import CollectiveError, UnknownNameError

OPERATIONS = (
    "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "reduce", "gather", "scatter", "barrier",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Collective:
    """One collective as its algorithm sees it.

    Attributes:
        operation: one of OPERATIONS.
        size: members of the group (>= 1; a group of one needs no transfer).
        bytes: per-rank input in bytes (0 for a barrier, which sends 1-byte tokens).
        chunks: pipelining: the buffer is cut in so many parts that follow one another (>= 1; a barrier has but one).
        root: member index of the root of rooted operations.
        window: ``direct`` only: peers in flight at once, 0 = all.
        dims: ``hierarchical`` only: sizes of the dimensions, fastest first; their product is ``size``.
        per_dim: ``hierarchical`` only: algorithm of each dimension.
        optimization: ``hierarchical`` only: local_bw_aware (reduce-scatter, all-reduce, all-gather) or baseline.
    """

    operation: str
    size: int
    bytes: int
    chunks: int = 1
    root: int = 0
    window: int = 0
    dims: tuple[int, ...] = ()
    per_dim: tuple[str, ...] = ()
    optimization: str = "local_bw_aware"


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """T transfers in columns; row t may start once every row in ``dep[dep_ptr[t]:dep_ptr[t+1]]`` has been delivered.

    A delivery includes the reduction at the receiver where ``reduce`` says so. Rows only depend on earlier rows, and only
    on rows that one of their two ends takes part in. Transfers of one sender on one link leave in row order when they are
    ready at once. What arrives before the receiver has reached that step waits in a receive buffer there.

    A row with ``src == dst`` and zero bytes is a *join*: nothing moves; it is delivered at the instant its last dependency is
    (later only by ``delay``). It stands for "this member has finished a phase" where otherwise every transfer of the next phase
    would have to list every arrival of the last one (n^3 dependencies in a direct all_reduce).

    Payload, for the checker: transfer t moves the blocks ``payload(t)``; a block is an int ``piece * size + owner`` whose
    meaning is fixed by the operation (see blocks.py). It is a function, not a column: million-row schedules never build it.

    Attributes:
        size: members of the group.
        src, dst: member indices.
        bytes: of each transfer; may be 0 where the buffer has fewer bytes than parts.
        dep_ptr, dep: see above.
        reduce: the receiver adds what arrives to what it has, instead of storing it.
        payload: row -> blocks.
        pieces: how many pieces the buffer is cut into: the chunks, or a multiple where an algorithm cuts chunks further.
        delay: ps from the arrival of a row's last byte to its delivery, by what the algorithm does there; None: nothing.
        in_network: switches add and copy: ``bytes`` are what links carry, which may be fewer than those of the payload.
    """

    size: int
    src: NDArray[np.int32]
    dst: NDArray[np.int32]
    bytes: NDArray[np.int64]
    dep_ptr: NDArray[np.int64]
    dep: NDArray[np.int32]
    reduce: NDArray[np.bool_]
    payload: Callable[[int], list[int]]
    pieces: int = 1
    delay: NDArray[np.int64] | None = None
    in_network: bool = False

    def __len__(self) -> int:
        return len(self.src)


class Algorithm(Protocol):
    """The role ``collective`` of the registry: one instance per algorithm, without state."""

    operations: tuple[str, ...]

    def schedule(self, collective: Collective) -> Schedule:
        """The transfers. Raises CollectiveError where the group's size or the operation cannot be served."""
        ...


def empty(collective: Collective) -> Schedule:
    """No transfers at all: a group of one."""
    none = np.zeros(0, np.int32)
    return Schedule(
        collective.size, none, none, np.zeros(0, np.int64), np.zeros(1, np.int64), none, np.zeros(0, np.bool_), lambda _: [],
        1 if collective.operation == "barrier" else collective.chunks,
    )  # fmt: skip


#: chunks x ranks^2 beyond which a schedule would not fit in memory (about 40 bytes a transfer, up to twice as many transfers)
_LARGEST = 200_000_000


def schedule(algorithm: str, collective: Collective) -> Schedule:
    """The schedule of ``algorithm``, with the checks common to all; a group of one has no transfers.

    Raises:
        UnknownNameError: no such algorithm, or no such operation.
        CollectiveError: the algorithm cannot serve the operation, the group's size, or numbers that make no sense.
    """
    found: Algorithm = registry.lookup("collective", algorithm)()
    if collective.operation not in OPERATIONS:
        raise UnknownNameError("collective operation", collective.operation, OPERATIONS)
    if collective.operation not in found.operations:
        able = [n for n in registry.names("collective") if collective.operation in registry.lookup("collective", n).operations]
        raise CollectiveError(
            f"algorithm {algorithm!r} has no {collective.operation}",
            expected=f"one of {', '.join(able)} for {collective.operation}",
        )
    if collective.size < 1 or collective.bytes < 0 or collective.chunks < 1 or collective.window < 0:
        raise CollectiveError(f"cannot schedule {collective}", expected="size >= 1, bytes >= 0, chunks >= 1, window >= 0")
    if collective.chunks * collective.size * collective.size > _LARGEST:
        raise CollectiveError(
            f"{collective.operation} of {collective.size} ranks in {collective.chunks} chunks would be hundreds of millions of "
            "transfers",
            fix="Take fewer --splits.",
        )
    if not 0 <= collective.root < collective.size:
        raise CollectiveError(f"root {collective.root} is not a member of a group of {collective.size}")
    if collective.size == 1:
        return empty(collective)
    return found.schedule(collective)
