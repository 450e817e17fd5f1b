"""Serving from names to numbers: model, cluster, deployment, scheduler and requests become latencies and throughput.

>>> from distsim.serve import serve
>>> result = serve(model="llama3-8b", cluster="dgx_h100:gpus=8", requests="poisson:qps=4", n=200)   # doctest: +SKIP
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distsim.errors import ConfigError, UnknownNameError
from distsim.kernel.clock import Clock
from distsim.kernel.collector import collector_paused
from distsim.models.spec import Model
from distsim.params import parse, validated
from distsim.provenance import provenance
from distsim.registry import lookup
from distsim.serving.deployment import Deployment
from distsim.serving.fleet import Pool, gpus_of, make_replicas, make_times
from distsim.serving.iteration import IterationTimes
from distsim.serving.log import IterationLog
from distsim.serving.network.cluster import Cluster
from distsim.serving.network.footprint import Use
from distsim.serving.network.live import Engine
from distsim.serving.network.seating import CLOSED
from distsim.serving.operations.control import Control, fewest
from distsim.serving.replica import Replica
from distsim.serving.requests.context import beyond, within
from distsim.serving.requests.table import Requests
from distsim.serving.result import ServingResult, replica_row, request_columns
from distsim.serving.router import Router
from distsim.serving.seeds import stream
from distsim.serving.service import Service
from distsim.serving.tally import tallies
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
    max_model_len: int | None = Field(
        None, ge=2, description="longest sequence: longer prompts are dropped, longer answers cut; default: none is enforced"
    )
    concurrency: int = Field(0, ge=0, description="closed loop: keep so many requests in the system instead")
    seed: int = 0
    admission: str | None = Field(None, description="queue:limit=100,timeout=30s ..., see distsim.serving.operations.admission")
    rate_limit: str | None = Field(None, description="of tenants: each:requests=5,tokens=20000 or NAME:..., joined by ;")
    failures: str | None = Field(None, description="mtbf:hours=100,repair=10min, down:at=60s,replica=0 ..., or a YAML file")
    autoscale: str | None = Field(None, description="POLICY:key=value,... such as target:outstanding=8,max=8,startup=60s")
    stepped: bool = Field(False, description="simulate every iteration by itself (slower, same answer)")
    network: str = Field(
        CLOSED, description="what iterations take: closed (the provider's forms), or a network level such as fluid, see run"
    )
    live: Literal["auto", "always", "never"] = Field(
        "auto", description="on a level: simulate iterations on the links with all other traffic; auto: where links are shared"
    )
    collectives: str = Field("direct", description="on a level: algorithm of the replicas' collectives")
    kv_transfer: str = Field(
        "whole", description="pools of roles prefill and decode: keys and values go whole, or layerwise:parts=8"
    )
    decode_router: str = Field("round_robin", description="how requests find a replica of role decode")

    @classmethod
    def of(cls, point: Mapping[str, Any], where: str = "") -> ServeSpec:
        """From flat fields, those of one pool among them; or with ``pools``, a list of flat mappings. Left out: ``gpu`` is the
        cluster's, ``replicas`` fill it. where: the fields' file, for messages.

        Raises ConfigError, UnknownNameError; ConfigError, too, for a field that every pool has of its own.
        """
        fields = {key: value for key, value in point.items() if value is not None}
        mine = {key: fields.pop(key) for key in list(fields) if key in cls.model_fields and key != "pools"}
        known = {*Pool.model_fields, *Deployment.model_fields}
        flat = {key: fields.pop(key) for key in list(fields) if key in known}
        pools = fields.pop("pools", None)
        shorthand = fields.pop("disaggregate", None)
        if fields:
            raise UnknownNameError("option", next(iter(fields)), {*cls.model_fields, *known, "disaggregate"}, where=where)
        for name in ("cluster", "requests"):
            if not mine.get(name):
                raise ConfigError(f"no {name} given", expected=f"--{name}")
        if shorthand and pools:
            raise ConfigError("disaggregate beside pools", expected="one of the two", fix="Give every pool its role.")
        pools = pools_of(str(shorthand)) if shorthand else pools or [{}]
        if mine.get("autoscale") and len(pools) == 1 and "replicas" not in {**flat, **pools[0]}:
            flat["replicas"] = fewest(str(mine["autoscale"]))
        for key in flat:
            if all(key in pool for pool in pools):
                raise overruled(key, flat[key], pools)
        topology = _topology(str(mine["cluster"]))
        there = gpus_there(str(mine["cluster"]), topology)
        made = [_pool({**flat, **pool}, topology, there, alone=len(pools) == 1) for pool in pools]
        try:
            return cls(pools=tuple(made), **mine)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"{name} is {first['input']!r}: {first['msg']}") from None


def overruled(key: str, value: Any, pools: Sequence[Mapping[str, Any]]) -> ConfigError:
    """The refusal of a field that pools have of their own, so that it would say nothing of them."""
    names = ", ".join(str(pool.get("name") or f"pool {number}") for number, pool in enumerate(pools) if key in pool)
    return ConfigError(
        f"{key}={value} has no effect on pools with a {key} of their own: {names}",
        fix=f"Leave it out, or take {key} out of those pools.",
    )  # fmt: skip


def pools_of(disaggregate: str) -> list[dict[str, Any]]:
    """Flat fields of two pools from ``prefill=2,decode=1,prefill_tp=4,decode_tp=8``: replicas of both roles, and any field of a
    pool or deployment for one of them. Raises ConfigError, UnknownNameError.

    >>> pools_of("prefill=2,decode=1,decode_tp=8")[1]
    {'role': 'decode', 'name': 'decode', 'replicas': '1', 'tp': '8'}
    """
    _, options = parse(f"disaggregate:{disaggregate}")
    roles, known = ("prefill", "decode"), {*Pool.model_fields, *Deployment.model_fields}
    for key in options:
        role, _, field = key.partition("_")
        if role not in roles or (field and field not in known):
            raise UnknownNameError("option", key, [*roles, *(f"{one}_{name}" for one in roles for name in known)])
    made = []
    for role in roles:
        if role not in options:
            raise ConfigError(f"{disaggregate!r} has no {role} replicas", expected="prefill=N,decode=N")
        own = {key.removeprefix(f"{role}_"): value for key, value in options.items() if key.startswith(f"{role}_")}
        made.append({"role": role, "name": role, "replicas": options[role], **own})
    return made


def gpus_there(cluster: str, topology: Topology) -> int:
    """GPUs to work with: as many as ``gpus=N`` asks for, of boxes that may have more; else all."""
    asked = re.search(r"\bgpus=(\d+)", cluster)
    return min(int(asked[1]), topology.hosts) if asked else topology.hosts


def _pool(fields: dict[str, Any], topology: Topology, there: int, alone: bool) -> Pool:
    """A pool with what the cluster tells, which has ``there`` GPUs for it."""
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
        count = there // each
        if count < 1:
            raise ConfigError(
                f"one replica takes {each} GPUs, there are {there} of {topology.spec}",
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
    if table is None:
        say(None, "reading requests")
        table = read_requests(spec)
    run = ServiceRun(spec, table, providers)
    run.connect()
    total = len(table)

    def watch(now: int) -> None:
        progress_made = (run.service.finished + run.service.dropped) / total if total else 1.0
        say(progress_made, "serving")

    with collector_paused():
        run.start()
        run.clock.run(watch=watch)
    return run.result()


class ServiceRun:
    """A service that is set up and run: by itself, or beside other workloads on one engine (distsim.corun)."""

    def __init__(
        self, spec: ServeSpec, table: Requests, providers: Sequence[IterationTimes] | None = None, *,
        engine: Engine | None = None, hosts: Sequence[int] | None = None, first: int = 0,
    ) -> None:  # fmt: skip
        """engine, hosts, first: of a run with other workloads, see distsim.serving.network.cluster. Raises as ``serve``."""
        self._warnings = tuple(text for text in (beyond(table, model) for model in _models(spec)) if text)
        if spec.max_model_len is not None:
            table, self._warnings = within(table, spec.max_model_len), ()
        self.spec, self.table = spec, table
        self.topology = _topology(spec.cluster)
        self.providers = providers_of(spec) if providers is None else providers
        gpus = [gpus_of(pool, times) for pool, times in zip(spec.pools, self.providers, strict=True)]
        _check_room(spec, gpus, self.topology)
        self.clock, self.log = Clock() if engine is None else engine.clock, IterationLog()
        self.control = Control(
            table, spec.pools, admit=spec.admission, rate_limit=spec.rate_limit, failing=spec.failures,
            autoscale=spec.autoscale, seed=spec.seed,
        )  # fmt: skip
        router = router_of(spec.router, stream(spec.seed, "router"))
        self.service = Service(
            self.clock, table, router, spec.concurrency, gate=self.control.gate, longest=spec.max_model_len or 0
        )
        decode_router = partial(router_of, spec.decode_router, stream(spec.seed, "decode_router"))
        self.cluster = Cluster(
            self.topology, self.clock, self.service, spec.pools, decode_router,
            network=spec.network, live=spec.live, collectives=spec.collectives, kv_transfer=spec.kv_transfer,
            engine=engine, hosts=hosts, first=first,
        )  # fmt: skip
        hash_block = table.hash_block if table.hashes else 0
        self.replicas: list[Replica] = []
        self._pool_of: list[tuple[str, str, int]] = []
        self._sharing: dict[int, tuple[str, int]] = {}  # replica -> name of its pool, GPUs that share a KV cache
        pools: dict[int, int] = {}  # replica -> its pool
        taken = 0
        for number, (pool, times, each) in enumerate(zip(spec.pools, self.providers, gpus, strict=True)):
            there = gpus_there(spec.cluster, self.topology) if hosts is None else len(hosts)
            most = self.control.most(number, gpus, there)
            made = make_replicas(
                pool, most, len(self.replicas), self.clock, self.log, self.cluster.ended, times, hash_block, spec.stepped
            )
            self.replicas += made
            name = pool.name or f"pool {number}"
            self._pool_of += [(name, pool.deployment.device.name, each)] * len(made)
            self._sharing.update((one.number, (name, pool.deployment.tp * pool.deployment.pp)) for one in made)
            taken += each * len(made)
            self.cluster.seat(made, pool, times, each)
            pools.update((replica.number, number) for replica in made)
        self._idle = _idle(gpus_there(spec.cluster, self.topology) - taken, taken, min(gpus)) if hosts is None else []
        self.control.attach(self.service, self.replicas, pools)

    def connect(self, others: Sequence[Use] = ()) -> None:
        """Decide how iterations run. others: links that other workloads use."""
        self._connected = self.cluster.connect(others)

    def start(self) -> None:
        """The first arrivals are on the clock."""
        self.service.start(self.replicas)
        self.control.start()

    def result(self, end: int | None = None) -> ServingResult:
        """After the run. end: ps of its end, where that is not now. Raises DeadlockError where something never ended."""
        spec, table = self.spec, self.table
        self.cluster.check_finished()
        self.service.close()
        if end is None:
            end = self.service.last
        level = "idle links" if spec.network == CLOSED else spec.network
        texts = (text for times in self.providers for text in getattr(times, "warnings", ()))
        return ServingResult(
            requests=request_columns(self.service.requests, table.names), iterations=self.log.columns(),
            replicas=tuple(
                replica_row(replica, *whose, end) for replica, whose in zip(self.replicas, self._pool_of, strict=True)
                if replica.since >= 0 or replica.stopped >= 0
            ),
            end=end, spec=spec.model_dump(),
            provenance={
                **provenance((spec.requests,), self.topology, level), "seed": spec.seed, "requests": table.source,
                "times": [_provider(pool.times, times) for pool, times in zip(spec.pools, self.providers, strict=True)],
                "iterations": list(self._connected.notes),
            },
            counts={
                "requests": len(table), "events": self.clock.events, "iterations": sum(r.iterations for r in self.replicas),
                **self.cluster.counts, **self.control.counts,
            },
            warnings=(*table.warnings, *self._warnings, *texts, *self._connected.warnings, *self._idle),
            tallies=tallies(self.replicas, self._sharing),
        )  # fmt: skip


def _idle(left: int, taken: int, each: int) -> list[str]:
    """A warning where GPUs are left that no replica of ``each`` can have. Of more it is taken that somebody wants them free."""
    if not 0 < left < each:
        return []
    said = f"{left} of {left + taken} GPUs serve nobody: a replica takes {each}"
    return [f"{said}; neither cost nor rates per GPU count those left over"]


def providers_of(spec: ServeSpec) -> list[IterationTimes]:
    """Iteration times of every pool. Raises ConfigError, UnknownNameError."""
    topology = _topology(spec.cluster)
    return [make_times(pool, topology) for pool in spec.pools]


def _models(spec: ServeSpec) -> list[Model]:
    """Of the pools, each once."""
    return list({pool.deployment.model: pool.deployment.spec for pool in spec.pools}.values())


def _provider(text: str, times: Any) -> dict[str, Any]:
    """What a provider of iteration times says of itself: usual relative error (None: it does not say), kernels by source, error
    of whole answers against measured ones."""
    chain = getattr(times, "chain", None)
    error = times.error() if hasattr(times, "error") else None if chain is None else chain.error()
    sources = {} if chain is None else {source: share.kernels for source, share in chain.provenance().items()}
    measured = times.measured._asdict() if hasattr(times, "measured") else None
    return {"times": text, "error": error, "sources": sources, "measured": measured}


def _check_room(spec: ServeSpec, gpus: Sequence[int], topology: Topology) -> None:
    """Raises ConfigError where the pools, with so many GPUs per replica, take more than there are, or nobody serves."""
    wanted = sum(pool.replicas * each for pool, each in zip(spec.pools, gpus, strict=True))
    there = gpus_there(spec.cluster, topology)
    if wanted > there:
        raise ConfigError(
            f"the replicas take {wanted} GPUs, there are {there} of {topology.spec}",
            fix="Make the cluster larger (gpus=N), or take fewer replicas.",
        )
    if not any(pool.replicas for pool in spec.pools):
        raise ConfigError("no replica serves", expected="--replicas of at least 1")
