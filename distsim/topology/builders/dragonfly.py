"""A dragonfly: groups of fully connected routers, and cables between all pairs of groups (Kim, Dally, Scott, Abts, ISCA 2008).

p hosts and h global ports per router, a routers per group, at most a * h + 1 groups; a = 2p = 2h balances the load. Few
long cables, at most one of them on a route. Group pairs are dealt to routers in turn: the cable from group i to its j-th
other group sits on router j mod a. With fewer groups the spare ports become parallel cables, as many for every pair.

Routing is minimal: at most local, global, local. Of parallel global cables the one with the fewest local hops is taken, on
ties one chosen by the destination. (A route over two global cables and no local one can have fewer hops; it is never used.)
"""

from __future__ import annotations

from dataclasses import dataclass

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


@register("topology", "dragonfly")
class Dragonfly:
    """``dragonfly:p=2,a=4,h=2,groups=9``: 72 hosts."""

    class Params(HostParameters):
        """Of one dragonfly. The defaults are 400 Gb/s ports and 0.5 us a hop; a global cable of 100 m adds 0.5 us of glass."""

        p: Count | None = Field(None, description="hosts per router; default: the smallest balanced p that holds the job")
        a: Count | None = Field(None, description="routers per group; default 2p")
        h: Count | None = Field(None, description="global ports per router; default p")
        groups: Count | None = Field(None, description="at most a*h+1; default: all, or as many as the job needs if p is given")
        bandwidth: Bandwidth = Field("400Gbps", description="of each direction of a host's or local cable")
        global_bandwidth: Bandwidth | None = Field(None, description="of each direction between groups; default: the same")
        latency: Latency = Field("500ns", description="of a hop from host to router or inside a group")
        global_latency: Latency = Field("1us", description="of a hop between groups")

    sizes = ("p", "a", "h", "groups")

    def complete(self, params: Params, hosts: int | None) -> tuple[Params, tuple[str, ...]]:
        """Without p: the smallest balanced p whose full dragonfly holds the job, then the fewest groups."""
        p = params.p or 1
        while not params.p and (hosts or 72) > p * (params.a or 2 * p) * (params.groups or self._most(params, p)):
            p += 1
        a, h, most = params.a or 2 * p, params.h or p, self._most(params, p)
        groups = params.groups or (min(most, -(-hosts // (p * a))) if hosts else most)
        if groups > most:
            raise TopologyError(
                f"{groups} groups are more than a*h+1 = {most}, which is what {a} routers with {h} global ports each can join",
                fix=f"Write groups={most}, or larger a or h.",
            )
        full = params.model_copy(
            update={"p": p, "a": a, "h": h, "groups": groups, "global_bandwidth": params.global_bandwidth or params.bandwidth}
        )
        if params.p and params.groups:
            return full, ()
        return full, (f"p={p}, a={a}, h={h}, groups={groups} {because(hosts)}: {p * a * groups} hosts",)

    @staticmethod
    def _most(params: Params, p: int) -> int:
        return (params.a or 2 * p) * (params.h or p) + 1

    def build(self, params: Params) -> Topology:
        """The network; every size is set."""
        p, a, h, groups = known(params.p), known(params.a), known(params.h), known(params.groups)
        routers, hosts = a * groups, p * a * groups
        refuse_huge(hosts + routers * (a + h) / 2)
        wiring = Wiring()
        host = np.arange(hosts)
        wiring.add("host", host, hosts + host // p, params.bandwidth, params.latency)
        low, high = np.triu_indices(a, 1)
        first = hosts + a * np.arange(groups)[:, None]
        local_cables = wiring.add("local", first + low, first + high, params.bandwidth, params.latency)
        route = MinimalDragonfly(p, a, groups, (a * h) // max(1, groups - 1), local_cables, wiring.cables)
        one, other = np.triu_indices(groups, 1)
        copy = np.arange(route.parallel)
        wiring.add(
            "global",
            hosts + one[:, None] * a + route.gate(one[:, None], other[:, None], copy),
            hosts + other[:, None] * a + route.gate(other[:, None], one[:, None], copy),
            known(params.global_bandwidth),
            params.global_latency,
        )
        names = [f"router{group}.{number}" for group in range(groups) for number in range(a)]
        return wiring.topology("dragonfly", hosts, names, route, positions=_circles(p, a, groups, routers))


@dataclass(frozen=True, slots=True)
class MinimalDragonfly:
    """Router; also knows at which router of a group the cables to another group sit."""

    p: int
    a: int
    groups: int
    parallel: int  #: global cables between two groups
    local_cables: int  #: first local cable
    global_cables: int  #: first global cable

    def gate(self, group: NDArray[np.int64], other: NDArray[np.int64], copy: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """Router (within ``group``) of the ``copy``-th cable to the group ``other``."""
        return (copy * (self.groups - 1) + other - (other > group)) % self.a

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> Paths:
        """See :attr:`Topology.router`."""
        here, there = src.astype(np.int64), dst.astype(np.int64)
        start, end = here // self.p, there // self.p
        group, to_group = start // self.a, end // self.a
        start, end = start % self.a, end % self.a
        far = group != to_group
        best = np.full(len(here), np.iinfo(np.int64).max)
        out, back, copy = start.copy(), end.copy(), np.zeros_like(here)
        for number in range(self.parallel):
            leave, enter = self.gate(group, to_group, number), self.gate(to_group, group, number)
            cost = ((leave != start).astype(np.int64) + (enter != end)) * self.parallel + (number - there) % self.parallel
            better = far & (cost < best)
            best[better], out[better], back[better], copy[better] = cost[better], leave[better], enter[better], number
        low, high = np.minimum(group, to_group), np.maximum(group, to_group)
        between = low * self.groups - low * (low + 1) // 2 + high - low - 1
        # NOTE: inside one group there is one local hop, from start to end; else one before and one after the global hop
        first_end = np.where(far, out, end)
        return pack(
            [
                np.where(here != there, 2 * here, -1),
                self._local(group, start, first_end),
                np.where(far, 2 * (self.global_cables + between * self.parallel + copy) + (group > to_group), -1),
                np.where(far, self._local(to_group, back, end), -1),
                np.where(here != there, 2 * there + 1, -1),
            ]
        )

    def _local(self, group: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
        """Link between two routers of a group, -1 if they are one."""
        low, high = np.minimum(start, end), np.maximum(start, end)
        cable = group * (self.a * (self.a - 1) // 2) + low * self.a - low * (low + 1) // 2 + high - low - 1
        return np.where(start == end, -1, 2 * (self.local_cables + cable) + (start > end))


def _circles(p: int, a: int, groups: int, routers: int) -> NDArray[np.float64]:
    """Groups on a big circle, the routers of a group on a small one, their hosts outside of them."""
    small = max(1.0, a * p / 5)
    # NOTE: so far out that the hosts of neighbouring groups, at 1.5 small radii, keep apart
    big = 1.75 * small / np.sin(np.pi / groups) if groups > 1 else 0.0

    def circle(angle: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
        return np.stack([np.sin(angle), np.cos(angle)], axis=-1) * radius

    router = np.arange(routers)
    turn = 2 * np.pi * (router // a) / groups
    centre = circle(turn, big)
    places = centre + circle(turn + 2 * np.pi * (router % a + 0.5) / a, small)
    host = np.arange(routers * p)
    spread = 2 * np.pi * (host % (a * p) + 0.5) / (a * p)
    owner = host // p
    return np.concatenate([centre[owner] + circle(turn[owner] + spread, small * 1.5), places])
