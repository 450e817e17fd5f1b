"""Regions of the flat memory: sized, laid out, filled, and turned into a list or an array for the kernels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distsim.profiles.astra import layout as L  # noqa: N812

#: pools: (base, free head, free count, row width)
POOLS = {
    "event": (L.EVENT, L.EVENT_FREE, L.EVENT_LEFT, L.EVENT_W),
    "tick": (L.TICK, L.TICK_FREE, L.TICK_LEFT, L.TICK_W),
    "call": (L.CALL, L.CALL_FREE, L.CALL_LEFT, L.CALL_W),
    "channel": (L.CHANNEL, L.CHANNEL_FREE, L.CHANNEL_LEFT, L.CHANNEL_W),
    "chunk": (L.CHUNK, L.CHUNK_FREE, L.CHUNK_LEFT, L.CHUNK_W),
    "stream": (L.STREAM, L.STREAM_FREE, L.STREAM_LEFT, L.STREAM_W),
}


Spans = dict[int, slice]


class Memory:
    """Collects regions, then :meth:`build` lays them out behind the header. Scalars are set by header index."""

    def __init__(self) -> None:
        self.scalars: dict[int, int] = {}
        self._regions: list[tuple[int, NDArray[np.int64]]] = []

    def region(self, base: int, values: NDArray[np.int64]) -> None:
        """Add a region whose base goes to header cell ``base``."""
        self._regions.append((base, values))

    def pool(self, name: str, rows: int) -> None:
        """Add a pool of free rows, chained through their first field."""
        base, head, left, width = POOLS[name]
        values = np.zeros(rows * width, dtype=np.int64)
        values[::width] = np.arange(1, rows + 1)
        values[(rows - 1) * width] = -1
        self.scalars[head], self.scalars[left] = 0, rows
        self.region(base, values)

    def hash(self, base: int, size_at: int, rows: int) -> None:
        """Add a table of about ``rows`` hash buckets (a power of two), all empty."""
        size = 1 << max(6, (rows - 1).bit_length())
        self.scalars[size_at] = size
        self.region(base, np.full(size, -1, dtype=np.int64))

    def build(self) -> tuple[NDArray[np.int64], Spans]:
        """(memory, span of each region by the header cell of its base)."""
        spans: Spans = {}
        at = L.HEADER
        for base, values in self._regions:
            spans[base] = slice(at, at + len(values))
            at += len(values)
        m = np.zeros(at, dtype=np.int64)
        for base, values in self._regions:
            m[spans[base]] = values
            m[base] = spans[base].start
        for cell, value in self.scalars.items():
            m[cell] = value
        return m, spans
