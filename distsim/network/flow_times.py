"""When each flow of a scenario sets out and is through, at any level: flows with routes of their own, starts, dependencies.

At ``fluid`` times are float64 throughout, as in SimGrid, with no picosecond in between, and flows between the same hosts share
links as strangers do, whatever ``ordered`` says. At other levels every flow is a group
of its own that starts when the last of those that it waits for has finished, in whole picoseconds.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError, TopologyError
from distsim.network.fluid import Fluid
from distsim.network.fluid_links import FluidLinks
from distsim.network.model import NEVER, LinkUsage, NetworkModel, Transfers
from distsim.network.paths import PathTable
from distsim.network.spec import build_network
from distsim.params import parse, validated
from distsim.topology.graph import Paths, Topology
from distsim.topology.routed import routed
from distsim.topology.routing import ShortestPath, ragged
from distsim.trace.netref import FlowScenario
from distsim.units import PS_PER_S, parse_bandwidth


@dataclass(frozen=True, slots=True, eq=False)
class FlowTimes:
    """Of every flow, in the order of the scenario's columns."""

    activate: NDArray[np.float64]  #: seconds: the latencies of its route are over; its first byte may move
    finish: NDArray[np.float64]  #: seconds: its last byte is there
    usage: LinkUsage
    solves: int = 0  #: how often max-min rates were found, at ``fluid``


class GivenRoutes:
    """A router over the routes of a scenario; where flows between two hosts take several, these are its lanes."""

    part = 1 << 62  #: see topology/lanes.py: nothing is divided
    chooses = False

    def __init__(self, scenario: FlowScenario) -> None:
        self._scenario = scenario
        known: dict[tuple[int, int], dict[bytes, tuple[int, int]]] = {}
        self.lane = np.zeros(len(scenario), dtype=np.int32)  #: of every flow
        for flow, pair in enumerate(zip(scenario.src.tolist(), scenario.dst.tolist(), strict=True)):
            bounds = int(scenario.route_ptr[flow]), int(scenario.route_ptr[flow + 1])
            routes = known.setdefault(pair, {})
            name = scenario.route[slice(*bounds)].tobytes()
            if name not in routes:
                routes[name] = (len(routes), flow)
            self.lane[flow] = routes[name][0]
        self._first = {pair: [flow for _, flow in routes.values()] for pair, routes in known.items()}
        self.ways = max((len(flows) for flows in self._first.values()), default=1)

    def lanes(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int64]:
        """Routes of every pair."""
        return np.array([len(self._first.get(pair, (0,))) for pair in zip(src.tolist(), dst.tolist(), strict=True)], np.int64)

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32], lane: NDArray[np.int32] | None = None) -> Paths:
        """See :attr:`Topology.router`. Raises TopologyError between hosts that no flow joins."""
        scenario = self._scenario
        lanes = [0] * len(src) if lane is None else lane.tolist()
        flows = np.zeros(len(src), dtype=np.int64)
        for at, (one, other, way) in enumerate(zip(src.tolist(), dst.tolist(), lanes, strict=True)):
            found = self._first.get((one, other))
            if found is None:
                names = scenario.node_names
                raise TopologyError(
                    f"no flow goes from {names[one]} to {names[other]}, so no route is known", where=scenario.name
                )
            flows[at] = found[way % len(found)]
        begin = scenario.route_ptr[flows]
        length = scenario.route_ptr[flows + 1] - begin
        row, step = ragged(length)
        return np.concatenate(([0], np.cumsum(length))), scenario.route[begin[row] + step]


def topology_of(scenario: FlowScenario, router: GivenRoutes) -> Topology:
    """The scenario's nodes and links, latencies in whole picoseconds."""
    return Topology(
        name=scenario.name, spec=scenario.name, hosts=scenario.hosts, node_names=scenario.node_names,
        link_src=scenario.link_src, link_dst=scenario.link_dst, link_bandwidth=scenario.bandwidth,
        link_latency=np.rint(scenario.latency * PS_PER_S).astype(np.int64),
        link_domain=np.zeros(len(scenario.link_src), dtype=np.int16), domains=("link",), router=router,
    )  # fmt: skip


def flow_times(scenario: FlowScenario, network: str = "fluid", routing: str = "") -> FlowTimes:
    """Run a scenario at a level, given as for ``--network``, over its own routes or, given as for ``--routing``, others.

    Raises:
        UnknownNameError: no such level.
        ConfigError: options that the level does not have, sizes that are not whole bytes at a level other than fluid, or a
            time beyond 2^62 ps.
    """
    name, options = parse(network)
    router = GivenRoutes(scenario)
    topology = topology_of(scenario, router)
    if routing:
        paths = ShortestPath(
            scenario.node_names, scenario.hosts, scenario.link_src, scenario.link_dst, ties="spread",
            host_forwarding=scenario.hosts == len(scenario.node_names),
        )  # fmt: skip
        topology = routed(routing, dataclasses.replace(topology, router=paths))
        return _one_by_one(scenario, topology, None, build_network(network, topology))
    if name == "fluid":
        params = validated(Fluid.Params, "--network fluid", options, ConfigError)
        if params.mtu is None and params.injection is None:
            return _fluid(scenario, topology, router, params.rtt_weighted, params.cap)
    return _one_by_one(scenario, topology, router, build_network(network, topology))


