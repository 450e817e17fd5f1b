"""``--network loggops``: a GOAL schedule, or any trace, in; a Result out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.engine.placement import CollectiveOptions
from distsim.errors import ConfigError
from distsim.profiles.loggops.lower import Durations, lower
from distsim.profiles.loggops.model import Outcome, simulate
from distsim.profiles.loggops.params import LogGOPS, parameters
from distsim.provenance import provenance
from distsim.result import LinkTable, Result, SpanTable
from distsim.topology.graph import Paths, Topology
from distsim.trace import goal
from distsim.trace.files import shown
from distsim.trace.graph import TaskGraph
from distsim.trace.read import read_trace
from distsim.trace.schedule import ANY, RECV, SEND, Schedule
from distsim.units import PS_PER_NS, PS_PER_S
from distsim.workload.captured import no_captures

#: why some options decide nothing here
_IDLE = {
    "topo": "ranks are linked by nothing but their own NICs", "optimization": "no collective is hierarchical",
    "endpoint_delay": "o and L say what an end costs", "events": "it knows no timed events",
    "routing": "there are no links to choose from",
}  # fmt: skip
#: besides, where the trace is a GOAL schedule
_IDLE_GOAL = dict.fromkeys(("algorithm", "splits"), "a schedule has no collectives") | dict.fromkeys(
    ("compute", "peak", "memory_bandwidth"), "a schedule has durations"
)
#: the fields of a RunSpec that decide such a run
_TELLING = (
    "trace", "network", "algorithm", "splits", "compute", "peak", "memory_bandwidth", "groups", "ranks", "strict", "repair",
)  # fmt: skip


def simulate_spec(
    spec: Any, cost: Callable[[TaskGraph], Durations], graph: TaskGraph | None = None,
    progress: Callable[[float | None, str], None] | None = None,
) -> Result:  # fmt: skip
    """Run what a RunSpec says under LogGOPS.

    Args:
        spec: a RunSpec whose network is ``loggops:...``. cost: gives the provider of durations, for traces other than GOAL.
        graph: the trace, where it has been read already. progress: told what is going on.

    Raises:
        ConfigError: an option that has no effect here, or a wrong parameter. TraceError, CollectiveError: a faulty trace.
        DeadlockError: operations that never run, messages that nobody receives.
    """
    params = parameters(spec.network)
    others = {name: _IDLE.get(name, "it decides nothing there") for name in type(spec).model_fields if name not in _TELLING}
    _refuse_idle(spec, others)
    say = progress or (lambda fraction, what: None)
    say(None, f"reading {shown(spec.trace)}")
    schedule = goal.read(shown(spec.trace), spec.groups) if graph is None else None
    warnings: tuple[str, ...] = ()
    if schedule is None:
        if graph is None:
            graph = read_trace(spec.trace, spec.groups, spec.strict, spec.repair, spec.ranks)
        no_captures(graph, "--network loggops")
        options = CollectiveOptions.parse(spec.algorithm, chunks=spec.splits)
        schedule, warnings = lower(graph, cost(graph), options), graph.defects
    else:
        _refuse_idle(spec, _IDLE_GOAL)
        if spec.ranks not in (None, schedule.ranks):
            what = f"the schedule has {schedule.ranks} ranks, not {spec.ranks}"
            raise ConfigError(what, where=shown(spec.trace), fix="Leave --ranks out.")
    say(None, "simulating")
    outcome = simulate(schedule, params)
    telling = {name: getattr(spec, name) for name in _TELLING if hasattr(spec, name)} | {"network": params.spec}
    return result_of(schedule, outcome, params, telling, warnings)


def _refuse_idle(spec: Any, idle: dict[str, str]) -> None:
    usual = {name: field.default for name, field in type(spec).model_fields.items()}
    given = [name for name in idle if name in spec.model_fields_set and (name == "topo" or getattr(spec, name) != usual[name])]
    if given:
        option = f"--{given[0].replace('_', '-')}"
        raise ConfigError(f"has no effect with --network loggops: {idle[given[0]]}", where=option, fix="Leave it out.")


def result_of(
    schedule: Schedule, outcome: Outcome, params: LogGOPS, spec: dict[str, Any], warnings: tuple[str, ...] = ()
) -> Result:
    """The result of a run."""
    topology = nic_topology(schedule.ranks, len(outcome.nics), params)
    makespan = int(outcome.finish.max(initial=0))
    busy = outcome.busy.sum(axis=0)
    whole = max(makespan * schedule.ranks, 1)
    messages = int(np.count_nonzero(schedule.kind == SEND))
    carried = np.stack((outcome.sent_bytes, outcome.received_bytes), axis=2).ravel()
    taken = np.stack((outcome.sent, outcome.received), axis=2).ravel()
    shares = {str(cpu): int(ps) / whole for cpu, ps in zip(outcome.cpus.tolist(), busy.tolist(), strict=True)}
    return Result(
        makespan=makespan, finish=outcome.finish, ranks=schedule.ranks, topology=topology, links=LinkTable(carried, taken),
        collectives=(), spec=spec, provenance=provenance((spec.get("trace"), spec.get("groups")), topology, params.spec),
        counts={"nodes": len(schedule), "events": outcome.events, "transfers": messages},
        warnings=(*warnings, *_oddities(schedule, outcome)),
        profile_figures={
            "cpu_busy_fraction": shares, "cpu_busy_ns": [ps / PS_PER_NS for ps in outcome.busy.sum(axis=1).tolist()],
        },
        make_spans=lambda: _spans(schedule, outcome),
    )  # fmt: skip


def _oddities(schedule: Schedule, outcome: Outcome) -> list[str]:
    """Where LogGOPSim's semantics are not what one would expect, counted."""
    told = []
    across = int(np.count_nonzero(schedule.cpu[schedule.child] != schedule.cpu[schedule.parent]))
    if across:
        told.append(f"{across:,} dependencies cross CPUs of a rank: they order, but do not delay, as in LogGOPSim")
    empty = int(np.count_nonzero((schedule.kind == SEND) & (schedule.bytes == 0)))
    if empty:
        told.append(f"{empty:,} messages of 0 bytes cost what 1 byte does (LogGOPSim's unsigned size - 1 wraps around)")
    wild = int(np.count_nonzero((schedule.kind == RECV) & ((schedule.peer == ANY) | (schedule.tag == ANY))))
    if wild:
        told.append(f"{wild:,} receives of any rank or tag take what comes first")
    taken = np.flatnonzero(outcome.send >= 0)
    other = int(np.count_nonzero(schedule.bytes[taken] != schedule.bytes[outcome.send[taken]]))
    if other:
        told.append(f"{other:,} receives name another size than the message that they take: the message's counts")
    return told


