"""Training from a name to a number: model, cluster, software and plan become a step time, with its memory and its parts.

>>> from distsim.training import train
>>> answer = train(model="llama3-8b", cluster="dgx_h100:gpus=8", tp=2, global_batch=32, seq=8192)   # doctest: +SKIP
>>> answer.step_ps / 1e12, answer.mfu                                                               # doctest: +SKIP
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distsim.api import replay_folded
from distsim.cost.chain import Chain, default_chain
from distsim.cost.speeds import HOST, Speeds
from distsim.errors import ConfigError
from distsim.hardware.gpu import Gpu
from distsim.hardware.gpu import gpu as gpu_of
from distsim.kernel.collector import collector_paused
from distsim.models.catalog import load
from distsim.models.catalog import model as model_of
from distsim.models.spec import Model
from distsim.registry import lookup
from distsim.result import Result
from distsim.topology.graph import Topology
from distsim.topology.spec import build as build_topology
from distsim.trace.graph import TaskGraph
from distsim.workload.training.bound import step_bound
from distsim.workload.training.costs import Costs, Remembered
from distsim.workload.training.graph import build as build_graph
from distsim.workload.training.memory import Memory, check_fit, memory_of
from distsim.workload.training.plan import Plan, plan
from distsim.workload.training.stack import Stack
from distsim.workload.training.stack import stack as stack_of

Progress = Callable[[float | None, str], None]


class TrainSpec(BaseModel):
    """Everything that decides a training step. Field names, and those of Plan, are the command line's options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="model by name, a YAML file, or a Hugging Face config.json")
    cluster: str = Field(description="topology, such as h100_superpod:gpus=1024 or a YAML file")
    gpu: str | None = Field(None, description="GPU by name or YAML file; default: the cluster's")
    stack: str = Field("megatron_core", description="training software by name, or a YAML file")
    network: Literal["fluid", "analytic"] = Field("fluid", description="fluid: links are shared; analytic: no contention")
    grain: Literal["block", "kernel"] = Field("block", description="block: a stage's layers as one task; kernel: each")
    fold: bool = Field(True, description="simulate symmetric ranks once")
    memory: Literal["refuse", "warn", "ignore"] = Field("refuse", description="what to do with a plan that does not fit")
    compute_table: str | None = Field(None, description="measured kernels, CSV or Parquet, asked first")
    compute_calibration: str | None = Field(None, description="file of distsim calibrate compute")
    speeds: str | None = Field(
        None, description="devices faster or slower: gpu.compute=1.5x, host.speed=2x ... (docs/whatif.md)"
    )
    plan: Plan

    @classmethod
    def of(cls, point: Mapping[str, Any]) -> TrainSpec:
        """From flat fields, those of the plan among them. Left out: ``dp`` takes all GPUs of the cluster, ``seq`` is the
        model's, ``zero`` is 1, ``sequence_parallel`` goes with tp, ``global_batch`` gives each stage four micro-batches.

        Raises ConfigError, UnknownNameError.
        """
        fields = dict(point)
        mine = {key: fields.pop(key) for key in list(fields) if key in cls.model_fields and key != "plan"}
        for name in ("model", "cluster"):
            if not mine.get(name):
                raise ConfigError(f"no {name} is given", expected=f"--{name} NAME")
        if "seq" not in fields:
            fields["seq"] = model_of(str(mine["model"])).seq
        fields.setdefault("zero", 1)
        fields.setdefault("sequence_parallel", fields.get("tp", 1) not in (1, "1"))
        if "dp" not in fields:
            fields["dp"] = _replicas(str(mine["cluster"]), fields)
        if "global_batch" not in fields:
            fields["global_batch"] = int(fields["dp"]) * int(fields.get("micro_batch", 1)) * 4 * int(fields.get("pp", 1))
        made = plan(**fields)
        try:
            return cls(plan=made, **mine)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"{name} is {first['input']!r}: {first['msg']}") from None


def _replicas(cluster: str, fields: Mapping[str, Any]) -> int:
    """Data-parallel replicas that fill the cluster."""
    try:
        each = int(fields.get("tp", 1)) * int(fields.get("pp", 1)) * int(fields.get("cp", 1))
    except (TypeError, ValueError):
        return 1  # the plan's own check names the wrong field
    asked = re.search(r"\bgpus=(\d+)", cluster)
    hosts = int(asked[1]) if asked and int(asked[1]) else _topology(cluster, None).hosts
    if each < 1:
        return 1  # as above
    if hosts % each:
        raise ConfigError(
            f"tp x pp x cp = {each} does not divide the {hosts} GPUs of {cluster}", fix="Give dp, or another tp, pp or cp."
        )
    return hosts // each


