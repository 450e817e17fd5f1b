"""Level ``chunk``: directed links are FIFO queues, every transfer is a chunk that is stored and forwarded whole.

A chunk that reaches a link waits for those before it, keeps the link busy for ``ceil(bytes / bandwidth)`` ps and reaches
the next link (or its destination) one latency later. Choose it where contention decides and switches store what they forward,
or to compare with the congestion-aware analytical network of ASTRA-sim: the same model, for any topology. Cut large buffers
into chunks (``Collective.chunks``): an uncut transfer pays its serialisation on every hop.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distsim.network.lease import FifoParameters, Leased
from distsim.registry import register
from distsim.topology.graph import Topology
from distsim.units import parse_bandwidth, parse_size


@register("network", "chunk")
class Chunk(Leased):
    """FIFO links, store-and-forward. See FifoLinks for the order of what happens at one instant, Leased for ``leases`` and for
    ``uncontended``, a mask of links that limit a chunk to their bandwidth, but are not shared."""

    Params = FifoParameters

    def __init__(
        self, topology: Topology, *, leases: bool = True, size: str | None = None, credits: int | None = None,
        injection: str | None = None, uncontended: NDArray[np.bool_] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            topology, cut_through=False, leases=leases, size=None if size is None else parse_size(size), credits=credits,
            injection=None if injection is None else parse_bandwidth(injection), uncontended=uncontended,
        )  # fmt: skip
