"""A training job and a service on one cluster: one engine, one network, both results, and what each costs the other.

>>> from distsim.corun import corun
>>> from distsim.serve import ServeSpec
>>> both = corun(ServeSpec.of(point), "traces/llama3_8b_tp8_dp8.json", at="0-63")   # doctest: +SKIP
>>> both.training_slowdown, both.latency_slowdown                                 # doctest: +SKIP

Ranks of the training job are devices 0, 1, 2 ..., those of the service follow. What the two share are links; GPUs they do not
share. Whoever shares no link with the other is not changed by it (law 6), and takes the same time as alone, to the picosecond.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from distsim.engine.executor import Executor
from distsim.engine.task import Tasks
from distsim.errors import ConfigError, DeadlockError, UnknownNameError
from distsim.kernel.collector import collector_paused
from distsim.params import validated
from distsim.provenance import provenance
from distsim.result import LinkTable, Result
from distsim.run_spec import RunSpec, collective_options, cost_provider, guesses
from distsim.serve import Progress, ServeSpec, ServiceRun, gpus_there, read_requests
from distsim.serving.network.footprint import of_trace
from distsim.serving.network.live import Engine
from distsim.serving.network.seating import CLOSED, DEFAULT_LEVEL
from distsim.serving.requests.table import Requests
from distsim.serving.result import ServingResult
from distsim.topology.graph import Topology
from distsim.topology.spec import build as build_topology
from distsim.trace.files import paths_of
from distsim.trace.graph import TaskGraph
from distsim.trace.read import read_trace
from distsim.training import TrainSpec, execution_graph, job
from distsim.workload.replay import Replay
from distsim.workload.spans import span_table

#: fields of RunSpec that a training job beside a service may have
OPTIONS = (
    "collectives", "nccl_algo", "nccl_proto", "nccl_pxn", "nccl_fabric", "calibration", "algorithm", "splits", "optimization",
    "endpoint_delay", "compute", "peak", "memory_bandwidth",
)  # fmt: skip


@dataclass(frozen=True)
class Corun:
    """Both results, in the same run and, where asked for, alone on the same hosts and level.

    steps: ps that each training step took; ``training`` is the first of them, with spans.
    links: of both workloads together.
    """

    training: Result
    service: ServingResult
    steps: tuple[int, ...]
    links: LinkTable
    training_alone: Result | None = None
    service_alone: ServingResult | None = None
    warnings: tuple[str, ...] = ()

    @property
    def training_slowdown(self) -> float:
        """Mean step beside the service over the step alone. Raises ConfigError where it was not run alone."""
        alone = _need(self.training_alone)
        return float(np.mean(self.steps)) / alone.makespan if alone.makespan else 1.0

    @property
    def latency_slowdown(self) -> float:
        """Mean request latency beside the training job over that alone, of requests that finished in both."""
        return self._ratio("latency")

    @property
    def ttft_slowdown(self) -> float:
        """As latency_slowdown, of the time to first token."""
        return self._ratio("ttft")

    def _ratio(self, name: str) -> float:
        here, alone = self.service.requests, _need(self.service_alone).requests
        done = here.done & alone.done
        if not done.any():
            return 1.0
        return float(np.mean(getattr(here, name)[done]) / np.mean(getattr(alone, name)[done]))

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The figures of a first screen."""
        found: dict[str, Any] = {
            "steps": len(self.steps), "step_ps": float(np.mean(self.steps)), "requests": len(self.service.requests),
            "finished": int(np.count_nonzero(self.service.requests.done)),
            "iterations": list(self.service.provenance["iterations"]),
        }  # fmt: skip
        if self.training_alone is not None and self.service_alone is not None:
            found |= {name: getattr(self, name) for name in ("training_slowdown", "ttft_slowdown", "latency_slowdown")}
        return found


def _need(alone: Any) -> Any:
    if alone is None:
        raise ConfigError("nothing was run alone to compare with", expected="corun(..., alone=True)")
    return alone