@lru_cache(maxsize=16)
def _topology(cluster: str, ranks: int | None) -> Topology:
    return build_topology(cluster, ranks)


@lru_cache(maxsize=16)
def _chain(gpu: Gpu, table: str | None, calibration: str | None) -> Chain:
    return default_chain(gpu, table=table, calibration=calibration)


class _Parts:
    """Objects that count as equal where they are the same objects."""

    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def __hash__(self) -> int:
        return hash(tuple(map(id, self.parts)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Parts) and all(a is b for a, b in zip(self.parts, other.parts, strict=True))


@lru_cache(maxsize=8)
def _remembered(parts: _Parts, speeds: str | None) -> Remembered:
    return Remembered()


def _on_host(stack: Stack, speed: float) -> Stack:
    """The software, on a host of another speed."""
    spent = ("launch", "layer_overhead", "moe_overhead", "micro_batch_overhead", "step_overhead")
    return stack if speed == 1.0 else stack.model_copy(update={name: getattr(stack, name) / speed for name in spent})


@dataclass(frozen=True, slots=True)
class Job:
    """A specification with everything that its names stand for."""

    spec: TrainSpec
    model: Model
    plan: Plan
    stack: Stack
    gpu: Gpu
    topology: Topology
    chain: Chain
    costs: Costs
    notes: tuple[str, ...] = ()  #: what was assumed of the model or the cluster


def job(spec: TrainSpec) -> Job:
    """Look up, check, and make the costs. Raises ConfigError (UnknownNameError, TopologyError) for what does not fit."""
    speeds = Speeds.parse(spec.speeds, spec.plan.world)
    (model, notes), stack = load(spec.model), _on_host(stack_of(spec.stack), speeds.of(HOST))
    spec.plan.check(model)
    topology = _topology(spec.cluster, None if "gpus=" in spec.cluster else spec.plan.world)
    if topology.hosts < spec.plan.world:
        raise ConfigError(
            f"{spec.cluster} has {topology.hosts} GPUs, the plan takes {spec.plan.world}",
            fix="Make the cluster larger (gpus=N), or tp x cp x dp x pp smaller.",
        )
    name = spec.gpu or topology.device(0)
    if not name:
        raise ConfigError(f"{spec.cluster} does not say its GPUs", expected="--gpu NAME")
    gpu = gpu_of(name)
    if not spec.gpu and len(topology.devices) > 1:
        kinds = {topology.device(rank) for rank in range(spec.plan.world)} - {""}
        gpu = min(map(gpu_of, sorted(kinds)), key=lambda one: one.peak.get(spec.plan.dtypes[0], 0.0))
        if len(kinds) > 1:
            notes = (*notes, f"{spec.cluster} has {', '.join(sorted(kinds))}: all ranks compute as the slowest, {gpu.name}")
    for dtype in spec.plan.dtypes:
        if dtype not in gpu.peak:
            raise ConfigError(
                f"{gpu.name} has no {dtype} units", where=f"precision {spec.plan.precision}",
                expected=f"a precision of {', '.join(gpu.peak)}",
            )  # fmt: skip
    return replace(of_parts(spec, model, spec.plan, stack, gpu, topology), notes=notes)


def of_parts(spec: TrainSpec, model: Model, made: Plan, stack: Stack, gpu: Gpu, topology: Topology) -> Job:
    """A job of things that are no names (rows of a table of measurements, say)."""
    chain = _chain(gpu, spec.compute_table, spec.compute_calibration)
    speeds = Speeds.parse(spec.speeds, made.world)
    shared = _remembered(_Parts(model, stack, gpu, topology, chain), speeds.text)
    costs = Costs(model, made, stack, gpu, topology, speeds.kernels(chain.answer), shared)
    return Job(spec, model, made, stack, gpu, topology, chain, costs)


@dataclass(frozen=True)
class Training:
    """A simulated step: where it came from, its execution graph, and what the engine found."""

    job: Job
    graph: TaskGraph
    result: Result
    memory: Memory
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Training(step={self.seconds:.6g} s, mfu={self.mfu:.4f}, world={self.job.plan.world})"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return lookup("notebook", "training")(self)  # type: ignore[no-any-return]

    @property
    def step_ps(self) -> int:
        """From the start of the step to the end of its last task."""
        return self.result.makespan

    @property
    def seconds(self) -> float:
        return self.step_ps / 1e12

    @property
    def tokens(self) -> int:
        """Of one step."""
        return self.job.plan.global_batch * self.job.plan.seq

    @property
    def tokens_per_s_gpu(self) -> float:
        return self.tokens / self.seconds / self.job.plan.world

    @property
    def flops_per_gpu(self) -> float:
        """Model FLOP/s of a GPU: no recomputation counted."""
        return self.job.model.flops_per_token(self.job.plan.seq) * self.tokens_per_s_gpu

    @property
    def peak(self) -> float:
        """FLOP/s that utilisation is measured against: of the plan's precision."""
        rates = self.job.gpu.peak
        return rates.get(self.job.plan.dtypes[0], rates.get("bf16", max(rates.values())))

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation (PaLM, 2022)."""
        return self.flops_per_gpu / self.peak

    @property
    def hfu(self) -> float:
        """Hardware FLOPs utilisation: recomputation counts as work."""
        return self.mfu * self._recomputed

    @cached_property
    def _recomputed(self) -> float:
        """FLOPs computed over FLOPs that the model needs."""
        done = needed = 0.0
        for units in self.job.costs.units:
            for unit in units:
                for operation in (*unit.forward, *unit.backward):
                    if operation.kernel is not None:
                        done += operation.kernel.flops
                        needed += 0.0 if operation.part == "recompute" else operation.kernel.flops
        return done / needed if needed else 1.0


def train(spec: TrainSpec | None = None, *, progress: Progress | None = None, **point: Any) -> Training:
    """Simulate one training step.

    Args:
        spec: what to simulate; or its fields, flat, as keywords (model, cluster, tp, pp, global_batch ...).
        progress: told what is going on.

    Raises:
        ConfigError: a name or number that does not fit (UnknownNameError, TopologyError); OutOfMemoryError: the plan does not
            fit in memory, with the nearest change that does.
    """
    return run(job(spec or TrainSpec.of(point)), progress)


def execution_graph(work: Job) -> TaskGraph:
    """The step as a trace of all ranks (programs are shared by the ranks of a stage)."""
    return Speeds.parse(work.spec.speeds, work.plan.world).on_ranks(build_graph(work.costs, work.spec.grain))


def run(work: Job, progress: Progress | None = None) -> Training:
    """Simulate a job. Raises as :func:`train`."""
    say = progress or (lambda fraction, what: None)
    memory = memory_of(work.model, work.plan, work.stack, work.gpu)
    warnings = work.notes
    if work.spec.memory != "ignore":
        try:
            check_fit(memory, work.gpu)
        except ConfigError as error:
            if work.spec.memory == "refuse":
                raise
            warnings = (*warnings, str(error))
    warnings += _straddling(work)
    with collector_paused():
        say(None, "building the execution graph")
        graph = execution_graph(work)
        say(None, "simulating")
        result = replay_folded(
            graph, work.topology, network=work.spec.network, fold=work.spec.fold, progress=progress,
            interfering=("dp", "edp", "shard", "replica"), slowdown=Fraction(str(work.stack.interference)),
            spec=work.spec.model_dump(),
        )  # fmt: skip
    return Training(work, graph, result, memory, warnings)


def _straddling(work: Job) -> tuple[str, ...]:
    """Communicators of which some lie across nodes or racks that others fit in."""
    plan = work.plan
    sizes = {"tp": plan.tp, "cp": plan.cp, "ep": plan.ep}
    names = [name for name, size in sizes.items() if size > 1 and len(work.costs.collectives.representatives(name)) > 1]
    if not names:
        return ()
    return (
        f"some {' and '.join(names)} communicators straddle nodes or racks that others fit in; blocks take the worst time. "
        "Take a degree that divides the GPUs of a node, or fewer of them (gpus_per_node=64 of a rack of 72)",
    )


def bound(point: Mapping[str, Any]) -> dict[str, Any]:
    """Lower bound on the step time and the memory of a plan, without simulating.

    Raises ConfigError where the plan breaks a constraint, OutOfMemoryError where it does not fit.
    """
    work = job(TrainSpec.of(point))
    parts = (work.model, work.plan, work.stack, work.gpu)
    if work.spec.memory == "refuse":  # the first stage is nearly always among those that do not fit
        check_fit(memory_of(*parts, only=(0,)), work.gpu, advise=False)
    memory = memory_of(*parts)
    if work.spec.memory == "refuse":
        check_fit(memory, work.gpu, advise=False)
    speeds = Speeds.parse(work.spec.speeds, work.plan.world)
    fastest = max([1.0, *map(speeds.of_rank, speeds.ranks)])  # the bound knows no ranks: all as the fastest
    return {"step_ps": int(step_bound(work.costs, work.spec.grain) / fastest), "memory_bytes": memory.device}
