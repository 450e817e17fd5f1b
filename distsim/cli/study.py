"""Studies: one question each, answered by many runs. (`distsim sweep` runs grids of your own, from a YAML file.)

  distsim study ratio                             at which compute/communication ratio do cheap network levels break down?
  distsim study tradeoff --data ../shared/reference --quick     what does accuracy cost, per network level and provider?
  distsim study bandwidth --gpus h100_sxm,b200_sxm              what share of peak memory bandwidth do kernel times imply?
  distsim study error kineto/*.json.gz --compute typical        what is the error of a prediction made of?

  distsim study NAME --help                       what it does, with examples
  distsim study NAME -o page.html                 the page: charts with hover, tables, how it was made
  distsim study NAME -o FOLDER                    results.csv, results.parquet, page.html, summary.json
  distsim study NAME --json                       one JSON document

The first line is the answer. docs/studies.md shows the results and how to read them.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
from pathlib import Path
from typing import Any

#: study -> one-line help, in the order of ``distsim study --help``; static, so that it imports nothing
STUDIES = {
    "ratio": "compute/communication ratio over network levels and topologies: where cheaper levels depart from the finest",
    "tradeoff": "accuracy against speed and generality, per network level and compute provider, on the validated suites",
    "bandwidth": "the share of peak memory bandwidth that each compute provider implies, per class of kernel",
    "error": "what the error of a prediction is made of: compute, memory, communication, scheduling",
}


class _Later(argparse.ArgumentParser):
    """A parser of one study, which imports its module when it is first used."""

    module = ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Add the study's arguments, then parse."""
        if self.module:
            face = importlib.import_module(self.module)
            self.module = ""
            self.description = face.__doc__
            face.prepare(self)
            group = self.add_argument_group("output")
            group.add_argument("-o", "--output", metavar="FILE.html|FOLDER", help="write the page, or a folder")
            group.add_argument("--json", action="store_true", help="print one JSON document")
            group.add_argument("--quiet", action="store_true", help="print the first line only")
            self.set_defaults(face=face, words=[str(word) for word in args or ()])
        return super().parse_known_args(args, namespace)


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments: a parser for every study."""
    names = parser.add_subparsers(dest="study", metavar="STUDY", required=True, parser_class=_Later)
    for name, summary in STUDIES.items():
        made = names.add_parser(
            name, help=summary, description=summary, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        made.module = f"distsim.cli.studies.{name}"


def run(args: argparse.Namespace) -> int:
    """Conduct a study, write, print."""
    import shutil
    from dataclasses import replace

    from distsim.cli.progress import Progress
    from distsim.report.document import dumps
    from distsim.report.html.page import check_file
    from distsim.report.html.page import write as write_page
    from distsim.studies import shown

    alone = args.output is not None and args.output.lower().endswith((".html", ".htm"))
    if alone:
        check_file(Path(args.output))
    elif args.output is not None:
        shown.check_folder(args.output)
    with Progress() as progress:
        found = replace(args.face.run(args, progress), command=_command(args))
        if alone:
            write_page(shown.page(found), args.output)
        elif args.output is not None:
            shown.write(found, args.output)
    if args.json:
        print(dumps(shown.document(found)))
    elif args.quiet:
        print(found.answer)
    else:
        print(shown.text(found, min(max(shutil.get_terminal_size((120, 24)).columns, 60), 160)))
    return 0


def _command(args: argparse.Namespace) -> str:
    """The command line that repeats a study, without where its answer went."""
    words: list[str] = []
    skip = False
    for word in args.words:
        output = word in ("-o", "--output")
        if not (skip or output or word.startswith("--output=") or word in ("--json", "--quiet")):
            words.append(word)
        skip = output
    return shlex.join(["distsim", "study", args.study, *words])
