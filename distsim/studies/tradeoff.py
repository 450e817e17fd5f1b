"""What does accuracy cost? Every network level and compute provider against what was measured or simulated by others.

A *yardstick* is one reference with one unit of work; on it every entry has an error, CPU seconds and a generality. Entries of
different yardsticks do not compare: each has its own chart and its own Pareto front of error and CPU time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distsim.errors import ConfigError, UnknownNameError
from distsim.hardware.gpu import gpus
from distsim.models.catalog import model as model_of
from distsim.network.flow_times import flow_times
from distsim.registry import lookup
from distsim.studies.bandwidth import CLASSES
from distsim.studies.bandwidth import provider as provider_of
from distsim.studies.finding import Chart, Finding, Series, Table
from distsim.trace.netref import FlowScenario, read_netref
from distsim.units import format_time
from distsim.validation.suite import Report, Suite, find

Progress = Callable[[float | None, str], None]
Row = dict[str, Any]

#: network levels that are compared
LEVELS = ("analytic", "fluid", "fluid:mtu=4096", "cut_through", "cut_through:size=64KiB", "chunk", "chunk:size=64KiB")
#: what a network level may express (docs/networks.md), and which levels do; options after the colon add to it
FEATURES = ("contention", "fair shares", "queues", "switches that store", "packets' headers", "links that change")
EXPRESSES = {
    "analytic": (),
    "fluid": ("contention", "fair shares", "links that change"),
    "cut_through": ("contention", "queues", "links that change"),
    "chunk": ("contention", "queues", "switches that store", "links that change"),
    "fluid:mtu": ("packets' headers",),
}
#: --quick: scenarios of at most so many flows
_FEW = 300
#: kernels that a provider is timed on
_TIMED = 400
YARDSTICKS = ("simgrid", "htsim", "gemm", "attention", "nccl", "goal", "astra", "training")
#: yardsticks that take over a minute: left out of --quick
LONG = ("htsim", "astra", "training")
#: yardstick -> folder of the reference, by what it is called in docs/accuracy.md
_FOLDERS = {
    "simgrid": "network", "htsim": "network", "gemm": "compute", "attention": "compute", "nccl": "nccl", "goal": "goal",
    "astra": "astra", "training": "training",
}  # fmt: skip
#: what a yardstick counts, and what its error is
_UNITS = {
    "simgrid": ("flow", "end of the last flow of each scenario, mean |error| against SimGrid (max-min)"),
    "htsim": ("flow", "mean end of sprayed flows, mean |error| against csg-htsim (packets)"),
    "gemm": ("kernel", "mean |error| against measured GEMMs"),
    "attention": ("kernel", "mean |error| against measured attention, prompts and generation"),
    "nccl": ("collective", "mean |error| against measured NCCL"),
    "goal": ("row", "share of LogGOPSim's results that are not met exactly"),
    "astra": ("row", "share of ASTRA-sim's results that are not met exactly"),
    "training": ("row", "mean |error| against measured and published training steps"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One level or provider on one yardstick.

    error: see the yardstick. cpu_s: CPU seconds for ``units`` of work. expressed: share of what was asked that it can answer;
    for levels the features it has of FEATURES.
    """

    yardstick: str
    name: str
    error: float
    cpu_s: float
    units: int
    expressed: float
    about: str = ""

    @property
    def each_s(self) -> float:
        """CPU seconds per unit."""
        return self.cpu_s / self.units if self.units else 0.0


