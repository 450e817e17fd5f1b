"""Say why a run took as long as it did: the critical path as a story, links, late ranks, slack, bounds.

  distsim run trace.json -o out && distsim explain out         RESULT is a folder of run -o or train -o
  distsim train --model llama3-8b --cluster dgx_h100:gpus=64 -o step && distsim explain step
  distsim explain out --top 30                                 more rows of everything
  distsim explain out --rank 5                                 what the end of rank 5 waited for, and where its time went
  distsim explain out --step ProfilerStep#5                    one step of a captured trace (its number will do)
  distsim explain out --json | jq '.bounds[] | [.name, .step_ps]'
  distsim explain out --resimulate                             bounds by running again, beside those to first order
  distsim serve ... --out load && distsim explain load         where the time of requests went

The first line is the answer. Times are of the run; slack and bounds are first-order: every stream keeps its order, and what
is on the network takes what it took. The trace is read again for all dependencies; where it has gone, this is said.
docs/explain.md says what every figure is.
"""

from __future__ import annotations

import argparse
import shutil

from distsim.cli.progress import Progress
from distsim.errors import ConfigError


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("result", metavar="RESULT", help="results folder of distsim run, train or serve")
    parser.add_argument("--step", default="", metavar="NAME", help="one step of a captured trace, by name or number")
    parser.add_argument("--rank", type=int, metavar="N", help="the path to the end of this rank, and its own times")
    parser.add_argument("--top", type=int, default=12, metavar="N", help="rows of each section (default 12)")
    parser.add_argument("--resimulate", action="store_true", help="run again for the bounds, too")
    parser.add_argument("--json", action="store_true", help="print one JSON document, with everything")


def run(args: argparse.Namespace) -> int:
    """Reopen, find, print."""
    from distsim.report.document import dumps

    if args.top < 1:
        raise ConfigError(f"{args.top} rows", where="--top", expected="at least 1")
    width = min(max(shutil.get_terminal_size((100, 24)).columns, 60), 140)
    if _is_service(args.result):
        from distsim.analysis.explain.requests import request_times
        from distsim.report import explain_service
        from distsim.report.serving_folder import load

        asked = {"--step": args.step != "", "--rank": args.rank is not None, "--resimulate": args.resimulate}
        given = [name for name, value in asked.items() if value]
        if given:
            raise ConfigError(f"{given[0]} is for runs and training steps; {args.result} is a service's", fix="Leave it out.")
        times = request_times(load(args.result))
        print(dumps(explain_service.document(times)) if args.json else explain_service.text(times, width, args.top))
        return 0
    from distsim.analysis.explain.again import resimulated
    from distsim.analysis.explain.findings import explain
    from distsim.report.explain import text
    from distsim.report.explain_document import document
    from distsim.report.reopen import reopen

    with Progress() as progress:
        progress(None, f"reading {args.result}")
        found = explain(reopen(args.result), step=args.step, rank=args.rank, top=args.top, progress=progress)
        if args.resimulate:
            found = resimulated(found, progress)
    print(dumps(document(found)) if args.json else text(found, width, args.top))
    return 0


def _is_service(folder: str) -> bool:
    """Whether a results folder is one of ``distsim serve``. Raises ConfigError where it is no results folder at all."""
    import json
    from pathlib import Path

    try:
        summary = json.loads((Path(folder) / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        fix = "Simulate it first: distsim run TRACE -o FOLDER, then distsim explain FOLDER." if Path(folder).exists() else ""
        raise ConfigError(
            "is no results folder", where=folder, expected="a folder written by distsim run, train or serve with -o", fix=fix
        ) from None
    return isinstance(summary, dict) and summary.get("format") == "distsim-serving"
