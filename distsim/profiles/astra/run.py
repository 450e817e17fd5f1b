"""``--profile astra``: a trace and ASTRA-sim's inputs (or a topology) in, a Result out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.cost.speeds import Speeds
from distsim.errors import ConfigError, TopologyError
from distsim.profiles.astra.blame import blame
from distsim.profiles.astra.config import AstraConfig, read_network, read_system
from distsim.profiles.astra.links import link_table
from distsim.profiles.astra.lower import Job, job_of_trace
from distsim.profiles.astra.replay import AstraRun, simulate
from distsim.profiles.astra.system import backend, config_of_topology, spec_of, whole_ns, with_algorithms
from distsim.provenance import provenance
from distsim.record import CollectiveRow
from distsim.result import Result, SpanTable
from distsim.topology.graph import Topology
from distsim.topology.spec import build
from distsim.trace.check import check_ranks
from distsim.trace.defect import refuse
from distsim.trace.files import paths_of
from distsim.trace.graph import CollectiveType, NodeType, TaskGraph
from distsim.trace.read import read_trace
from distsim.units import parse_bandwidth, parse_flops
from distsim.workload.captured import no_captures
from distsim.workload.spans import span_columns

PS = 1000  #: picoseconds in ASTRA-sim's cycle, the nanosecond


def simulate_trace(spec: Any, progress: Callable[[float | None, str], None] | None = None, **system: Any) -> Result:
    """Replay under the profile on a topology of distsim.

    Args:
        spec: a RunSpec; its network level picks the backend, its splits, algorithm, endpoint_delay and roofline the system.
        system: further fields of AstraConfig.
    """
    if spec.collectives != "native":
        raise ConfigError("--collectives nccl has no effect on --profile astra, which has collectives of its own",
                          fix="Leave it out.")  # fmt: skip
    if spec.routing != "static":
        raise ConfigError("--routing has no effect on --profile astra, which has routes of its own", fix="Leave it out.")
    if spec.events is not None:
        raise ConfigError(
            "--profile astra knows no timed events, as ASTRA-sim has none", where="--events", fix="Leave one of them out."
        )
    graph = read_trace(spec.trace, spec.groups, spec.strict, spec.repair, spec.ranks)
    no_captures(graph, "--profile astra")
    graph = Speeds.parse(spec.speeds, graph.ranks).on(graph)
    topology = build(spec.topo, graph.ranks)
    config = with_algorithms(config_of_topology(topology, spec.network), spec.algorithm)
    config = replace(config, splits=spec.splits, **system)
    if spec.endpoint_delay is not None:
        config = replace(config, endpoint_ns=whole_ns(spec.endpoint_delay))
    if spec.compute == "roofline":
        if not spec.peak or not spec.memory_bandwidth:
            raise ConfigError("--compute roofline needs the device", expected="--peak and --memory-bandwidth")
        config = replace(
            config, roofline=True, peak_tflops=parse_flops(spec.peak) / 1e12,
            local_memory_gbps=parse_bandwidth(spec.memory_bandwidth) / 1e9,
        )  # fmt: skip
    described = spec.model_dump() | {"topo": topology.spec}
    return _simulate(graph, config, topology, described, (*paths_of(spec.trace), spec.groups), progress)


def simulate_files(
    workload: str, network: str, system: str, groups: str | None = None, level: str = "analytic",
    progress: Callable[[float | None, str], None] | None = None,
) -> Result:  # fmt: skip
    """An ASTRA-sim experiment from its own files.

    Args:
        workload: prefix of ``PREFIX.<rank>.et`` (or any trace that distsim reads).
        network: network YAML. system: system JSON. groups: communicator-group JSON.
        level: ``analytic`` (congestion-unaware) or ``chunk`` (congestion-aware): the backend is not in the files, it is
            which binary of ASTRA-sim one runs.
    """
    dims, ignored = read_network(Path(network))
    config = read_system(Path(system), AstraConfig(dims, backend(level), ignored=ignored))
    graph = read_trace(workload, groups)
    topology = build(spec_of(config), config.ranks)
    spec = {
        "astra_workload": workload,
        "astra_network": network,
        "astra_system": system,
        "astra_groups": groups,
        "network": level,
    }
    return _simulate(graph, config, topology, spec, (workload, network, system, groups), progress)


def _simulate(
    graph: TaskGraph, config: AstraConfig, topology: Topology, spec: dict[str, Any], inputs: tuple[str | None, ...],
    progress: Callable[[float | None, str], None] | None,
) -> Result:  # fmt: skip
    config = config.checked()
    refuse(check_ranks(graph), True)
    if topology.hosts != config.ranks:
        raise TopologyError(f"the network has {config.ranks} ranks, the topology {topology.hosts} hosts")
    job = job_of_trace(graph, config)
    done = simulate(
        job, config, progress=(lambda fraction: progress(fraction, "simulating")) if progress else None,
        blame=lambda stuck: blame(graph, job, stuck),
    )  # fmt: skip
    return Result(
        makespan=int(done.finish.max(initial=0)) * PS, finish=done.finish * PS, ranks=graph.ranks, topology=topology,
        links=link_table(done, config, topology), collectives=_collectives(graph, job, done), spec=spec,
        provenance=provenance(inputs, topology, f"astra {'aware' if config.aware else 'unaware'}"),
        counts={"nodes": graph.nodes, "events": done.events, "transfers": done.messages},
        warnings=(*graph.defects, *config.ignored, *_taken_for_granted(graph, config)),
        profile_figures={"finish_ns": done.finish.tolist(), "exposed_ns": done.exposed.tolist(), "folded": done.folded},
        make_spans=lambda: _spans(graph, job, done),
    )  # fmt: skip


def _taken_for_granted(graph: TaskGraph, config: AstraConfig) -> list[str]:
    """Where ASTRA-sim takes a time that one would not expect, counted over all ranks."""
    bare = broadcasts = 0
    for number in graph.rank_program.tolist():
        program = graph.programs[number]
        untimed = (program.type == NodeType.COMP) & (program.duration_ps < 1_000_000)
        modelled = config.roofline & ~program.cpu & (program.tensor_size > 0)
        bare += int(np.count_nonzero(untimed & ~modelled))
        broadcasts += int(np.count_nonzero(program.collective == CollectiveType.BROADCAST))
    told = []
    if bare:
        told.append(f"{bare:,} compute nodes tell no duration of 1 us or more: they take 1 ns at most, as in ASTRA-sim")
    if broadcasts:
        told.append(f"{broadcasts:,} broadcasts take their recorded duration, or 1 ns, as in ASTRA-sim")
    return told


def _times(job: Job, done: AstraRun, rank: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and end of a rank's nodes in ps, in id order."""
    simulated = 0 if done.folded else rank
    return done.start[simulated] * PS, done.end[simulated] * PS


