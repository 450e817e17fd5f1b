"""Hierarchical: one registered algorithm per dimension of the group, phase after phase; keeps slow dimensions' traffic small.

Source: ASTRA-sim's multi-dimensional collectives (Rashidi et al. 2020; Won et al., "ASTRA-sim2.0" 2023); Themis (2022)
calls the first all_reduce below the baseline. Member numbers are mixed-radix, dimension 0 fastest. A *line* is a set of
members that differ in one dimension only; in a phase, all (active) lines of one dimension run its algorithm at once.

=============================== =================================================================================
operation                       phases
=============================== =================================================================================
all_reduce, local_bw_aware      reduce_scatter on dimensions 0 .. D-2, all_reduce on D-1, all_gather back D-2 .. 0
all_reduce, baseline            a full all_reduce on dimension 0, 1, .. D-1
reduce_scatter, all_to_all      the same on dimension 0, 1, .. D-1, of what is left
all_gather                      D-1, .. 0
barrier                         0, 1, .. D-1
reduce; scatter                 0, 1, .. D-1; only in lines that lead to, or already have data from, the root
broadcast; gather               D-1, .. 0; likewise
=============================== =================================================================================

A member enters a phase when all that it had to receive in the last one has arrived (a join row); under ``baseline``, where
the same bytes are reduced again, when its sends are delivered as well, and a transfer then waits until both of its ends have
entered. There is no barrier between members, and none between chunks: chunk c+1 is in an earlier phase while c goes on.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import pairwise
from math import lcm, prod

import numpy as np
from numpy.typing import NDArray

from distsim.collectives.blocks import Layout
from distsim.collectives.pipeline import Builder, Columns32, Columns64, pipelined
from distsim.collectives.schedule import OPERATIONS, Collective, Schedule, schedule
from distsim.errors import CollectiveError, UnknownNameError
from distsim.registry import register


@register("collective", "hierarchical")
class Hierarchical:
    """Serves every operation that the algorithms of its dimensions serve; ``window`` is handed on to them."""

    operations = OPERATIONS

    def schedule(self, collective: Collective) -> Schedule:
        """The transfers of all chunks.

        Raises:
            CollectiveError: dims do not multiply to size, not one algorithm per dimension, or one of them cannot serve.
            UnknownNameError: an algorithm or optimization of that name does not exist.
        """
        phases = _phases(collective)
        builder = Builder()
        gates = np.full(collective.size, -1, np.int32)  # the join that lets a member into the current phase
        for previous, phase in zip([None, *phases], phases, strict=False):
            if previous is not None:
                _join(builder, previous, phase, gates)
            phase.begin = builder.count
            _run(builder, phase, gates)

        chunks = 1 if collective.operation == "barrier" else collective.chunks
        split = lcm(*(phase.inner.pieces for phase in phases))
        segments = Layout(collective, chunks * split).sizes()
        sizes = np.zeros((chunks, builder.count), np.int64)
        for phase in phases:
            end = phase.begin + len(phase.inner) * phase.lines.shape[0]
            parts = segments.reshape(chunks, phase.inner.pieces, -1, collective.size).sum(axis=2)
            sizes[:, phase.begin : end] = phase.sizes(parts)
        begins = [phase.begin for phase in phases]

        def payload(chunk: int, row: int) -> list[int]:
            phase = phases[bisect_right(begins, row) - 1]
            inner, line = divmod(row - phase.begin, phase.lines.shape[0])
            return phase.blocks(inner, line, chunk, split) if inner < len(phase.inner) else []

        return pipelined(collective.size, builder.rows(), sizes, payload, chunks * split)


@dataclass(slots=True, eq=False)
class _Phase:
    """One operation on the lines of one dimension.

    Attributes:
        collective: of the whole group.
        inner: the schedule of one line, its chunk in one part.
        stride: members between neighbours of a line (the product of the lower dimensions).
        lines: members of the active lines, [line, place].
        whole: every member holds all segments, so that a line shares all of them out; otherwise, only those of its own
            coordinates in the lower dimensions.
        both: sends count as well as arrivals (baseline).
        begin: row of its first transfer within a chunk.
    """

    collective: Collective
    inner: Schedule
    stride: int
    lines: NDArray[np.int64]
    whole: bool
    both: bool
    begin: int = 0

    def sizes(self, segments: Columns64) -> Columns64:
        """Bytes of [chunk, row]; ``segments`` are those of [chunk, inner piece, member]."""
        chunks, pieces, _ = segments.shape
        rows, (lines, places) = len(self.inner), self.lines.shape
        if self.collective.operation == "barrier":
            return np.repeat((self.inner.src != self.inner.dst).astype(np.int64), lines)[None, :]
        held = segments.reshape(chunks, pieces, -1, places, self.stride).sum(axis=2)  # [chunk, piece, place, lower coordinates]
        if self.whole:
            held = np.broadcast_to(held.sum(axis=3, keepdims=True), held.shape)
        exchange = self.collective.operation == "all_to_all"
        if exchange:
            held = held * self.stride  # from every source in the lower dimensions
        held = held.reshape(chunks, pieces * places, self.stride)[:, :, self.lines[:, 0] % self.stride]
        payloads = [self.inner.payload(row) for row in range(rows)]
        ends = np.cumsum([0, *map(len, payloads)])
        parts = np.array([part // places if exchange else part for payload in payloads for part in payload], np.int64)
        upto = np.zeros((chunks, len(parts) + 1, lines), np.int64)
        np.cumsum(held[:, parts], axis=1, out=upto[:, 1:])
        sizes = upto[:, ends[1:]] - upto[:, ends[:-1]]
        return sizes.reshape(chunks, -1)

    def blocks(self, row: int, line: int, chunk: int, split: int) -> list[int]:
        """What an inner row moves in one line: its blocks in those of the whole group, cut into ``split`` parts a chunk."""
        if self.collective.operation == "barrier":
            return self.inner.payload(row)
        n, places, first = self.collective.size, self.lines.shape[1], int(self.lines[line, 0])
        lower, span = first % self.stride, self.stride * places
        share = split // self.inner.pieces
        found = []
        for part in self.inner.payload(row):
            source = None
            if self.collective.operation == "all_to_all":
                part, source = divmod(part, places)
            piece, place = divmod(part, places)
            lowers = range(self.stride) if self.whole else [lower]
            owners = [high + place * self.stride + low for high in range(0, n, span) for low in lowers]
            for at in range(chunk * split + piece * share, chunk * split + (piece + 1) * share):
                if source is None:
                    found += [at * n + owner for owner in owners]
                else:
                    senders = range(first - lower + source * self.stride, first - lower + (source + 1) * self.stride)
                    found += [(at * n + owner) * n + sender for owner in owners for sender in senders]
        return found


def _plan(collective: Collective) -> list[tuple[int, str]]:
    """(dimension, operation) of the phases; dimensions of one member have none."""
    operation = collective.operation
    up = [d for d, size in enumerate(collective.dims) if size > 1]
    down = up[::-1]
    if operation == "all_reduce" and collective.optimization == "local_bw_aware":
        last = [(up[-1], "all_reduce")]
        return [(d, "reduce_scatter") for d in up[:-1]] + last + [(d, "all_gather") for d in down[1:]]
    return [(d, operation) for d in (down if operation in ("all_gather", "broadcast", "gather") else up)]


def _phases(collective: Collective) -> list[_Phase]:
    dims, operation, root = collective.dims, collective.operation, collective.root
    if prod(dims) != collective.size or min(dims, default=0) < 1:
        raise CollectiveError(f"dims {dims} for a group of {collective.size}", expected="positive sizes whose product it is")
    if len(collective.per_dim) != len(dims):
        raise CollectiveError(f"per_dim {collective.per_dim} for dims {dims}", expected="one algorithm for each dimension")
    if collective.optimization not in ("local_bw_aware", "baseline"):
        raise UnknownNameError("optimization", collective.optimization, ("local_bw_aware", "baseline"))
    phases = []
    for d, part in _plan(collective):
        stride, places = prod(dims[:d]), dims[d]
        heads = np.arange(collective.size, dtype=np.int64)
        heads = heads[heads // stride % places == 0]
        if operation in ("reduce", "broadcast"):
            heads = heads[heads % stride == root % stride]
        elif operation in ("gather", "scatter"):
            heads = heads[heads // (stride * places) == root // (stride * places)]
        ask = replace(
            collective, operation=part, size=places, bytes=places, chunks=1, root=root // stride % places, dims=(), per_dim=()
        )
        again = operation == "all_reduce" and collective.optimization == "baseline"
        try:
            inner = schedule(collective.per_dim[d], ask)
        except CollectiveError as refusal:
            raise CollectiveError(
                refusal.what, where=f"dimension {d} of {dims}, a group of {collective.size}",
                expected=refusal.expected, near=refusal.near, fix=refusal.fix,
            ) from refusal  # fmt: skip
        phases.append(_Phase(
            collective, inner, stride, heads[:, None] + stride * np.arange(places),
            whole=again or operation in ("reduce", "broadcast"), both=again,
        ))  # fmt: skip
    return phases


def _run(builder: Builder, phase: _Phase, gates: Columns32) -> None:
    """The rows of a phase: by inner row, then by line. All wait for their sender's gate, under ``both`` for both gates."""
    inner, count = phase.inner, len(phase.lines)
    line = np.arange(count, dtype=np.int64)[:, None]
    waits = np.diff(inner.dep_ptr)
    runs = [0, *(np.flatnonzero(np.diff(waits)) + 1).tolist(), len(inner)]  # rows with equally many dependencies, at one go
    for first, end in pairwise(runs):
        src, dst = phase.lines.T[inner.src[first:end]].reshape(-1), phase.lines.T[inner.dst[first:end]].reshape(-1)
        own = inner.dep[inner.dep_ptr[first] : inner.dep_ptr[end]].astype(np.int64).reshape(end - first, 1, waits[first])
        deps = (own * count + line + phase.begin).reshape(len(src), waits[first])
        entered = [gates[src][:, None], gates[dst][:, None]] if phase.both else [gates[src][:, None]]
        builder.add(src, dst, np.repeat(inner.reduce[first:end], count), np.concatenate([*entered, deps], axis=1))


def _join(builder: Builder, previous: _Phase, phase: _Phase, gates: Columns32) -> None:
    """Rows that let the members of ``phase`` in when they have finished ``previous``; who had nothing in it keeps its gate."""
    inner, lines = previous.inner, previous.lines
    first = previous.begin + np.arange(len(lines), dtype=np.int64)[:, None]
    for place in range(lines.shape[1]):
        own = inner.dst == place
        if previous.both:
            own |= inner.src == place
        rows = np.flatnonzero(own)
        entering = np.isin(lines[:, place], phase.lines)
        members = lines[entering, place]
        if len(rows) and len(members):
            deps = np.concatenate([gates[members][:, None], (first + rows * len(lines))[entering]], axis=1)
            begin = builder.add(members, members, False, deps)
            gates[members] = np.arange(begin, builder.count, dtype=np.int32)
