"""A full mesh: every host has a cable of its own to every other host.

One hop between any two, no sharing of links except by flows of the same pair; hosts * (hosts - 1) / 2 cables, so it exists
only inside small boxes (four A100s in an HGX board, eight MI300X), or as the ideal to compare with.
"""

from __future__ import annotations

from pydantic import Field

from distsim.params import Bandwidth, Count, Latency
from distsim.registry import register
from distsim.topology.composition import compose
from distsim.topology.graph import Dimension, Topology
from distsim.topology.hosts import HostParameters
from distsim.topology.sizing import hosts_or_default, known
from distsim.units import parse_bandwidth, parse_time


@register("topology", "fully_connected")
class FullyConnected:
    """``fully_connected:hosts=8``."""

    class Params(HostParameters):
        """Of one mesh. The defaults are those of ``ring``, so that the two can be compared cable for cable."""

        hosts: Count | None = Field(None, description="hosts in the mesh; default: the job's ranks")
        bandwidth: Bandwidth = Field("400Gbps", description="of each direction of a cable")
        latency: Latency = Field("500ns", description="of one hop")

    sizes = ("hosts",)

    def complete(self, params: Params, hosts: int | None) -> tuple[Params, tuple[str, ...]]:
        """Sizes filled in."""
        return hosts_or_default(params, hosts)

    def build(self, params: Params) -> Topology:
        """The network; every size is set."""
        mesh = Dimension("fully_connected", known(params.hosts), parse_bandwidth(params.bandwidth), parse_time(params.latency))
        return compose("fully_connected", [mesh], ["mesh"])
