"""Ring: every member sends only to its right-hand neighbour; bandwidth-optimal, latency grows with the group.

Source: Patarasuk & Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations" (2009); NCCL's rings take
the same steps. Choose it for large buffers, and where only neighbours are joined by links. Steps, per chunk of B bytes:

* reduce_scatter, all_gather: n-1 steps of one segment; all_reduce: the one after the other, 2(n-1) steps.
* all_to_all: n-1 steps; in step s a member passes on the n-1-s blocks of the source s places to its left that have not
  arrived yet. (ASTRA-sim sends each of these blocks as a message of its own.)
* broadcast, reduce: a chain of n-1 hops of the whole chunk, from the root or to it; only many chunks make it fast.
* barrier: n-1 steps of a token, as an all_gather.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from distsim.collectives.blocks import Layout
from distsim.collectives.pipeline import Columns64, Rows, one_each, pipelined
from distsim.collectives.schedule import Collective, Schedule
from distsim.registry import register


@register("collective", "ring")
class Ring:
    """Rows are step-major: row ``step * n + r`` is what rank r sends to r+1 in that step, once its left one has arrived."""

    operations = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "reduce", "barrier")

    def schedule(self, collective: Collective) -> Schedule:
        """The transfers of all chunks. Serves every group of two and more."""
        if collective.operation in ("broadcast", "reduce"):
            return _chain(collective)
        if collective.operation == "all_to_all":
            return _shuffle(collective)
        return _rotate(collective)


def _stepwise(n: int, steps: int, reducing: int) -> Rows:
    """``steps`` steps in which everybody sends right; the first ``reducing`` ones add up at the receiver."""
    members = np.arange(n, dtype=np.int32)
    left = (members - 1) % n
    dep = (np.arange(steps - 1, dtype=np.int32)[:, None] * np.int32(n) + left).reshape(-1)
    reduce = np.zeros(steps * n, np.bool_)
    reduce[: reducing * n] = True
    return Rows(np.tile(members, steps), np.tile((members + 1) % n, steps), *one_each(steps * n, n, dep), reduce)


def _rotate(collective: Collective) -> Schedule:
    """reduce_scatter (segment r-s-1 leaves r in step s), all_gather (segment r-s), all_reduce (both), barrier."""
    n, operation = collective.size, collective.operation
    scatter = n - 1 if operation in ("all_reduce", "reduce_scatter") else 0
    steps = 2 * (n - 1) if operation == "all_reduce" else n - 1
    rows = _stepwise(n, steps, scatter)
    if operation == "barrier":
        return pipelined(n, rows, np.ones((1, len(rows.src)), np.int64), lambda _chunk, _row: [0], 1)
    # the reduce-scatter starts one segment further left than the all-gather, and takes n-1 steps: one more turn to the left
    first = 1 if scatter else 0

    def payload(chunk: int, row: int) -> list[int]:
        step, rank = divmod(row, n)
        return [chunk * n + (rank - step - first) % n]

    segments = Layout(collective, collective.chunks).sizes()
    sizes = np.empty((collective.chunks, steps, n), np.int64)
    for chunk in range(collective.chunks):
        turned = sliding_window_view(np.tile(segments[chunk], 2), n)  # turned[k][r] = segment (r + k) % n
        sizes[chunk] = turned[np.arange(-first, -first - steps, -1) % n]
    return pipelined(n, rows, sizes.reshape(collective.chunks, -1), payload, collective.chunks)


def _shuffle(collective: Collective) -> Schedule:
    """all_to_all: in step s, r passes on what source r-s has for r+1 .. r-s-1 (n-1-s blocks)."""
    n = collective.size
    rows = _stepwise(n, n - 1, 0)

    def payload(chunk: int, row: int) -> list[int]:
        step, rank = divmod(row, n)
        source = (rank - step) % n
        return [(chunk * n + (rank + 1 + k) % n) * n + source for k in range(n - 1 - step)]

    segments = Layout(collective, collective.chunks).sizes()
    upto = np.zeros((collective.chunks, 2 * n + 1), np.int64)  # bytes of the segments before k, twice around
    np.cumsum(np.tile(segments, 2), axis=1, out=upto[:, 1:])
    begin = np.arange(1, n + 1)[None, :]  # rank + 1
    end = begin + np.arange(n - 1, 0, -1)[:, None]
    return pipelined(n, rows, (upto[:, end] - upto[:, begin]).reshape(collective.chunks, -1), payload, collective.chunks)


def _chain(collective: Collective) -> Schedule:
    """broadcast: root -> root+1 -> ... -> root-1; reduce: root+1 -> ... -> root."""
    n, reducing = collective.size, collective.operation == "reduce"
    hops = np.arange(n - 1, dtype=np.int32)
    src = ((collective.root + reducing + hops) % n).astype(np.int32)
    rows = Rows(src, (src + 1) % n, *one_each(n - 1, 1, hops[:-1]), np.full(n - 1, reducing))
    whole: Columns64 = Layout(collective, collective.chunks).sizes().sum(axis=1)
    sizes = np.repeat(whole[:, None], n - 1, axis=1)
    return pipelined(n, rows, sizes, lambda chunk, _row: list(range(chunk * n, chunk * n + n)), collective.chunks)
