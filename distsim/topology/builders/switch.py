"""A star: all hosts on one switch, each with an up-link and a down-link; the switch itself limits nothing.

Two hops between any two hosts. Good for one NVSwitch box or one rack, and as the ideal non-blocking network of any size.
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


@register("topology", "switch")
class Switch:
    """``switch:hosts=64``; ``star`` is another name for it."""

    class Params(HostParameters):
        """Of one switch. The defaults are one 400 Gb/s NDR InfiniBand port and 0.5 us a hop (SimAI's NIC-to-switch delay)."""

        hosts: Count | None = Field(None, description="hosts on the switch; default: the job's ranks")
        bandwidth: Bandwidth = Field("400Gbps", description="of each direction of a cable")
        latency: Latency = Field("500ns", description="of one hop; host to host is two")

    sizes = ("hosts",)

    def complete(self, params: Params, hosts: int | None) -> tuple[Params, tuple[str, ...]]:
        """Sizes filled in."""
        return hosts_or_default(params, hosts)

    def build(self, params: Params) -> Topology:
        """The network; every size is set."""
        star = Dimension("switch", known(params.hosts), parse_bandwidth(params.bandwidth), parse_time(params.latency))
        return compose("switch", [star], ["switch"])
