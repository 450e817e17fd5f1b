"""A finished run's specification as something that can be changed and run again: what what-if studies turn the knobs of.

>>> from distsim.scenario import scenario_of
>>> before = scenario_of(result.spec)                                                   # doctest: +SKIP
>>> after = before.changed({"link.spine.bandwidth": "2x", "gpu.compute": "1.5x"}).run()  # doctest: +SKIP

Every change ends up in the specification itself (links in the topology's spec, speeds of devices in ``speeds``, the rest in the
field of its name), so that what was changed can be saved, told and run again like anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ValidationError

from distsim.api import check, replay, simulate
from distsim.command import command_of
from distsim.cost.speeds import Speeds
from distsim.errors import ConfigError
from distsim.knobs import Fields, Knob, knobs, turned
from distsim.profiles.astra.system import config_of_topology, with_algorithms
from distsim.profiles.loggops.params import parameters
from distsim.result import Result
from distsim.run_spec import RunSpec
from distsim.topology.graph import Topology
from distsim.topology.routed import routed
from distsim.topology.spec import build, fixed_hosts
from distsim.trace.graph import TaskGraph
from distsim.trace.read import read_trace
from distsim.training import Job, TrainSpec, job
from distsim.training import execution_graph as training_graph
from distsim.training import run as run_training
from distsim.workload.captured import whole

__all__ = ["Knob", "Scenario", "scenario_of"]

Progress = Callable[[float | None, str], None]


@dataclass(frozen=True)
class Scenario:
    """A run, or a training step, as it was or with changes. ``profile``: semantics other than distsim's own."""

    spec: RunSpec | TrainSpec
    profile: str = ""

    @property
    def trains(self) -> bool:
        """A training step, not a replay."""
        return isinstance(self.spec, TrainSpec)

    # --- what it is made of -------------------------------------------------------------------------------------------------

    @cached_property
    def job(self) -> Job:
        """Of a training step, looked up. Raises as :func:`distsim.training.job`."""
        assert isinstance(self.spec, TrainSpec)
        return job(self.spec)

    @cached_property
    def graph(self) -> TaskGraph:
        """The trace that runs, read (or generated) anew, at the speeds of its devices. Raises as the run."""
        if self.trains:
            return training_graph(self.job)
        return Speeds.parse(self.spec.speeds, self.trace.ranks).on(self.trace)

    @cached_property
    def trace(self) -> TaskGraph:
        """A replay's trace as the run takes it, at recorded speeds."""
        spec = self.spec
        assert isinstance(spec, RunSpec)
        graph = read_trace(spec.trace, spec.groups, spec.strict, spec.repair, spec.ranks, fixed_hosts(spec.topo))
        return whole(graph, spec.ranks) if graph.captured and not self.recorded else graph

    @cached_property
    def topology(self) -> Topology:
        """With its routing."""
        if isinstance(self.spec, TrainSpec):
            return self.job.topology
        return routed(self.spec.routing, build(self.spec.topo, self.trace.ranks))

    @property
    def recorded(self) -> bool:
        """Communication takes recorded times: there is no network to change."""
        return isinstance(self.spec, RunSpec) and self.spec.communication == "recorded"

    def check(self) -> None:
        """Raise what :meth:`run` would refuse before it simulates: an estimate alone must not take what no run would."""
        if isinstance(self.spec, TrainSpec):
            self.job  # noqa: B018
        elif self.whole_run:
            parameters(self.spec.network)
        elif self.profile == "astra":
            with_algorithms(config_of_topology(self.topology, self.spec.network), self.spec.algorithm)
        else:
            check(self.trace, self.topology, self.spec)

    # --- running ------------------------------------------------------------------------------------------------------------

    def run(self, progress: Progress | None = None) -> Result:
        """Simulate it. Raises as :func:`distsim.simulate` and :func:`distsim.training.train`."""
        if isinstance(self.spec, TrainSpec):
            return run_training(self.job, progress).result
        if self.profile == "astra":
            import dataclasses

            from distsim.profiles.astra.run import simulate_trace

            done = simulate_trace(self.spec, progress=progress)
            return dataclasses.replace(done, spec=dict(done.spec) | {"profile": "astra"})
        if self.whole_run:
            return simulate(RunSpec(**self.spec.model_dump(exclude={"topo"})), progress=progress)  # it refuses any
        return replay(self.trace, self.topology, self.spec, progress or (lambda fraction, what: None))

    @property
    def whole_run(self) -> bool:
        """A model that takes the whole run: there are no links and no devices to change."""
        return isinstance(self.spec, RunSpec) and self.spec.network.partition(":")[0] == "loggops"

    @property
    def command(self) -> str:
        """The command line that runs it."""
        return command_of(self.spec.model_dump() | ({"profile": self.profile} if self.profile else {}))

    # --- knobs --------------------------------------------------------------------------------------------------------------

    def knobs(self) -> tuple[Knob, ...]:
        """All that this run has, with their present values."""
        return knobs(self)

    def changed(self, settings: Mapping[str, str]) -> Scenario:
        """With knobs turned. Values: a factor of what is there (``2x``, ``+10%``), or the new value with its unit.

        Raises: UnknownNameError for a knob that this run has not, with near ones; ConfigError for a value that does not fit.
        """
        scenario = self
        # what decides whether there is a network comes first: knobs of it may stand anywhere beside it
        for name, value in sorted(settings.items(), key=lambda one: one[0].strip() != "communication"):
            text = str(value).strip()
            if not text:
                raise ConfigError("has no value", where=name, expected="2x, +10%, or a value with its unit")
            scenario = scenario._replaced(turned(scenario, name.strip(), text))
        return scenario

    def _replaced(self, fields: Fields) -> Scenario:
        """With other fields, checked. Raises ConfigError."""
        if not fields:
            return self
        made = {name: getattr(self.spec, name) for name in type(self.spec).model_fields} | dict(fields)
        other = Scenario(_checked(type(self.spec), made), self.profile)
        read = self.__dict__.get("trace")
        if read is not None and other._reading == self._reading:
            other.__dict__["trace"] = read  # the same trace: not read again
        return other

    @property
    def _reading(self) -> tuple[object, ...]:
        """All that decides how a replay's trace is read."""
        spec = self.spec
        assert isinstance(spec, RunSpec)
        return spec.trace, spec.groups, spec.strict, spec.repair, spec.ranks, fixed_hosts(spec.topo), self.recorded


def scenario_of(spec: Mapping[str, Any]) -> Scenario:
    """The scenario of a Result's ``spec``, of a replay or a training step.

    Raises: ConfigError for any other (a service, files of another simulator), and where fields are not this version's.
    """
    if "pools" in spec or "requests" in spec:
        raise ConfigError(
            "is a service: what-if studies take replays and training steps", fix="Run distsim serve with other options."
        )
    if "model" in spec and "plan" in spec:
        return Scenario(_checked(TrainSpec, {name: spec[name] for name in TrainSpec.model_fields if name in spec}))
    fields = {name: value for name, value in spec.items() if name != "profile"}
    if not fields.get("trace"):
        what = "an experiment in ASTRA-sim's files" if "astra_workload" in spec else "no replay and no training step"
        raise ConfigError(f"is {what}: there is nothing to run again", expected="results of distsim run or distsim train")
    if isinstance(fields["trace"], list):
        fields["trace"] = tuple(fields["trace"])
    return Scenario(_checked(RunSpec, fields), str(spec.get("profile") or ""))


def _checked(model: type[BaseModel], fields: Mapping[str, Any]) -> Any:
    try:
        return model(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{name} is {first['input']!r}: {first['msg']}") from None
