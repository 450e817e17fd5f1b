"""A ring: every host has a cable to the next and to the previous one.

The cheapest network that serves ring collectives at full speed; anything else pays up to hosts/2 hops. Traffic takes the
shorter way round, clockwise (towards higher numbers) when both are equal.
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


@register("topology", "ring")
class Ring:
    """``ring:hosts=8``."""

    class Params(HostParameters):
        """Of one ring. The defaults are one 400 Gb/s NDR InfiniBand port and 0.5 us a hop (SimAI's NIC-to-switch delay)."""

        hosts: Count | None = Field(None, description="hosts on the ring; default: the job's ranks")
        bandwidth: Bandwidth = Field("400Gbps", description="of each direction of a cable")
        latency: Latency = Field("500ns", description="of one hop")

    sizes = ("hosts",)

    def complete(self, params: Params, hosts: int | None) -> tuple[Params, tuple[str, ...]]:
        """Sizes filled in."""
        return hosts_or_default(params, hosts)

    def build(self, params: Params) -> Topology:
        """The network; every size is set."""
        ring = Dimension("ring", known(params.hosts), parse_bandwidth(params.bandwidth), parse_time(params.latency))
        return compose("ring", [ring], ["ring"])
