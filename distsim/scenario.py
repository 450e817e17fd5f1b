"""A finished run's specification as something that can be changed and run again: the knobs of what-if studies.

>>> from distsim.scenario import scenario_of
>>> before = scenario_of(result.spec)                                                   # doctest: +SKIP
>>> after = before.changed({"link.spine.bandwidth": "2x", "gpu.compute": "1.5x"}).run()  # doctest: +SKIP

Every change ends up in the specification itself (links in the topology's spec, speeds of devices in ``speeds``, the rest in the
field of its name), so that what was changed can be saved, told and run again like anything else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ValidationError

from distsim.api import replay, simulate
from distsim.command import command_of
from distsim.cost.speeds import CLASSES, COMPUTE, HOST, MEMORY, Speeds
from distsim.errors import ConfigError, UnknownNameError
from distsim.result import Result
from distsim.run_spec import RunSpec
from distsim.topology.graph import Topology
from distsim.topology.routed import routed
from distsim.topology.scaled import ATTRIBUTES, EVERY, MARK, factor_of
from distsim.topology.spec import build, fixed_hosts
from distsim.trace.graph import NodeType, TaskGraph
from distsim.trace.read import read_trace
from distsim.training import Job, TrainSpec, job
from distsim.training import execution_graph as training_graph
from distsim.training import run as run_training
from distsim.units import format_bandwidth, format_time, parse_bandwidth, parse_flops, parse_time
from distsim.workload.captured import whole
from distsim.workload.training.plan import Plan

Progress = Callable[[float | None, str], None]

#: knob -> field of a RunSpec
_RUN_FIELDS = {
    "collective.algorithm": "algorithm", "collective.splits": "splits", "collectives": "collectives", "network": "network",
    "routing": "routing", "topo": "topo", "optimization": "optimization", "endpoint_delay": "endpoint_delay",
    "communication": "communication", "nccl_algo": "nccl_algo", "nccl_proto": "nccl_proto", "nccl_pxn": "nccl_pxn",
    "nccl_fabric": "nccl_fabric", "events": "events", "compute": "compute", "peak": "peak",
    "memory_bandwidth": "memory_bandwidth", "scale_compute": "scale_compute",
}  # fmt: skip
#: knob -> field of a TrainSpec (those of its plan are plan.NAME)
_TRAIN_FIELDS = {name: name for name in ("model", "cluster", "gpu", "stack", "network", "grain", "memory")}
#: what people call trees, by operation: NCCL's for all_reduce
_TREE = "all_reduce=double_binary_tree,broadcast=binary_tree,reduce=binary_tree"
_PERCENT = re.compile(r"^([+-]\d+\.?\d*)\s*%$")


@dataclass(frozen=True, slots=True)
class Knob:
    """Something to turn. ``continuous`` ones take factors (``2x``, ``+10%``) and have a sensitivity."""

    name: str
    value: str  #: as it stands
    about: str
    continuous: bool


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
        return Speeds.parse(self.spec.speeds, self._read.ranks).on(self._read)

    @cached_property
    def _read(self) -> TaskGraph:
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
        return routed(self.spec.routing, build(self.spec.topo, self._read.ranks))

    @property
    def recorded(self) -> bool:
        """Communication takes recorded times: there is no network to change."""
        return isinstance(self.spec, RunSpec) and self.spec.communication == "recorded"

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
            return simulate(self.spec, progress=progress)
        return replay(self._read, self.topology, self.spec, progress or (lambda fraction, what: None))

    @property
    def whole_run(self) -> bool:
        return isinstance(self.spec, RunSpec) and self.spec.network.partition(":")[0] == "loggops"

    @property
    def command(self) -> str:
        """The command line that runs it."""
        return command_of(self.spec.model_dump() | ({"profile": self.profile} if self.profile else {}))

    # --- knobs --------------------------------------------------------------------------------------------------------------

    def knobs(self) -> tuple[Knob, ...]:
        """All that this run has, with their present values."""
        return (*self._links(), *self._devices(), *self._plain())

    def _links(self) -> list[Knob]:
        if self.recorded or self.whole_run:
            return []
        found, topology = [], self.topology
        for number, domain in enumerate(topology.domains):
            mine = topology.link_domain == number
            if not mine.any():
                continue
            rates, delays = topology.link_bandwidth[mine], topology.link_latency[mine]
            cables = f"{int(mine.sum()):,} links {domain}"
            found.append(Knob(f"link.{domain}.bandwidth", _range(rates, format_bandwidth), f"of each of {cables}", True))
            if delays.any():
                found.append(Knob(f"link.{domain}.latency", _range(delays, format_time), f"of each of {cables}", True))
        return found

    def _devices(self) -> list[Knob]:
        if self.whole_run:
            return []
        speeds = Speeds.parse(self.spec.speeds)
        found = []

        def add(name: str, about: str) -> None:
            found.append(Knob(name, f"{speeds.of(name):.6g}x", about, True))

        if isinstance(self.spec, TrainSpec):
            rate, moves = self.job.gpu.peak[self.spec.plan.dtypes[0]], self.job.gpu.memory_bandwidth
            add(COMPUTE, f"arithmetic; 1x: {self.job.gpu.name}, {rate / 1e12:,.4g} TFLOP/s {self.spec.plan.dtypes[0]}")
            for one in CLASSES:
                add(f"{COMPUTE}.{one}", f"arithmetic of {one} kernels")
            add(MEMORY, f"traffic of kernels; 1x: {format_bandwidth(moves)}")
            add(HOST, f"launches and waits of {self.job.stack.name}")
            ranks = self.spec.plan.world
        else:
            there = _there(self._read)
            roofline = self.spec.compute == "roofline"
            if there["gpu"]:
                add(COMPUTE, "compute nodes" + (f"; 1x: {self.spec.peak}" if roofline else ""))
            if there["memory"] or roofline:
                traffic = f" and traffic of compute nodes; 1x: {self.spec.memory_bandwidth}" if roofline else ""
                add(MEMORY, f"memory nodes{traffic}")
            if there["host"]:
                add(HOST, "nodes on the host")
            ranks = self._read.ranks
        said = set(speeds.ranks)
        for rank in sorted(said):
            add(f"rank.{rank}.compute", f"all computation of rank {rank}")
        if ranks > len(said):
            found.append(Knob("rank.N.compute", "1x", f"all computation of rank N, 0 to {ranks - 1}", False))
        return found

    def _plain(self) -> list[Knob]:
        found = []
        named, model = (_TRAIN_FIELDS, TrainSpec) if self.trains else (_RUN_FIELDS, RunSpec)
        for name, field in named.items():
            value = getattr(self.spec, field)
            found.append(Knob(name, _said(value), model.model_fields[field].description or "", False))
        if isinstance(self.spec, TrainSpec):
            for field, info in Plan.model_fields.items():
                found.append(Knob(f"plan.{field}", _said(getattr(self.spec.plan, field)), info.description or "", False))
        return found

    def changed(self, settings: Mapping[str, str]) -> Scenario:
        """With knobs turned. Values: a factor of what is there (``2x``, ``+10%``), or the new value with its unit.

        Raises: UnknownNameError for a knob that this run has not, with near ones; ConfigError for a value that does not fit.
        """
        scenario = self
        for name, value in settings.items():
            text = str(value).strip()
            if not text:
                raise ConfigError("has no value", where=name, expected="2x, +10%, or a value with its unit")
            scenario = scenario._with(name.strip(), text)
        return scenario

    def _with(self, name: str, value: str) -> Scenario:
        if name.startswith("link."):
            return self._with_link(name, value)
        if name.startswith(("gpu.", "host.", "rank.")):
            return self._with_speed(name, value)
        named = _TRAIN_FIELDS if self.trains else _RUN_FIELDS
        if name in named:
            return self._with_field(named[name], value)
        if isinstance(self.spec, TrainSpec) and name.startswith("plan.") and name[5:] in Plan.model_fields:
            return self._with_plan(name[5:], value)
        raise self._unknown(name)

    def _unknown(self, name: str) -> UnknownNameError:
        known = [one.name for one in self.knobs()]
        if not self.recorded and not self.whole_run:
            known += [f"link.{EVERY}.{attribute}" for attribute in ATTRIBUTES]
        return UnknownNameError("knob", name, known, where="whatif")

    def _with_link(self, name: str, value: str) -> Scenario:
        domain, _, attribute = name.removeprefix("link.").rpartition(".")
        if self.recorded:
            raise ConfigError(
                "communication took its recorded times: there is no network to change", where=name,
                fix="Set communication=simulated beside it.",
            )  # fmt: skip
        there = self.topology.domains
        if self.whole_run or attribute not in ATTRIBUTES or domain not in (*there, EVERY):
            raise self._unknown(name)
        factor = _factor(value)
        if factor is not None:
            if not 0 < factor < math.inf and not (factor == 0 and attribute == "latency"):
                raise ConfigError(f"{value} is no factor of a {attribute}", where=name, expected="a positive one, such as 2x")
            said = f"{factor:.12g}x"
        else:
            _read_as(name, value, parse_bandwidth if attribute == "bandwidth" else parse_time)
            said = value
        if factor == 1.0:
            return self
        field = "cluster" if self.trains else "topo"
        return self._replaced({field: _linked(getattr(self.spec, field), f"{domain}.{attribute}", said)})

    def _with_speed(self, name: str, value: str) -> Scenario:
        present = Speeds.parse(self.spec.speeds)
        known = {one.name for one in self._devices()}
        rank = re.fullmatch(r"rank\.(\d+)\.compute", name)
        if not (name in known or (rank and "rank.N.compute" in known)) or name == "rank.N.compute":
            raise self._unknown(name)
        factor, base = _factor(value), present.of(name)
        if factor is None:  # an absolute rate, over that of the device
            factor = self._absolute(name, value) / base
        if not 0 < factor < math.inf:
            raise ConfigError(f"{value} is no factor of a speed", where=name, expected="a positive factor, such as 1.5x")
        made = Speeds({**present.factors, name: base * factor})
        if rank:
            Speeds.parse(made.text, self.spec.plan.world if isinstance(self.spec, TrainSpec) else self._read.ranks)
        return self._replaced({"speeds": made.text})

    def _absolute(self, name: str, value: str) -> float:
        """A rate over that of the device as it is. Raises ConfigError where there is none."""
        parse = {COMPUTE: parse_flops, MEMORY: parse_bandwidth}.get(name)
        if parse is not None and isinstance(self.spec, TrainSpec):
            own = self.job.gpu.peak[self.spec.plan.dtypes[0]] if name == COMPUTE else self.job.gpu.memory_bandwidth
            return _read_as(name, value, parse) / own
        if parse is not None and isinstance(self.spec, RunSpec) and self.spec.compute == "roofline":
            said = self.spec.peak if name == COMPUTE else self.spec.memory_bandwidth
            return _read_as(name, value, parse) / parse(said or "")
        raise ConfigError(f"{value!r} is no factor", where=name, expected="2x, 0.5x or +10%: recorded durations have no rate")

    def _with_field(self, field: str, value: str) -> Scenario:
        if field == "algorithm" and getattr(self.spec, "collectives", "") == "nccl":
            field = "nccl_algo"
        elif field == "algorithm" and value == "tree":
            value = _TREE
        return self._replaced({field: _new_value(field, value, getattr(self.spec, field))})

    def _with_plan(self, field: str, value: str) -> Scenario:
        assert isinstance(self.spec, TrainSpec)
        fields = self.spec.plan.model_dump()
        new: Any = _new_value(f"plan.{field}", value, fields[field])
        if field == "layers_per_stage" and isinstance(new, str):
            new = tuple(new.split(","))
        fields[field] = new
        if field in ("tp", "pp", "cp") and "dp" in fields and self.spec.plan.world:
            each = math.prod(int(fields[one]) for one in ("tp", "pp", "cp") if str(fields[one]).isdigit())
            if each and self.spec.plan.world % each == 0:
                fields["dp"] = self.spec.plan.world // each  # the same GPUs
        from distsim.workload.training.plan import plan

        return self._replaced({"plan": plan(**fields)})

    def _replaced(self, fields: Mapping[str, Any]) -> Scenario:
        """With other fields, checked. Raises ConfigError."""
        made = {name: getattr(self.spec, name) for name in type(self.spec).model_fields} | dict(fields)
        other = Scenario(_checked(type(self.spec), made), self.profile)
        read = self.__dict__.get("_read")
        if read is not None and "communication" not in fields:
            other.__dict__["_read"] = read  # the same trace: not read again
        return other


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


def _linked(spec: str, target: str, value: str) -> str:
    """A topology's spec with a change of links; factors of one target are multiplied."""
    plain, *changes = spec.split(MARK)
    factor = factor_of(value)
    if changes and factor is not None:
        last, _, said = changes[-1].partition("=")
        before = factor_of(said)
        if last == target and before is not None:
            changes.pop()
            if before * factor == 1.0:
                return MARK.join([plain, *changes])
            value = f"{before * factor:.12g}x"
    return MARK.join([plain, *changes, f"{target}={value}"])


