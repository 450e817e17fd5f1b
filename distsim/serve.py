"""Serving from names to numbers: model, cluster, deployment, scheduler and requests become latencies and throughput.

>>> from distsim.serve import serve
>>> result = serve(model="llama3-8b", cluster="dgx_h100:gpus=8", requests="poisson:qps=4", n=200)   # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distsim.errors import ConfigError, UnknownNameError
from distsim.kernel.clock import Clock
from distsim.kernel.collector import collector_paused
from distsim.params import parse, validated
from distsim.provenance import provenance
from distsim.registry import lookup
from distsim.serving.deployment import Deployment
from distsim.serving.fleet import Pool, gpus_of, make_replicas, make_times
from distsim.serving.iteration import IterationTimes
from distsim.serving.log import IterationLog
from distsim.serving.replica import Replica
from distsim.serving.requests.table import Requests
from distsim.serving.result import ServingResult, replica_row, request_columns
from distsim.serving.router import Router
from distsim.serving.service import Service
from distsim.topology.graph import Topology
from distsim.topology.spec import build as build_topology

Progress = Callable[[float | None, str], None]


class ServeSpec(BaseModel):
    """Everything that decides a simulated service. Field names, and those of Pool and Deployment, are the options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cluster: str = Field(description="topology, such as dgx_h100:gpus=8 or a YAML file")
    pools: tuple[Pool, ...]
    router: str = Field("round_robin", description="how requests find a replica, NAME or NAME:key=value,...")
    requests: str = Field(description="file, FORMAT:file=..., or arrival process such as poisson:qps=4")
    lengths: str | None = Field(None, description="prompt and output lengths of generated requests")
    sessions: str | None = Field(None, description="shared prefixes and turns of generated requests")
    qps: float | None = Field(None, gt=0, description="requests per second: rescales a trace, or the rate of a process")
    n: int | None = Field(None, ge=1, description="how many requests")
    arrivals: str | None = Field(None, description="an arrival process for the lengths of a file")
    duration: str | None = Field(None, description="of arrivals, such as 10min; of a file: before it is stretched")
    stretch: float | None = Field(None, gt=0, description="arrivals of a file so many times as far apart")
    start: str | None = Field(None, description="leave out what a file has before this time")
    order: str | None = Field(None, description="rows of a file out of order: error (default) or sort")
    zero: str | None = Field(None, description="rows of a file with 0 tokens: clamp (default), drop or error")
    max_prompt: int | None = Field(None, ge=1, description="longer prompts are clamped, and counted")
    max_output: int | None = Field(None, ge=1, description="longer answers are clamped, and counted")
    max_total: int | None = Field(None, ge=2, description="prompt and answer together; answers yield first")
    deadline: str | None = Field(None, description="after arrival, such as 30s: the client gives up")
    concurrency: int = Field(0, ge=0, description="closed loop: keep so many requests in the system instead")
    seed: int = 0
    stepped: bool = Field(False, description="simulate every iteration by itself (slower, same answer)")

    @classmethod
    def of(cls, point: Mapping[str, Any]) -> ServeSpec:
        """From flat fields, those of one pool among them; or with ``pools``, a list of flat mappings. Left out: ``gpu`` is the
        cluster's, ``replicas`` fill it.

        Raises ConfigError, UnknownNameError.
        """
        fields = {key: value for key, value in point.items() if value is not None}
        mine = {key: fields.pop(key) for key in list(fields) if key in cls.model_fields and key != "pools"}
        for name in ("cluster", "requests"):
            if not mine.get(name):
                raise ConfigError(f"no {name} given", expected=f"--{name}")
        known = {*Pool.model_fields, *Deployment.model_fields}
        flat = {key: fields.pop(key) for key in list(fields) if key in known}
        pools = fields.pop("pools", None) or [{}]
        if fields:
            raise UnknownNameError("option", next(iter(fields)), {*cls.model_fields, *known})
        topology = _topology(str(mine["cluster"]))
        made = [_pool({**flat, **pool}, topology, alone=len(pools) == 1) for pool in pools]
        try:
            return cls(pools=tuple(made), **mine)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"{name} is {first['input']!r}: {first['msg']}") from None


def _pool(fields: dict[str, Any], topology: Topology, alone: bool) -> Pool:
    """A pool with what the cluster tells."""
    if "model" not in fields:
        raise ConfigError("no model given", expected="--model NAME")
    if "gpu" not in fields:
        name = topology.device(0)
        if not name:
            raise ConfigError(f"{topology.spec} does not say its GPUs", expected="--gpu NAME")
        fields["gpu"] = name
    pool = Pool.of(fields)
    if alone and "replicas" not in fields:
        each = gpus_of(pool, make_times(pool, topology)) if pool.times.startswith("afd") else pool.deployment.ranks
        count = topology.hosts // each
        if count < 1:
            raise ConfigError(
                f"one replica takes {each} GPUs, {topology.spec} has {topology.hosts}",
                fix="Make the cluster larger (gpus=N), or tp x pp x dp smaller.",
            )
        pool = pool.model_copy(update={"replicas": count})
    return pool