def nic_topology(ranks: int, nics: int, params: LogGOPS) -> Topology:
    """What a result shows as links: the sending and the receiving side of every NIC, on a network without limits of its own."""
    count = ranks * nics
    host = np.repeat(np.arange(ranks, dtype=np.int32), nics)
    middle = np.full(count, ranks, np.int32)
    rate = PS_PER_S / float(params.gap_per_byte) if params.gap_per_byte else float(PS_PER_S) * PS_PER_S

    def router(src: NDArray[np.int32], dst: NDArray[np.int32]) -> Paths:
        far = src != dst
        links = np.stack([2 * nics * src, 2 * nics * dst + 1], axis=1)[far].ravel().astype(np.int32)
        return np.concatenate(([0], np.cumsum(2 * far))).astype(np.int64), links

    return Topology(
        name="loggops", spec="none (ranks and their NICs)", hosts=ranks,
        node_names=(*(f"rank{rank}" for rank in range(ranks)), "network"),
        link_src=np.stack([host, middle], axis=1).ravel(), link_dst=np.stack([middle, host], axis=1).ravel(),
        link_bandwidth=np.full(2 * count, rate), link_latency=np.tile(np.array([params.latency, 0], np.int64), count),
        link_domain=np.tile(np.array([0, 1], np.int16), count), domains=("sending NIC", "receiving NIC"), router=router,
    )  # fmt: skip


def _spans(schedule: Schedule, outcome: Outcome) -> SpanTable:
    """CPU time of every operation; a receive's is that of its message."""
    n = len(schedule)
    kinds = ("none", "compute", "send", "recv")
    kind = np.array([0, 2, 3, 1], np.int8)[schedule.kind]
    first = np.searchsorted(schedule.rank, np.arange(schedule.ranks))
    names = [schedule.label(op) for op in range(n)]
    known = {name: number for number, name in enumerate(dict.fromkeys(names))}
    released = outcome.by
    ready = np.where(released >= 0, np.minimum(outcome.end[released], outcome.start), 0) if n else outcome.start
    return SpanTable(
        rank=schedule.rank.astype(np.int32), node=np.arange(n) - first[schedule.rank] + 1, kind=kind,
        stream=outcome.cpu.astype(np.int32), group=np.full(n, -1, np.int32),
        name=np.array([known[name] for name in names], np.int32), bytes=schedule.bytes, ready=ready, start=outcome.start,
        end=outcome.end, released_by=released, kinds=kinds, streams=tuple(f"cpu {cpu}" for cpu in outcome.cpus.tolist()),
        groups=(), names=tuple(known),
    )  # fmt: skip