def corun(
    service: ServeSpec, training: TaskGraph | TrainSpec | str | os.PathLike[str], *, at: str | Sequence[int] | None = None,
    serve_at: str | Sequence[int] | None = None, steps: int = 1, table: Requests | None = None, alone: bool = True,
    progress: Progress | None = None, **options: Any,
) -> Corun:  # fmt: skip
    """Run both on the service's cluster.

    Args:
        service: its ``network`` is the level of both; CLOSED means fluid.
        training: a trace, read or to be read, or a training step to generate (its cluster is the service's).
        at, serve_at: hosts, such as ``0-7,16``: of the training's ranks (default: the first ones), and those that the service
            may use (default: all others).
        steps: how often the training step is repeated; 0: until the service has ended.
        table: requests that have been read already.
        alone: run each alone, too, to tell the slowdowns.
        options: fields of RunSpec, those of OPTIONS: the training's collectives and computation.

    Raises: what ``simulate`` and ``serve`` raise; ConfigError on hosts that are not there, taken twice or too few.
    """
    say = progress or (lambda fraction, what: None)
    if steps < 0:
        raise ConfigError(f"{steps} training steps", expected="at least 1, or 0: until the service has ended")
    level = DEFAULT_LEVEL if service.network == CLOSED else service.network
    service = service.model_copy(update={"network": level})
    topology = build_topology(service.cluster, None)
    graph, notes = _graph(training, service.cluster)
    run = _run_spec(graph, service.cluster, level, options)
    mine = _hosts(at, topology, "at") if at is not None else tuple(range(min(graph.ranks, topology.hosts)))
    taken, there = set(mine), gpus_there(service.cluster, topology)
    theirs = _hosts(serve_at, topology, "serve_at") if serve_at is not None else tuple(
        host for host in range(there) if host not in taken
    )  # fmt: skip
    if len(mine) != graph.ranks:
        raise ConfigError(f"{len(mine)} hosts for {graph.ranks} training ranks", where=topology.spec, expected="one for each")
    if not theirs:
        raise ConfigError(
            f"the training job takes all {there} GPUs, none is left to serve", where=topology.spec,
            fix="Make the cluster larger (gpus=N), or take a job of fewer ranks.",
        )  # fmt: skip
    both = sorted(taken & set(theirs))
    if both:
        raise ConfigError(f"host {both[0]} is to train and to serve", expected="hosts of one or the other")
    if table is None:
        say(None, "reading requests")
        table = read_requests(service)
    parts = _Parts(service, table, graph, run, topology, mine, theirs)
    say(None, "simulating both")
    result, served, taken_ps, links = parts.both(steps)
    lone_training = lone_service = None
    if alone:
        say(None, "simulating each alone")
        lone_training, lone_service = parts.training(), parts.service()
    return Corun(result, served, taken_ps, links, lone_training, lone_service, notes)


class _Parts:
    """What runs of both or one of them are made of."""

    def __init__(
        self, service: ServeSpec, table: Requests, graph: TaskGraph, run: RunSpec, topology: Topology, mine: tuple[int, ...],
        theirs: tuple[int, ...],
    ) -> None:  # fmt: skip
        self._spec, self._table, self._graph, self._run = service, table, graph, run
        self._topology, self._mine, self._theirs = topology, mine, theirs

    def _engine(self) -> Engine:
        options = collective_options(self._run, self._topology)
        return Engine(self._topology, (*self._mine, *self._theirs), self._run.network, options)

    def _service(self, engine: Engine) -> ServiceRun:
        return ServiceRun(self._spec, self._table, engine=engine, hosts=self._theirs, first=len(self._mine))

    def both(self, steps: int) -> tuple[Result, ServingResult, tuple[int, ...], LinkTable]:
        engine = self._engine()
        served = self._service(engine)
        served.connect([of_trace(self._graph, self._topology, self._mine, ("training",))])
        training = _Steps(self._graph, self._run, steps, lambda: served.service.unfinished > 0)
        with collector_paused():
            training.start(engine.executor)
            served.start()
            engine.clock.run()
        training.check()
        usage = engine.network.usage()
        links = LinkTable(usage.bytes, usage.busy)
        return training.result(engine, self._topology, links), served.result(), training.took, links

    def training(self) -> Result:
        engine = self._engine()
        steps = _Steps(self._graph, self._run, 1, lambda: False)
        with collector_paused():
            steps.start(engine.executor)
            engine.clock.run()
        engine.executor.check_finished()
        steps.check()
        usage = engine.network.usage()
        return steps.result(engine, self._topology, LinkTable(usage.bytes, usage.busy))

    def service(self) -> ServingResult:
        engine = self._engine()
        served = self._service(engine)
        served.connect()
        with collector_paused():
            served.start()
            engine.clock.run()
        return served.result()


