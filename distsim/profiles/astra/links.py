"""Link use under the profile, in the topology's own numbering."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distsim.profiles.astra.config import AstraConfig
from distsim.profiles.astra.lower import link_count
from distsim.profiles.astra.replay import AstraRun
from distsim.result import LinkTable
from distsim.topology.graph import Topology

PS = 1000


def link_table(done: AstraRun, config: AstraConfig, topology: Topology) -> LinkTable:
    """Link use in the topology's numbering. The congestion-unaware backend has no links: all zero."""
    size, busy = (np.zeros(topology.links, dtype=np.int64) for _ in range(2))
    if not config.aware:
        return LinkTable(size, busy)
    number = _link_numbers(config, topology, done.folded)
    known = number >= 0
    size[known], busy[known] = done.link_bytes[number[known]], done.link_busy[number[known]] * PS
    return LinkTable(size, busy)


def _link_numbers(config: AstraConfig, topology: Topology, folded: bool) -> NDArray[np.int64]:
    """Row of the profile's link table for each link of the topology (see transport.next_hop)."""
    world, stride, base = config.ranks, 1, 0
    number = np.full(topology.links, -1, dtype=np.int64)
    src, dst = topology.link_src.astype(np.int64), topology.link_dst.astype(np.int64)
    for d, dim in enumerate(config.dims):
        links = (topology.link_domain == d) if len(config.dims) > 1 else np.ones(topology.links, dtype=bool)
        step = (dst // stride % dim.size - src // stride % dim.size) % dim.size
        host = np.where(src < world, src, dst)
        if dim.kind == "switch":
            down = src >= world
            rows = (base + down) if folded else base + down * world + host
        elif dim.kind == "fully_connected":
            rows = base + step if folded else base + src * dim.size + dst // stride % dim.size
        else:
            back = step != 1
            rows = base + back if folded else base + back * world + src
        number[links] = rows[links]
        base += link_count(dim.kind, 1 if folded else world, dim.size)
        stride *= dim.size
    return number