def conduct(data: str, quick: bool, only: Sequence[str], progress: Progress) -> Finding:
    """Measure every yardstick that the folder has data for.

    Args:
        data: folder of the reference, with its sub-folders.
        quick: leave out what takes over a minute, and large scenarios.
        only: yardsticks; empty: all.

    Raises: ConfigError where the folder holds no reference; UnknownNameError.
    """
    folder = Path(data)
    if not folder.is_dir():
        raise ConfigError("is not a folder", where=f"--data {data}", expected="the reference, such as ../shared/reference")
    for name in only:
        if name not in YARDSTICKS:
            raise UnknownNameError("yardstick", name, YARDSTICKS, where="--only")
    wanted = [name for name in (only or YARDSTICKS) if only or not (quick and name in LONG)]
    there = [name for name in wanted if (folder / _FOLDERS[name]).is_dir()]
    if not there:
        listed = ", ".join(dict.fromkeys(_FOLDERS[name] for name in wanted))
        raise ConfigError("holds no reference data", where=f"--data {data}", expected=f"sub-folders {listed}")
    entries: list[Entry] = []
    for number, name in enumerate(there):

        def say(fraction: float | None, what: str, number: int = number, name: str = name) -> None:
            progress((number + (fraction or 0.0)) / len(there), f"{name}: {what}")

        entries += _measure(name, folder / _FOLDERS[name], quick, say)
    left = [name for name in YARDSTICKS if name not in there]
    return findings(entries, data, quick, there, left)


def _measure(name: str, folder: Path, quick: bool, progress: Progress) -> list[Entry]:
    if name == "simgrid":
        return list(_simgrid(folder, quick, progress))
    if name == "htsim":
        return list(_htsim(folder, quick, progress))
    if name in ("gemm", "attention"):
        return list(_kernels(name, folder, progress))
    if name == "nccl":
        return list(_nccl(folder, progress))
    report, cpu = _suite(name, folder, progress)
    if name == "training":
        families = [group for family, group in report.groups.items() if f"mape_{family}" in report.metrics]
        judged = sum(group["expressed"] for group in families)
        if not judged:
            raise ConfigError("holds no training step that is stated in full", where=str(folder))
        value = sum(group["mape"] * group["expressed"] for group in families) / judged
    else:
        value = 1.0 - report.metrics["matched_fraction"]
    about = {"goal": "loggops", "astra": "profile astra", "training": "distsim train (coflows, fluid)"}[name]
    return [Entry(name, about, value, cpu, report.expressed, report.expressed / max(1, report.rows))]


def _suite(name: str, folder: Path, progress: Progress) -> tuple[Report, float]:
    """A suite's report and its CPU seconds, worker processes included."""
    suite: Suite = lookup("suite", name)()
    began = _cpu()
    report = suite.run(folder, progress)
    return report, _cpu() - began


def _cpu() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return time.process_time() + sum(os.times()[2:4])


def expressed(level: str) -> float:
    """Share of FEATURES that a level has.

    >>> round(expressed("fluid:mtu=4096"), 2)
    0.67
    """
    base, _, options = level.partition(":")
    having = {*EXPRESSES.get(base, ()), *EXPRESSES.get(f"{base}:{options.partition('=')[0]}", ())}
    return len(having) / len(FEATURES)


def _scenarios(folder: Path, names: set[str], quick: bool) -> list[FlowScenario]:
    """Scenarios that the reference has results for, small ones first. Raises TraceError on one that is malformed."""
    found = []
    for path in sorted({*folder.glob("*.json"), *folder.glob("*.json.gz")}):
        if path.name.partition(".")[0] in names:
            scenario = read_netref(path)
            if not quick or len(scenario) <= _FEW:
                found.append(scenario)
    return sorted(found, key=len)


def _simgrid(folder: Path, quick: bool, progress: Progress) -> Iterator[Entry]:
    from distsim.validation.simgrid import read_reference

    place = find(folder, "simgrid_reference.csv")
    if place is None:
        raise ConfigError("holds no simgrid_reference.csv", where=str(folder), expected="the layout of reference/network")
    reference = read_reference(place)
    scenarios = _scenarios(folder, set(reference), quick)
    levels = [level for level in LEVELS if level != "fluid:mtu=4096"]  # SimGrid's flows have no headers
    for number, level in enumerate(levels):
        flow_times(scenarios[0], level)  # loads its kernels
        last, each, cpu = [], [], 0.0
        for at, scenario in enumerate(scenarios):
            progress((number + at / len(scenarios)) / len(levels), f"{level}, {scenario.name}")
            began = _cpu()
            finish = flow_times(scenario, level).finish
            cpu += _cpu() - began
            rows = reference[scenario.name]
            wanted = np.array([float(rows[flow]["finish_s"]) for flow in scenario.flow_id.tolist()])
            each.append(np.abs(finish / wanted - 1))
            last.append(abs(float(finish.max() / wanted.max()) - 1))
        errors = np.concatenate(each)
        about = f"mean |error| of single flows {100 * float(errors.mean()):.1f} %"
        yield Entry("simgrid", level, float(np.mean(last)), cpu, len(errors), expressed(level), about)