def _factor(value: str) -> float | None:
    """1.1 of ``1.1x`` or ``+10%``; None where it is an absolute value."""
    percent = _PERCENT.match(value)
    return 1 + float(percent[1]) / 100 if percent else factor_of(value)


def _read_as(name: str, value: str, parse: Callable[[str], float]) -> float:
    try:
        return parse(value)
    except ConfigError as error:
        raise ConfigError(error.what, where=name, expected=error.expected or "2x, +10%, or a value with its unit") from None


def _new_value(name: str, value: str, present: Any) -> Any:
    """What a plain field gets. A factor multiplies a number; ``none`` clears; true and false are words. Raises ConfigError."""
    factor = _factor(value)
    if factor is not None and isinstance(present, (int, float)) and not isinstance(present, bool):
        made = present * factor
        if isinstance(present, int) and made != round(made):
            raise ConfigError(f"{present} times {factor:g} is no whole number", where=name)
        return round(made) if isinstance(present, int) else made
    words: dict[str, Any] = {"none": None, "true": True, "false": False}
    if isinstance(present, bool) or present is None or value == "none":
        return words.get(value, value)
    return value


def _range(values: np.ndarray[Any, Any], said: Callable[[float], str]) -> str:
    low, high = values.min().item(), values.max().item()
    return said(low) if low == high else f"{said(low)} to {said(high)}"


def _said(value: Any) -> str:
    return "none" if value in (None, "") else str(value).lower() if isinstance(value, bool) else str(value)


def _there(graph: TaskGraph) -> dict[Literal["gpu", "memory", "host"], bool]:
    """What takes time in a trace beside communication."""
    comp = [(one, one.type == NodeType.COMP) for one in graph.programs]
    return {
        "gpu": any(bool((is_comp & ~one.cpu).any()) for one, is_comp in comp),
        "memory": any(bool(np.isin(one.type, (NodeType.MEM_LOAD, NodeType.MEM_STORE)).any()) for one in graph.programs),
        "host": any(bool((is_comp & one.cpu & (one.duration_ps > 0)).any()) for one, is_comp in comp),
    }
