"""A fat tree: the folded Clos network of most GPU clusters, of k-port switches in two or three tiers.

Three tiers (Al-Fares, Loukissas, Vahdat, SIGCOMM 2008): k pods of k/2 leaf and k/2 aggregation switches, (k/2)^2 cores,
k^3/4 hosts. Two tiers: k leaves, k/2 spines, k^2/2 hosts. Without oversubscription any pairing of hosts runs at full speed,
if routes are spread well. Routing is D-mod-k: up-ports are chosen by the destination's number (dst mod k/2 at the leaf,
dst / (k/2) mod k/2 above), so all traffic to one host takes one way down and a shift permutation meets no contention.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from distsim.errors import TopologyError
from distsim.params import Bandwidth, Count, Latency
from distsim.registry import register
from distsim.topology.graph import Paths, Topology
from distsim.topology.hosts import HostParameters
from distsim.topology.routing import pack
from distsim.topology.sizing import DEFAULT_HOSTS, because, known
from distsim.topology.wiring import Wiring, refuse_huge
from distsim.units import format_bandwidth, parse_bandwidth


def _even(k: int) -> int:
    if k % 2:
        raise ValueError("half of a switch's ports go up, so k must be even")
    return k


@register("topology", "fat_tree")
class FatTree:
    """``fat_tree:k=8``, ``fat_tree:tiers=2,k=16,oversubscription=2``."""

    class Params(HostParameters):
        """Of one tree. The defaults are 400 Gb/s NDR InfiniBand and 0.5 us a hop (SimAI's NIC-to-switch delay).

        Oversubscription is what a leaf's hosts can send over what its up-links carry; it is made by more hosts per leaf, or
        by slower up-links. Of ``oversubscription``, ``hosts_per_leaf`` and ``uplink_bandwidth`` the missing ones follow.
        """

        k: Annotated[int, Field(ge=2), AfterValidator(_even)] | None = Field(
            None, description="ports of a switch, even; default: the smallest power of two that holds the job"
        )
        tiers: Annotated[int, Field(ge=2, le=3)] = Field(3, description="2 (leaf, spine) or 3 (leaf, aggregation, core)")
        pods: Count | None = Field(None, description="pods in use (leaves, if there are two tiers); default and at most k")
        hosts_per_leaf: Count | None = Field(None, description="default: oversubscription * k/2")
        oversubscription: Annotated[float, Field(gt=0)] | None = Field(None, description="default 1: none")
        bandwidth: Bandwidth = Field("400Gbps", description="of each direction of a host's cable")
        uplink_bandwidth: Bandwidth | None = Field(None, description="of each direction between switches; default: the same")
        latency: Latency = Field("500ns", description="of one hop")

    sizes = ("k", "pods")

    def complete(self, params: Params, hosts: int | None) -> tuple[Params, tuple[str, ...]]:
        """Without k: the smallest power of two whose tree holds the job: what switches have, and groups of 2^n ranks then fit
        their leaves."""
        if params.k is not None:
            return self._settle(params, params.k), ()
        smallest = 1 << max(1, ((params.pods or 0) - 1).bit_length())
        for k in (smallest << doublings for doublings in itertools.count()):
            try:
                settled = self._settle(params, k)
            except TopologyError:
                if k > 64 * smallest:
                    raise
                continue
            fixed = params.tiers == 2 and params.pods and params.hosts_per_leaf
            if fixed or _hosts(settled) >= (hosts or 2 * DEFAULT_HOSTS):
                break
        return settled, (f"k={k} {because(hosts)}: {_hosts(settled)} hosts",)

    def _settle(self, params: Params, k: int) -> Params:
        """All of hosts_per_leaf, oversubscription, uplink_bandwidth and pods, for this k."""
        up, rate, pods = k // 2, parse_bandwidth(params.bandwidth), params.pods or k
        if pods > k:
            raise TopologyError(f"{pods} pods are more than the {k} ports of a top switch", fix=f"Write k={pods + pods % 2}.")
        ratio, per_leaf, uplink = params.oversubscription, params.hosts_per_leaf, params.uplink_bandwidth
        if per_leaf is None:
            exact = up * (ratio * parse_bandwidth(uplink or params.bandwidth) / rate if ratio else 1.0)
            per_leaf = max(1, round(exact))
            if not math.isclose(exact, per_leaf):
                raise TopologyError(
                    f"oversubscription={ratio:g} with {up} up-links would be {exact:g} hosts per leaf, not a whole number",
                    fix="Choose another k, or set hosts_per_leaf and leave oversubscription out.",
                )
        if uplink is None:
            uplink = params.bandwidth
            if ratio and not math.isclose(ratio * up, per_leaf):
                uplink = f"{per_leaf * rate / (ratio * up) / 1e9:.17g}GBps"
        real = per_leaf * rate / (up * parse_bandwidth(uplink))
        if ratio and not math.isclose(real, ratio):
            raise TopologyError(
                f"oversubscription={ratio:g} contradicts hosts_per_leaf={per_leaf} at {format_bandwidth(rate)} over {up} "
                f"up-links of {format_bandwidth(parse_bandwidth(uplink))}, which is {real:g}",
                fix="Leave one of the three out.",
            )
        sizes = {"k": k, "pods": pods, "hosts_per_leaf": per_leaf}
        return params.model_copy(update={**sizes, "oversubscription": ratio or real, "uplink_bandwidth": uplink})

    def build(self, params: Params) -> Topology:
        """The network; every size is set."""
        up, per_leaf, hosts = known(params.k) // 2, known(params.hosts_per_leaf), _hosts(params)
        pods, uplink = known(params.pods), known(params.uplink_bandwidth)
        three = params.tiers == 3
        refuse_huge(hosts + pods * (2 * up * up if three else up))
        leaves_per_pod = up if three else 1
        leaves = pods * leaves_per_pod
        wiring = Wiring()
        host, leaf, port = np.arange(hosts), np.arange(leaves)[:, None], np.arange(up)
        first_upper = hosts + leaves
        wiring.add("host", host, hosts + host // per_leaf, params.bandwidth, params.latency)
        names = [f"leaf{number}" for number in range(leaves)]
        uppers = pods * up if three else up
        lower_cables = wiring.add(
            "leaf" if three else "spine",
            hosts + leaf,
            first_upper + (leaf // leaves_per_pod * up if three else 0) + port,
            uplink,
            params.latency,
        )
        upper_cables = wiring.cables
        if three:
            upper = np.arange(uppers)[:, None]
            core = first_upper + uppers + upper % up * up + port
            wiring.add("spine", first_upper + upper, core, uplink, params.latency)
            names += [f"agg{pod}.{number}" for pod in range(pods) for number in range(up)]
            names += [f"core{number}" for number in range(up * up)]
        else:
            names += [f"spine{number}" for number in range(up)]
        return wiring.topology(
            "fat_tree",
            hosts,
            names,
            DestinationModK(up, per_leaf, leaves_per_pod, three, lower_cables, upper_cables),
            positions=_tiers(hosts, [leaves, uppers, up * up] if three else [leaves, uppers]),
            bisection=_bisection(leaves, per_leaf, parse_bandwidth(params.bandwidth), up * parse_bandwidth(uplink)),
        )


@dataclass(frozen=True, slots=True)
class DestinationModK:
    """Router of both kinds of tree; in a tree of two tiers every leaf is a pod, and the way between pods ends at the spine."""

    up: int  #: up-links of a leaf, and of an aggregation switch
    per_leaf: int
    leaves_per_pod: int
    three_tiers: bool
    lower_cables: int  #: first cable above the leaves
    upper_cables: int  #: first cable below the cores

    def hops(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int64]:
        """0 to itself, 2 under one leaf, 4 in one pod or over a spine, 6 over a core."""
        leaf, to = src // self.per_leaf, dst // self.per_leaf
        over_core = (leaf // self.leaves_per_pod != to // self.leaves_per_pod) & self.three_tiers
        tiers = (src != dst).astype(np.int64) + (leaf != to) + over_core
        return np.asarray(2 * tiers, np.int64)

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> Paths:
        """See :attr:`Topology.router`."""
        here, there = src.astype(np.int64), dst.astype(np.int64)
        leaf, to = here // self.per_leaf, there // self.per_leaf
        port = there % self.up
        moves, leaves = here != there, leaf != to
        up_down = [
            np.where(moves, 2 * here, -1),
            np.where(leaves, 2 * (self.lower_cables + leaf * self.up + port), -1),
            np.where(leaves, 2 * (self.lower_cables + to * self.up + port) + 1, -1),
            np.where(moves, 2 * there + 1, -1),
        ]
        if self.three_tiers:
            pod, to_pod = leaf // self.leaves_per_pod, to // self.leaves_per_pod
            core = there // self.up % self.up
            crosses = pod != to_pod
            up_down[2:2] = [
                np.where(crosses, 2 * (self.upper_cables + (pod * self.up + port) * self.up + core), -1),
                np.where(crosses, 2 * (self.upper_cables + (to_pod * self.up + port) * self.up + core) + 1, -1),
            ]
        return pack(up_down)


def _hosts(params: FatTree.Params) -> int:
    leaves_per_pod = known(params.k) // 2 if params.tiers == 3 else 1
    return known(params.pods) * leaves_per_pod * known(params.hosts_per_leaf)


def _bisection(leaves: int, per_leaf: int, rate: float, uplinks: float) -> float:
    """The smallest cut over all even splits of the hosts.

    Above the leaves the tree carries any pairing of up-links at full speed, so a split with a leaves on one side and b on the
    other costs min(a, b) * uplinks there. With the top on the other side, m hosts of a leaf cost min(m * rate, uplinks +
    (per_leaf - m) * rate): concave in m, hence the cheapest split takes whole leaves and at most one part of a leaf.
    """

    def cost(m: int) -> float:
        return min(m * rate, uplinks + (per_leaf - m) * rate)

    hosts = leaves * per_leaf
    return min(side // per_leaf * cost(per_leaf) + cost(side % per_leaf) for side in (hosts // 2, hosts - hosts // 2))


def _tiers(hosts: int, tiers: list[int]) -> NDArray[np.float64]:
    """Hosts in a row, every tier of switches in a row above, spread over the same width."""
    height = max(1.0, hosts / (3.0 * len(tiers)))
    rows = [
        ((np.arange(count) + 0.5) * hosts / count, np.full(count, height * row)) for row, count in enumerate([hosts, *tiers])
    ]
    return np.concatenate([np.stack(row, axis=1) for row in rows])
