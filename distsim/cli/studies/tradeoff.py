"""What does accuracy cost? Error, CPU time and generality of every network level and compute provider, on the validated suites.

  distsim study tradeoff --data ../shared/reference --quick             under a minute: SimGrid's flows, GEMMs, attention, NCCL
  distsim study tradeoff --data ../shared/reference -o tradeoff.html    all, with packets, ASTRA-sim and training steps: minutes
  distsim study tradeoff --data ../shared/reference --only simgrid,gemm

DATA is the folder of the reference, as for `distsim validate`. Every yardstick has its own chart and Pareto front: errors
against flows of SimGrid, packets of htsim, measured kernels, measured collectives and training steps do not compare with each
other. What is not in the folder is left out, and said.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from distsim.cli.progress import Progress
from distsim.errors import ConfigError

if TYPE_CHECKING:
    from distsim.studies.finding import Finding


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    from distsim.studies.tradeoff import LONG, YARDSTICKS

    group = parser.add_argument_group("study")
    group.add_argument("--data", required=True, metavar="DIR", help="folder of the reference data")
    group.add_argument("--quick", action="store_true", help=f"small scenarios only, and without {', '.join(LONG)}")
    group.add_argument("--only", metavar="LIST", help=f"yardsticks (default all): {','.join(YARDSTICKS)}")


def run(args: argparse.Namespace, progress: Progress) -> Finding:
    """Conduct it."""
    from distsim.studies.tradeoff import conduct

    only = []
    if args.only is not None:
        only = list(dict.fromkeys(filter(None, (part.strip() for part in args.only.split(",")))))
        if not only:
            raise ConfigError("nothing is named", where="--only")
    return conduct(args.data, args.quick, only, progress)