def _fluid(scenario: FlowScenario, topology: Topology, router: GivenRoutes, weighted: bool, cap: str | None) -> FlowTimes:
    """All flows as one group; those with a start wait for a row from a host to itself that is delivered then."""
    starts = np.unique(scenario.start[scenario.start > 0])
    extra, flows = len(starts), len(scenario)
    late = scenario.start > 0
    count = np.concatenate((np.zeros(extra, dtype=np.int64), np.diff(scenario.dep_ptr) + late))
    dep_ptr = np.concatenate(([0], np.cumsum(count)))
    dep = np.empty(dep_ptr[-1], dtype=np.int32)
    begin = dep_ptr[extra:-1]
    dep[begin[late]] = np.searchsorted(starts, scenario.start[late])
    row, step = ragged(np.diff(scenario.dep_ptr))
    dep[(begin + late)[row] + step] = scenario.dep + extra
    nobody = np.zeros(extra, dtype=np.int32)
    size = np.concatenate((np.zeros(extra), scenario.bytes))
    delay = np.concatenate((starts * PS_PER_S, np.zeros(flows)))
    transfers = Transfers(
        src=np.concatenate((nobody, scenario.src)), dst=np.concatenate((nobody, scenario.dst)), bytes=size.astype(np.int64),
        dep_ptr=dep_ptr, dep=dep, delay=delay.astype(np.int64), lane=np.concatenate((nobody - 1, router.lane)),
    )  # fmt: skip
    links = FluidLinks(
        PathTable(topology), np.ones(topology.links, dtype=np.bool_), latency=scenario.latency * PS_PER_S, rounded=False,
        weighted=weighted, cap=math.inf if cap is None else parse_bandwidth(cap), ordered=False,
    )  # fmt: skip
    first = extra + links.admit(transfers, 0, 0, [transfers.src, transfers.dst, size, transfers.dep_ptr, transfers.dep, delay])
    links.run(NEVER)
    begun, end = (np.array(links.rows[name][first : first + flows], dtype=np.float64) for name in ("begun", "end"))
    return FlowTimes(begun / PS_PER_S, end / PS_PER_S, links.usage(), links.solves)


def _one_by_one(
    scenario: FlowScenario, topology: Topology, router: GivenRoutes | None, network: NetworkModel
) -> FlowTimes:
    """Every flow is a group. Without ``router``, the topology's routing chooses the routes."""
    part = np.flatnonzero(scenario.bytes != np.rint(scenario.bytes))
    if len(part):
        raise ConfigError(
            f"flow {scenario.flow_id[part[0]]} has {scenario.bytes[part[0]]} bytes", where=scenario.name,
            expected="whole bytes at this level", fix="Take --network fluid.",
        )  # fmt: skip
    flows = len(scenario)
    start = np.rint(scenario.start * PS_PER_S).astype(np.int64).tolist()
    waits = np.diff(scenario.dep_ptr).tolist()
    dependents: list[list[int]] = [[] for _ in range(flows)]
    for flow in range(flows):
        for before in scenario.dep[scenario.dep_ptr[flow] : scenario.dep_ptr[flow + 1]].tolist():
            dependents[before].append(flow)
    row, _ = ragged(np.diff(scenario.route_ptr))
    latency = np.bincount(row, weights=topology.link_latency[scenario.route], minlength=flows)
    activate, finish = np.zeros(flows), np.zeros(flows)
    group_of: dict[int, int] = {}

    def begin(flow: int, now: int) -> None:
        at = max(now, start[flow])
        activate[flow] = at + latency[flow]
        one = slice(flow, flow + 1)
        none = np.zeros(1, dtype=np.int64)
        transfers = Transfers(
            scenario.src[one], scenario.dst[one], scenario.bytes[one].astype(np.int64), np.zeros(2, dtype=np.int64),
            np.zeros(0, dtype=np.int32), none, lane=None if router is None else router.lane[one],
        )  # fmt: skip
        group_of[network.start(transfers, at)] = flow

    for flow in range(flows):
        if not waits[flow]:
            begin(flow, 0)
    while network.next_event() < NEVER:
        for done in network.run_until(NEVER):
            flow = group_of.pop(done.group)
            finish[flow] = done.at
            for after in dependents[flow]:
                waits[after] -= 1
                if not waits[after]:
                    begin(after, done.at)
    return FlowTimes(np.minimum(activate, finish) / PS_PER_S, finish / PS_PER_S, network.usage())
