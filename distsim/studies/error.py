"""``distsim study error``: what the error of a prediction is made of, and how errors of kernels compose to that of a step."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

from distsim.analysis.error_split import PARTS, ErrorSplit, Prediction, Split, split_error, with_durations
from distsim.api import replay
from distsim.cost.rescaled import rescaled
from distsim.cost.speeds import Speeds
from distsim.cost.typical import Typical
from distsim.errors import ConfigError
from distsim.result import Result
from distsim.run_spec import RunSpec, cost_provider
from distsim.studies.finding import Chart, Finding, Series, Table
from distsim.topology.routed import routed
from distsim.topology.spec import build, fixed_hosts
from distsim.trace.files import shown
from distsim.trace.graph import NodeType, TaskGraph
from distsim.trace.read import read_trace
from distsim.units import format_time
from distsim.workload.captured import recorded, whole

Progress = Callable[[float | None, str], None]
Compute = Literal["recorded", "typical", "roofline"]
#: rows of a table on the terminal; --json and the files hold all
_ROWS = 12
#: fields of a run that say how the prediction differs, beside the network's
_MODELLED = ("scale_compute", "speeds")


@dataclass(frozen=True, slots=True)
class Asked:
    """What to predict, and how.

    spec: the trace, and the prediction's network, rescaling and speeds. given: fields of ``spec`` that its user has set.
    compute: where predicted durations come from; None: ``typical``, unless another prediction is asked for. predicted: a trace
    with the same nodes that holds the predicted durations. host: False: the prediction knows of no host time, launch latencies
    and gaps. moving_kernels: see split_error.
    """

    spec: RunSpec
    given: Collection[str] = ()
    compute: Compute | None = None
    predicted: str | None = None
    host: bool = True
    moving_kernels: bool = False
    command: str = ""


def study(asked: Asked, progress: Progress) -> Finding:
    """Read, predict, decompose. Raises ConfigError where nothing is predicted; as reading and replaying a trace."""
    spec = asked.spec
    progress(None, f"reading {shown(spec.trace)}")
    graph = read_trace(spec.trace, spec.groups, spec.strict, spec.repair, spec.ranks, fixed_hosts(spec.topo))
    simulated = not recorded(graph, spec.communication, asked.given)
    if graph.captured and simulated:
        graph = whole(graph, spec.ranks)
    timed = graph.captured and any(bool((p.duration_ps[p.type == NodeType.COMM_COLL] >= 0).any()) for p in graph.programs)
    prediction, notes = _prediction(asked, graph, simulated and timed)
    topology = routed(spec.routing, build(spec.topo, graph.ranks))
    plain = {"compute": "recorded", "peak": None, "memory_bandwidth": None, "scale_compute": None, "speeds": None}

    def run(mixture: TaskGraph, simulate: bool) -> Result:
        how = "simulated" if simulate or not timed else "recorded"
        return replay(mixture, topology, spec.model_copy(update=plain | {"communication": how}), lambda fraction, what: None)

    found = split_error(graph, prediction, run, moving_kernels=asked.moving_kernels, progress=progress)
    if not found.differs:
        raise ConfigError(
            "the prediction does not differ from the trace", where=shown(spec.trace),
            fix="Ask for one: --compute typical, --scale-compute 1.2x, --topo dgx_a100, --host none, --predicted FILE.",
        )  # fmt: skip
    network = f"{topology.spec}, level {spec.network}" if simulated else "no network: collectives take their recorded times"
    return finding(found, graph, asked, (*notes, f"communication: {network}"))


def _prediction(asked: Asked, graph: TaskGraph, simulated: bool) -> tuple[Prediction, tuple[str, ...]]:
    """The predicted world, and what to say of it. Raises ConfigError on options that would have to be ignored."""
    spec = asked.spec
    if asked.predicted is not None:
        idle = [name for name in _MODELLED if getattr(spec, name)] + (["compute"] if asked.compute else [])
        if idle or not asked.host:
            option = idle[0].replace("_", "-") if idle else "host"
            raise ConfigError(f"--{option} has no effect beside --predicted, which holds all durations", fix="Leave it out.")
        other = read_trace(asked.predicted, spec.groups, spec.strict, spec.repair, spec.ranks, graph.ranks)
        if other.captured and other.ranks < graph.ranks:
            other = whole(other, graph.ranks)
        return Prediction(other, simulated), (f"predicted durations: {asked.predicted}",)
    untouched = not (simulated or any(getattr(spec, name) for name in _MODELLED)) and asked.host
    compute = asked.compute or ("typical" if untouched else "recorded")
    bare = spec.model_copy(update={"compute": "recorded" if compute == "typical" else compute, "scale_compute": None})
    provider: Any = Typical(graph) if compute == "typical" else cost_provider(bare, graph)
    said = {
        "typical": "kernels and copies take the mean of their name in this trace",
        "roofline": "kernels that tell operations or bytes take their roofline's time",
        "recorded": "kernels and copies keep their recorded durations",
    }
    notes = [f"predicted: {said[compute]}"]
    if spec.scale_compute:
        provider = rescaled(spec.scale_compute, graph, provider)
        notes += provider.notes(graph)
    made = with_durations(graph, provider.durations, host=asked.host)
    if not asked.host:
        notes.append("predicted: host work, launch latencies and gaps take no time")
    if spec.speeds:
        made = Speeds.parse(spec.speeds, graph.ranks).on(made)
        notes.append(f"predicted: {spec.speeds}")
    return Prediction(made, simulated), tuple(notes)


def finding(found: ErrorSplit, graph: TaskGraph, asked: Asked, notes: tuple[str, ...]) -> Finding:
    """The study's answer, tables and rows."""
    tables = [_parts(found), _composition(found)]
    if len(found.steps) > 1:
        tables.append(_table("error of each step (slowest rank)", found.steps))
    if len(found.ranks) > 1:
        worst = sorted(found.ranks, key=lambda one: -abs(one.error))
        tables.append(_table("error of each rank's end, largest first", worst))
    rows = [_row(one) for one in (found.total, found.run, *found.steps, *found.ranks, *found.step_ranks)]
    moving = "kernels that only move data count as memory"
    moving = moving if asked.moving_kernels else "kernels count as compute, whatever binds them"
    return Finding(
        "error", answer(found), tuple(tables), _charts(found), rows, summary(found),
        {
            "trace": shown(asked.spec.trace), "predicted": asked.predicted, "compute": asked.compute, "host": asked.host,
            **asked.spec.model_dump(exclude={"trace", "compute"}, exclude_defaults=True),
        },
        command=asked.command,
        notes=(
            *notes, f"{moving}; parts are Shapley values over {found.runs} runs, in whole ps by largest remainders",
            "error = predicted - measured; measured is the replay of the recorded durations",
        ),
        warnings=graph.defects,
    )  # fmt: skip


