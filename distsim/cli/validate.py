"""Check distsim against reference results.

  distsim validate astra --data ../shared/reference/astra
  distsim validate astra --data DIR --json
  distsim validate astra --data DIR --fail-under matched_fraction=1
  distsim validate nccl --data ../shared/reference/nccl --fail-over mape=0.12
  distsim validate compute --data ../shared/reference/compute --fail-over gemm_mape=0.1
  distsim validate vidur --data ../shared/reference/serving/vidur --fail-under matched_fraction=1
  distsim validate kineto --data ../shared/reference/traces --fail-under traces_within_bars=1

Prints how many reference rows are met, per group, and the rows that are furthest off. The exit code is 0 when the suite
ran, whatever it found, unless a --fail-under or --fail-over bound is missed (1).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from distsim.errors import ConfigError, UnknownNameError

#: suites and what they check; a static list, so that --help imports nothing
SUITES = ("astra", "simgrid", "htsim", "goal", "nccl", "compute", "training", "vidur", "vllm", "silicon", "kineto")


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("suite", metavar="SUITE", help=f"which reference: {', '.join(SUITES)}")
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of the reference, in the suite's layout")
    parser.add_argument(
        "--fail-under", action="append", default=[], metavar="METRIC=VALUE",
        help="exit 1 if a metric is below VALUE; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--fail-over", action="append", default=[], metavar="METRIC=VALUE",
        help="exit 1 if a metric is above VALUE; may be repeated (for errors, where less is better)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """Run a suite and print its report."""
    from distsim import registry
    from distsim.cli.progress import Progress

    suite = registry.lookup("suite", args.suite)()
    folder = Path(args.data)
    if not folder.is_dir():
        raise ConfigError("is not a folder", where=args.data, expected="the reference data of the suite")
    bounds = [(*_bound(text, "--fail-under"), False) for text in args.fail_under]
    bounds += [(*_bound(text, "--fail-over"), True) for text in args.fail_over]
    with Progress() as progress:
        report = suite.run(folder, (lambda fraction, what: None) if args.quiet else progress)
    missed = []
    for metric, bound, over in bounds:
        if metric not in report.metrics:
            raise UnknownNameError("metric", metric, report.metrics, where="--fail-over" if over else "--fail-under")
        value = report.metrics[metric]
        if not (value <= bound if over else value >= bound):
            missed.append(f"{metric} is {value:g}, wanted at {'most' if over else 'least'} {bound:g}")
    if args.json:
        print(json.dumps(report.document()))
    else:
        print(f"{report.suite}: {report.matched} of {report.rows} reference rows matched")
        for name, value in report.metrics.items():
            print(f"  {name} = {value:.4g}")
        for name, group in report.groups.items():
            values = ", ".join(f"{key} {value:.4g}" for key, value in group.items() if key != "rows")
            print(f"  {name}: {int(group['rows'])} rows, {values}")
        for reason, count in report.refused.items():
            print(f"  refused {count}: {reason}")
        for row in report.worst:
            print(f"  off by {100 * row['error']:.3g} %: {row['row']}")
    for line in missed:
        print(f"distsim: {line}", file=sys.stderr)
    return 1 if missed else 0


def _bound(text: str, option: str) -> tuple[str, float]:
    metric, _, value = text.partition("=")
    try:
        return metric, float(value)
    except ValueError:
        raise ConfigError(f"{text!r} is not METRIC=VALUE", where=option) from None
