"""Recursive doubling: everybody swaps all it has with a partner at distance 1, 2, 4, ...; the fewest steps, more bytes.

Source: Thakur, Rabenseifner & Gropp, "Optimization of collective communication operations in MPICH" (2005); the barrier is
the dissemination barrier of Hensgen, Finkel & Manber (1988). Choose it for small buffers: log2(n) steps and no more.

* all_reduce: the whole chunk in every step. all_gather: twice as many shards in every step.
* Groups that are no power of two, n = 2^k + m: before the first step each of the first m even ranks hands its data to the
  odd rank on its right, which acts for both; after the last step it gets the result back. Two more steps.
* barrier: ceil(log2 n) steps, for every n; in step i a rank tells the one 2^i to its right.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distsim.collectives.blocks import Layout
from distsim.collectives.pipeline import Rows, exchanges, pipelined
from distsim.collectives.schedule import Collective, Schedule
from distsim.registry import register


@register("collective", "recursive_doubling")
class RecursiveDoubling:
    """Rows are step-major. A rank enters a step when its exchange of the last one is complete in both directions."""

    operations = ("all_reduce", "all_gather", "barrier")

    def schedule(self, collective: Collective) -> Schedule:
        """The transfers of all chunks. Serves every group."""
        return _disseminate(collective) if collective.operation == "barrier" else _double(collective)


def _disseminate(collective: Collective) -> Schedule:
    n = collective.size
    steps = (n - 1).bit_length()
    members = np.arange(n, dtype=np.int32)
    reach = np.int32(1) << np.arange(steps, dtype=np.int32)[:, None]
    rows = Rows(
        np.tile(members, steps),
        ((members + reach) % n).reshape(-1),
        *exchanges((members - reach) % n, members),
        np.zeros(steps * n, np.bool_),
    )
    return pipelined(n, rows, np.ones((1, steps * n), np.int64), lambda _chunk, _row: [0], 1)


def _double(collective: Collective) -> Schedule:
    """m rows before, k steps of 2^k rows, m rows after."""
    n, chunks = collective.size, collective.chunks
    bits = n.bit_length() - 1
    core = 1 << bits
    folded = n - core
    reducing = collective.operation == "all_reduce"

    actors = np.arange(core, dtype=np.int32)
    # actor a is rank 2a+1 and acts for 2a as well, or it is rank a + folded;
    # the actors a .. b together stand for the ranks lowest[a] .. lowest[b + 1] - 1
    lowest = np.minimum(2 * np.arange(core + 1), np.arange(core + 1) + folded).astype(np.int32)
    rank_of: NDArray[np.int32] = (lowest[1:] - 1).astype(np.int32)
    guests = 2 * np.arange(folded, dtype=np.int32)

    partners = np.stack([actors ^ np.int32(1 << i) for i in range(bits)])
    ptr, dep = exchanges(partners, actors)
    before = np.minimum(np.arange(core + 1), folded)  # the first step of an actor waits for its guest, if it has one
    ptr[: core + 1] += before
    ptr[core + 1 :] += folded
    last = folded + (bits - 1) * core
    ends = np.stack([last + actors[:folded], last + partners[-1][:folded]], axis=1).reshape(-1)
    rows = Rows(
        np.concatenate([guests, np.tile(rank_of, bits), guests + 1]).astype(np.int32),
        np.concatenate([guests + 1, rank_of[partners].reshape(-1), guests]).astype(np.int32),
        np.concatenate([np.zeros(folded, np.int64), ptr, ptr[-1] + 2 * np.arange(1, folded + 1)]),
        np.concatenate([np.arange(folded), dep + folded, ends]).astype(np.int32),
        np.arange(bits * core + 2 * folded) < (folded + bits * core if reducing else 0),
    )

    def owners(row: int) -> list[int]:
        """The segments that a row moves."""
        if reducing:
            return list(range(n))
        if row < folded:
            return [2 * row]
        step, actor = divmod(row - folded, core)
        if step == bits:
            return [s for s in range(n) if s != 2 * actor]
        first = actor >> step << step
        return list(range(int(lowest[first]), int(lowest[first + (1 << step)])))

    segments = Layout(collective, chunks).sizes()
    if reducing:
        sizes = np.repeat(segments.sum(axis=1)[:, None], len(rows.src), axis=1)
    else:
        starts = np.stack([actors >> i << i for i in range(bits)])
        counts = lowest[starts + (1 << np.arange(bits))[:, None]] - lowest[starts]
        shards = np.concatenate([np.ones(folded, np.int64), counts.reshape(-1), np.full(folded, n - 1)])
        sizes = segments[:, :1] * shards
    return pipelined(n, rows, sizes, lambda chunk, row: [chunk * n + s for s in owners(row)], chunks)