def answer(found: ErrorSplit) -> str:
    """The first line: ``step +3.2 % (predicted 222.8 ms, measured 215.8 ms): compute +5.1 %, ...``"""
    total, count = found.total, max(len(found.steps), 1)
    parts = ", ".join(f"{part} {_signed(_of(total.parts[part], total.measured))}" for part in PARTS)
    each = f", mean of {count} steps" if count > 1 else ""
    what = "step" if found.steps else "run"
    return (
        f"{what} {_signed(_of(total.error, total.measured))} (predicted {format_time(total.predicted / count)}, measured "
        f"{format_time(total.measured / count)}{each}): {parts}"
    )


def _parts(found: ErrorSplit) -> Table:
    rows = []
    count, total = max(len(found.steps), 1), found.total
    for part in PARTS:
        one = found.kernels.get(part)
        kernels = ("-",) * 5 if one is None else (
            f"{one.nodes:,}", format_time(one.spent / max(len(found.ranks), 1)), f"{100 * one.mape:.1f} %",
            f"{100 * one.off:.1f} %", _signed(one.bias),
        )  # fmt: skip
        rows.append((part, _time(total.parts[part] / count), _signed(_of(total.parts[part], total.measured)), *kernels))
    rows.append(("= error", _time(total.error / count), _signed(_of(total.error, total.measured)), *("",) * 5))
    head = ("part", "of the step", "share", "nodes", "time per rank", "mean error", "weighted", "bias")
    note = "mean error: of single durations, without sign; weighted: by duration; bias: with signs, so that errors cancel"
    return Table("where the error of the step comes from", head, rows, notes=(note,))


