"""The one place that knows every floor: a run specification becomes a simulation and a Result.

>>> from distsim import simulate
>>> result = simulate("traces/llama3_8b_tp8_dp8.json", topology="fat_tree")   # doctest: +SKIP
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from distsim import registry
from distsim.cost.speeds import Speeds
from distsim.engine.communication import Communication
from distsim.engine.executor import Executor
from distsim.engine.placement import Placer
from distsim.errors import CollectiveError, ConfigError, DeadlockError, FaultError, TopologyError, TraceError, UnknownNameError
from distsim.events.conduct import Conductor
from distsim.events.cost import with_cost
from distsim.events.model import Events, read_events
from distsim.kernel.clock import Clock
from distsim.network.spec import build_network
from distsim.params import parse, validated
from distsim.profiles.loggops.params import is_loggops
from distsim.provenance import provenance
from distsim.record import Recorder
from distsim.result import LinkTable, Result, SpanTable
from distsim.run_spec import RunSpec, calibration_of, collective_options, cost_provider, guesses, spec_of
from distsim.topology.graph import Topology
from distsim.topology.routed import routed
from distsim.topology.spec import build, fixed_hosts
from distsim.trace.check import check_ranks
from distsim.trace.defect import refuse
from distsim.trace.files import paths_of, shown
from distsim.trace.graph import TaskGraph
from distsim.trace.read import read_trace
from distsim.workload.captured import KEPT, recorded, renumbered, whole
from distsim.workload.replay import CostProvider, Replay
from distsim.workload.spans import span_table

Progress = Callable[[float | None, str], None]  #: (fraction done or None, what is going on)


def simulate(
    trace: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | TaskGraph | RunSpec,
    topology: str | Topology | None = None, *,
    progress: Progress | None = None, **options: Any,
) -> Result:  # fmt: skip
    """Replay a trace on a topology.

    Args:
        trace: a path (of a captured trace: or those of its ranks), a TaskGraph, or a complete RunSpec.
        topology: a specification such as ``"fat_tree:k=8"``, or a Topology.
        progress: told what is going on, now and then.
        options: further fields of RunSpec.

    Raises:
        ConfigError: an unusable option or topology. TraceError, CollectiveError: a faulty trace. DeadlockError: ranks that
            wait for each other for ever. FaultError: an event ends the run; its ``partial`` is the Result so far.
    """
    if isinstance(trace, RunSpec):
        spec = trace
    else:
        source = trace.source if isinstance(trace, TaskGraph) else _paths(trace)
        if isinstance(topology, str):
            options = {"topo": topology, **options}
        spec = spec_of(trace=source, **options)
    say = progress or (lambda fraction, what: None)
    if is_loggops(spec.network):
        if isinstance(topology, Topology):
            raise ConfigError("--network loggops takes no topology: ranks are linked by nothing but their own NICs")
        if spec.speeds:
            raise ConfigError("--speeds has no effect on --network loggops", fix="Leave it out.")
        from distsim.profiles.loggops.run import simulate_spec

        given = trace if isinstance(trace, TaskGraph) else None
        return simulate_spec(spec, lambda graph: cost_provider(spec, graph), given, say)
    if isinstance(trace, TaskGraph):
        graph = trace
        if spec.ranks not in (None, graph.ranks):
            raise ConfigError(f"the trace has {graph.ranks} ranks, not {spec.ranks}", fix="Leave ranks out.")
    else:
        say(None, f"reading {shown(spec.trace)}")
        room = topology.hosts if isinstance(topology, Topology) else fixed_hosts(spec.topo)
        graph = read_trace(spec.trace, spec.groups, spec.strict, spec.repair, spec.ranks, room)
    fields = spec.model_fields_set | ({"topo"} if isinstance(topology, Topology) else set())
    kept = recorded(graph, spec.communication, fields, spec.ranks)
    if graph.captured:
        spec = spec.model_copy(update={"communication": "recorded" if kept else "simulated"})
        if not kept:
            graph = whole(graph, spec.ranks)
    network = topology if isinstance(topology, Topology) else build(spec.topo, graph.ranks)
    network = routed(spec.routing, network)
    if network.hosts < graph.ranks:
        raise TopologyError(
            f"{network.spec} has {network.hosts} hosts for {graph.ranks} ranks", fix="Make it larger, or leave its size out."
        )
    return replay(graph, network, spec, say)


def _paths(trace: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> str | tuple[str, ...]:
    if isinstance(trace, (str, os.PathLike)):
        return os.fspath(trace)
    found = tuple(os.fspath(one) for one in trace)
    if not found:
        raise ConfigError("no trace was given", expected="a path, or those of captured ranks")
    return found


def replay(
    graph: TaskGraph, topology: Topology, spec: RunSpec, progress: Progress, hosts: Sequence[int] | None = None
) -> Result:
    """Run a trace that has been read on a topology that has been built. ``hosts``: host of each rank (default: in order).

    With timed events it runs several times, to tell what they cost.
    """
    graph = Speeds.parse(spec.speeds, graph.ranks).on(graph)
    if spec.network.partition(":")[0] == "coflow":
        return _of_coflows(graph, topology, spec, progress, hosts)
    events = None if spec.events is None else read_events(spec.events)
    if events is None or not events.events:
        return _once(graph, topology, spec, progress, hosts)
    placed = range(graph.ranks) if hosts is None else hosts
    Conductor(events, Clock(), topology, build_network(spec.network, topology), placed)  # refuses bad names before any run
    return with_cost(lambda some, what: _once(graph, topology, spec, progress, hosts, some, what), events)


def check(graph: TaskGraph, topology: Topology, spec: RunSpec) -> None:
    """Raise what :func:`replay` would refuse before anything is simulated."""
    recorded(graph, spec.communication, spec.model_fields_set)
    if spec.network.partition(":")[0] == "coflow":
        _coflow_options(spec, graph)
    else:
        network = build_network(spec.network, topology)
        collective_options(spec, topology)
        if spec.events is not None:
            Conductor(read_events(spec.events), Clock(), topology, network, range(graph.ranks))
    cost_provider(spec, graph)


def _once(
    graph: TaskGraph, topology: Topology, spec: RunSpec, progress: Progress, hosts: Sequence[int] | None,
    events: Events | None = None, which: str = "",
) -> Result:  # fmt: skip
    """One run. ``which`` of several it is, in words. A FaultError that ends it brings the results so far."""
    clock, recorder = Clock(), Recorder()
    network = build_network(spec.network, topology)
    placed = range(graph.ranks) if hosts is None else hosts
    conductor = Conductor(events, clock, topology, network, placed) if events is not None else None
    placer = Placer(topology, placed, getattr(network, "stores", 0.0))
    network = network if conductor is None else conductor.network
    communication = Communication(clock, network, placer, collective_options(spec, topology), recorder)
    executor = Executor(clock, communication, recorder, None if conductor is None else conductor.speeds)
    kept = recorded(graph, spec.communication, spec.model_fields_set)
    workload = Replay(graph, cost_provider(spec, graph), recorded=kept)
    said = f"simulating {which}".rstrip()
    progress(None, f"preparing {which}".rstrip())
    if conductor is not None:
        conductor.begin(executor, communication)
    workload.start(executor)
    total = executor.unfinished

    def watch(now: int) -> None:
        progress(1 - executor.unfinished / total if total else 1.0, said)

    def result(broken: FaultError | None = None) -> Result:
        if broken is not None:
            executor.stop()
        usage = network.usage()
        recorded = recorder.spans(workload.durations, None if broken is None else clock.now)
        finish = np.zeros(graph.ranks, dtype=np.int64)
        filled = np.diff(workload.rank_start) > 0
        if filled.any():
            finish[filled] = np.maximum.reduceat(recorded.end, workload.rank_start[:-1][filled])
        said_in = None if events is None else events.file
        calibration = calibration_of(spec.collectives, spec.calibration, topology)
        made = provenance((*paths_of(spec.trace), spec.groups, said_in, calibration), topology, spec.network)
        made["inferred"] += [*([KEPT] if kept else []), *renumbered(graph)]
        makespan, done = int(finish.max(initial=0)), total - executor.unfinished
        told = {} if conductor is None else conductor.told(makespan, done, total, broken)
        return Result(
            makespan=makespan, finish=finish, ranks=graph.ranks, topology=topology,
            links=LinkTable(usage.bytes, usage.busy), collectives=tuple(recorder.collectives),
            spec=spec.model_dump() | {"topo": topology.spec},
            provenance=made if events is None else made | {"seed": events.seed},
            counts={
                "nodes": total, "events": clock.events, "network_events": getattr(network, "events", 0),
                "collectives": len(recorder.collectives),
            },
            warnings=(*told.pop("warnings", ()), *graph.defects, *guesses(graph, spec)),
            make_spans=lambda: span_table(graph, workload, recorded, executor), events=told,
        )  # fmt: skip

    try:
        clock.run(watch=watch)
        executor.check_finished()
    except FaultError as error:
        error.partial = result(error)
        raise
    except (DeadlockError, CollectiveError, TraceError) as error:
        refuse(check_ranks(graph), True)  # where ranks disagree, this names file, ranks and nodes
        raise type(error)(error.what, where=graph.source, expected=error.expected, near=error.near, fix=error.fix) from None
    return result()


def _coflow_options(spec: RunSpec, graph: TaskGraph) -> Mapping[str, Any]:
    """Those of ``--network coflow``. Raises ConfigError on fields of a run that it would have to ignore."""
    from distsim.network.coflow import Coflows

    fields = (
        "collectives", "nccl_algo", "nccl_proto", "nccl_pxn", "nccl_fabric", "calibration", "algorithm", "splits",
        "optimization", "endpoint_delay", "events",
    )  # fmt: skip
    idle = [name for name in fields if getattr(spec, name) != RunSpec.model_fields[name].default]
    if idle:
        raise ConfigError(
            f"--{idle[0].replace('_', '-')} has no effect on coflows, which take closed forms", where="--network coflow",
            fix="Leave it out, or take --network fluid.",
        )  # fmt: skip
    if graph.captured and spec.communication == "recorded":
        what = "coflows move over links, recorded times do not"
        raise ConfigError(what, where="--communication recorded", fix="Leave it out.")
    return dict(validated(Coflows.Params, "--network coflow", parse(spec.network)[1]))


def _of_coflows(graph: TaskGraph, topology: Topology, spec: RunSpec, progress: Progress, hosts: Sequence[int] | None) -> Result:
    """``--network coflow``."""
    options = _coflow_options(spec, graph)
    result = replay_folded(
        graph, topology, network="fluid" if options["contention"] else "analytic", fold=options["fold"], nccl=options["nccl"],
        cost=cost_provider(spec, graph), hosts=hosts, progress=progress,
    )  # fmt: skip
    made = provenance((*paths_of(spec.trace), spec.groups), topology, spec.network)
    made["inferred"] += result.folded
    return dataclasses.replace(
        result, spec=spec.model_dump() | {"topo": topology.spec}, provenance=made,
        warnings=(*result.warnings, *guesses(graph, spec)),
    )  # fmt: skip


def replay_folded(
    graph: TaskGraph, topology: Topology, *, network: Literal["fluid", "analytic"] = "fluid", fold: bool = True,
    nccl: bool = True, interfering: Collection[str] = (), slowdown: Fraction | float = 1, cost: CostProvider | None = None,
    hosts: Sequence[int] | None = None, spec: Mapping[str, Any] | None = None, progress: Progress | None = None,
) -> Result:  # fmt: skip
    """Run a trace with one representative per class of symmetric ranks, every communication as one coflow (docs/folding.md).

    Args:
        network: fluid: coflows share links; analytic: each takes its time alone.
        fold: False: simulate every rank. The result is the same, to the picosecond.
        nccl: communication takes what NCCL's model says on idle links, where the topology says which GPUs its hosts are.
        interfering: names of communicators ("" is all ranks) beside whose collectives computation on a device takes
            ``slowdown`` (at least 1) times as long; names that the trace has none of have no effect.
        cost: durations of compute nodes (default: as recorded in the trace).
        hosts: host of each rank (default: in order).
        spec: what made the graph, for the Result's provenance.

    The Result's ``finish`` and ``links`` are of all ranks and links; its spans are of representatives, with multiplicity.

    Raises: ConfigError, TopologyError, TraceError, CollectiveError, DeadlockError.
    """
    from distsim.engine.folded import FoldedCommunication
    from distsim.network.coflow import Coflows
    from distsim.workload.folded import Folded, FoldedReplay

    if network not in ("fluid", "analytic"):
        raise UnknownNameError("network", network, ("fluid", "analytic"), where="folded replay")
    if not 1 <= slowdown < math.inf:
        raise ConfigError(f"computation beside communication takes {slowdown} times as long", expected="at least 1")
    factors = dict.fromkeys(interfering, Fraction(str(slowdown)))
    placed = np.arange(graph.ranks) if hosts is None else np.asarray(hosts, dtype=np.int64)
    if len(placed) != graph.ranks or graph.ranks > topology.hosts:
        raise TopologyError(f"{topology.spec} has {topology.hosts} hosts for {graph.ranks} ranks", fix="Make it larger.")
    say = progress or (lambda fraction, what: None)
    say(None, "folding")
    folded = Folded(graph, topology, placed, contention=network == "fluid", nccl=nccl, folding=fold)
    clock, recorder = Clock(), Recorder()
    coflows = Coflows(folded.links)
    communication = FoldedCommunication(clock, coflows, recorder, folded.moved)
    executor = Executor(clock, communication, recorder)
    communication.on_paced(executor.beside)
    workload = FoldedReplay(folded, cost or registry.lookup("cost", "recorded")(), factors)
    say(None, "preparing")
    workload.start(executor)
    total = executor.unfinished
    clock.run(watch=lambda now: say(1 - executor.unfinished / total if total else 1.0, "simulating"))
    executor.check_finished()
    recorded = recorder.spans(workload.durations)
    classes = folded.fold
    finish = np.zeros(graph.ranks, dtype=np.int64)
    filled = np.diff(workload.rank_start) > 0
    if filled.any():
        finish[filled] = np.maximum.reduceat(recorded.end, workload.rank_start[:-1][filled])
    representative = classes.representative[classes.rank_class]

    def spans() -> SpanTable:
        table = span_table(graph, workload, recorded, executor)
        return dataclasses.replace(table, multiplicity=classes.multiplicity[classes.rank_class[table.rank]])

    return Result(
        makespan=int(finish.max(initial=0)), finish=finish[representative], ranks=graph.ranks, topology=topology,
        links=LinkTable(*folded.usage()), collectives=tuple(recorder.collectives),
        spec={"trace": graph.source, "topo": topology.spec, "network": f"coflow {network}", **(spec or {})},
        provenance=provenance((graph.source,), topology, f"coflow {network}"),
        counts={
            "nodes": graph.nodes, "simulated": total, "classes": len(classes), "events": clock.events,
            "network_events": coflows.solved, "collectives": len(recorder.collectives),
        },
        warnings=(*graph.defects, *folded.images.notes), representative=representative, folded=classes.reasons,
        make_spans=spans,
    )  # fmt: skip
