"""How long each task of a run takes by itself in a scenario: computation as its provider says, communication on idle links.

What a run adds to these times (contention, computation slowed beside communication) is known from what was recorded: see
estimate.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.intervals import Ints
from distsim.analysis.source import Source
from distsim.analysis.underway import LOCAL, is_kind
from distsim.cost.recorded import Recorded
from distsim.engine.placement import Placer
from distsim.engine.task import CollectiveCall, MessageCall
from distsim.network.coflow import Coflows
from distsim.network.model import NEVER, NO_LANE, Finished, Transfers
from distsim.network.spec import build_network
from distsim.params import parse, validated
from distsim.result import Result, SpanTable
from distsim.run_spec import RunSpec, collective_options, cost_provider
from distsim.scenario import Scenario
from distsim.trace.graph import NodeType
from distsim.workload.images import MESSAGE, images, operation_of, role
from distsim.workload.instances import instances, peers
from distsim.workload.rows import unique_rows

Floats = NDArray[np.float64]


class Gathering(NamedTuple):
    """A collective, as one of its members asks for it."""

    rank: int
    group: int  #: communicator, as the rank names it
    operation: str
    size: int
    root: int
    dims: int


class Message(NamedTuple):
    """A send."""

    rank: int
    peer: int
    size: int


Call = Gathering | Message
Calls = tuple[tuple[Call, ...], Ints]  #: (distinct calls, which of them each row is; -1: none)


class Alone(Protocol):
    """Times of communication on idle links."""

    def alone(self, call: Call) -> int:
        """ps."""
        ...


class OnLevel:
    """By the run's own network level: what a collective does to itself on shared links is in its time alone."""

    def __init__(self, scenario: Scenario) -> None:
        spec = scenario.spec
        assert isinstance(spec, RunSpec)
        self._topology = topology = scenario.topology
        level = "analytic" if scenario.profile else spec.network
        self._graph = scenario.graph
        self._network, self._spoken = build_network(level, topology), level
        self._placer = Placer(topology, range(scenario.graph.ranks), getattr(self._network, "stores", 0.0))
        self._options = collective_options(spec, topology)
        self._now = 0
        self._alone: dict[tuple[object, ...], int] = {}
        self._together: dict[tuple[tuple[Call, ...], tuple[int, ...]], tuple[int, ...]] = {}

    def alike(self, other: object) -> bool:
        """Whether they share links in the same way."""
        return isinstance(other, OnLevel) and other._spoken == self._spoken

    def alone(self, call: Call) -> int:
        key: tuple[object, ...] = call
        if isinstance(call, Gathering):
            key = (self._graph.members(call.rank, call.group), *call[2:])
        if key not in self._alone:
            self._alone[key] = self.together((call,), (0,))[0]
        return self._alone[key]

    def together(self, calls: tuple[Call, ...], starts: tuple[int, ...]) -> tuple[int, ...]:
        """ps that each takes where they start at these instants, ascending, and nobody else is on the links."""
        key = calls, tuple(start - starts[0] for start in starts)
        if key not in self._together:
            self._together[key] = self._ask(*key)
        return self._together[key]

    def _ask(self, calls: tuple[Call, ...], starts: tuple[int, ...]) -> tuple[int, ...]:
        network, begin = self._network, self._now
        took = [0] * len(calls)
        running: dict[int, int] = {}  # number of a group -> number of its call

        def ended(finished: Sequence[Finished]) -> bool:
            for one in finished:
                number = running.pop(one.group)
                took[number] = one.at - begin - starts[number]
                self._now = one.at
            return bool(finished)

        for number, (call, start) in enumerate(zip(calls, starts, strict=True)):
            transfers = self._transfers(call)
            if transfers is None:
                continue
            while ended(network.run_until(begin + start)):
                pass
            running[network.start(transfers, begin + start)] = number
        while running:
            ended(network.run_until(NEVER - 1))
        return tuple(took)

    def _transfers(self, call: Call) -> Transfers | None:
        """What the network moves; None: nothing."""
        if isinstance(call, Message):
            return self._placer.message(MessageCall(call.rank, call.peer, 0, call.size))
        members = self._graph.members(call.rank, call.group)
        if len(members) < 2:
            return None
        wanted = CollectiveCall((0, 0), call.operation, call.size, members, call.root, call.dims)
        found = self._placer.collective(wanted, self._options)[0]
        return found if len(found.src) else None

    def transfers(self, call: Call) -> int:
        """Number of transfers that it is made of."""
        found = self._transfers(call)
        return 0 if found is None else len(found.src)

    def links(self, call: Call) -> Ints:
        """That it crosses, ascending."""
        found = self._transfers(call)
        if found is None:
            return np.zeros(0, np.int64)
        crosses, lane = slice(None), found.lane
        if lane is not None:
            crosses = lane != NO_LANE
            lane = lane[crosses]
        return np.unique(self._topology.paths(found.src[crosses], found.dst[crosses], lane)[1]).astype(np.int64)


