"""One HTML file from results: answer, breakdown, timeline, links, critical path, memory; it opens offline.

  distsim run trace.json --topo fat_tree -o out          results of a run, in a folder
  distsim report out                                     report.html
  distsim report out -o step.html --title "Step, 64 GPUs"
  distsim report out --levers                            with what 10 % more of every knob would save
  distsim report before after -o both.html               two runs side by side, and where the difference comes from
  distsim report out --json | jq .bytes                  one JSON document about what was written

The file is whole in itself: it loads nothing, prints, follows the system's light or dark colours, and every control can be
reached by keyboard. docs/report.md says what is in it.
"""

from __future__ import annotations

import argparse

from distsim.cli.progress import Progress


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("results", nargs="+", metavar="RESULTS", help="results folder; two are compared")
    parser.add_argument("-o", "--output", metavar="FILE", default="report.html", help="HTML file (default report.html)")
    parser.add_argument("--levers", action="store_true", help="of a run: what 10 %% more of every knob saves, estimated")
    parser.add_argument("--title", default="", help="title of the page (default: the folder's name)")
    parser.add_argument("--json", action="store_true", help="print one JSON document about the file")


def run(args: argparse.Namespace) -> int:
    """Read, lay out, write."""
    from pathlib import Path

    from distsim.errors import ConfigError
    from distsim.report.document import dumps
    from distsim.report.html.kinds import kind_of, page_of
    from distsim.report.html.page import check_file, write

    if len(args.results) > 2:
        raise ConfigError(f"{len(args.results)} folders were given", expected="one results folder, or two to compare")
    target = Path(args.output)
    check_file(target)
    with Progress() as progress:
        progress(None, f"reading {' and '.join(args.results)}")
        page = page_of(args.results, args.title, args.levers)
        progress(None, f"writing {target}")
        size = write(page, target)
    made = {
        "format": "distsim-report", "file": str(target), "bytes": size, "title": page.title, "answer": page.answer,
        "results": list(args.results), "kinds": [kind_of(folder) for folder in args.results],
        "sections": [section.id for section in page.sections], "warnings": list(page.warnings),
    }  # fmt: skip
    if args.json:
        print(dumps(made, indent=None))
    else:
        print(page.answer)
        print(f"report in {target} ({size / 1e6:.1f} MB): {', '.join(section.title.lower() for section in page.sections)}")
    return 0
