"""The load that a service bears, in words and as a document: one service, deployments side by side, replicas for a load."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from distsim.report.serving import number
from distsim.report.table import table
from distsim.sweep.capacity import Capacity, Trial
from distsim.units import format_time

if TYPE_CHECKING:
    from distsim.analysis.serving_slo import Slo
    from distsim.serve import ServeSpec
    from distsim.sweep.findings import Findings
    from distsim.sweep.replicas import Fleet

FORMAT = "distsim-capacity"
_ROWS = 40  #: rows of a table on the terminal; --json holds all
_WARNINGS = 6


def answer(found: Capacity, spec: ServeSpec, slo: Slo | None) -> str:
    """The first line: ``12.4 requests/s (11.9 to 12.8, 95 %) under TTFT 2 s for 99 %; 1.55 per GPU on 8 x h100; limited``"""
    at = found.typical
    if not found.mean:
        return f"0 requests/s under {_objective(slo)} on {_gpus(at.gpus, spec)}: {_why_none(found)}"
    rate = _rate(spec)
    said = f"{number(found.mean)} {rate}"
    if found.low is not None and found.high is not None:
        said += f" ({number(found.low)} to {number(found.high)}, 95 %)"
    return (
        f"{said} under {_objective(slo)}; {number(found.mean / at.gpus)} per GPU on {_gpus(at.gpus, spec)}; "
        f"limited by {found.limited_by}"
    )


def text(
    found: Capacity, spec: ServeSpec, slo: Slo | None, cost: float | None, warnings: Sequence[str], width: int = 100
) -> str:  # fmt: skip
    """The whole screen."""
    lines = [answer(found, spec, slo)]
    at = found.typical
    if found.mean:
        lines.append("")
        p = at.percentiles
        lines += _wrapped(
            f"at {at.load:.4g} {_rate(spec)}: TTFT {_time(p['ttft_p50_ps'])} P50, {_time(p['ttft_p99_ps'])} P99; TPOT "
            f"{_time(p['tpot_p50_ps'])} P50, {_time(p['tpot_p99_ps'])} P99; {at.output_tokens:,.0f} output tokens/s"
            + ("" if cost is None else f"; {cost:,.4g} per million output tokens"), width,
        )  # fmt: skip
        lines += _wrapped(_how(found), width)
    if found.mean and found.idle.drops:
        lines += _wrapped(f"turned away at any load: {_drops(found.idle)}", width)
    for warning in warnings[:_WARNINGS]:
        lines += textwrap.wrap(f"warning: {warning}", width, initial_indent="  ", subsequent_indent="    ")
    if len(warnings) > _WARNINGS:
        lines.append(f"  warning: and {len(warnings) - _WARNINGS} more (--json lists all)")
    return "\n".join([*lines, "", *_trials(found.trials, width)])


def _why_none(found: Capacity) -> str:
    """Why no load passes."""
    idle = found.idle
    if idle.drops:
        return f"an idle service turns away {_drops(idle)}"
    if idle.passed:
        lowest = min(trial.load for trial in found.trials if trial.load)
        return f"an idle service keeps it, {lowest:.3g} requests/s do not; limited by {found.limited_by}"
    if all(value <= bound for value, bound in idle.values.values()):
        return f"an idle service serves {100 * idle.kept:.3g} % of the requests within it"
    beyond = [(name, value, bound) for name, (value, bound) in idle.values.items() if value > bound]
    said = ", ".join(f"{name} is {_time(value)}, asked {_time(bound)}" for name, value, bound in beyond)
    return f"an idle service misses it: {said}"


def _drops(trial: Trial) -> str:
    """``12 of 2,000 requests: longer than the KV cache``."""
    said = "; ".join(f"{count:,} of {trial.requests:,} requests: {reason}" for reason, count in list(trial.drops.items())[:3])
    return said + (f"; and {len(trial.drops) - 3} more reasons" if len(trial.drops) > 3 else "")


def _how(found: Capacity) -> str:
    """How sure the answer is."""
    count = len(found.borders)
    runs = f"{len(found.trials)} runs of {found.idle.requests:,} requests"
    if count < 2:
        return f"one seed, so no interval; loads to {100 * found.tolerance:g} %, {runs}"
    low = [border.passing.load if border.passing is not None else 0.0 for border in found.borders]
    said = ", ".join(f"{load:.4g}" for load in low)
    return f"{count} seeds: {said}; loads to {100 * found.tolerance:g} %, {runs}"


def _trials(trials: Sequence[Trial], width: int) -> list[str]:
    rows = []
    burst = max((trial.load for trial in trials), default=0.0)  # the search's ceiling: all requests as good as at once
    for trial in trials[:_ROWS]:
        p = trial.percentiles
        rows.append([
            "idle" if not trial.load else "burst" if trial.load == burst else f"{trial.load:.5g}", f"{trial.seed}",
            *_verdict(trial), _time(p["ttft_p99_ps"]),
            _time(p["tpot_p99_ps"]), f"{trial.output_tokens:,.0f}", trial.worst,
        ])  # fmt: skip
    head = ["load", "seed", "", "in SLO", "behind", "TTFT P99", "TPOT P99", "tokens/s", "nearest its bound"]
    lines = table(head, rows, width=width)
    return lines + ([f"  and {len(trials) - _ROWS} more (--json lists all)"] if len(trials) > _ROWS else [])


def _verdict(trial: Trial) -> list[str]:
    kept = f"{100 * trial.kept:.2f} %" if trial.values else "-"
    return ["passes" if trial.passed else "fails", kept, f"{trial.behind:,}"]


def document(
    found: Capacity, spec: ServeSpec, slo: Slo | None, cost: float | None, warnings: Sequence[str]
) -> dict[str, Any]:  # fmt: skip
    """One JSON document; keys end in their unit; null: no such figure."""
    at = found.typical
    return _finite({
        "format": FORMAT, "answer": answer(found, spec, slo), "capacity_per_s": found.mean, "low_per_s": found.low,
        "high_per_s": found.high, "gpus": at.gpus, "capacity_per_s_gpu": found.mean / at.gpus if at.gpus else None,
        "cost_per_million_output_tokens": cost, "limited_by": found.limited_by, "tolerance": found.tolerance,
        "slo": None if slo is None else {f"{name}_ps": value for name, value in asdict(slo).items() if name != "percentile"}
        | {"percentile": slo.percentile},
        "seeds": [
            {"seed": one.seed, "passing_per_s": one.passing.load if one.passing is not None else 0.0,
             "failing_per_s": one.failing.load}
            for one in found.borders
        ],
        "at_capacity": trial_of(at) if found.mean else None, "idle": trial_of(found.idle),
        "trials": [trial_of(trial) for trial in found.trials], "warnings": list(warnings), "spec": spec.model_dump(),
    })  # fmt: skip


def trial_of(trial: Trial) -> dict[str, Any]:
    """One run."""
    return {
        "load_per_s": trial.load, "seed": trial.seed, "passed": trial.passed, "kept_share": trial.kept, "behind": trial.behind,
        "behind_allowed": trial.most_behind, "requests": trial.requests, "requests_per_s": trial.throughput,
        "output_tokens_per_s": trial.output_tokens, "latency_mean_ps": trial.latency, **trial.percentiles,
        "nearest_its_bound": trial.worst, "limited_by": trial.by, "gpus": trial.gpus,
        "dropped_by_reason": dict(trial.drops),
        "bounds": {name: {"value_ps": value, "bound_ps": bound} for name, (value, bound) in trial.values.items()},
    }  # fmt: skip


# --- replicas for a load ------------------------------------------------------------------------------------------------------


def fleet_answer(found: Fleet, spec: ServeSpec, slo: Slo | None) -> str:
    """The first line: ``5 replicas, 20 x h100_sxm, serve 50 requests/s under ...; one alone bears 11.2``"""
    asked = f"{found.load:g} {_rate(spec)} under {_objective(slo)}"
    if not found.single.mean:
        return f"no number of replicas serves {asked}: {_why_none(found.single)}"
    alone = f"one alone bears {number(found.single.mean)}"
    if found.copies is None:
        return f"{_copies(found.most, spec)}, {found.most * found.gpus} GPUs, do not serve {asked}; {alone}"
    gpus = _gpus(found.copies * found.gpus, spec)
    verb = "serves" if found.copies == 1 and len(spec.pools) == 1 else "serve"
    return f"{_copies(found.copies, spec)}, {gpus}, {verb} {asked}; {alone}"


def fleet_text(found: Fleet, spec: ServeSpec, slo: Slo | None, price: float | None, warnings: Sequence[str], width: int) -> str:
    """The whole screen."""
    lines = [fleet_answer(found, spec, slo), *([""] if found.copies is not None else [])]
    cost = fleet_cost(found, price)
    if cost is not None:
        lines += _wrapped(f"cost: {cost:,.4g} per million output tokens", width)
    if found.copies is not None:
        lines += _wrapped(f"router {spec.router}; cluster {found.cluster}", width)
    lines += [f"  warning: {warning}" for warning in warnings[:_WARNINGS]]
    rows = []
    for copies, trial in found.trials:
        p = trial.percentiles
        rows.append([
            f"{copies}", f"{copies * found.gpus}", f"{trial.seed}", *_verdict(trial), _time(p["ttft_p99_ps"]),
            _time(p["tpot_p99_ps"]), trial.worst,
        ])  # fmt: skip
    head = ["copies", "GPUs", "seed", "", "in SLO", "behind", "TTFT P99", "TPOT P99", "nearest its bound"]
    return "\n".join([*lines, "", *table(head, rows, width=width)] if rows else lines)


def fleet_cost(found: Fleet, price: float | None) -> float | None:
    """Per million output tokens at that load; None: none to tell."""
    at = found.passing
    if price is None or at is None or found.copies is None:
        return None
    return found.copies * found.gpus * price / 3600 / (found.load * at.mean_output) * 1e6


def fleet_document(
    found: Fleet, spec: ServeSpec, slo: Slo | None, price: float | None, warnings: Sequence[str]
) -> dict[str, Any]:  # fmt: skip
    """One JSON document."""
    return _finite({
        "format": FORMAT, "answer": fleet_answer(found, spec, slo), "load_per_s": found.load, "copies": found.copies,
        "gpus": None if found.copies is None else found.copies * found.gpus, "gpus_per_copy": found.gpus,
        "most_copies": found.most,
        "cost_per_million_output_tokens": fleet_cost(found, price), "cluster": found.cluster,
        "single": document(found.single, spec, slo, None, ()),
        "trials": [{"copies": copies, **trial_of(trial)} for copies, trial in found.trials], "warnings": list(warnings),
    })  # fmt: skip


# --- deployments --------------------------------------------------------------------------------------------------------------


def deployments_answer(found: Findings) -> str:
    """The first line: the most load, and the most per GPU."""
    rows = [row for row in found.rows if row.get("capacity_per_s")]

    def listed(row: Mapping[str, Any], varied: Sequence[str]) -> str:
        return ", ".join(f"{name}={row[name]}" for name in varied if row[name] is not None)

    if not rows:
        failures = [row["failed"].splitlines()[0] for row in found.rows if row["failed"] is not None]
        what = "all are refused" if not found.rows else "none bears any load"
        what = f"all that were run failed: {failures[0]}" if failures and len(failures) == len(found.rows) else what
        return f"no deployment of {found.size:,}: {what}"
    most = max(rows, key=lambda row: row["capacity_per_s"])
    each = max(rows, key=lambda row: row["capacity_per_s_gpu"])
    where = listed(most, found.varied) or "the only deployment"
    said = f"most: {number(most['capacity_per_s'])} requests/s on {most['gpus']:g} GPUs at {where}; "
    per_gpu, of = f"{number(each['capacity_per_s_gpu'])}", f"(of {found.size:,} deployments)"
    if each is most:
        return f"{said}the most per GPU too: {per_gpu} {of}"
    return f"{said}most per GPU: {per_gpu} at {listed(each, found.varied)} {of}"


def deployments_text(found: Findings, width: int) -> str:
    """The whole screen: every deployment, the front marked."""
    from distsim.sweep.deployments import BARGAIN
    from distsim.sweep.shown import reasons

    refused = sum(one.count for one in found.refused)
    counts = f"{found.size:,} deployments: {len(found.rows):,} run, {refused:,} refused, {found.failed:,} failed"
    lines = [deployments_answer(found), counts]
    lines += reasons(found.refused, width)
    priced = any(row.get("cost_per_million_output_tokens") is not None for row in found.rows)
    head = [
        *(found.varied or ("deployment",)), "", "requests/s", "95 %", "GPUs", "per GPU",
        *(["$/M output tokens"] if priced else []), "TTFT P99", "TPOT P99", "limited by",
    ]  # fmt: skip
    rows = []
    order = sorted(range(len(found.rows)), key=lambda at: (-(found.rows[at].get("capacity_per_s") or 0.0), at))
    for at in order[:_ROWS]:
        row = found.rows[at]
        mark = ("*" if at in found.front else "") + ("$" if row.get(BARGAIN) else "")
        names = ["-" if row[name] is None else f"{row[name]}" for name in found.varied] or [f"{row['point']}"]
        rows.append([*names, mark, *_cells(row, priced)])
    lines += ["", *table(head, rows, text=len(found.varied) or 1, width=width)]
    bargain = "; $ no other is as cheap and as quick (P99 TTFT)" if priced else ""
    lines.append(f"  * no other bears more on as few GPUs{bargain}")
    if found.failed:
        message = next(row["failed"] for row in found.rows if row["failed"] is not None)
        lines.append(f"warning: {found.failed:,} failed; the first: {message.splitlines()[0]}")
    return "\n".join(lines)


def _cells(row: Mapping[str, Any], priced: bool) -> list[str]:
    if row["failed"] is not None:
        return ["failed", *["-"] * (6 + priced), row["failed"].splitlines()[0]]
    low, high = row["low_per_s"], row["high_per_s"]
    cost = row.get("cost_per_million_output_tokens")
    return [
        number(row["capacity_per_s"]), "-" if low is None else f"{number(low)}-{number(high)}", f"{row['gpus']:g}",
        number(row["capacity_per_s_gpu"]), *([f"{cost:.3g}" if cost is not None else "-"] if priced else []),
        _time(row.get("ttft_p99_ps")), _time(row.get("tpot_p99_ps")), str(row["limited_by"]),
    ]  # fmt: skip


def deployments_document(found: Findings) -> dict[str, Any]:
    """One JSON document: every deployment."""
    return _finite({**found.document(), "format": FORMAT, "answer": deployments_answer(found), "rows": found.rows})


# --- words --------------------------------------------------------------------------------------------------------------------


def _objective(slo: Slo | None) -> str:
    if slo is None:
        return "no objective but keeping up"
    names = {"ttft": "TTFT", "tpot": "TPOT", "latency": "latency", "queueing": "queueing"}
    said = [f"{word} {format_time(bound)}" for name, word in names.items() if (bound := getattr(slo, name)) is not None]
    return f"{', '.join(said)} for {slo.percentile:g} %"


def _rate(spec: ServeSpec) -> str:
    return "requests/s" if spec.sessions is None else "sessions/s"


def _copies(count: int, spec: ServeSpec) -> str:
    what = "replica" if len(spec.pools) == 1 else "set of pools"
    return f"1 {what}" if count == 1 else f"{count} {what.replace('set', 'sets') if len(spec.pools) > 1 else what + 's'}"


def _gpus(count: float, spec: ServeSpec) -> str:
    kinds = dict.fromkeys(pool.deployment.device.name for pool in spec.pools)
    return f"{count:.4g} x {' and '.join(kinds)}"


def _time(ps: float | None) -> str:
    if ps is None or math.isnan(ps):
        return "-"
    return "never" if math.isinf(ps) else format_time(ps)


def _wrapped(sentence: str, width: int) -> list[str]:
    return textwrap.wrap(sentence, width, initial_indent="  ", subsequent_indent="    ")


def _finite(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same with null for what is no number, which JSON has no word for."""

    def mended(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return None
        if isinstance(value, Mapping):
            return {key: mended(one) for key, one in value.items()}
        return [mended(one) for one in value] if isinstance(value, list | tuple) else value

    return {key: mended(value) for key, value in document.items()}
