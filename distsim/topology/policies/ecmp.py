"""Routing ``ecmp``: every switch hashes a connection to one of its next links (equal-cost multi-path).

Routes are those as good as the topology's own (topology/fabric.py); a host with several ports hashes as switches do. This is
what RoCE and TCP fabrics do by default (Hopps, "Analysis of an Equal-Cost Multi-Path Algorithm", RFC 2992, 2000). A connection
stays on its route, so that it keeps its order, and two connections may well share a link while others are idle: collisions,
not capacity, decide. With ``per=qp`` the traffic between two hosts is divided over several RDMA queue pairs, each of which is
hashed on its own, as NCCL does with NCCL_IB_QPS_PER_CONNECTION and NCCL_IB_SPLIT_DATA_ON_QPS=1.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distsim.errors import ConfigError
from distsim.params import Count, Parameters
from distsim.registry import register
from distsim.topology.equal_cost import EqualCost, key_of
from distsim.topology.graph import Paths, Topology

QPS = 4  #: queue pairs per connection where nothing is said
ALIGNMENT = 128  #: bytes: NCCL cuts a message over queue pairs at multiples of these (transport/net_ib, IB_SPLIT alignment)


@register("routing", "ecmp")
class Ecmp:
    """Hashed at every switch: ``ecmp``, ``ecmp:seed=7``, ``ecmp:per=qp,qps=8``."""

    class Params(Parameters):
        """What is hashed."""

        seed: Annotated[int, Field(ge=0)] = Field(0, description="of the hash: other collisions")
        per: Literal["flow", "qp"] = Field("flow", description="one route per pair of hosts, or one per queue pair of these")
        qps: Count | None = Field(None, description=f"per=qp: queue pairs over which traffic is divided; default {QPS}")

    def apply(self, topology: Topology, params: Params) -> Topology:
        """See Policy."""
        if params.qps is not None and params.per == "flow":
            raise ConfigError("qps has no effect per flow", where="--routing ecmp", fix="Add per=qp.")
        qps = 1 if params.per == "flow" else params.qps or QPS
        return dataclasses.replace(topology, router=HashedRoutes(EqualCost(topology), params.seed, qps))


class HashedRoutes:
    """Its router; lane l is queue pair l. See LaneRouter."""

    part = ALIGNMENT
    chooses = False

    def __init__(self, routes: EqualCost, seed: int, qps: int) -> None:
        self._routes, self._seed, self.ways = routes, seed, qps

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32], lane: NDArray[np.int32] | None = None) -> Paths:
        """See :attr:`Topology.router`. Raises TopologyError when a destination cannot be reached."""
        return self._routes.hashed(src, dst, key_of(self._seed, src, dst, lane))

    def lanes(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int64]:
        """See LaneRouter: queue pairs, which may share a route; one where there is one route."""
        return np.where(self._routes.count(src, dst) > 1, self.ways, 1).astype(np.int64)