class AsCoflows:
    """By the closed forms of coflows."""

    def __init__(self, scenario: Scenario, nccl: bool) -> None:
        graph, topology = scenario.graph, scenario.topology
        self._groups = instances(graph)
        self._peers = peers(graph, self._groups)
        hosts = np.arange(graph.ranks)
        self._images = images(graph, topology, hosts, self._groups, self._peers, contention=False, nccl=nccl)
        sends = self._peers.sends
        pairs = zip(sends.rank.tolist(), sends.peer.tolist(), strict=True)
        self._sends = {pair: row for row, pair in enumerate(pairs)}

    def alone(self, call: Call) -> int:
        if isinstance(call, Message):
            return self._alone(int(self._images.message[self._sends[call.rank, call.peer]]), MESSAGE, call.size)
        instance = int(self._groups.of[call.group][call.rank])
        if self._groups.size[instance] < 2:
            return 0
        image = self._images.collective[(call.group, *role(call.operation, call.root))][instance]
        return self._alone(int(image), call.operation, call.size)

    def _alone(self, image: int, operation: str, size: int) -> int:
        timing = self._images.timings[int(self._images.timing[image])]
        return timing.alone(operation, size, self._images.shift)[0]


def alone_of(scenario: Scenario) -> OnLevel | AsCoflows:
    """Times of communication in a scenario. Raises as its run would."""
    if not isinstance(scenario.spec, RunSpec):
        return AsCoflows(scenario, True)
    name, options = parse(scenario.spec.network)
    if name != "coflow":
        return OnLevel(scenario)
    return AsCoflows(scenario, validated(Coflows.Params, "--network coflow", options).nccl)


def computing(scenario: Scenario, source: Source, spans: SpanTable) -> Floats:
    """ps of every row that is no communication; 0 for the others. ``source``: the scenario's trace, by the result's rows."""
    spec, graph = scenario.spec, source.graph
    assert graph is not None
    provider = cost_provider(spec, graph) if isinstance(spec, RunSpec) else Recorded()
    found = np.zeros(len(spans))
    made: dict[int, Ints] = {}
    for rank, at, order in source.rows(spans):
        number = int(graph.rank_program[rank])
        if number not in made:
            made[number] = provider.durations(graph.programs[number], f"{graph.source}: rank {rank}")[order]
        found[at : at + len(order)] = made[number]
    return found


def communication(source: Source, spans: SpanTable) -> Calls:
    """(distinct calls, which of them each row is: -1 for what the network does not move, and for receives, which end with their
    sends)."""
    graph = source.graph
    assert graph is not None
    calls: list[Call] = []
    which = np.full(len(spans), -1, np.int64)
    for rank, at, order in source.rows(spans):
        program = graph.program(rank)
        kind = program.type[order]
        mine = np.flatnonzero(kind == NodeType.COMM_COLL)
        if len(mine):
            rows = order[mine]
            columns = (program.group, program.collective, program.bytes, program.root, program.dims)
            distinct, _, number = unique_rows(*(column[rows] for column in columns))
            which[at + mine] = number + len(calls)
            for group, operation, size, root, dims in distinct.tolist():
                calls.append(Gathering(rank, group, operation_of(operation), max(size, 0), max(root, 0), dims))
        mine = np.flatnonzero(kind == NodeType.COMM_SEND)
        if len(mine):
            rows = order[mine]
            _, first, number = unique_rows(
                *(column[rows] for column in (program.peer_kind, program.peer, program.group, program.bytes))
            )
            which[at + mine] = number + len(calls)
            sends = rows[first].tolist()
            calls += [Message(rank, graph.peer(rank, row), max(int(program.bytes[row]), 0)) for row in sends]
    return tuple(calls), which


def moved(calls: Sequence[Call], which: Ints, level: Alone) -> Floats:
    """ps on idle links of every row; 0 where there is no call."""
    times = np.array([*(level.alone(call) for call in calls), 0], np.float64)
    return times[which]


def same_shape(source: Source, result: Result) -> bool:
    """Whether a trace has the nodes of a run, of the same types, so that its times can be put on the run's rows."""
    spans, graph = result.spans(), source.graph
    if graph is None:
        return False
    local, sends, receives = (is_kind(spans, *kinds) for kinds in (LOCAL, ("send",), ("recv",)))
    for rank, at, order in source.rows(spans):
        kind, mine = graph.program(rank).type[order], slice(at, at + len(order))
        communicates = (kind == NodeType.COMM_COLL) | (kind == NodeType.COMM_SEND) | (kind == NodeType.COMM_RECV)
        if (communicates == local[mine]).any() or ((kind == NodeType.COMM_SEND) != sends[mine]).any():
            return False
        if ((kind == NodeType.COMM_RECV) != receives[mine]).any():
            return False
    return True
