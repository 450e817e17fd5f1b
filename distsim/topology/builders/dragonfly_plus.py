"""A dragonfly+: groups that are two-tier Clos networks of leaves and spines, and cables between the spines of all groups.

Of k-port switches (Shpiner et al., HiPINEB 2017): a leaf has k/2 hosts and k/2 spines above it, a spine has k/2 leaves below
and k/2 global ports, so that a group has (k/2)^2 hosts and as many global ports; at most (k/2)^2 + 1 groups. More hosts than
a dragonfly of the same switches, and every leaf reaches every global cable of its group over one spine. With fewer groups
the spare ports become parallel cables, as many for every pair.

Group pairs are dealt to spines in turn: the cable from group i to its j-th other group sits on spine j mod k/2. Routes are
minimal: leaf, spine, one global cable, spine, leaf; of parallel cables, and of spines inside a group, the destination chooses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distsim.errors import TopologyError
from distsim.params import Bandwidth, Count, Latency
from distsim.registry import register
from distsim.topology.graph import Paths, Topology
from distsim.topology.hosts import HostParameters
from distsim.topology.routing import pack
from distsim.topology.sizing import because, known
from distsim.topology.wiring import Wiring, refuse_huge


@register("topology", "dragonfly_plus")
class DragonflyPlus:
    """``dragonfly_plus:k=8,groups=17``: 272 hosts."""

    class Params(HostParameters):
        """Of one dragonfly+. The defaults are 400 Gb/s ports and 0.5 us a hop; a global cable of 100 m adds 0.5 us of glass."""

        k: Annotated[int, Field(ge=2, multiple_of=2)] | None = Field(
            None, description="ports of a switch, even; default: the smallest that holds the job"
        )
        groups: Count | None = Field(
            None, description="at most (k/2)^2+1; default: all, or as many as the job needs if k is given"
        )
        bandwidth: Bandwidth = Field("400Gbps", description="of each direction of a host's or local cable")
        global_bandwidth: Bandwidth | None = Field(None, description="of each direction between groups; default: the same")
        latency: Latency = Field("500ns", description="of a hop from host to leaf or inside a group")
        global_latency: Latency = Field("1us", description="of a hop between groups")

    sizes = ("k", "groups")

    def complete(self, params: Params, hosts: int | None) -> tuple[Params, tuple[str, ...]]:
        """Without k: the smallest whose full dragonfly+ holds the job, then the fewest groups."""
        half = params.k // 2 if params.k else 1
        while not params.k and (hosts or 20) > half * half * (params.groups or half * half + 1):
            half += 1
        while not params.k and params.groups and params.groups > half * half + 1:
            half += 1
        size, most = half * half, half * half + 1
        groups = params.groups or (min(most, -(-hosts // size)) if hosts else most)
        if groups > most:
            raise TopologyError(
                f"{groups} groups are more than (k/2)^2+1 = {most}, which is what the global ports of a group can reach",
                fix=f"Write groups={most}, or a larger k.",
            )
        rate = params.global_bandwidth or params.bandwidth
        full = params.model_copy(update={"k": 2 * half, "groups": groups, "global_bandwidth": rate})
        if params.k and params.groups:
            return full, ()
        return full, (f"k={2 * half}, groups={groups} {because(hosts)}: {size * groups} hosts",)

    def build(self, params: Params) -> Topology:
        """The network; every size is set."""
        half, groups = known(params.k) // 2, known(params.groups)
        switches, hosts = half * groups, half * half * groups
        parallel = half * half // max(1, groups - 1)
        refuse_huge(2.0 * hosts + parallel * groups * groups / 2)
        first_spine, host, leaf = hosts + switches, np.arange(hosts), np.arange(switches)[:, None]
        wiring = Wiring()
        wiring.add("host", host, hosts + host // half, params.bandwidth, params.latency)
        above = first_spine + leaf // half * half + np.arange(half)
        local_cables = wiring.add("local", hosts + leaf, above, params.bandwidth, params.latency)
        router = MinimalDragonflyPlus(half, groups, parallel, local_cables, wiring.cables)
        one, other = np.triu_indices(groups, 1)
        copy = np.arange(parallel)
        wiring.add(
            "global",
            first_spine + one[:, None] * half + router.gate(one[:, None], other[:, None], copy),
            first_spine + other[:, None] * half + router.gate(other[:, None], one[:, None], copy),
            known(params.global_bandwidth),
            params.global_latency,
        )
        names = [f"{tier}{group}.{number}" for tier in ("leaf", "spine") for group in range(groups) for number in range(half)]
        return wiring.topology("dragonfly_plus", hosts, names, router, positions=_circles(half, groups))


@dataclass(frozen=True, slots=True)
class MinimalDragonflyPlus:
    """Router; also knows at which spine of a group the cables to another group sit."""

    half: int  #: hosts of a leaf, leaves and spines of a group, global ports of a spine
    groups: int
    parallel: int  #: global cables between two groups
    local_cables: int  #: first cable between leaf and spine
    global_cables: int  #: first global cable

    def gate(self, group: NDArray[np.int64], other: NDArray[np.int64], copy: NDArray[np.int64]) -> NDArray[np.int64]:
        """Spine (within ``group``) of the ``copy``-th cable to the group ``other``."""
        return np.asarray((copy * (self.groups - 1) + other - (other > group)) % self.half, np.int64)

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> Paths:
        """See :attr:`Topology.router`."""
        half = self.half
        here, there = src.astype(np.int64), dst.astype(np.int64)
        leaf, to_leaf = here // half, there // half
        group, to_group = leaf // half, to_leaf // half
        climbs, far = leaf != to_leaf, group != to_group
        copy = there % max(1, self.parallel)
        leave = np.where(far, self.gate(group, to_group, copy), there % half)
        enter = np.where(far, self.gate(to_group, group, copy), there % half)
        low, high = np.minimum(group, to_group), np.maximum(group, to_group)
        between = low * self.groups - low * (low + 1) // 2 + high - low - 1
        return pack(
            [
                np.where(here != there, 2 * here, -1),
                np.where(climbs, 2 * (self.local_cables + leaf * half + leave), -1),
                np.where(far, 2 * (self.global_cables + between * self.parallel + copy) + (group > to_group), -1),
                np.where(climbs, 2 * (self.local_cables + to_leaf * half + enter) + 1, -1),
                np.where(here != there, 2 * there + 1, -1),
            ]
        )


def _circles(half: int, groups: int) -> NDArray[np.float64]:
    """Groups on a big circle, inside each arcs of spines, leaves and hosts, further out in this order."""
    arc = 2 * np.pi / groups * (0.86 if groups > 1 else 1.0)
    inner = max(1.5, half / arc) if groups > 1 else max(1.0, half / 5)
    step = max(1.0, half * half / 14)

    def ring(per_group: int, radius: float) -> NDArray[np.float64]:
        number = np.arange(groups * per_group)
        angle = 2 * np.pi * (number // per_group) / groups + arc * ((number % per_group + 0.5) / per_group - 0.5)
        return np.stack([np.sin(angle), np.cos(angle)], axis=1) * radius

    outer = max(inner + 2 * step, half * half / arc)
    return np.concatenate([ring(half * half, outer), ring(half, (inner + outer) / 2), ring(half, inner)])
