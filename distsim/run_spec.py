"""What decides a replay, field by field, and what its fields stand for: durations, collectives, calibration."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distsim import registry
from distsim.cost.recorded import timed_rows
from distsim.engine.nccl import NcclOptions
from distsim.engine.placement import CollectiveOptions
from distsim.errors import ConfigError, UnknownNameError
from distsim.topology.graph import Topology
from distsim.trace.graph import TaskGraph
from distsim.units import parse_bandwidth, parse_flops, parse_time
from distsim.workload.replay import CostProvider


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


def spec_of(**options: Any) -> RunSpec:
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
