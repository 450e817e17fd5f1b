"""Replay a trace on a simulated cluster: step time, what it is made of, what limits it.

  distsim run trace.json                                 on a fat tree that fits
  distsim run runs/et/w --topo rail_optimized -o out     Chakra runs/et/w.0.et ...; tables, summary and timeline in out/
  distsim run et.tar.gz --topo nd:dims=ring4+switch8 --compute roofline --peak 989TFLOPS --memory-bandwidth 3.35TB/s
  distsim run llama3_8b_tp8_dp8 --network analytic       a shipped trace, by name; no contention
  distsim run trace.json --network fluid --routing ecmp  max-min fair shares of links, routes as switches hash them
  distsim run trace.json --topo dgx_h100 --network "nvlink=analytic+*=fluid"    a level per link domain
  distsim run trace.json --topo dgx_h100 --collectives nccl    algorithm, protocol and channels as NCCL chooses them
  distsim run trace.json --topo dgx_h100 --network coflow      symmetric ranks folded, collectives as coflows (docs/folding.md)
  distsim run kineto/*.json.gz                           captured by the PyTorch profiler, one file per rank (docs/captured.md)
  distsim run rank0.json.gz --topo dgx_h100 --ranks 8 --scale-compute 'a100->h100'   elsewhere, on other GPUs
  distsim run trace.json --json | jq .makespan_ns        one JSON document
  distsim run trace.json --events events.yaml            links fail, ranks slow down ...: what that costs (docs/events.md)
  distsim run workload.txt --topo simai:Spectrum-X_16g   SimAI's workload and topology files, as they are
  distsim run trace.json --topo ring --profile astra     exactly as ASTRA-sim would
  distsim run x.goal --network loggops:preset=ai         a GOAL schedule, as LogGOPSim would (docs/loggops.md)
  distsim run --astra-workload runs/et/w --astra-network net.yml --astra-system sys.json [--astra-groups g.json]

docs/networks.md says which level to choose, `distsim topo` lists presets, builders and routing policies with their keys.
The first line is the answer; exposed communication is that under way while the rank does not compute.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys

from distsim.cli.options import add_options, given, spec_of
from distsim.cli.progress import Progress
from distsim.cli.shipped import traces
from distsim.errors import ConfigError, FaultError
from distsim.result import Result

#: ASTRA-sim's own files: option -> (argument of simulate_files, help)
_FILES = {
    "astra_workload": ("workload", "ASTRA-sim workload: prefix of PREFIX.<rank>.et"),
    "astra_network": ("network", "ASTRA-sim network YAML"),
    "astra_system": ("system", "ASTRA-sim system JSON"),
    "astra_groups": ("groups", "ASTRA-sim communicator groups JSON"),
}


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument(
        "trace", nargs="*", help="file, folder, tar or prefix of a trace, files of captured ranks, or a shipped trace by name"
    )
    add_options(parser)
    parser.add_argument("-o", "--output", metavar="FOLDER", help="write tables, summary.json and timeline.json.gz there")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--quiet", action="store_true", help="print the first line only")
    parser.add_argument("--profile", choices=("native", "astra"), help="semantics: distsim's own (default) or ASTRA-sim's")
    for option, (_, about) in _FILES.items():
        parser.add_argument(f"--{option.replace('_', '-')}", metavar="PATH", help=about)


def run(args: argparse.Namespace) -> int:
    """Simulate, write, print."""
    from distsim.analysis.summary import summarise
    from distsim.report.answer import answer
    from distsim.report.document import document, dumps
    from distsim.report.terminal import text

    if args.output is not None:
        from distsim.report.folder import check_target, save

        check_target(args.output)
    broken: FaultError | None = None
    with Progress() as progress:
        try:
            result = _simulate(args, progress)
        except FaultError as error:
            if error.partial is None:
                raise
            result, broken = error.partial, error
        progress(None, "summing up")
        summary = summarise(result)
        if args.output is not None:
            progress(None, f"writing {args.output}")
            save(result, args.output, summary)
    if args.json:
        print(dumps(document(result, summary), indent=None))
    elif args.quiet:
        print(answer(result, summary))
    else:
        print(text(result, summary, min(max(shutil.get_terminal_size((100, 24)).columns, 60), 140)))
    if args.output is not None and not args.quiet:
        print(f"results in {args.output}", file=sys.stderr)
    if broken is not None:
        raise broken
    return 0


def _simulate(args: argparse.Namespace, progress: Progress) -> Result:
    """Run what the arguments say. Raises ConfigError where they contradict each other."""
    files = {option: getattr(args, option) for option in _FILES if getattr(args, option) is not None}
    options = given(args)
    if files:
        return _astra_files(args, files, options, progress)
    if not args.trace:
        raise ConfigError("no trace was given", fix="distsim run TRACE --topo SPEC, or distsim demo.")
    if args.profile == "astra":
        options = {"network": "analytic", **options}  # the backend that ASTRA-sim's users know as the default
    spec = spec_of(traces(args.trace), options)
    if args.profile == "astra":
        from distsim.profiles.astra.run import simulate_trace

        return _of_profile(simulate_trace(spec, progress=progress))
    from distsim.api import simulate

    return simulate(spec, progress=progress)


def _astra_files(args: argparse.Namespace, files: dict[str, str], options: dict[str, str], progress: Progress) -> Result:
    """An experiment in ASTRA-sim's own files."""
    needed = ("astra_workload", "astra_network", "astra_system")
    missing = [f"--{name.replace('_', '-')}" for name in needed if name not in files]
    if missing:
        raise ConfigError(f"{' and '.join(missing)} missing", expected="--astra-workload, --astra-network and --astra-system")
    if args.profile == "native":
        raise ConfigError("--profile native cannot run ASTRA-sim's files", fix="Leave --profile out.")
    level = options.pop("network", None)
    idle = [f"--{name.replace('_', '-')}" for name in options] + (["TRACE"] if args.trace else [])
    if idle:
        raise ConfigError(f"{', '.join(idle)}: ASTRA-sim's files say that already", fix="Leave it out, or --astra-* out.")
    from distsim.profiles.astra.run import simulate_files

    chosen = {_FILES[option][0]: path for option, path in files.items()} | ({"level": level} if level else {})
    return _of_profile(simulate_files(**chosen, progress=progress))


def _of_profile(result: Result) -> Result:
    """The specification of a run under the profile names it."""
    return dataclasses.replace(result, spec=dict(result.spec) | {"profile": "astra"})
