"""At which compute/communication ratio do cheaper network levels depart from the finest? One training step, many balances.

  distsim study ratio                                            Llama-3-70B, three fabrics, three levels, seven bandwidths
  distsim study ratio -o ratio.html                              the page: departure, exposed communication, overlap by ratio
  distsim study ratio --vary seq=1024,2048,4096,8192,16384 --tolerance 2
  distsim study ratio --vary bandwidth=0.5,1,2,4 --vary gpu=a100_sxm,h100_sxm,b200_sxm --vary batch=1,2,4
  distsim study ratio --model llama3-8b --gpus 64 --tp 4 --pp 2 --global-batch 64 --topology "fat_tree:oversubscription=2@ecmp"
  distsim study ratio --networks fluid,cut_through,chunk:size=1MiB --grain kernel --vary hidden=4096,8192,16384

The ratio of a point is the time that a rank computes over the time that its communication takes on idle links. Each --vary
moves it by one variable, everything else at the step's own value; every point is replayed on every level, each transfer at its
links (nothing is folded). The break-down ratio of a level is where its step comes to lie more than --tolerance percent off that
of the last level, interpolated between points; "never" and "always" are of the ratios that were looked at.
Options of `distsim train` say the step; without them it is Llama-3-70B, tp 8 in nodes of 8 GPUs, ZeRO 3 between them.
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
    from distsim.cli.training_options import add_options
    from distsim.studies.ratio import GPUS, LEVELS, TOPOLOGIES, VALUES, VARIABLES

    study = parser.add_argument_group("study")
    study.add_argument("--gpus", type=int, default=GPUS, metavar="N", help=f"GPUs of the step (default {GPUS})")
    names = "; ".join(f"{name}: {about}" for name, (_, _, about) in TOPOLOGIES.items())
    study.add_argument(
        "--topology", action="append", metavar="NAME|SPEC[@ROUTING]",
        help=f"a topology, and how it routes; may be repeated (default all of: {names})",
    )  # fmt: skip
    study.add_argument(
        "--networks", default=",".join(LEVELS), metavar="LEVELS", help=f"levels, the finest last (default {','.join(LEVELS)})"
    )
    listed = "; ".join(f"{name}: {about}" for name, about in VARIABLES.items())
    usual = " ".join(f"{name}={','.join(values)}" for name, values in VALUES.items())
    study.add_argument("--vary", action="append", metavar="NAME=V1,V2,...", help=f"{listed} (default {usual}); may be repeated")
    study.add_argument("--tolerance", type=float, default=5.0, metavar="X", help="percent that count as departed (default 5)")
    study.add_argument(
        "--collectives", choices=("native", "nccl"), default="native",
        help="distsim's own algorithms (default), or as NCCL runs them, where the topology says its GPUs",
    )  # fmt: skip
    study.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: one per core)")
    add_options(parser, leave_out=("cluster", "network", "fold", "memory", "dp"))


def run(args: argparse.Namespace, progress: Progress) -> Finding:
    """Conduct it."""
    from distsim.cli.compare import networks
    from distsim.cli.training_options import point
    from distsim.studies.ratio import STEP, TOPOLOGIES, VALUES, Asked, conduct, variations

    if args.workers < 0:
        raise ConfigError(f"{args.workers} is no number of processes", where="--workers", expected="1 or more")
    if args.gpus < 1:
        raise ConfigError(f"{args.gpus} is no number of GPUs", where="--gpus", expected="1 or more")
    given = point(args)
    # NOTE: fields of the usual plan are of use together: another one starts from train's own defaults
    step = {**(STEP if not given.keys() & {"model", "tp", "pp", "cp", "zero"} else {"model": STEP["model"]}), **given}
    topologies = tuple(args.topology or TOPOLOGIES)
    twice = next((name for name in topologies if topologies.count(name) > 1), None)
    if twice:
        raise ConfigError(f"{twice} is named twice", where="--topology")
    asked = Asked(
        step, args.gpus, topologies, tuple(networks(args.networks)), variations(args.vary) if args.vary else VALUES,
        args.tolerance / 100, args.collectives, args.workers,
    )  # fmt: skip
    return conduct(asked, progress)
