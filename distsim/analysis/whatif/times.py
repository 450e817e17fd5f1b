"""How long each task of a run takes by itself in a scenario: computation as its provider says, communication on idle links.

What a run adds to these times (contention, computation slowed beside communication) is known from what was recorded: see
estimate.py.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from distsim.analysis.underway import LOCAL, is_kind
from distsim.analysis.whatif.structure import Floats, Ints, rows_of, same_trace
from distsim.cost.recorded import Recorded
from distsim.engine.placement import Placer
from distsim.engine.task import CollectiveCall, MessageCall
from distsim.network.coflow import Coflows
from distsim.network.model import NEVER, Transfers
from distsim.network.spec import build_network
from distsim.params import parse, validated
from distsim.result import Result
from distsim.run_spec import RunSpec, collective_options, cost_provider
from distsim.scenario import Scenario
from distsim.trace.graph import NodeType, TaskGraph
from distsim.workload.images import MESSAGE, images, operation_of, role
from distsim.workload.instances import instances, peers
from distsim.workload.rows import unique_rows


class Alone(Protocol):
    """Times of communication on idle links, in ps."""

    def collective(self, rank: int, group: int, operation: str, size: int, root: int, dims: int) -> int: ...

    def message(self, rank: int, peer: int, size: int) -> int: ...


class _OnLevel:
    """By the run's own network level, one at a time: what a collective does to itself on shared links is in it."""

    def __init__(self, scenario: Scenario) -> None:
        spec = scenario.spec
        assert isinstance(spec, RunSpec)
        topology = scenario.topology
        level = "analytic" if scenario.profile else spec.network
        self._graph = scenario.graph
        self._network = build_network(level, topology)
        self._placer = Placer(topology, range(scenario.graph.ranks), getattr(self._network, "stores", 0.0))
        self._options = collective_options(spec, topology)
        self._now = 0
        self._known: dict[tuple[object, ...], int] = {}

    def collective(self, rank: int, group: int, operation: str, size: int, root: int, dims: int) -> int:
        members = self._graph.members(rank, group)
        key = (members, operation, size, root, dims)
        if key not in self._known:
            call = CollectiveCall((0, 0), operation, size, members, root, dims)
            self._known[key] = self._time(self._placer.collective(call, self._options)[0]) if len(members) > 1 else 0
        return self._known[key]

    def message(self, rank: int, peer: int, size: int) -> int:
        key = (rank, peer, size)
        if key not in self._known:
            self._known[key] = self._time(self._placer.message(MessageCall(rank, peer, 0, size)))
        return self._known[key]

    def _time(self, transfers: Transfers) -> int:
        if not len(transfers.src):
            return 0
        begin = self._now
        self._network.start(transfers, begin)
        finished = self._network.run_until(NEVER - 1)
        self._now = finished[0].at
        return self._now - begin


class _AsCoflows:
    """By the closed forms of coflows."""

    def __init__(self, scenario: Scenario, graph: TaskGraph, nccl: bool) -> None:
        topology = scenario.topology
        self._groups = instances(graph)
        self._peers = peers(graph, self._groups)
        hosts = np.arange(graph.ranks)
        self._images = images(graph, topology, hosts, self._groups, self._peers, contention=False, nccl=nccl)
        sends = self._peers.sends
        pairs = zip(sends.rank.tolist(), sends.peer.tolist(), strict=True)
        self._sends = {pair: row for row, pair in enumerate(pairs)}

    def collective(self, rank: int, group: int, operation: str, size: int, root: int, dims: int) -> int:
        instance = int(self._groups.of[group][rank])
        if self._groups.size[instance] < 2:
            return 0
        return self._alone(int(self._images.collective[(group, *role(operation, root))][instance]), operation, size)

    def message(self, rank: int, peer: int, size: int) -> int:
        return self._alone(int(self._images.message[self._sends[rank, peer]]), MESSAGE, size)

    def _alone(self, image: int, operation: str, size: int) -> int:
        timing = self._images.timings[int(self._images.timing[image])]
        return timing.alone(operation, size, self._images.shift)[0]


def alone_of(scenario: Scenario) -> Alone:
    """Times of communication in a scenario. Raises as its run would."""
    if isinstance(scenario.spec, RunSpec):
        name, options = parse(scenario.spec.network)
        if name != "coflow":
            return _OnLevel(scenario)
        return _AsCoflows(scenario, scenario.graph, validated(Coflows.Params, "--network coflow", options).nccl)
    return _AsCoflows(scenario, scenario.graph, True)


def computing(scenario: Scenario, result: Result) -> Floats:
    """ps of every row that is no communication; 0 for the others. The scenario's trace has the nodes of the result's."""
    spec, graph, spans = scenario.spec, scenario.graph, result.spans()
    provider = cost_provider(spec, graph) if isinstance(spec, RunSpec) else Recorded()
    found = np.zeros(len(spans))
    made: dict[int, Ints] = {}
    for rank, at, order in rows_of(spans, graph):
        number = int(graph.rank_program[rank])
        if number not in made:
            made[number] = provider.durations(graph.programs[number], f"{graph.source}: rank {rank}")[order]
        found[at : at + len(order)] = made[number]
    return found


def communicated(scenario: Scenario, result: Result, alone: Alone) -> Floats:
    """ps on idle links of every row that the network moves; 0 for the others, and for receives, which end with their sends."""
    graph, spans = scenario.graph, result.spans()
    found = np.zeros(len(spans))
    for rank, at, order in rows_of(spans, graph):
        program = graph.program(rank)
        kind = program.type[order]
        mine = np.flatnonzero(kind == NodeType.COMM_COLL)
        rows = order[mine]
        columns = (program.group, program.collective, program.bytes, program.root, program.dims)
        distinct, _, which = unique_rows(*(column[rows] for column in columns))
        told = [
            alone.collective(rank, group, operation_of(kind), max(size, 0), max(root, 0), dims)
            for group, kind, size, root, dims in distinct.tolist()
        ]
        found[at + mine] = np.array(told, np.float64)[which] if len(mine) else 0
        mine = np.flatnonzero(kind == NodeType.COMM_SEND)
        rows = order[mine]
        said = (program.peer_kind, program.peer, program.group, program.bytes)
        _, first, which = unique_rows(*(column[rows] for column in said))
        told = [alone.message(rank, graph.peer(rank, int(rows[one])), max(int(program.bytes[rows[one]]), 0)) for one in first]
        found[at + mine] = np.array(told, np.float64)[which] if len(mine) else 0
    return found


def same_shape(graph: TaskGraph, result: Result) -> bool:
    """Whether a trace has the nodes of a run, of the same types, so that its times can be put on the run's rows."""
    spans = result.spans()
    if not same_trace(spans, graph, result):
        return False
    local, sends, receives = (is_kind(spans, *kinds) for kinds in (LOCAL, ("send",), ("recv",)))
    for rank, at, order in rows_of(spans, graph):
        kind, mine = graph.program(rank).type[order], slice(at, at + len(order))
        communicates = (kind == NodeType.COMM_COLL) | (kind == NodeType.COMM_SEND) | (kind == NodeType.COMM_RECV)
        if (communicates == local[mine]).any() or ((kind == NodeType.COMM_SEND) != sends[mine]).any():
            return False
        if ((kind == NodeType.COMM_RECV) != receives[mine]).any():
            return False
    return True