def _composition(found: ErrorSplit) -> Table:
    one, whole = found.composition, found.total.measured
    kept = (
        ("single durations, without signs, per rank", one.kernels, ""),
        ("summed by part", one.parts, "over- and underestimates of a part cancel"),
        ("what of it reaches the steps", one.reached, "overlap hides, waiting absorbs"),
        ("error of the steps", one.step, "parts cancel"),
    )
    rows = [(what, format_time(value), f"{100 * _of(value, whole):.2f} %", why) for what, value, why in kept]
    return Table(
        "the composition problem: how errors of durations become an error of the step",
        ("errors of", "lost on the way", "time", "of the steps"), [(what, why, time, share) for what, time, share, why in rows],
        text=2,
    )  # fmt: skip


def _table(title: str, splits: Collection[Split]) -> Table:
    listed = list(splits)
    rows = [
        (
            one.what, format_time(one.measured), format_time(one.predicted), _signed(_of(one.error, one.measured)),
            *(_signed(_of(one.parts[part], one.measured)) for part in PARTS),
        )
        for one in listed[:_ROWS]
    ]  # fmt: skip
    more = (f"and {len(listed) - _ROWS:,} more (--json lists all)",) if len(listed) > _ROWS else ()
    return Table(title, ("", "measured", "predicted", "error", *PARTS), rows, notes=more)


def _charts(found: ErrorSplit) -> tuple[Chart, ...]:
    if len(found.steps) < 2:
        return ()
    x = list(range(1, len(found.steps) + 1))
    series = [
        Series(part, x, [_of(one.parts[part], one.measured) for one in found.steps]) for part in PARTS if part in found.differs
    ]
    names = [one.what for one in found.steps]
    whole = Series("error", x, [_of(one.error, one.measured) for one in found.steps], names, dash=True)
    return (Chart("steps", "Error of each step by part", "step", "of the step", (*series, whole), y_kind="share"),)


def summary(found: ErrorSplit) -> dict[str, Any]:
    """The decomposition, JSON-ready."""
    one = found.composition
    return {
        "total": _row(found.total), "run": _row(found.run), "differs": list(found.differs), "runs": found.runs,
        "kernels": {
            part: {
                "nodes": k.nodes, "mape": k.mape, "weighted": k.off, "bias": k.bias, "measured_ps": k.spent,
                "wrong_ps": k.wrong, "net_ps": k.net,
            }
            for part, k in found.kernels.items()
        },
        "composition_ps": {"kernels": one.kernels, "parts": one.parts, "reached": one.reached, "step": one.step},
    }  # fmt: skip


def _row(one: Split) -> dict[str, Any]:
    parts = {f"{part}_ps": one.parts[part] for part in PARTS}
    return {"what": one.what, "measured_ps": one.measured, "predicted_ps": one.predicted, "error_ps": one.error, **parts}


def _of(value: float, whole: float) -> float:
    return value / whole if whole else 0.0


def _signed(share: float) -> str:
    if abs(share) < 5e-5:
        return "0 %"
    return f"{100 * share:+.1f} %" if abs(share) >= 0.005 else f"{100 * share:+.2f} %"


def _time(ps: float) -> str:
    return ("-" if ps < 0 else "") + format_time(abs(ps))
