"""Routing ``static``: the routes that the topology's builder computes, one per pair of hosts.

D-mod-k on fat trees, dimension order on tori, minimal routes on dragonflies (docs/topologies.md, Routes).
"""

from __future__ import annotations

from distsim.params import Parameters
from distsim.registry import register
from distsim.topology.graph import Topology


@register("routing", "static")
class Static:
    """The builder's own routes (default)."""

    Params = Parameters

    def apply(self, topology: Topology, params: Parameters) -> Topology:
        """The topology itself."""
        return topology