def _spans(graph: TaskGraph, job: Job, done: AstraRun) -> SpanTable:
    """The span table: ready times are the latest end of a node's dependencies."""
    columns = span_columns(graph, lambda rank: job.tables[job.rank_table[rank]].order)
    starts, ends, readies, released, first = [], [], [], [], 0
    for rank in range(graph.ranks):
        program, order = graph.program(rank), job.tables[job.rank_table[rank]].order
        start, end = _times(job, done, rank)
        ready, by = _ready(program.dep_ptr, program.dep, order, end)
        starts.append(start)
        ends.append(end)
        readies.append(ready)
        released.append(np.where(by >= 0, by + first, -1))
        first += len(order)
    kind = columns["kind"]
    streams = ("", "compute", "host", "copy", "comm")
    stream = np.select([kind == 1, kind == 2, kind == 3, kind == 4, kind > 5], [1, 2, 3, 4, 4], 0).astype(np.int32)
    return SpanTable(
        **columns, stream=stream, streams=streams, ready=np.concatenate(readies), start=np.concatenate(starts),
        end=np.concatenate(ends), released_by=np.concatenate(released),
    )  # fmt: skip


def _ready(
    dep_ptr: NDArray[np.int64], dep: NDArray[np.int32], order: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(ready, releasing row) of every row in id order, from ends in id order."""
    n = len(order)
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    ready, by = np.zeros(n, dtype=np.int64), np.full(n, -1, dtype=np.int64)
    child = np.repeat(place, np.diff(dep_ptr))
    parent = place[dep]
    last = np.lexsort((parent, end[parent], child))  # of each child, the last entry is the dependency that ended last
    if len(last):
        closing = np.append(child[last][1:] != child[last][:-1], True)
        rows = last[closing]
        ready[child[rows]], by[child[rows]] = end[parent[rows]], parent[rows]
    return ready, by


def _collectives(graph: TaskGraph, job: Job, done: AstraRun) -> tuple[CollectiveRow, ...]:
    """One row per collective: the k-th of a group on each of its members."""
    found: list[CollectiveRow] = []
    rows_of: dict[tuple[int, int], NDArray[np.int64]] = {}
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for rank in range(graph.ranks):
        number = int(graph.rank_program[rank])
        program = graph.programs[number]
        for group in np.unique(program.group[program.type == NodeType.COMM_COLL]).tolist():
            members = graph.members(rank, group)
            if (group, members) in seen:
                continue
            seen.add((group, members))
            starts, ends = [], []
            for member in members:
                mine = int(graph.rank_program[member])
                table = job.tables[job.rank_table[member]]
                key = (mine, group)
                if key not in rows_of:
                    other = graph.programs[mine]
                    rows_of[key] = np.flatnonzero(
                        ((other.type == NodeType.COMM_COLL) & (other.group == group))[table.order]
                    )  # fmt: skip
                start, end = _times(job, done, member)
                starts.append(start[rows_of[key]])
                ends.append(end[rows_of[key]])
            here = job.tables[job.rank_table[rank]].order[rows_of[(number, group)]]
            # members start the collectives of a group in the same order, which need not be that of their ids
            begin, finish = np.sort(np.stack(starts), axis=1), np.sort(np.stack(ends), axis=1)
            first, last, end_ = begin.min(axis=0), begin.max(axis=0), finish.max(axis=0)
            in_time = np.argsort(starts[members.index(rank)], kind="stable")
            label = graph.groups[group].name if group >= 0 else ""
            for i, row in enumerate(here[in_time].tolist()):
                operation = CollectiveType(int(program.collective[row])).name.lower().removesuffix("_block")
                found.append(
                    CollectiveRow(
                        operation, label, int(program.bytes[row]), members, "", int(first[i]), int(last[i]), int(end_[i])
                    )
                )
    return tuple(found)
