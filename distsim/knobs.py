"""The knobs of a run: what can be turned, how it stands, and which fields of the specification change with it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from distsim.cost.speeds import CLASSES, COMPUTE, HOST, MEMORY, Speeds, classes_of, has_host, starts_of
from distsim.errors import ConfigError, UnknownNameError
from distsim.events.model import read_events
from distsim.run_spec import RunSpec
from distsim.topology.scaled import ATTRIBUTES, EVERY, MARK, factor_of
from distsim.trace.graph import NodeType, TaskGraph
from distsim.training import TrainSpec
from distsim.units import format_bandwidth, format_time, parse_bandwidth, parse_flops, parse_time
from distsim.workload.training.plan import Plan, plan

if TYPE_CHECKING:  # a scenario has knobs
    from distsim.scenario import Scenario

#: new values of fields of a specification
Fields = Mapping[str, Any]

#: knob -> field of a RunSpec
_RUN_FIELDS = {
    "collective.algorithm": "algorithm", "collective.splits": "splits", "collectives": "collectives", "network": "network",
    "routing": "routing", "topo": "topo", "optimization": "optimization", "endpoint_delay": "endpoint_delay",
    "communication": "communication", "nccl_algo": "nccl_algo", "nccl_proto": "nccl_proto", "nccl_pxn": "nccl_pxn",
    "nccl_fabric": "nccl_fabric", "events": "events", "compute": "compute", "peak": "peak",
    "memory_bandwidth": "memory_bandwidth", "scale_compute": "scale_compute",
}  # fmt: skip
#: fields that say how communication moves over a network
_MOVING = (
    "topo", "network", "collectives", "routing", "algorithm", "splits", "optimization", "endpoint_delay", "nccl_algo",
    "nccl_proto", "nccl_pxn", "nccl_fabric",
)  # fmt: skip
#: knob -> field of a TrainSpec (those of its plan are plan.NAME)
_TRAIN_FIELDS = {name: name for name in ("model", "cluster", "gpu", "stack", "network", "grain", "memory")}
#: what people call trees, by operation: NCCL's for all_reduce
_TREE = "all_reduce=double_binary_tree,broadcast=binary_tree,reduce=binary_tree"
_STARTS = "how long after the first rank {} begins"
_RANK = re.compile(r"rank\.(\d+)\.(\w+)")
_PERCENT = re.compile(r"^([+-]\d+\.?\d*)\s*%$")


@dataclass(frozen=True, slots=True)
class Knob:
    """Something to turn. ``continuous`` ones take factors (``2x``, ``+10%``) and have a sensitivity; of ``rank.N`` ones each
    rank that does something has."""

    name: str
    value: str  #: as it stands
    about: str
    continuous: bool


def knobs(scenario: Scenario) -> tuple[Knob, ...]:
    """All that a run has, with their present values."""
    return (*_links(scenario), *_devices(scenario), *_plain(scenario))


def turned(scenario: Scenario, name: str, value: str) -> Fields:
    """Fields of the specification, with a knob turned: a factor of what is there (``2x``, ``+10%``), or the new value with its
    unit.

    Raises: UnknownNameError for a knob that the run has not, with near ones; ConfigError for a value that does not fit.
    """
    if name.startswith("link."):
        return _with_link(scenario, name, value)
    if name.startswith("rank.") and name.endswith(".start"):
        return _with_start(scenario, name, value)
    if name.startswith(("gpu.", "host.", "rank.")):
        return _with_speed(scenario, name, value)
    named = _TRAIN_FIELDS if scenario.trains else _RUN_FIELDS
    if name in named:
        if scenario.recorded and named[name] in _MOVING:
            raise _no_network(name)
        return _with_field(scenario, named[name], value)
    if isinstance(scenario.spec, TrainSpec) and name.startswith("plan.") and name[5:] in Plan.model_fields:
        return _with_plan(scenario, name[5:], value)
    raise _unknown(scenario, name)


def _links(scenario: Scenario) -> list[Knob]:
    if scenario.recorded or scenario.whole_run:
        return []
    found, topology = [], scenario.topology
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


def _devices(scenario: Scenario) -> list[Knob]:
    if scenario.whole_run:
        return []
    speeds = Speeds.parse(scenario.spec.speeds)
    found = []
    of_rank = {"compute": "all computation of rank {} on its GPU"}
    starts: dict[int, int] = {}

    def add(name: str, about: str) -> None:
        found.append(Knob(name, f"{speeds.of(name):.6g}x", about, True))

    if isinstance(scenario.spec, TrainSpec):
        rate, moves = scenario.job.gpu.peak[scenario.spec.plan.dtypes[0]], scenario.job.gpu.memory_bandwidth
        add(COMPUTE, f"arithmetic; 1x: {scenario.job.gpu.name}, {rate / 1e12:,.4g} TFLOP/s {scenario.spec.plan.dtypes[0]}")
        for one in CLASSES:
            add(f"{COMPUTE}.{one}", f"arithmetic of {one} kernels")
        add(MEMORY, f"traffic of kernels; 1x: {format_bandwidth(moves)}")
        add(HOST, f"launches and waits of {scenario.job.stack.name}")
        ranks = scenario.spec.plan.world
    else:
        there = _there(scenario.trace)
        roofline = scenario.spec.compute == "roofline"
        if there["gpu"]:
            add(COMPUTE, "compute nodes" + (f"; 1x: {scenario.spec.peak}" if roofline else ""))
        for one in classes_of(scenario.trace):
            add(f"{COMPUTE}.{one}", f"{one} kernels, by their names")
        if there["memory"] or roofline:
            traffic = f" and traffic of compute nodes; 1x: {scenario.spec.memory_bandwidth}" if roofline else ""
            add(MEMORY, f"memory nodes{traffic}")
        if there["host"]:
            add(HOST, "nodes on the host")
            of_rank["host"] = "host threads of rank {}"
        ranks, starts = scenario.trace.ranks, starts_of(scenario.trace)
    for what, about in of_rank.items():
        own = [rank for rank in speeds.ranks if speeds.of(f"rank.{rank}.{what}") != 1.0]
        for rank in own:
            add(f"rank.{rank}.{what}", about.format(rank))
        if ranks > len(own):
            found.append(Knob(f"rank.N.{what}", "1x", about.format("N") + f", 0 to {ranks - 1}", False))
    for rank in sorted(speeds.starts):
        found.append(Knob(f"rank.{rank}.start", format_time(speeds.starts[rank]), _STARTS.format(rank), True))
    if starts.keys() - speeds.starts.keys():
        said = _range(np.array(list(starts.values())), format_time)
        which = ", ".join(map(str, list(starts)[:8])) + (" ..." if len(starts) > 8 else "")
        found.append(Knob("rank.N.start", said, _STARTS.format(f"N ({which})") + "; 0ms: with it", False))
    return found


def _plain(scenario: Scenario) -> list[Knob]:
    found = []
    named, model = (_TRAIN_FIELDS, TrainSpec) if scenario.trains else (_RUN_FIELDS, RunSpec)
    for name, field in named.items():
        if scenario.recorded and field in _MOVING:
            continue
        value = getattr(scenario.spec, field)
        found.append(Knob(name, _said(value), model.model_fields[field].description or "", False))
    if isinstance(scenario.spec, TrainSpec):
        for field, info in Plan.model_fields.items():
            found.append(Knob(f"plan.{field}", _said(getattr(scenario.spec.plan, field)), info.description or "", False))
    return found


def _unknown(scenario: Scenario, name: str) -> UnknownNameError:
    known = [one.name for one in knobs(scenario)]
    if scenario.recorded:  # what there would be with a network: a name is right or wrong before it is of use
        known += [knob for knob, field in _RUN_FIELDS.items() if field in _MOVING]
        known += [f"link.{domain}.{attribute}" for domain in scenario.topology.domains for attribute in ATTRIBUTES]
    if not scenario.whole_run:
        known += [f"link.{EVERY}.{attribute}" for attribute in ATTRIBUTES]
    rank = _RANK.fullmatch(name)
    if rank:  # of the rank that was meant
        known += [one.replace("N", rank[1], 1) for one in known if one.startswith("rank.N.")]
    fix = "distsim whatif RESULT --knobs lists all."
    if scenario.recorded and name.startswith("link."):
        fix = "Its communication took recorded times: links want communication=simulated, those of another fabric its topo=."
    return UnknownNameError("knob", name, known, where="whatif", fix=fix)


def _no_network(name: str) -> ConfigError:
    return ConfigError(
        "communication took its recorded times: there is no network to change", where=name,
        fix="Set communication=simulated beside it.",
    )  # fmt: skip


def _with_link(scenario: Scenario, name: str, value: str) -> Fields:
    domain, _, attribute = name.removeprefix("link.").rpartition(".")
    there = () if scenario.whole_run else scenario.topology.domains
    if scenario.whole_run or attribute not in ATTRIBUTES or domain not in (*there, EVERY):
        raise _unknown(scenario, name)
    if scenario.recorded:
        raise _no_network(name)
    factor = _factor(value)
    if factor is not None:
        if not 0 < factor < math.inf and not (factor == 0 and attribute == "latency"):
            raise ConfigError(f"{value} is no factor of a {attribute}", where=name, expected="a positive one, such as 2x")
        said = f"{factor:.12g}x"
    else:
        _read_as(name, value, parse_bandwidth if attribute == "bandwidth" else parse_time)
        said = value
    if factor == 1.0:
        return {}
    field = "cluster" if scenario.trains else "topo"
    return {field: _linked(getattr(scenario.spec, field), f"{domain}.{attribute}", said)}


def _with_speed(scenario: Scenario, name: str, value: str) -> Fields:
    present = Speeds.parse(scenario.spec.speeds)
    known = {one.name for one in _devices(scenario)}
    rank = _RANK.fullmatch(name)
    if not (name in known or (rank and f"rank.N.{rank[2]}" in known)) or name.startswith("rank.N."):
        raise _unknown(scenario, name)
    factor, base = _factor(value), present.of(name)
    if factor is None:  # an absolute rate, over that of the device
        factor = _absolute(scenario, name, value) / base
    if not 0 < factor < math.inf:
        raise ConfigError(f"{value} is no factor of a speed", where=name, expected="a positive factor, such as 1.5x")
    made = Speeds({**present.factors, name: base * factor}, present.starts)
    if rank:
        Speeds.parse(made.text, scenario.spec.plan.world if isinstance(scenario.spec, TrainSpec) else scenario.trace.ranks)
    return {"speeds": made.text}


def _with_start(scenario: Scenario, name: str, value: str) -> Fields:
    """A time, or a factor of the present one."""
    rank = _RANK.fullmatch(name)
    if rank is None or isinstance(scenario.spec, TrainSpec) or scenario.whole_run or not starts_of(scenario.trace):
        raise _unknown(scenario, name)
    present, captured, number = Speeds.parse(scenario.spec.speeds), starts_of(scenario.trace), int(rank[1])
    if number not in captured:
        some = ", ".join(map(str, list(captured)[:8]))
        what = "is the first to begin: nothing holds it" if number < scenario.trace.ranks else "is not there"
        raise ConfigError(f"rank {number} {what}", where=name, expected=f"a rank that begins later: {some}")
    factor = _factor(value)
    if factor is None:
        ps = round(_read_as(name, value, parse_time))
    elif 0 <= factor < math.inf:
        ps = round(present.starts.get(number, captured[number]) * factor)
    else:
        raise ConfigError(f"{value} is no factor of a time", where=name, expected="0.5x, +10%, or a time such as 0ms")
    starts = {**present.starts, number: ps}
    if ps == captured[number]:
        del starts[number]  # as it was captured
    made = Speeds(present.factors, starts).text
    Speeds.parse(made)  # refuses what no clock holds
    return {"speeds": made}


def _absolute(scenario: Scenario, name: str, value: str) -> float:
    """A rate over that of the device as it is. Raises ConfigError where there is none."""
    parse = {COMPUTE: parse_flops, MEMORY: parse_bandwidth}.get(name)
    if parse is not None and isinstance(scenario.spec, TrainSpec):
        own = scenario.job.gpu.peak[scenario.spec.plan.dtypes[0]] if name == COMPUTE else scenario.job.gpu.memory_bandwidth
        return _read_as(name, value, parse) / own
    if parse is not None and isinstance(scenario.spec, RunSpec) and scenario.spec.compute == "roofline":
        said = scenario.spec.peak if name == COMPUTE else scenario.spec.memory_bandwidth
        return _read_as(name, value, parse) / parse(said or "")
    raise ConfigError(f"{value!r} is no factor", where=name, expected="2x, 0.5x or +10%: recorded durations have no rate")


def _with_field(scenario: Scenario, field: str, value: str) -> Fields:
    if field == "events":
        read_events(value)  # refuses what is no file of events before anything is estimated
    if field == "algorithm" and getattr(scenario.spec, "collectives", "") == "nccl":
        field = "nccl_algo"
    elif field == "algorithm" and value == "tree":
        value = _TREE
    return {field: _new_value(field, value, getattr(scenario.spec, field))}


def _with_plan(scenario: Scenario, field: str, value: str) -> Fields:
    assert isinstance(scenario.spec, TrainSpec)
    fields = scenario.spec.plan.model_dump()
    new: Any = _new_value(f"plan.{field}", value, fields[field])
    if field == "layers_per_stage" and isinstance(new, str):
        new = tuple(new.split(","))
    fields[field] = new
    if field in ("tp", "pp", "cp") and "dp" in fields and scenario.spec.plan.world:
        each = math.prod(int(fields[one]) for one in ("tp", "pp", "cp") if str(fields[one]).isdigit())
        if each and scenario.spec.plan.world % each == 0:
            fields["dp"] = scenario.spec.plan.world // each  # the same GPUs
    return {"plan": plan(**fields)}


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
        expected = error.expected or "2x, +10%, or a value with its unit"
        raise ConfigError(error.what, where=name, expected=expected, near=error.near, fix=error.fix) from None


def _new_value(name: str, value: str, present: Any) -> Any:
    """What a plain field gets. A factor multiplies a number; ``none`` clears; true and false are words. Raises ConfigError."""
    factor = _factor(value)
    if factor is not None and isinstance(present, (int, float)) and not isinstance(present, bool):
        made = present * factor
        if not math.isfinite(made) or (isinstance(present, int) and made != round(made)):
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
        "host": any(map(has_host, graph.programs)),
    }