@lru_cache(maxsize=16)
def _topology(cluster: str) -> Topology:
    return build_topology(cluster, None)


def read_requests(spec: ServeSpec) -> Requests:
    """The requests that a specification asks for. Raises ConfigError."""
    from distsim.serving.requests.read import RequestsSpec, requests

    fields = {name: value for name, value in spec.model_dump(exclude={"requests"}).items() if name in RequestsSpec.model_fields}
    return requests(spec.requests, **fields)


def router_of(text: str, rng: np.random.Generator) -> Router:
    """The router ``NAME:key=value,...``. Raises UnknownNameError, ConfigError."""
    name, options = parse(text)
    component = lookup("router", name)
    made: Router = component(validated(component.Params, name, options), rng)
    return made


def serve(
    spec: ServeSpec | None = None, *, table: Requests | None = None, providers: Sequence[IterationTimes] | None = None,
    progress: Progress | None = None, **point: Any,
) -> ServingResult:  # fmt: skip
    """Simulate a service.

    Args:
        spec: what to simulate; or its fields, flat, as keywords (model, cluster, tp, requests, qps ...).
        table: requests that have been read or made already.
        providers: iteration times of the pools, as ``providers_of`` made them for an earlier run: they remember their answers.
        progress: told what is going on.

    Raises:
        ConfigError: a name or number that does not fit (UnknownNameError, TopologyError); OutOfMemoryError: the model does not
            fit its GPUs.
    """
    spec = spec or ServeSpec.of(point)
    say = progress or (lambda fraction, what: None)
    topology = _topology(spec.cluster)
    if table is None:
        say(None, "reading requests")
        table = read_requests(spec)
    if providers is None:
        providers = providers_of(spec)
    gpus = [gpus_of(pool, times) for pool, times in zip(spec.pools, providers, strict=True)]
    _check_room(spec, gpus, topology)
    clock, log = Clock(), IterationLog()
    rng = np.random.default_rng(spec.seed)
    service = Service(clock, table, router_of(spec.router, rng), spec.concurrency)
    hash_block = table.hash_block if table.hashes else 0
    replicas: list[Replica] = []
    pool_of: list[tuple[str, str, int]] = []
    for number, pool in enumerate(spec.pools):
        first = len(replicas)
        made = make_replicas(
            pool, pool.replicas, first, clock, log, service.ended, providers[number], hash_block, spec.stepped
        )
        replicas += made
        pool_of += [(pool.name or f"pool {number}", pool.deployment.device.name, gpus[number])] * len(made)
    total = len(table)

    def watch(now: int) -> None:
        progress_made = (service.finished + service.dropped) / total if total else 1.0
        say(progress_made, "serving")

    with collector_paused():
        service.start(replicas)
        clock.run(watch=watch)
    return ServingResult(
        requests=request_columns(service.requests, table.names), iterations=log.columns(),
        replicas=tuple(replica_row(r, *whose) for r, whose in zip(replicas, pool_of, strict=True)),
        end=clock.now, spec=spec.model_dump(),
        provenance={
            **provenance((spec.requests,), topology, "idle links"), "seed": spec.seed, "requests": table.source,
            "times": [_provider(pool.times, times) for pool, times in zip(spec.pools, providers, strict=True)],
        },
        counts={"requests": total, "events": clock.events, "iterations": sum(r.iterations for r in replicas)},
        warnings=(*table.warnings, *(text for times in providers for text in getattr(times, "warnings", ()))),
    )  # fmt: skip


def providers_of(spec: ServeSpec) -> list[IterationTimes]:
    """Iteration times of every pool. Raises ConfigError, UnknownNameError."""
    topology = _topology(spec.cluster)
    return [make_times(pool, topology) for pool in spec.pools]


def _provider(text: str, times: Any) -> dict[str, Any]:
    """What a provider of iteration times says of itself: usual relative error (None: it does not say), kernels by source."""
    chain = getattr(times, "chain", None)
    error = times.error() if hasattr(times, "error") else None if chain is None else chain.error()
    sources = {} if chain is None else {source: share.kernels for source, share in chain.provenance().items()}
    return {"times": text, "error": error, "sources": sources}


def _check_room(spec: ServeSpec, gpus: Sequence[int], topology: Topology) -> None:
    """Raises ConfigError where the pools, with so many GPUs per replica, take more than there are, or nobody serves."""
    wanted = sum(pool.replicas * each for pool, each in zip(spec.pools, gpus, strict=True))
    if wanted > topology.hosts:
        raise ConfigError(
            f"the replicas take {wanted} GPUs, {topology.spec} has {topology.hosts}",
            fix="Make the cluster larger (gpus=N), or take fewer replicas.",
        )
    if not any(pool.replicas for pool in spec.pools):
        raise ConfigError("no replica serves", expected="--replicas of at least 1")
