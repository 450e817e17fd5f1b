"""Level ``cut_through``: directed links are FIFO queues, a transfer goes on with its first byte (virtual cut-through).

A transfer whose head reaches a link waits for those before it; it begins at ``begin = max(head in, link free)``. The head
is at the next link one latency later. The tail leaves at ``end = max(begin + ceil(bytes / bandwidth), tail in)``, for a link
cannot send what has not come in; the link itself is free for the next one at ``begin + ceil(bytes / bandwidth)``. At the
destination the tail counts.

On an idle path that is the sum of the latencies plus the bytes over the narrowest link, as at level ``analytic`` and to the
picosecond; over one hop it is what ``chunk`` says. Choose it where contention decides: it needs no small chunks to be right
over several hops, as real switches do not store messages whole. Where slow ports feed a much faster link it is somewhat
pessimistic: messages take turns on a link (docs/networks.md has figures).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distsim.network.lease import FifoParameters, Leased
from distsim.registry import register
from distsim.topology.graph import Topology
from distsim.units import parse_bandwidth, parse_size


@register("network", "cut_through")
class CutThrough(Leased):
    """FIFO links, virtual cut-through; queues in switches are unbounded.

    A link is busy for ``ceil(bytes / bandwidth)`` a transfer, as on every level. See FifoLinks for the order of what happens
    at one instant, Leased for ``leases`` and for ``uncontended``, a mask of links that limit a transfer to their
    bandwidth, but are not shared.
    """

    Params = FifoParameters

    def __init__(
        self, topology: Topology, *, leases: bool = True, size: str | None = None, credits: int | None = None,
        injection: str | None = None, uncontended: NDArray[np.bool_] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            topology, cut_through=True, leases=leases, size=None if size is None else parse_size(size), credits=credits,
            injection=None if injection is None else parse_bandwidth(injection), uncontended=uncontended,
        )  # fmt: skip
