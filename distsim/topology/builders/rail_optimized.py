"""A rail-optimised GPU cluster: NVSwitch inside the node, rail switches for equal local ranks, spines and cores above.

GPU j of every node hangs on rail switch j (NVIDIA's DGX SuperPOD reference design); data-parallel traffic between equal
local ranks crosses one switch. Traffic inside a node goes over its NVSwitch. Traffic between different local ranks of
different nodes goes over a spine, or with ``cross_rail=pxn`` first over NVSwitch to the GPU of its own node that sits on
the destination's rail (NCCL's PXN; networks without spines, ``spines=0``, need it; over cores it costs two hops more).

By default one set of rail switches serves all nodes. ``nodes_per_unit`` builds scalable units instead, each with rail
switches of its own, joined by spines, and by cores where the spines run out of ports (see ``rail_plan``). ``rails=1`` hangs
all GPUs of a unit on one top-of-rack switch; ``planes=2`` gives every GPU a port on each of two separate networks.

Up-links are chosen by the destination's place under its rail switch (D-mod-k); planes alternate with the nodes at both ends
and the destination's local rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from distsim.errors import TopologyError
from distsim.params import Bandwidth, Count, Latency
from distsim.registry import register
from distsim.topology.graph import Paths, Topology
from distsim.topology.hosts import HostParameters
from distsim.topology.rail_plan import Plan, plan
from distsim.topology.routing import pack
from distsim.topology.sizing import DEFAULT_HOSTS, because, known
from distsim.topology.wiring import Wiring, refuse_huge
from distsim.units import parse_bandwidth

RADIX = 64  #: ports of 400 Gb/s of a Quantum-2 QM9700 (itctshop.com/infiniband-switch-guide)


def _ratio(value: Any) -> Any:
    """``7``, ``7:1`` and ``16/15`` as a number."""
    above, mark, below = str(value).replace("/", ":").partition(":")
    if not mark:
        return value
    try:
        return float(above) / float(below)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{value!r} is not a ratio such as 2, 7:1 or 16/15") from None


Ratio = Annotated[float, BeforeValidator(_ratio), Field(gt=0, allow_inf_nan=False)]


@register("topology", "rail_optimized")
class RailOptimized:
    """``rail_optimized:nodes=32``: 256 GPUs."""

    class Params(HostParameters):
        """Of one cluster. The defaults are DGX H100 nodes: NVLink4 (450 GB/s each way, about 1 us GPU to GPU over NVSwitch) and
        one 400 Gb/s NDR InfiniBand port per GPU (0.5 us a hop, SimAI's NIC-to-switch delay)."""

        nodes: Count | None = Field(None, description="servers; default: as many as the job needs")
        gpus_per_node: Count = Field(8, description="GPUs of a server (of an NVLink domain)")
        nvlink_bandwidth: Bandwidth = Field("450GBps", description="of each direction between a GPU and its NVSwitch")
        nvlink_latency: Latency = Field("500ns", description="of one hop between a GPU and its NVSwitch")
        bandwidth: Bandwidth = Field("400Gbps", description="of each direction between a GPU's port and its rail switch")
        latency: Latency = Field("500ns", description="of one hop outside the node")
        rails: Count | None = Field(
            None, description="rail switches of a unit; GPU j is on rail j mod rails; default: one per GPU of a node"
        )
        planes: Count = Field(1, description="separate networks; every GPU has one port on each")
        nodes_per_unit: Count | None = Field(None, description="servers that share their rail switches; default: all")
        units_per_pod: Count | None = Field(None, description="units that share their spines; default: as the radix allows")
        spines: Annotated[int, Field(ge=0)] | None = Field(
            None,
            description="spines over a rail switch; default: one per node, or in units the fewest that suffice",
        )
        spine_bandwidth: Bandwidth | None = Field(
            None, description="of each direction between switches; default: as a GPU's port"
        )
        oversubscription: Ratio | None = Field(
            None, description="what a rail switch's GPUs can send over what its up-links carry, such as 2 or 2:1; default 1"
        )
        core_oversubscription: Ratio | None = Field(
            None, description="what a pod can send up to its spines over what they carry to the cores; default 1"
        )
        radix: Count | None = Field(None, description=f"ports of a switch, kept to in units; default {RADIX}")
        cross_rail: Literal["spine", "pxn"] = Field("spine", description="way between different rails of different nodes")

    sizes = ("nodes",)

    def complete(self, params: Params, hosts: int | None) -> tuple[Params, tuple[str, ...]]:
        """Without nodes: as many as hold the job. Without spines: one per node, or in units what the radix allows."""
        nodes = params.nodes or -(-(hosts or 2 * DEFAULT_HOSTS) // params.gpus_per_node)
        full = params.model_copy(update={"nodes": nodes, "spine_bandwidth": params.spine_bandwidth or params.bandwidth})
        refuse_huge(nodes * params.gpus_per_node)
        laid = _plan(full)
        multi_rail = laid.rails > 1 and nodes > 1
        if not laid.uplinks and params.cross_rail == "spine" and multi_rail:
            raise TopologyError("without spines no way leads from rail to rail", fix="Write cross_rail=pxn, or spines=1.")
        if params.cross_rail == "pxn" and laid.rails < params.gpus_per_node:
            raise TopologyError("PXN needs a GPU on every rail of its own", fix="Leave rails or cross_rail=pxn out.")
        update: dict[str, Any] = {"spines": laid.spines}
        if params.nodes_per_unit is not None:
            update |= {"units_per_pod": laid.units_per_pod, "radix": params.radix or RADIX}
        inferred = () if params.nodes else (f"nodes={nodes} {because(hosts)}: {nodes * params.gpus_per_node} GPUs",)
        return full.model_copy(update=update), inferred

    def build(self, params: Params) -> Topology:
        """The network; every size is set."""
        laid, gpus = _plan(params), params.gpus_per_node
        nodes, rails, hosts = laid.nodes, laid.rails, laid.nodes * gpus
        refuse_huge(hosts + laid.planes * (hosts + laid.leaves * laid.uplinks + laid.spine_switches * laid.cores))
        host, nvswitch = np.arange(hosts), hosts + np.arange(hosts) // gpus
        leaf = host // gpus // laid.nodes_per_unit * rails + host % gpus % rails
        first_leaf = hosts + nodes
        first_spine = first_leaf + laid.planes * laid.leaves
        first_core = first_spine + laid.planes * laid.spine_switches
        uplink, plane = known(params.spine_bandwidth), np.arange(laid.planes)[:, None]
        wiring = Wiring()
        wiring.add("nvlink", host, nvswitch, params.nvlink_bandwidth, params.nvlink_latency)
        leaf_cables = wiring.add("rail", host, first_leaf + plane * laid.leaves + leaf, params.bandwidth, params.latency)
        spine_cables = wiring.cables
        if laid.uplinks:
            below = np.repeat(np.arange(laid.leaves), laid.uplinks)
            copies = laid.uplinks // laid.spines
            spine = laid.group_of(below) * laid.spines + np.tile(np.arange(laid.uplinks) // copies, laid.leaves)
            ends, others = first_leaf + plane * laid.leaves + below, first_spine + plane * laid.spine_switches + spine
            wiring.add("spine", ends, others, uplink, params.latency)
        core_cables = wiring.cables
        if laid.cores:
            spine = np.repeat(np.arange(laid.spine_switches), laid.cores)
            core = spine % laid.spines % laid.core_groups * laid.cores + np.tile(np.arange(laid.cores), laid.spine_switches)
            top = first_core + plane * laid.core_switches
            wiring.add("core", first_spine + plane * laid.spine_switches + spine, top + core, uplink, params.latency)
        rate = parse_bandwidth(params.bandwidth)
        # NOTE: whole nodes on either side cost the ports of hosts/2. Switches that block nothing can carry that between any two
        # halves, so no cut is cheaper. In one unit the spines do not matter: splitting d GPUs off their nodes costs d NVLinks
        # and saves at most 2d ports, so with NVLink twice as fast as the ports nothing is cheaper either.
        fast_inside = parse_bandwidth(params.nvlink_bandwidth) >= 2 * laid.planes * rate
        known_cut = nodes % 2 == 0 and (laid.non_blocking or (laid.units == 1 and fast_inside))
        return wiring.topology(
            "rail_optimized",
            hosts,
            laid.names(),
            RailRouter(laid, gpus, params.cross_rail == "pxn", leaf_cables, spine_cables, core_cables),
            levels=(gpus, nodes),
            positions=_rows(laid, gpus),
            bisection=hosts // 2 * laid.planes * rate if known_cut else None,
        )


def _plan(params: RailOptimized.Params) -> Plan:
    """The switches of these parameters."""
    gpus, rails = params.gpus_per_node, params.rails or params.gpus_per_node
    if gpus % rails:
        raise TopologyError(f"{gpus} GPUs of a node cannot be spread evenly over {rails} rails", fix="Let rails divide them.")
    if params.core_oversubscription is not None and params.nodes_per_unit is None:
        raise TopologyError("core_oversubscription needs cores, and one unit has none", fix="Set nodes_per_unit as well.")
    rate = parse_bandwidth(params.bandwidth)
    return plan(
        nodes=known(params.nodes),
        rails=rails,
        planes=params.planes,
        ports_per_node=gpus // rails,
        nodes_per_unit=params.nodes_per_unit,
        units_per_pod=params.units_per_pod,
        spines=params.spines,
        uplink=parse_bandwidth(params.spine_bandwidth or params.bandwidth) / rate,
        oversubscription=params.oversubscription,
        core_oversubscription=params.core_oversubscription or 1.0,
        radix=params.radix or (RADIX if params.nodes_per_unit else None),
    )


@dataclass(frozen=True, slots=True)
class RailRouter:
    """Router: NVSwitch inside the node, one rail switch where both ends share it, else over spines and cores, or by PXN."""

    laid: Plan
    gpus: int
    pxn: bool
    leaf_cables: int  #: first cable of each tier, counted upwards
    spine_cables: int
    core_cables: int

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> Paths:
        """See :attr:`Topology.router`."""
        laid, gpus = self.laid, self.gpus
        here, there = src.astype(np.int64), dst.astype(np.int64)
        node, to_node = here // gpus, there // gpus
        same_node, other_node = (node == to_node) & (here != there), node != to_node
        plane = (node + to_node + there % gpus) % laid.planes
        hosts = laid.nodes * gpus
        # NOTE: with PXN the traffic leaves its node from the GPU that sits on the destination's rail
        proxy = np.where(other_node & self.pxn, node * gpus + there % gpus, here)
        moved = proxy != here
        rail, to_rail = proxy % gpus % laid.rails, there % gpus % laid.rails
        unit, to_unit = node // laid.nodes_per_unit, to_node // laid.nodes_per_unit
        leaf, to_leaf = unit * laid.rails + rail, to_unit * laid.rails + to_rail
        port = plane * hosts
        columns = [
            np.where(same_node | moved, 2 * here, -1),
            np.where(moved, 2 * proxy + 1, -1),
            np.where(other_node, 2 * (self.leaf_cables + port + proxy), -1),
        ]
        arrive = np.where(other_node, 2 * (self.leaf_cables + port + there) + 1, np.where(same_node, 2 * there + 1, -1))
        if laid.uplinks:
            above = other_node & (leaf != to_leaf)
            place = to_node % laid.nodes_per_unit * (gpus // laid.rails) + there % gpus // laid.rails
            copies = laid.uplinks // laid.spines
            spine, copy = place % laid.spines, place // laid.spines % copies
            first = self.spine_cables + plane * laid.leaves * laid.uplinks + spine * copies + copy
            columns.append(np.where(above, 2 * (first + leaf * laid.uplinks), -1))
            if laid.cores:
                group, to_group = laid.group_of(leaf), laid.group_of(to_leaf)
                crosses = above & (group != to_group)
                below = to_unit % laid.units_per_pod * laid.group_rails + to_rail % laid.group_rails
                start = self.core_cables + plane * laid.spine_switches * laid.cores + (below * copies + copy) % laid.cores
                columns += [
                    np.where(crosses, 2 * (start + (group * laid.spines + spine) * laid.cores), -1),
                    np.where(crosses, 2 * (start + (to_group * laid.spines + spine) * laid.cores) + 1, -1),
                ]
            columns.append(np.where(above, 2 * (first + to_leaf * laid.uplinks) + 1, -1))
        return pack([*columns, arrive])


def _rows(laid: Plan, gpus: int) -> NDArray[np.float64]:
    """From below: NVSwitches, GPUs in groups by node, rail switches, spines, cores."""
    hosts = laid.nodes * gpus
    width = hosts + 0.8 * (laid.nodes - 1)
    height = max(1.5, width / 9)

    def row(count: int, level: float) -> NDArray[np.float64]:
        return np.stack([(np.arange(count) + 0.5) * width / max(1, count), np.full(count, level * height)], axis=1)

    host, node = np.arange(hosts), np.arange(laid.nodes)
    low = np.stack([host + 0.5 + 0.8 * (host // gpus), np.zeros(hosts)], axis=1)
    switches = np.stack([(node + 0.5) * gpus + 0.8 * node, np.full(laid.nodes, -0.6 * height)], axis=1)
    tiers = [row(laid.planes * laid.leaves, 1.2), row(laid.planes * laid.spine_switches, 2.2)]
    return np.concatenate([low, switches, *tiers, row(laid.planes * laid.core_switches, 3.2)])
