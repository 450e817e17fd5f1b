"""Run a study: many runs over grids and lists of fields, in parallel, resumable; a table and a Pareto page come out.

  distsim sweep study.yaml                     results in sweep-NAME/: results.parquet, pareto.html, summary.json
  distsim sweep study.yaml -o out --workers 8  local processes (default: one per core)
  distsim sweep study.yaml --dask tcp://scheduler:8786      on a Dask cluster; local:2 for two processes of one
  distsim sweep study.yaml --dry-run           which points there are, and why others are refused; nothing is run
  distsim sweep run_topologies                 a study that comes with distsim, by name
  distsim sweep study.yaml --json | jq .best

Constraints of the study, of the plan and of memory are applied before anything is simulated. A study that was interrupted or
killed goes on where it was when the same command is run again; points that a changed study shares with the one before are not
run again. The table has the same bytes whatever ran it, in any order. docs/sweeps.md describes study files.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys

from distsim.cli.progress import Progress
from distsim.errors import ConfigError


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("study", help="study file (YAML), or the name of a shipped one")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="folder of the study (default sweep-NAME)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="local processes (default: one per core)")
    parser.add_argument("--dask", metavar="WHERE", help="Dask cluster: tcp://host:port of its scheduler, or local:N")
    parser.add_argument("--dry-run", action="store_true", help="count points and reasons, run nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--quiet", action="store_true", help="print the first line only")


def run(args: argparse.Namespace) -> int:
    """Read, run what is left, write, print."""
    from distsim.sweep.conduct import conduct
    from distsim.sweep.shown import answer, text
    from distsim.sweep.study import find_study, read_study

    if args.workers < 0:
        raise ConfigError(f"{args.workers} is no number of processes", where="--workers", expected="1 or more")
    path = find_study(args.study)
    study = read_study(path)
    folder = args.output or f"sweep-{study.name}"
    source = path.read_text(encoding="utf-8")
    try:
        with Progress() as progress:
            done = conduct(
                study, str(path), folder=None if args.dry_run else folder, source=source, workers=args.workers, dask=args.dask,
                progress=progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        print(f"distsim: interrupted; what is finished is kept in {folder}: the same command goes on", file=sys.stderr)
        return 130
    width = min(max(shutil.get_terminal_size((100, 24)).columns, 60), 140)
    if args.json:
        run = {"dry_run": args.dry_run, "to_run": done.to_run, "reused": done.reused, "seconds": round(done.seconds, 3)}
        print(json.dumps(done.found.document() | run))
    elif args.dry_run:
        print(done.plan(width))
    elif args.quiet:
        print(answer(done.found))
    else:
        print(text(done.found, width))
    if not args.quiet:
        for line in done.notes:
            print(line, file=sys.stderr)
    return 0 if args.dry_run or done.found.best is not None else 1
