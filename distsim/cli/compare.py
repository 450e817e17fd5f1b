"""Run one workload on several network levels: time, link loads, cost of each, and where they part.

  distsim compare trace.json --networks analytic,fluid,chunk --topo fat_tree
  distsim compare llama3_8b_tp8_dp8 --topo rail_optimized                  a shipped trace, the usual levels
  distsim compare trace.json --networks analytic,fluid,chunk:size=1MiB,credits=8 --topo fat_tree:k=8
  distsim compare trace.json --plot surface.svg                            accuracy against speed, as a picture

The last level is the reference that the others are measured by: name the finest last. CPU seconds are of the simulation
alone; the first level that needs a kernel also loads it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time

from distsim.cli.options import add_options, given, spec_of
from distsim.cli.progress import Progress
from distsim.cli.shipped import resolve
from distsim.errors import ConfigError

USUAL = "analytic,fluid,cut_through,chunk"


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("trace", help="file, folder, tar or prefix of a trace, or the name of a shipped one")
    parser.add_argument("--networks", default=USUAL, metavar="LEVELS", help=f"levels, the reference last (default {USUAL})")
    add_options(parser, leave_out=("network",))
    parser.add_argument("--plot", metavar="FILE", help="draw error against CPU time of the levels (.svg, .png, .pdf)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Run every level, compare, print."""
    from distsim.analysis.compare import LevelRun, compare
    from distsim.api import simulate
    from distsim.network.spec import build_network
    from distsim.report.chart import check_chart
    from distsim.report.compare import document, text
    from distsim.topology.routed import routed
    from distsim.topology.spec import build, fixed_hosts
    from distsim.trace.files import shown
    from distsim.trace.read import read_trace

    levels = networks(args.networks)
    if args.plot:
        check_chart(args.plot)
    spec = spec_of(resolve(args.trace), given(args))
    runs = []
    with Progress() as progress:
        progress(None, f"reading {shown(spec.trace)}")
        graph = read_trace(spec.trace, spec.groups, spec.strict, spec.repair, spec.ranks, fixed_hosts(spec.topo))
        network = routed(spec.routing, build(spec.topo, graph.ranks))
        for level in levels:
            build_network(level, network, where="--networks")  # refused before any level has run for minutes
        for number, level in enumerate(levels):

            def say(fraction: float | None, what: str, number: int = number, level: str = level) -> None:
                progress(None if fraction is None else (number + fraction) / len(levels), f"{level}: {what}")

            begin = time.process_time()
            options = spec.model_dump(exclude={"trace", "network", "topo"})
            result = simulate(graph, spec.topo, network=level, progress=say, **options)
            runs.append(LevelRun(level, result, time.process_time() - begin))
    found = compare(runs)
    last = runs[-1].result
    if args.plot:
        _plot(args.plot, found.rows)
    if args.json:
        print(json.dumps(document(found, last.ranks, last.topology.spec)))
    else:
        width = min(max(shutil.get_terminal_size((100, 24)).columns, 60), 140)
        print(text(found, last.ranks, last.topology.spec, width))
    return 0


def networks(text: str) -> list[str]:
    """The levels that an argument names; ``key=value`` goes on with the options of the level before it. Raises ConfigError
    where there are fewer than two, or one is named twice.

    >>> networks("analytic,chunk:size=1MiB,credits=8,fluid")
    ['analytic', 'chunk:size=1MiB,credits=8', 'fluid']
    """
    found: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if found and ":" in found[-1] and "=" in part and ":" not in part and "+" not in part:
            found[-1] += f",{part}"
        else:
            found.append(part)
    if len(found) < 2:
        raise ConfigError(f"{text!r} names {len(found)} level", where="--networks", expected="two or more to compare")
    twice = next((level for level in found if found.count(level) > 1), None)
    if twice:
        raise ConfigError(f"{twice} is named twice", where="--networks")
    return found


def _plot(path: str, rows: object) -> None:
    from distsim.analysis.compare import LevelRow
    from distsim.report.chart import Series, draw_chart

    levels: list[LevelRow] = list(rows)  # type: ignore[call-overload]
    cloud = Series(
        "levels", [row.cpu_s for row in levels], [100 * abs(row.error) for row in levels], [row.network for row in levels]
    )
    draw_chart(
        path, [cloud], title="Accuracy against speed", x="CPU seconds", y=f"step, % off {levels[-1].network}", log_x=10,
        points=True,
    )  # fmt: skip