class _Steps:
    """A training step, repeated."""

    def __init__(self, graph: TaskGraph, run: RunSpec, steps: int, more: Callable[[], bool]) -> None:
        """steps: how often; 0: while ``more()``."""
        self._graph, self._run, self._steps, self._more = graph, run, steps, more
        self._first = Replay(graph, cost_provider(run, graph))
        self._began = self._left = self._size = 0
        self.took: tuple[int, ...] = ()

    def start(self, executor: Executor) -> None:
        """Submit the first step. Tasks are the first of the run."""
        self._executor = executor
        self._submit(self._first)

    def _submit(self, replay: Replay) -> None:
        self._began = self._executor.clock.now
        replay.start(_Told(self._executor, self._ended, self._sized))  # type: ignore[arg-type]

    def _sized(self, tasks: int) -> None:
        self._size = self._left = tasks

    def _ended(self, _: int) -> None:
        self._left -= 1
        if self._left:
            return
        now = self._executor.clock.now
        self.took += (now - self._began,)
        if len(self.took) < self._steps or (not self._steps and self._more()):
            # NOTE: not within the call that ends the last task of a step, whose dependants are none
            cost = cost_provider(self._run, self._graph)
            self._executor.clock.call_at(now, lambda _: self._submit(Replay(self._graph, cost)))

    def check(self) -> None:
        """Raises DeadlockError where a step never ended."""
        if self._left:
            raise DeadlockError(f"{self._left} tasks of training step {len(self.took) + 1} can never finish")

    def result(self, engine: Engine, topology: Topology, links: LinkTable) -> Result:
        """Of the first step."""
        graph, replay, size = self._graph, self._first, self._size
        durations = np.zeros(len(engine.recorder.ready), dtype=np.int64)
        durations[:size] = replay.durations
        spans = engine.recorder.spans(durations)
        spans = type(spans)(spans.ready[:size], spans.start[:size], spans.end[:size], spans.released_by[:size])
        finish = np.zeros(graph.ranks, dtype=np.int64)
        filled = np.diff(replay.rank_start) > 0
        if filled.any():
            finish[filled] = np.maximum.reduceat(spans.end, replay.rank_start[:-1][filled])
        made = provenance(paths_of(self._run.trace), topology, self._run.network)
        devices = set(range(graph.ranks))
        collectives = tuple(row for row in engine.recorder.collectives if set(row.members) <= devices)
        return Result(
            makespan=int(finish.max(initial=0)), finish=finish, ranks=graph.ranks, topology=topology, links=links,
            collectives=collectives, spec=self._run.model_dump() | {"topo": topology.spec}, provenance=made,
            counts={"nodes": size, "events": engine.clock.events, "collectives": len(collectives)},
            warnings=(*graph.defects, *guesses(graph, self._run)),
            make_spans=lambda: span_table(graph, replay, spans, engine.executor),
        )  # fmt: skip


class _Told:
    """An executor that tells of the end of every task that is submitted to it."""

    def __init__(self, executor: Executor, ended: Callable[[int], None], sized: Callable[[int], None]) -> None:
        self._executor, self._ended, self._sized = executor, ended, sized
        self.stream = executor.stream

    def submit(self, tasks: Tasks) -> int:
        self._sized(len(tasks))
        return self._executor.submit(tasks, self._ended)


def _graph(training: TaskGraph | TrainSpec | str | os.PathLike[str], cluster: str) -> tuple[TaskGraph, tuple[str, ...]]:
    """The trace, and what is to be said of it."""
    if isinstance(training, TaskGraph):
        return training, ()
    if isinstance(training, TrainSpec):
        work = job(training.model_copy(update={"cluster": cluster}))
        notes = work.notes
        if training.grain == "block":
            notes = (*notes, "communication within blocks of layers is timed, not sent: grain=kernel sends it")
        return execution_graph(work), notes
    return read_trace(os.fspath(training), None, False, False, None, None), ()


def _run_spec(graph: TaskGraph, cluster: str, level: str, options: dict[str, Any]) -> RunSpec:
    """Raises UnknownNameError on an option that would have no effect, ConfigError on a wrong value."""
    for name in options:
        if name not in OPTIONS:
            raise UnknownNameError("option of the training job", name, OPTIONS)
    return validated(RunSpec, "training", {"trace": graph.source, "topo": cluster, "network": level, **options})


def _hosts(given: str | Sequence[int], topology: Topology, where: str) -> tuple[int, ...]:
    """Host numbers of ``0-7,16`` or a sequence. Raises ConfigError."""
    found: list[int] = []
    if isinstance(given, str):
        for part in given.split(","):
            first, dash, last = part.strip().partition("-")
            if not first.isdigit() or (dash and not last.isdigit()):
                raise ConfigError(f"{part.strip()!r} names no hosts", where=where, expected="such as 0-7,16")
            found += range(int(first), int(last if dash else first) + 1)
    else:
        found = [int(host) for host in given]
    for host in found:
        if not 0 <= host < topology.hosts:
            raise ConfigError(f"there is no host {host}", where=where, expected=f"0 to {topology.hosts - 1}")
    if len(set(found)) < len(found):
        raise ConfigError("a host is named twice", where=where)
    return tuple(found)