def _htsim(folder: Path, quick: bool, progress: Progress) -> Iterator[Entry]:
    from distsim.validation.htsim import mean_finish, read_summary

    place = find(folder, "htsim_summary.csv")
    if place is None:
        raise ConfigError("holds no htsim_summary.csv", where=str(folder), expected="the layout of reference/network")
    rows = [row for row in read_summary(place) if row.sprayed]
    scenarios = _scenarios(folder, {row.scenario for row in rows}, True)
    levels = [level for level in LEVELS if ":size" not in level]  # spraying cuts messages into packets of its own
    for number, level in enumerate(levels):
        errors, cpu, flows = [], 0.0, 0
        for at, scenario in enumerate(scenarios):
            progress((number + at / len(scenarios)) / len(levels), f"{level}, {scenario.name}")
            began = _cpu()
            mean = mean_finish(scenario, "spray:paths=64", level)
            cpu += _cpu() - began
            flows += len(scenario)
            errors += [abs(mean / row.mean - 1) for row in rows if row.scenario == scenario.name]
        yield Entry("htsim", level, float(np.mean(errors)), cpu, flows, expressed(level), f"{len(errors)} runs of htsim")


def _kernels(kind: str, folder: Path, progress: Progress) -> Iterator[Entry]:
    """Errors by the suite; CPU time of answers asked one by one, as a simulation asks."""
    report, _ = _suite("compute", folder, progress)
    totals: dict[str, list[float]] = {}
    for group, values in report.groups.items():
        kernel, *_, name = (part.strip() for part in group.split(","))
        if kernel.startswith(kind) and "mape" in values:
            total = totals.setdefault(name.removesuffix(" family"), [0.0, 0.0])
            total[0] += values["mape"] * values["expressed"]
            total[1] += values["expressed"]
    classes = ("gemm",) if kind == "gemm" else ("attention context", "attention generation")
    for name, (weighed, count) in totals.items():
        cpu, units = _timed(name, classes)
        yield Entry(kind, name, weighed / count, cpu, units, _served(name), f"{int(count):,} measured kernels")


def _timed(name: str, classes: Sequence[str]) -> tuple[float, int]:
    """CPU seconds of answers to different kernels."""
    machine, llama = gpus()["h100_sxm"], model_of("llama3-70b")
    answer = provider_of(name, machine)
    kernels = [CLASSES[kind].make(llama, 8, 8 * size, "bf16") for kind in classes for size in range(1, _TIMED + 1)]
    answer(kernels[0], machine)  # loads parameters
    began = _cpu()
    for kernel in kernels[1:]:
        answer(kernel, machine)
    return _cpu() - began, len(kernels) - 1


def _served(name: str) -> float:
    """Share of the classes of kernels on all shipped GPUs that a provider serves."""
    llama = model_of("llama3-70b")
    found = asked = 0
    for machine in gpus().values():
        answer = provider_of(name, machine)
        for kind in CLASSES.values():
            asked += 1
            found += "bf16" in machine.peak and answer(kind.make(llama, 8, 1024, "bf16"), machine) is not None
    return found / asked


def _nccl(folder: Path, progress: Progress) -> Iterator[Entry]:
    from distsim.nccl.fit import relative_errors
    from distsim.validation.nccl import judged_samples

    place = find(folder, "nccl_measured.csv")
    if place is None:
        raise ConfigError("holds no nccl_measured.csv", where=str(folder), expected="the layout of reference/nccl")
    progress(0.0, "reading")
    samples = judged_samples(place)
    began = _cpu()
    errors = np.abs(relative_errors(samples))
    alone = _cpu() - began
    report, whole = _suite("nccl", folder, progress)
    fitted, counted = 0.0, 0.0
    for group, values in report.groups.items():
        if "calibrated, " in group:
            fitted, counted = fitted + values["mape"] * values["rows"], counted + values["rows"]
    share = report.expressed / max(1, report.rows)
    yield Entry("nccl", "nccl as shipped", float(errors.mean()), alone, len(samples), share, "no measurement of the system")
    if counted:
        about = "fitted to the system, judged on points left out; time: of the whole suite"
        yield Entry("nccl", "nccl calibrated", fitted / counted, whole, int(counted), share, about)


