"""A rail-optimised GPU cluster: NVSwitch inside the node, one rail switch per local rank, spines over the rails.

GPU j of every node hangs on rail switch j (NVIDIA's DGX SuperPOD reference design); data-parallel traffic between equal
local ranks crosses one switch. Traffic inside a node goes over its NVSwitch. Traffic between different local ranks of
different nodes goes over a spine, or with ``cross_rail=pxn`` first over NVSwitch to the GPU of its own node that sits on
the destination's rail (NCCL's PXN; networks without spines, ``spines=0``, need it).

The spine is chosen by the destination's node (node mod spines).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distsim.errors import TopologyError
from distsim.params import Bandwidth, Count, Latency, Parameters
from distsim.registry import register
from distsim.topology.graph import Paths, Topology
from distsim.topology.routing import pack
from distsim.topology.sizing import DEFAULT_HOSTS, because, known
from distsim.topology.wiring import Wiring, refuse_huge
from distsim.units import parse_bandwidth


@register("topology", "rail_optimized")
class RailOptimized:
    """``rail_optimized:nodes=32``: 256 GPUs."""

    class Params(Parameters):
        """Of one cluster. The defaults are DGX H100 nodes: NVLink4 (450 GB/s each way, about 1 us GPU to GPU over NVSwitch) and
        one 400 Gb/s NDR InfiniBand port per GPU (0.5 us a hop, SimAI's NIC-to-switch delay)."""

        nodes: Count | None = Field(None, description="servers; default: as many as the job needs")
        gpus_per_node: Count = Field(8, description="GPUs of a server, and number of rails")
        nvlink_bandwidth: Bandwidth = Field("450GBps", description="of each direction between a GPU and its NVSwitch")
        nvlink_latency: Latency = Field("500ns", description="of one hop between a GPU and its NVSwitch")
        bandwidth: Bandwidth = Field("400Gbps", description="of each direction between a GPU's port and its rail switch")
        latency: Latency = Field("500ns", description="of one hop outside the node")
        spines: Annotated[int, Field(ge=0)] | None = Field(
            None, description="spine switches, each with a cable to every rail; default: one per node (non-blocking)"
        )
        spine_bandwidth: Bandwidth | None = Field(
            None, description="of each direction between rail and spine; default: the same"
        )
        cross_rail: Literal["spine", "pxn"] = Field("spine", description="way between different rails of different nodes")

    sizes = ("nodes",)

    def complete(self, params: Params, hosts: int | None) -> tuple[Params, tuple[str, ...]]:
        """Without nodes: as many as hold the job. Without spines: one per node."""
        nodes = params.nodes or -(-(hosts or 2 * DEFAULT_HOSTS) // params.gpus_per_node)
        spines = nodes if params.spines is None else params.spines
        if not spines and params.cross_rail == "spine" and nodes > 1 and params.gpus_per_node > 1:
            raise TopologyError("without spines no way leads from rail to rail", fix="Write cross_rail=pxn, or spines=1.")
        full = params.model_copy(
            update={"nodes": nodes, "spines": spines, "spine_bandwidth": params.spine_bandwidth or params.bandwidth}
        )
        inferred = () if params.nodes else (f"nodes={nodes} {because(hosts)}: {nodes * params.gpus_per_node} GPUs",)
        return full, inferred

    def build(self, params: Params) -> Topology:
        """The network; every size is set."""
        nodes, rails, spines = known(params.nodes), params.gpus_per_node, known(params.spines)
        hosts = nodes * rails
        refuse_huge(2 * hosts + rails * spines)
        host, rail, spine = np.arange(hosts), np.arange(rails)[:, None], np.arange(spines)
        first_rail, first_spine = hosts + nodes, hosts + nodes + rails
        wiring = Wiring()
        wiring.add("nvlink", host, hosts + host // rails, params.nvlink_bandwidth, params.nvlink_latency)
        wiring.add("rail", host, first_rail + host % rails, params.bandwidth, params.latency)
        spine_cables = wiring.add(
            "spine", first_rail + rail, first_spine + spine, known(params.spine_bandwidth), params.latency
        )
        names = [
            *(f"nvswitch{number}" for number in range(nodes)),
            *(f"rail{number}" for number in range(rails)),
            *(f"spine{number}" for number in range(spines)),
        ]
        rate = parse_bandwidth(params.bandwidth)
        # NOTE: whole nodes on either side cost hosts/2 rail cables. Splitting d GPUs off their nodes costs d NVLinks and saves
        # at most 2d rail cables, so with NVLink twice as fast as a port (and nodes that pair up) nothing is cheaper.
        whole_nodes = nodes % 2 == 0 and parse_bandwidth(params.nvlink_bandwidth) >= 2 * rate
        return wiring.topology(
            "rail_optimized",
            hosts,
            names,
            RailRouter(nodes, rails, spines, params.cross_rail == "pxn", hosts, spine_cables),
            levels=(rails, nodes),
            positions=_rows(nodes, rails, spines),
            bisection=hosts // 2 * rate if whole_nodes else None,
        )


@dataclass(frozen=True, slots=True)
class RailRouter:
    """Router: NVSwitch inside the node, the rail switch for equal local ranks, else over a spine or by PXN."""

    nodes: int
    rails: int
    spines: int
    pxn: bool
    rail_cables: int
    spine_cables: int

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> Paths:
        """See :attr:`Topology.router`."""
        here, there = src.astype(np.int64), dst.astype(np.int64)
        node, to_node, rail, to_rail = here // self.rails, there // self.rails, here % self.rails, there % self.rails
        same_node, other_node = (node == to_node) & (here != there), node != to_node
        cross = other_node & (rail != to_rail)
        arrive = np.where(other_node, 2 * (self.rail_cables + there) + 1, np.where(same_node, 2 * there + 1, -1))
        if self.pxn:
            proxy = node * self.rails + to_rail
            leave = np.where(other_node, 2 * (self.rail_cables + proxy), -1)
            inside = np.where(same_node | cross, 2 * here, -1)
            return pack([inside, np.where(cross, 2 * proxy + 1, -1), leave, arrive])
        leave = np.where(other_node, 2 * (self.rail_cables + here), np.where(same_node, 2 * here, -1))
        spine = to_node % max(1, self.spines)
        up = np.where(cross, 2 * (self.spine_cables + rail * self.spines + spine), -1)
        down = np.where(cross, 2 * (self.spine_cables + to_rail * self.spines + spine) + 1, -1)
        return pack([leave, up, down, arrive])


def _rows(nodes: int, rails: int, spines: int) -> NDArray[np.float64]:
    """From below: NVSwitches, GPUs in groups by node, rail switches, spines."""
    hosts = nodes * rails
    width = hosts + 0.8 * (nodes - 1)
    height = max(1.5, width / 9)

    def row(count: int, level: float) -> NDArray[np.float64]:
        return np.stack([(np.arange(count) + 0.5) * width / max(1, count), np.full(count, level * height)], axis=1)

    host = np.arange(hosts)
    gpus = np.stack([host + 0.5 + 0.8 * (host // rails), np.zeros(hosts)], axis=1)
    switches = np.stack([(np.arange(nodes) + 0.5) * rails + 0.8 * np.arange(nodes), np.full(nodes, -0.6 * height)], axis=1)
    return np.concatenate([gpus, switches, row(rails, 1.2), row(spines, 2.2)])
