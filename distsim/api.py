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
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distsim import registry
from distsim.cost.recorded import timed_rows
from distsim.cost.speeds import Speeds
from distsim.engine.communication import Communication
from distsim.engine.executor import Executor
from distsim.engine.nccl import NcclOptions
from distsim.engine.placement import CollectiveOptions, Placer
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
from distsim.topology.graph import Topology
from distsim.topology.routed import routed
from distsim.topology.spec import build, fixed_hosts
from distsim.trace.check import check_ranks
from distsim.trace.defect import refuse
from distsim.trace.files import paths_of, shown
from distsim.trace.graph import TaskGraph
from distsim.trace.read import read_trace
from distsim.units import parse_bandwidth, parse_flops, parse_time
from distsim.workload.captured import KEPT, recorded, whole
from distsim.workload.replay import CostProvider, Replay
from distsim.workload.spans import span_table

Progress = Callable[[float | None, str], None]  #: (fraction done or None, what is going on)


class RunSpec(BaseModel):
    """Everything that decides a replay. Field names are the command line's options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trace: str | tuple[str, ...] = Field(
        description="file, folder, tar or prefix of the trace; or the files of its ranks, where it was captured"
    )
    topo: str = Field("fat_tree", description="topology: name:key=value,... or a YAML file")
    network: str = Field(
        "cut_through",
        description="level: analytic, fluid (max-min shares), cut_through, chunk (store and forward), ideal, loggops or coflow "
        "(whole collectives, symmetric ranks folded), with "
        "options as in fluid:mtu=4096; or by link domain: nvlink=analytic+*=fluid",
    )
    routing: str = Field(
        "static", description="routing policy: static, shortest, ecmp, spray, adaptive, valiant, table:file=FILE"
    )
    collectives: Literal["native", "nccl"] = Field("native", description="distsim's own algorithms, or as NCCL runs them")
    nccl_algo: str | None = Field(None, description="nccl: only this algorithm: ring, tree, nvls, nvls_tree, pat (NCCL_ALGO)")
    nccl_proto: str | None = Field(None, description="nccl: only this protocol: ll, ll128, simple (NCCL_PROTO)")
    nccl_pxn: str | None = Field(None, description="nccl: all_to_all between nodes by rail: on (NCCL's default) or off")
    nccl_fabric: str | None = Field(None, description="nccl: what the NICs are: ib (default), roce, efa")
    calibration: str | None = Field(None, description="nccl: calibration file, see distsim calibrate nccl")
    algorithm: str = Field("", description="collective algorithm: NAME, or operation=NAME,operation=NAME")
    splits: int = Field(1, ge=1, description="chunks per collective, pipelined through the algorithm")
    optimization: Literal["local_bw_aware", "baseline"] = Field(
        "local_bw_aware", description="hierarchical all_reduce: scatter, reduce, gather, or a full one per dimension"
    )
    endpoint_delay: str | None = Field(None, description="added to every delivery (default: none; profile astra: 10ns)")
    communication: Literal["auto", "recorded", "simulated"] = Field(
        "auto",
        description="captured traces: collectives take their recorded transfer times, or those of the simulated network; "
        "auto: recorded, unless --topo, --network or --collectives is given",
    )
    compute: Literal["recorded", "roofline"] = Field("recorded", description="where compute durations come from")
    scale_compute: str | None = Field(
        None, description="recorded durations as on another GPU, a100->h100, or by a factor, 1.5x faster"
    )
    speeds: str | None = Field(
        None, description="devices faster or slower: gpu.compute=1.5x, rank.3.compute=0.9x ... (docs/whatif.md)"
    )
    peak: str | None = Field(None, description="roofline: peak rate of a device, such as 989TFLOPS")
    memory_bandwidth: str | None = Field(None, description="roofline: memory bandwidth of a device, such as 3.35TB/s")
    groups: str | None = Field(None, description="communicator groups, JSON {id: [ranks]}")
    ranks: int | None = Field(None, ge=1, description="ranks of a SimAI workload, where its header says none or others")
    events: str | None = Field(None, description="timed events, YAML: links that fail, slow or lost ranks ... (docs/events.md)")
    strict: bool = Field(False, description="refuse traces with repairable defects")
    repair: bool = Field(False, description="drop dangling dependencies")


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
        spec = _spec(trace=source, **options)
    say = progress or (lambda fraction, what: None)
    if is_loggops(spec.network):
        if isinstance(topology, Topology):
            raise ConfigError("--network loggops takes no topology: ranks are linked by nothing but their own NICs")
        if spec.speeds:
            raise ConfigError("--speeds has no effect on --network loggops", fix="Leave it out.")
        from distsim.profiles.loggops.run import simulate_spec

        return simulate_spec(spec, lambda graph: cost_provider(spec, graph), trace if isinstance(trace, TaskGraph) else None, say)
    if isinstance(trace, TaskGraph):
        graph = trace
        if spec.ranks not in (None, graph.ranks):
            raise ConfigError(f"the trace has {graph.ranks} ranks, not {spec.ranks}", fix="Leave ranks out.")
    else:
        say(None, f"reading {shown(spec.trace)}")
        room = topology.hosts if isinstance(topology, Topology) else fixed_hosts(spec.topo)
        graph = read_trace(spec.trace, spec.groups, spec.strict, spec.repair, spec.ranks, room)
    kept = recorded(graph, spec.communication, spec.model_fields_set | ({"topo"} if isinstance(topology, Topology) else set()))
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
    return os.fspath(trace) if isinstance(trace, (str, os.PathLike)) else tuple(os.fspath(one) for one in trace)


def _spec(**options: Any) -> RunSpec:
    """A RunSpec, or one ConfigError that names the first thing wrong with it."""
    try:
        return RunSpec(**options)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UnknownNameError("option", name, RunSpec.model_fields) from None
        raise ConfigError(f"{name} is {first['input']!r}: {first['msg']}") from None


def cost_provider(spec: RunSpec, graph: TaskGraph) -> CostProvider:
    """The compute-duration provider that a specification asks for, for a trace. Raises ConfigError."""
    provider = _durations(spec)
    if not spec.scale_compute:
        return provider
    from distsim.cost.rescaled import rescaled

    return rescaled(spec.scale_compute, graph, provider)


def _durations(spec: RunSpec) -> CostProvider:
    if spec.compute == "recorded":
        if spec.peak or spec.memory_bandwidth:
            raise ConfigError(
                "--peak and --memory-bandwidth have no effect on recorded durations", fix="Add --compute roofline."
            )
        return registry.lookup("cost", "recorded")()  # type: ignore[no-any-return]
    if not spec.peak or not spec.memory_bandwidth:
        raise ConfigError(
            "--compute roofline needs the device", expected="--peak and --memory-bandwidth",
            fix="For example, an H100 SXM in BF16: --peak 989TFLOPS --memory-bandwidth 3.35TB/s.",
        )  # fmt: skip
    return registry.lookup("cost", "roofline")(parse_flops(spec.peak), parse_bandwidth(spec.memory_bandwidth))  # type: ignore[no-any-return]


def guesses(graph: TaskGraph, spec: RunSpec) -> tuple[str, ...]:
    """What a run took for granted, for its first screen."""
    told: tuple[str, ...] = ()
    if spec.scale_compute:
        from distsim.cost.rescaled import rescaled

        told = rescaled(spec.scale_compute, graph).notes(graph)
    if spec.compute != "roofline":
        return told
    kept = sum(
        int(np.count_nonzero(timed_rows(p) & ~p.cpu & (p.num_ops <= 0) & (p.tensor_size <= 0)))
        for p in (graph.programs[int(number)] for number in graph.rank_program)
    )
    if not kept:
        return told
    return (*told, f"{kept:,} compute nodes tell neither num_ops nor tensor_size: they keep their recorded duration",)


def collective_options(spec: RunSpec, topology: Topology) -> CollectiveOptions:
    """How a specification wants its collectives; a calibration that comes with the cluster is used where none is given."""
    native = {"--algorithm": bool(spec.algorithm), "--splits": spec.splits > 1}
    return CollectiveOptions.parse(
        spec.algorithm, chunks=spec.splits, optimization=spec.optimization, endpoint_ps=parse_time(spec.endpoint_delay or 0),
        nccl=NcclOptions.parse(
            spec.collectives, spec.nccl_algo, spec.nccl_proto, calibration_of(spec.collectives, spec.calibration, topology),
            pxn=spec.nccl_pxn, fabric=spec.nccl_fabric,
            native=native,
        ),
    )  # fmt: skip


def calibration_of(collectives: str, given: str | None, topology: Topology) -> str | None:
    """The NCCL calibration file to use: the one given, else the cluster's own."""
    return given or (topology.calibration or None if collectives == "nccl" else None)


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
        made["inferred"] += [KEPT] if kept else []
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


def _of_coflows(graph: TaskGraph, topology: Topology, spec: RunSpec, progress: Progress, hosts: Sequence[int] | None) -> Result:
    """``--network coflow``. Raises ConfigError on options that it would have to ignore."""
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
    options = dict(validated(Coflows.Params, "--network coflow", parse(spec.network)[1]))
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
