"""At which compute/communication ratio do cheaper network levels depart from the finest? One training step, many balances.

The *ratio* of a point is the time that a rank computes over the time that its communication would take on idle links (level
``analytic``), see :mod:`distsim.studies.balance`. It is moved by one variable at a time, on every topology; at every point the
same execution graph is replayed natively on every level.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from typing import Any

from distsim.errors import ConfigError, DistsimError, UnknownNameError
from distsim.studies.balance import Balance, balance, columns
from distsim.studies.departure import Departure, departure
from distsim.studies.finding import Chart, Finding, Series, Table
from distsim.studies.width import widened
from distsim.sweep.executors import crew
from distsim.topology.routed import routed
from distsim.topology.scaled import EVERY, MARK
from distsim.training import Job, TrainSpec, execution_graph, job, of_parts
from distsim.units import format_time
from distsim.workload.training.memory import memory_of

Progress = Callable[[float | None, str], None]
Row = dict[str, Any]

#: what can be varied -> what a value is
VARIABLES = {
    "bandwidth": "factor on the bandwidth of every link",
    "batch": "sequences per micro-batch, as many micro-batches as before",
    "seq": "tokens per sequence",
    "hidden": "hidden size at equal layers (heads and feed-forward in proportion)",
    "gpu": "GPU that computes; links stay",
}
#: topologies by a short name -> (spec, routing, what it is)
TOPOLOGIES = {
    "rails": ("dgx_h100", "static", "rail-optimised: a switch per local rank, non-blocking"),
    "racks": ("dgx_h100:rails=1,nodes_per_unit=2,oversubscription=4", "static", "racks of two nodes, 4:1 oversubscribed"),
    "ecmp": ("dgx_h100:rails=1,nodes_per_unit=1", "ecmp", "a leaf per node, non-blocking, flows hashed onto up-links"),
}
#: the step where nothing else is said: Llama-3-70B, tensor parallel in nodes, sharded data parallel (FSDP) between them
STEP: dict[str, Any] = {"model": "llama3-70b", "tp": 8, "zero": 3}
GPUS = 32
LEVELS = ("analytic", "fluid", "cut_through")
VALUES = {"bandwidth": ("0.25", "0.5", "1", "2", "4", "8", "16")}
IDLE = "analytic"  #: level that has no contention: the measure of communication


@dataclass(frozen=True, slots=True)
class Asked:
    """A study: everything that decides it.

    step: flat fields of distsim train but cluster, network and dp. topologies: short names of TOPOLOGIES, or ``SPEC`` and
    ``SPEC@ROUTING``. levels: network levels, the finest last. vary: variable -> values, as text. tolerance: departure that
    counts. workers: processes, 0: one per core.
    """

    step: Mapping[str, Any]
    gpus: int
    topologies: tuple[str, ...]
    levels: tuple[str, ...]
    vary: Mapping[str, tuple[str, ...]]
    tolerance: float
    collectives: str = "native"
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """One point: a topology, a variable at a value, and the flat fields that they give. Crosses to worker processes."""

    topology: str
    routing: str
    variable: str
    value: str
    fields: Mapping[str, Any]
    hidden: int
    levels: tuple[str, ...]
    collectives: str


def conduct(asked: Asked, progress: Progress) -> Finding:
    """Run every point and find where levels part. Raises ConfigError before anything runs; DistsimError of a run."""
    points = cases(asked)
    for case in points:
        prepared(case)  # what cannot be is refused before anything has run for minutes
    rows = run(points, asked.workers, progress)
    return findings(asked, rows)


def cases(asked: Asked) -> list[Case]:
    """All points, topology by topology. Raises ConfigError, UnknownNameError on what cannot be varied so."""
    if not 0 < asked.tolerance < 1:
        raise ConfigError(f"{asked.tolerance:g} is no tolerance", where="--tolerance", expected="percent above 0, below 100")
    if len(asked.levels) < 2:
        raise ConfigError(f"{len(asked.levels)} level", where="--networks", expected="two or more, the finest last")
    found = []
    for name in asked.topologies:
        spec, routing = located(name)
        for variable, values in asked.vary.items():
            if variable not in VARIABLES:
                raise UnknownNameError("variable", variable, VARIABLES, where="--vary")
            for value in values:
                fields, hidden = _varied(asked, spec, variable, value)
                found.append(Case(name, routing, variable, value, fields, hidden, asked.levels, asked.collectives))
    return found


def located(name: str) -> tuple[str, str]:
    """Spec and routing policy of a topology: of a short name, of ``SPEC``, of ``SPEC@ROUTING``."""
    if name in TOPOLOGIES:
        return TOPOLOGIES[name][:2]
    spec, _, routing = name.partition("@")
    return spec.strip(), routing.strip() or "static"


def _varied(asked: Asked, spec: str, variable: str, value: str) -> tuple[dict[str, Any], int]:
    """Flat fields of the step at a value, and its hidden size (0: the model's)."""
    fields: dict[str, Any] = dict(asked.step) | {"cluster": spec, "memory": "ignore"}
    each = int(fields.get("tp", 1)) * int(fields.get("pp", 1)) * int(fields.get("cp", 1))
    if asked.gpus % each:
        raise ConfigError(f"tp x pp x cp = {each} does not divide {asked.gpus} GPUs", where="--gpus")
    fields["dp"] = asked.gpus // each
    batch = int(fields.setdefault("micro_batch", 1))
    # a step has one micro-batch per replica, a pipeline four for each stage, where nothing is said
    fields.setdefault("global_batch", fields["dp"] * batch * (4 * int(fields["pp"]) if int(fields.get("pp", 1)) > 1 else 1))
    hidden = 0
    if variable == "bandwidth":
        factor = _number(variable, value, float)
        fields["cluster"] = f"{spec}{MARK}{EVERY}.bandwidth={factor!r}x"
    elif variable == "batch":
        fields["micro_batch"] = _number(variable, value, int)
        fields["global_batch"] = int(fields["global_batch"]) * fields["micro_batch"] // batch
    elif variable == "seq":
        fields["seq"] = _number(variable, value, int)
    elif variable == "hidden":
        hidden = _number(variable, value, int)
    else:
        fields["gpu"] = value
    return fields, hidden


def _number(variable: str, value: str, kind: Callable[[str], Any]) -> Any:
    try:
        found = kind(value.removesuffix("x"))
    except ValueError:
        found = 0
    if not 0 < found < 1e12:
        expected = "a positive number" if kind is float else "a positive whole number"
        raise ConfigError(f"{value!r} is no {variable}", where="--vary", expected=expected)
    return found


def prepared(case: Case) -> Job:
    """The job of a point. Raises ConfigError."""
    work = job(TrainSpec.of(case.fields))
    if case.hidden:
        model = widened(work.model, case.hidden)
        work.plan.check(model)
        work = replace(of_parts(work.spec, model, work.plan, work.stack, work.gpu, work.topology), notes=work.notes)
    routed(case.routing, work.topology, where=case.topology)
    return work


def measure(case: Case) -> Row:
    """One point at every level. Raises DistsimError."""
    work = prepared(case)
    memory = memory_of(work.model, work.plan, work.stack, work.gpu)
    graph, topology = execution_graph(work), routed(case.routing, work.topology)
    levels = (*case.levels, *((IDLE,) if IDLE not in case.levels else ()))
    collectives = case.collectives if topology.devices else "native"
    found = {level: balance(work, graph, topology, level, memory, collectives) for level in levels}
    idle = found[IDLE]
    kept: dict[str, Balance] = {level: found[level] for level in case.levels}
    return {
        "topology": case.topology, "variable": case.variable, "value": case.value, **columns(kept, idle),
        **{f"{level} cpu_s": one.cpu_s for level, one in kept.items()},
        "memory_bytes": memory.device, "fits": memory.device <= work.gpu.memory,
    }  # fmt: skip


def _measured(case: Case) -> tuple[Row | None, tuple[bool, dict[str, Any]] | None]:
    """In a worker: an error as plain values, since exceptions with arguments of their own do not cross."""
    try:
        return measure(case), None
    except DistsimError as error:
        where = ": ".join(filter(None, (f"{case.topology}, {case.variable}={case.value}", error.where)))
        told = {"what": error.what, "where": where, "expected": error.expected, "near": error.near, "fix": error.fix}
        return None, (isinstance(error, ConfigError), told)


def run(points: Sequence[Case], workers: int, progress: Progress) -> list[Row]:
    """Rows of all points, in their order, whatever ran them. Raises the DistsimError of the first point that fails."""
    rows: list[Row | None] = [None] * len(points)
    failed: dict[int, tuple[bool, dict[str, Any]]] = {}
    with crew(min(workers, len(points)) if workers else 0) as some:
        waiting: dict[Future[Any], int] = {some.executor.submit(_measured, case): k for k, case in enumerate(points)}
        while waiting:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                row, error = future.result()
                place = waiting.pop(future)
                rows[place] = row
                if error is not None:
                    failed[place] = error
            if failed and min(failed) < min(waiting.values(), default=len(points)):
                for future in waiting:
                    future.cancel()
                wrong, told = failed[min(failed)]
                raise (ConfigError if wrong else DistsimError)(**told)
            progress(1 - len(waiting) / len(points), f"point {len(points) - len(waiting)} of {len(points)}")
    return [row for row in rows if row is not None]


def findings(asked: Asked, rows: Sequence[Row]) -> Finding:
    """What the points say. Pure."""
    finest, cheaper = asked.levels[-1], asked.levels[:-1]
    parted: dict[tuple[str, str, str], Departure] = {}
    for topology, variable in itertools.product(asked.topologies, asked.vary):
        mine = [row for row in rows if row["topology"] == topology and row["variable"] == variable]
        for level in cheaper:
            ratios, errors = [row["ratio"] for row in mine], [row[f"{level} error"] for row in mine]
            parted[topology, variable, level] = departure(ratios, errors, asked.tolerance)
    percent = f"{100 * asked.tolerance:g} %"
    low, high = min(row["ratio"] for row in rows), max(row["ratio"] for row in rows)
    several = len(asked.vary) > 1
    said = "; ".join(f"{level} {_worst(parted, level, several)}" for level in cheaper)
    model = asked.step.get("model", "")
    answer = (
        f"{model} on {asked.gpus} GPUs, compute/communication {low:.2g} to {high:.2g}; more than {percent} off {finest}: {said}"
    )
    summary = {
        "finest": finest, "tolerance": asked.tolerance,
        "departures": [
            {
                "topology": topology, "variable": variable, "level": level, "departs": found.words,
                "stretches": [list(one) for one in found.stretches], "ratio_low": found.low, "ratio_high": found.high,
                "largest_error": max((row[f"{level} error"] for row in rows
                                      if (row["topology"], row["variable"]) == (topology, variable)), key=abs),
            }
            for (topology, variable, level), found in parted.items()
        ],
        "cpu_s": {level: sum(row[f"{level} cpu_s"] for row in rows) for level in asked.levels},
    }  # fmt: skip
    over = sum(not row["fits"] for row in rows)
    return Finding(
        "ratio", answer, _tables(asked, rows, parted), _charts(asked, rows), rows, summary,
        {
            "step": dict(asked.step), "gpus": asked.gpus,
            "topologies": {name: "@".join(located(name)) for name in asked.topologies}, "levels": list(asked.levels),
            "vary": {name: list(values) for name, values in asked.vary.items()}, "tolerance": asked.tolerance,
            "collectives": asked.collectives,
        },
        notes=NOTES, warnings=(f"{over} of {len(rows)} points do not fit in the memory of their GPUs",) if over else (),
    )  # fmt: skip


#: what a reader has to know of the figures
NOTES = (
    "ratio: time in kernels over the time that all communication of a rank takes on idle links (level analytic), collectives "
    "inside blocks included; means over ranks",
    "exposed: share of the step in which communication is under way and nothing computes, each instant once; waiting for ranks "
    "that come later is idle, not exposed; overlap: share of communication that is hidden, where what runs side by side counts "
    "twice",
    "collectives inside a block (tensor parallel) take NCCL's closed form at every level, unless --grain kernel is given; that "
    "kernels slow down beside communication, which distsim train models, is left out at every level",
)


def _worst(parted: Mapping[tuple[str, str, str], Departure], level: str, several: bool) -> str:
    """``below 1.7 (racks), never (rails, ecmp)``."""
    by: dict[str, list[str]] = {}
    for (topology, variable, mine), found in parted.items():
        if mine == level:
            by.setdefault(found.words, []).append(f"{topology} by {variable}" if several else topology)
    if len(by) == 1:
        return next(iter(by)) + ("" if "never" in by or "always" in by else " on all")
    return ", ".join(f"{words} ({', '.join(names)})" for words, names in by.items())


def _tables(
    asked: Asked, rows: Sequence[Row], parted: Mapping[tuple[str, str, str], Departure]
) -> tuple[Table, ...]:  # fmt: skip
    cheaper, finest = asked.levels[:-1], asked.levels[-1]
    first = []
    for topology, variable in itertools.product(asked.topologies, asked.vary):
        mine = [row for row in rows if (row["topology"], row["variable"]) == (topology, variable)]
        span = f"{min(row['ratio'] for row in mine):.3g} to {max(row['ratio'] for row in mine):.3g}"
        cells = []
        for level in cheaper:
            largest = max((row[f"{level} error"] for row in mine), key=abs)
            cells += [parted[topology, variable, level].words, f"{100 * largest:+.1f} %"]
        first.append((topology, variable, span, *cells))
    head = tuple(itertools.chain.from_iterable((f"{level} departs", "at most") for level in cheaper))
    named = [name for name in asked.topologies if name in TOPOLOGIES]
    about = tuple(f"{name}: {TOPOLOGIES[name][2]}; {'@'.join(located(name))}" for name in named)
    table = Table(
        f"where levels depart by more than {100 * asked.tolerance:g} % from {finest}, by compute/communication ratio",
        ("topology", "by", "ratios", *head), first, 2, about, "Break-down ratios",
    )  # fmt: skip
    lines = [
        (
            row["topology"], f"{row['variable']} {row['value']}", f"{row['ratio']:.3g}", format_time(row[f"{finest} step_ps"]),
            *(f"{100 * row[f'{level} error']:+.1f} %" for level in cheaper),
            f"{100 * row[f'{finest} exposed_share']:.1f} %", f"{100 * row[f'{finest} overlap']:.0f} %",
        )
        for row in sorted(rows, key=lambda row: (asked.topologies.index(row["topology"]), row["variable"], row["ratio"]))
    ]  # fmt: skip
    points = Table(
        f"every point; step, exposed and overlap at {finest}",
        ("topology", "point", "ratio", "step", *cheaper, "exposed", "overlap"), lines, 2,
        (f"columns of levels: their step against {finest}'s",), "Every point",
    )  # fmt: skip
    cpu = [(level, f"{sum(row[f'{level} cpu_s'] for row in rows):.1f} s") for level in asked.levels]
    return table, points, Table("CPU time of the simulations", ("level", "CPU"), cpu, name="CPU time")


def _charts(asked: Asked, rows: Sequence[Row]) -> tuple[Chart, ...]:
    finest, percent = asked.levels[-1], 100 * asked.tolerance
    kinds = [(topology, variable) for topology in asked.topologies for variable in asked.vary]
    several = len(asked.vary) > 1

    def lines(column: str, levels: Sequence[str]) -> tuple[Series, ...]:
        made = []
        for (number, (topology, variable)), level in itertools.product(enumerate(kinds), levels):
            mine = [row for row in rows if (row["topology"], row["variable"]) == (topology, variable)]
            mine.sort(key=lambda row: row["ratio"])
            name = ", ".join((topology, *((variable,) if several else ()), *((level,) if len(levels) > 1 else ())))
            made.append(
                Series(
                    name, [row["ratio"] for row in mine], [row[f"{level} {column}"] for row in mine],
                    [f"{row['variable']} {row['value']}" for row in mine], dash=level != levels[0], hue=number % 8 + 1,
                )
            )  # fmt: skip
        return tuple(made)

    ratio = "compute / communication on idle links"
    marks = ((f"+{percent:g} %", asked.tolerance), (f"-{percent:g} %", -asked.tolerance))
    shares = {
        "exposed_share": ("exposed", "exposed communication", "share of the step"),
        "overlap": ("overlap", "overlap achieved", "share of communication hidden"),
    }
    return (
        Chart(
            "departure", f"step of cheaper levels against {finest}", ratio, f"off {finest}", lines("error", asked.levels[:-1]),
            log_x=True, y_kind="share", levels=marks,
        ),
        *(
            Chart(name, f"{title} at {finest}", ratio, unit, lines(column, (finest,)), log_x=True, y_kind="share")
            for column, (name, title, unit) in shares.items()
        ),
    )  # fmt: skip


def variations(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """``NAME=V1,V2,...`` of each. Raises ConfigError.

    >>> variations(["seq=2048,8192", "gpu=a100_sxm"])
    {'seq': ('2048', '8192'), 'gpu': ('a100_sxm',)}
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, equals, listed = (part.strip() for part in text.partition("="))
        values = tuple(filter(None, (part.strip() for part in re.split(r"[,\s]+", listed))))
        if name not in VARIABLES:
            raise UnknownNameError("variable", name, VARIABLES, where="--vary")
        if not equals or not values:
            raise ConfigError(f"{text!r} gives no values", where="--vary", expected=f"{name}=V1,V2,...")
        if name in found or len(set(values)) < len(values):
            raise ConfigError(f"{text!r} says something twice", where="--vary")
        found[name] = values
    return found


