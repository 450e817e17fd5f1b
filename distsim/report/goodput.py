"""Goodput on a terminal, as one document, as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from distsim.goodput.daly import daly_interval, young_interval
from distsim.goodput.durations import DAY, format_seconds
from distsim.goodput.study import Answer, Estimate
from distsim.report.chart import Series, draw_chart
from distsim.report.table import table

FORMAT = "distsim-goodput"

#: part of the ledger -> what it is called
LOST = {
    "checkpoint": "stopped for checkpoints", "lost": "work lost and done again", "detection": "failed, not noticed yet",
    "restart": "restarts", "waiting": "waiting for repairs", "slow": "slow nodes", "shrunk": "fewer replicas",
}  # fmt: skip


def text(found: Answer, curve: Sequence[Answer], asked_interval: bool, width: int = 100) -> str:
    """The answer first; then where the time went, and the checkpoint interval."""
    job = found.job
    lines = [
        f"goodput {_percent(found.goodput)}: {found.steps:,.0f} of {found.ideal_steps:,.0f} steps of "
        f"{format_seconds(job.step)} in {format_seconds(found.horizon)}; effective training time {_percent(found.effective)}",
        f"  {job.nodes:,} nodes, {found.failures.mean:,.1f} failures (one every {format_seconds(job.mtbf)}), mean of "
        f"{found.runs:,} run{'s' if found.runs > 1 else ''}",
        "",
    ]
    rows = sorted((part for part in LOST if found.shares[part]), key=lambda part: -found.shares[part])
    share = found.shares
    lost = [[LOST[part], f"{100 * share[part]:.2f} %", format_seconds(share[part] * found.horizon)] for part in rows]
    if lost:
        lines += [*table(["time lost to", "share", "in all"], lost, width=width), ""]
    how = "as asked" if asked_interval else "Daly's optimum"
    lines.append(f"  checkpoint every {format_seconds(job.interval)} of work ({how})")
    if asked_interval and job.checkpoint:
        lines[-1] += f"; Daly's optimum is {format_seconds(daly_interval(job.checkpoint, job.mtbf))}"
    lines.append(f"  Daly's formula{_unlike(found)}: {100 * found.daly:.2f} %")
    if curve:
        best = max(curve, key=lambda one: one.goodput.mean)
        points = [[format_seconds(one.job.interval), _percent(one.goodput), f"{100 * one.daly:.2f} %"] for one in curve]
        lines += ["", *table(["checkpoint every", "goodput", "Daly's formula"], points, width=width)]
        lines.append(f"  best of these: {format_seconds(best.job.interval)}")
    return "\n".join(lines)


def document(found: Answer, curve: Sequence[Answer]) -> dict[str, Any]:
    """Everything, times in seconds, shares of 1."""
    job = found.job
    return {
        "format": FORMAT, "goodput": _interval(found.goodput), "effective_training_time": _interval(found.effective),
        "steps": found.steps, "ideal_steps": found.ideal_steps, "failures": _interval(found.failures),
        "shares": found.shares, "horizon_s": found.horizon, "runs": found.runs, "job": asdict(job),
        "checkpoint_interval_s": job.interval, "young_interval_s": young_interval(job.checkpoint, job.mtbf),
        "daly_interval_s": daly_interval(job.checkpoint, job.mtbf), "daly_goodput": found.daly,
        "curve": [
            {"checkpoint_interval_s": one.job.interval, "goodput": _interval(one.goodput), "daly_goodput": one.daly}
            for one in curve
        ],
    }  # fmt: skip


def draw(path: str, found: Answer, curve: Sequence[Answer]) -> None:
    """Goodput against the checkpoint interval, simulated and by the formula. Raises ConfigError."""
    minutes = [one.job.interval / 60 for one in curve]
    series = [
        Series("simulated", minutes, [100 * one.goodput.mean for one in curve]),
        Series("Daly's formula", minutes, [100 * one.daly for one in curve]),
    ]
    title = f"{found.job.nodes:,} nodes, a failure every {format_seconds(found.job.mtbf)}, {found.horizon / DAY:g} days"
    draw_chart(path, series, title=title, x="work between checkpoints, min", y="goodput, %", log_x=10)


def _percent(one: Estimate) -> str:
    """``92.47 % (92.41 to 92.52)``: with its 95 % confidence interval, where there is one."""
    interval = "" if math.isnan(one.low) else f" ({100 * one.low:.2f} to {100 * one.high:.2f})"
    return f"{100 * one.mean:.2f} %{interval}"


def _interval(one: Estimate) -> dict[str, float | None]:
    """JSON has no NaN: null."""
    names = {"mean": one.mean, "low_95": one.low, "high_95": one.high, "deviation": one.deviation}
    return {name: None if math.isnan(value) else value for name, value in names.items()}


def _unlike(found: Answer) -> str:
    """What Daly's formula leaves out of this job."""
    job = found.job
    missing = [
        what
        for what, there in (
            ("slow nodes", found.shares["slow"] > 0), ("repairs", found.shares["waiting"] + found.shares["shrunk"] > 0),
            ("bursts of failures", job.shape != 1),
        )
        if there
    ]  # fmt: skip
    return f" (without {', '.join(missing)})" if missing else ""
