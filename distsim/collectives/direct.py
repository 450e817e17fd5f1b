"""Direct: everybody sends to everybody itself; the fewest steps, all paths of the network at once.

Source: the linear-shift ("spread") exchanges of Bruck et al., "Efficient algorithms for all-to-all communications" (1997);
ASTRA-sim calls it direct. Choose it where any two members are one switch apart, and for all_to_all. Bandwidth-optimal, but
n-1 messages a rank are under way at once unless a window limits them.

* Rank r sends to r+1, r+2, ... in this order, so that not all fall upon the same receiver.
* all_reduce: a direct reduce_scatter, then a direct all_gather, which a rank starts when all n-1 addends have arrived.
* A window of w (0 or >= n-1: none) lets a rank have at most w transfers under way: its k-th waits for the delivery of its
  (k-w)-th, across phases and chunks, in the order reduce-scatter of chunk 0, of chunk 1, all-gather of chunk 0,
  reduce-scatter of chunk 2, ... which keeps the pipeline going. Without one the rule of ``pipeline`` holds: the k-th peer
  gets its next chunk after the last one.
* Rooted operations: the root sends to, or receives from, all others.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from distsim.collectives.blocks import Layout
from distsim.collectives.pipeline import Builder, Columns32, Columns64
from distsim.collectives.schedule import Collective, Schedule
from distsim.registry import register

#: which rank a transfer's segment belongs to; the others move whole pieces
_SEGMENT_OF = {
    "reduce_scatter": "dst", "scatter": "dst", "all_to_all": "dst", "all_gather": "src", "gather": "src",
}  # fmt: skip


@register("collective", "direct")
class Direct:
    """Serves every operation and every group; the rows of a phase are ordered by the distance of the peer."""

    operations = (
        "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "reduce", "gather", "scatter", "barrier",
    )  # fmt: skip

    def schedule(self, collective: Collective) -> Schedule:
        """The transfers of all chunks."""
        n = collective.size
        chunks = 1 if collective.operation == "barrier" else collective.chunks
        src, dst = _peers(collective)  # [peer, sender]
        peers, senders = src.shape
        window = collective.window if collective.window < peers else 0
        phases = ("reduce_scatter", "all_gather") if collective.operation == "all_reduce" else (collective.operation,)
        order = _order(chunks, len(phases), interleaved=window > 0)
        segments = Layout(collective, chunks).sizes()
        row_of = np.arange(peers * senders, dtype=np.int32).reshape(peers, senders)

        builder = Builder()
        sizes: list[Columns64] = []
        begins: list[int] = []
        begin_of: dict[tuple[int, int], int] = {}
        for phase, chunk in order:
            waits: list[Columns32] = []
            if phase:
                joins = builder.add(np.arange(n), np.arange(n), False, begin_of[0, chunk] + _arrivals(n))
                sizes.append(np.zeros(n, np.int64))
                waits.append(np.broadcast_to(np.arange(joins, joins + n, dtype=np.int32), src.shape))
            if window:
                flat = np.arange(peers, dtype=np.int64) + len(begins) * peers - window  # position of the row to wait for
                starts = np.array([*begins, builder.count], np.int64)[flat // peers]
                waits.append(np.where(flat[:, None] >= 0, starts[:, None] + row_of[flat % peers], -1))
            elif chunk:
                waits.append(begin_of[phase, chunk - 1] + row_of)
            deps = np.stack(waits, axis=2).reshape(-1, len(waits)) if waits else np.empty((peers * senders, 0), np.int32)
            sizes.append(_sizes(phases[phase], segments[chunk], src, dst).reshape(-1))
            begin = builder.add(src, dst, phases[phase] in ("reduce", "reduce_scatter"), deps)
            begins.append(begin)
            begin_of[phase, chunk] = begin

        def payload(row: int) -> list[int]:
            at = bisect_right(begins, row) - 1
            peer, sender = divmod(row - begins[at], senders)
            if peer >= peers:
                return []  # a join
            phase, chunk = order[at]
            return _blocks(phases[phase], chunk, n, int(src[peer, sender]), int(dst[peer, sender]))

        rows = builder.rows()
        return Schedule(n, rows.src, rows.dst, np.concatenate(sizes), rows.dep_ptr, rows.dep, rows.reduce, payload, chunks)


def _peers(collective: Collective) -> tuple[Columns32, Columns32]:
    """Sources and destinations of one phase, [peer, sender]: a sender's first peer first."""
    n, root = collective.size, collective.root
    distance = np.arange(1, n, dtype=np.int32)
    if collective.operation in ("broadcast", "scatter"):
        return np.full((n - 1, 1), root, np.int32), (root + distance[:, None]) % n
    if collective.operation in ("reduce", "gather"):
        return (root + distance[None, :]) % n, np.full((1, n - 1), root, np.int32)
    src = np.broadcast_to(np.arange(n, dtype=np.int32), (n - 1, n))
    return src, (src + distance[:, None]) % n


def _arrivals(n: int) -> Columns32:
    """Rows of a phase of everybody to everybody that arrive at each rank, [rank, peer]."""
    peer = np.arange(n - 1, dtype=np.int32)
    return peer * np.int32(n) + (np.arange(n, dtype=np.int32)[:, None] - peer - 1) % n


def _order(chunks: int, phases: int, *, interleaved: bool) -> list[tuple[int, int]]:
    """(phase, chunk) in row order: by chunk, or with every phase but the first delayed by one chunk."""
    return sorted(
        ((phase, chunk) for chunk in range(chunks) for phase in range(phases)),
        key=lambda at: (at[1] + at[0], at[0]) if interleaved else (at[1], at[0]),
    )


def _sizes(operation: str, segments: Columns64, src: Columns32, dst: Columns32) -> Columns64:
    """Bytes of the transfers of one chunk, whose segments are so large."""
    if operation == "barrier":
        return np.ones(src.shape, np.int64)
    owner = _SEGMENT_OF.get(operation)
    return np.full(src.shape, segments.sum()) if owner is None else segments[src if owner == "src" else dst]


def _blocks(operation: str, chunk: int, n: int, src: int, dst: int) -> list[int]:
    if operation == "barrier":
        return [0]
    if operation == "all_to_all":
        return [(chunk * n + dst) * n + src]
    owner = _SEGMENT_OF.get(operation)
    return list(range(chunk * n, chunk * n + n)) if owner is None else [chunk * n + (src if owner == "src" else dst)]