def front(entries: Sequence[Entry]) -> set[str]:
    """Names of the entries of one yardstick that no other beats in both error and CPU time per unit."""
    return {
        one.name for one in entries
        if not any(
            (other.error, other.each_s) != (one.error, one.each_s) and other.error <= one.error and other.each_s <= one.each_s
            for other in entries
        )
    }  # fmt: skip


def findings(entries: Sequence[Entry], data: str, quick: bool, there: Sequence[str], left: Sequence[str]) -> Finding:
    """What was measured. Pure."""
    by = {name: [one for one in entries if one.yardstick == name] for name in there}
    fronts = {name: front(found) for name, found in by.items()}
    said = []
    for name, found in by.items():
        best = min(found, key=lambda one: (one.error, one.each_s))
        cheap = min(found, key=lambda one: (one.each_s, one.error))
        words = f"{name}: {best.name} {_percent(best.error)} at {_time(best.each_s)} a {_UNITS[name][0]}"
        if cheap is not best:
            words += f", {cheap.name} {_percent(cheap.error)} at {_time(cheap.each_s)}"
        said.append(words)
    rows = [
        {
            "yardstick": one.yardstick, "name": one.name, "error": one.error, "cpu_s": one.cpu_s, "units": one.units,
            "cpu_per_unit_s": one.each_s, "generality": one.expressed, "front": one.name in fronts[one.yardstick],
            "about": one.about,
        }
        for one in entries
    ]  # fmt: skip
    tables = tuple(
        Table(
            f"{name}: {_UNITS[name][1]}", ("", "error", f"CPU a {_UNITS[name][0]}", "generality", "front"),
            [_line(one, one.name in fronts[name]) for one in found],
            notes=tuple(f"{one.name}: {one.about}" for one in found if one.about), name=name,
        )
        for name, found in by.items()
    )  # fmt: skip
    charts = tuple(_chart(name, found, fronts[name]) for name, found in by.items())
    return Finding(
        "tradeoff", "; ".join(said), tables, charts, rows,
        {"fronts": {name: sorted(names) for name, names in fronts.items()}, "left_out": list(left)},
        {"data": data, "quick": quick, "yardsticks": list(there)},
        notes=(
            f"generality: of levels, which of {len(FEATURES)} features they have ({', '.join(FEATURES)}); of compute "
            "providers, classes of kernels served on all shipped GPUs; elsewhere, rows of the reference that can be expressed",
            "front: no other entry of the yardstick is better in both error and CPU time; CPU seconds are of this machine",
        ),
        warnings=(f"left out: {', '.join(left)}",) if left else (),
    )  # fmt: skip


def _line(one: Entry, best: bool) -> tuple[str, ...]:
    return one.name, _percent(one.error), _time(one.each_s), _percent(one.expressed), "*" if best else ""


def _chart(name: str, found: Sequence[Entry], best: set[str]) -> Chart:
    """Error against CPU time; what is exact is drawn at 0.01 %, where a logarithmic axis can show it."""
    ordered = sorted(found, key=lambda one: one.each_s)

    def series(title: str, some: Sequence[Entry], hue: int) -> Series:
        return Series(
            title, [one.each_s for one in some], [max(one.error, 1e-4) for one in some], [one.name for one in some], hue=hue
        )

    parts = (
        series("front", [one for one in ordered if one.name in best], 1),
        series("beaten", [one for one in ordered if one.name not in best], 2),
    )
    return Chart(
        f"yardstick_{name}", f"{name}: {_UNITS[name][1]}", f"CPU seconds a {_UNITS[name][0]}", "error",
        tuple(one for one in parts if one.x), log_x=True, log_y=True, x_kind="s", y_kind="share", points=True,
    )  # fmt: skip


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _time(seconds: float) -> str:
    return format_time(round(seconds * 1e12))
