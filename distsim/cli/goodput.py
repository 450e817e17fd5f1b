"""What failures, checkpoints, restarts and slow nodes leave of a training run: goodput over days.

  distsim goodput --gpus 16384 --step 6s --days 54 --failures-per-day 7.76 --checkpoint 5s --restart 8min --detection 1min
  distsim goodput --gpus 1024 --step 2s --gpu-mtbf 50000h --checkpoint 30s --restart 10min --curve      which interval is best
  distsim goodput ... --checkpoint 2s --write 3min          asynchronous: stops the work for 2 s, counts 3 min later
  distsim goodput ... --spares 8 --repair 24h --node-loss 78%                            too few spares: the job waits
  distsim goodput ... --spares 0 --repair 24h --when-short shrink --replica-gpus 128     or goes on with whole replicas
  distsim goodput ... --slow 0.02% --slowdown 3.3% --slow-for 6h       a node is slow 0.02 % of the time, 6 h until it is found

--step is the time of a step when nothing is wrong: distsim train tells it. Failures: --mtbf of the whole job, --gpu-mtbf,
--node-mtbf or --failures-per-day. Goodput is the ideal time of the steps that were kept over the time that went by, effective
training time what they really took. Durations have units: ms, s, min, h, d, y. docs/goodput.md has the model.
"""

from __future__ import annotations

import argparse
import json
import shutil
from typing import Any

from distsim.errors import ConfigError


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add = parser.add_argument
    add("--step", required=True, metavar="TIME", help="time of one training step when nothing is wrong")
    add("--gpus", required=True, type=int, metavar="N", help="GPUs of the job")
    add("--gpus-per-node", type=int, default=8, metavar="N", help="GPUs that fail and are replaced together (default 8)")
    add("--days", type=float, default=30.0, help="how long to simulate (default 30)")
    failures = parser.add_mutually_exclusive_group(required=True)
    failures.add_argument("--mtbf", metavar="TIME", help="mean time between failures of the whole job")
    failures.add_argument("--gpu-mtbf", metavar="TIME", help="of one GPU and its share of everything else")
    failures.add_argument("--node-mtbf", metavar="TIME", help="of one node")
    failures.add_argument("--failures-per-day", type=float, metavar="X", help="of the whole job")
    add(
        "--shape",
        type=float,
        default=1.0,
        metavar="K",
        help="Weibull shape of failures; 1 (default): exponential",
    )
    add("--checkpoint", required=True, metavar="TIME", help="how long a checkpoint stops the work")
    add("--write", default="0s", metavar="TIME", help="asynchronous: how long it is then written beside the work (default 0s)")
    add("--checkpoint-interval", default="auto", metavar="TIME", help="work between them; auto (default): Daly's optimum")
    add("--detection", default="0s", metavar="TIME", help="from a failure until it is noticed (default 0s)")
    add("--restart", required=True, metavar="TIME", help="scheduling, start and load of the checkpoint")
    add("--node-loss", default="100%", metavar="SHARE", help="of failures that take a node out for --repair (default 100%%)")
    add("--repair", default="0s", metavar="TIME", help="mean time until a lost node is back (default 0s: spares without end)")
    add("--spares", type=int, default=0, metavar="N", help="nodes that stand ready (default 0)")
    add("--when-short", choices=("wait", "shrink"), default="wait", help="of nodes: wait, or run the replicas that are whole")
    add("--replica-gpus", type=int, metavar="N", help="GPUs of one data-parallel replica (default: one node's)")
    add("--slow", default="0%", metavar="SHARE", help="of the time that a node is slow (default 0%%)")
    add("--slowdown", default="0%", metavar="SHARE", help="how much longer a step takes while any node is slow (default 0%%)")
    add("--slow-for", default="0s", metavar="TIME", help="mean time until a slow node is found and replaced")
    add("--runs", type=int, default=100, metavar="N", help="lives simulated (default 100)")
    add("--seed", type=int, default=0, metavar="N", help="of the random numbers (default 0)")
    add("--curve", action="store_true", help="goodput at checkpoint intervals from 1/8 to 8 times the one taken")
    add("--plot", metavar="FILE", help="draw that curve (.svg, .png, .pdf)")
    add("--json", action="store_true", help="print one JSON document; times in seconds")


def run(args: argparse.Namespace) -> int:
    """Simulate and print."""
    from distsim.goodput.durations import DAY
    from distsim.goodput.study import curve, intervals_around, study
    from distsim.report.chart import check_chart
    from distsim.report.goodput import document, draw, text

    if args.plot:
        check_chart(args.plot)
    if args.seed < 0:
        raise ConfigError(f"{args.seed}", where="--seed", expected="0 or more")
    job = _job(args)
    horizon = args.days * DAY
    found = study(job, horizon, runs=args.runs, seed=args.seed)
    around = intervals_around(found.job) if args.curve or args.plot else []
    points = curve(found.job, horizon, around, runs=args.runs, seed=args.seed)
    if args.plot:
        draw(args.plot, found, points)
    if args.json:
        print(json.dumps(document(found, points), allow_nan=False))
    else:
        width = min(max(shutil.get_terminal_size((100, 24)).columns, 60), 140)
        print(text(found, points, args.checkpoint_interval != "auto", width))
    return 0


def _job(args: argparse.Namespace) -> Any:
    """The job that the options describe. Raises ConfigError, which names the option."""
    from distsim.goodput.durations import DAY, parse_seconds
    from distsim.goodput.job import Job

    def seconds(option: str) -> float:
        return parse_seconds(getattr(args, option), where="--" + option.replace("_", "-"))

    gpus, per_node = args.gpus, args.gpus_per_node
    for option, value in (("--gpus", gpus), ("--gpus-per-node", per_node)):
        if value < 1:
            raise ConfigError(f"{value}", where=option, expected="1 or more")
    if gpus % per_node:
        raise ConfigError(
            f"{gpus} GPUs are no whole number of nodes of {per_node}", where="--gpus", fix="Say --gpus-per-node, too."
        )
    replica = args.replica_gpus or per_node
    if replica % per_node:
        raise ConfigError(f"{replica} GPUs are no whole number of nodes of {per_node}", where="--replica-gpus")
    if args.when_short == "shrink" and args.replica_gpus is None:
        raise ConfigError("replicas of which size?", where="--when-short shrink", fix="Say --replica-gpus.")
    if args.failures_per_day is not None:
        if not args.failures_per_day > 0:
            raise ConfigError(f"{args.failures_per_day}", where="--failures-per-day", expected="above 0")
        mtbf = DAY / args.failures_per_day
    elif args.mtbf is not None:
        mtbf = seconds("mtbf")
    elif args.gpu_mtbf is not None:
        mtbf = seconds("gpu_mtbf") / gpus
    else:
        mtbf = seconds("node_mtbf") / (gpus // per_node)
    interval = 0.0
    if args.checkpoint_interval != "auto":
        interval = seconds("checkpoint_interval")
        if not interval:
            raise ConfigError("a checkpoint after no work", where="--checkpoint-interval", expected="auto or 10min")
    return Job(
        step=seconds("step"), nodes=gpus // per_node, mtbf=mtbf, shape=args.shape, checkpoint=seconds("checkpoint"),
        write=seconds("write"), interval=interval, detection=seconds("detection"), restart=seconds("restart"),
        node_loss=_share(args.node_loss, "--node-loss"), repair=seconds("repair"), spares=args.spares,
        when_short=args.when_short, replica_nodes=replica // per_node, slow=_share(args.slow, "--slow"),
        slowdown=1 + _share(args.slowdown, "--slowdown"), slow_for=seconds("slow_for"),
    )  # fmt: skip


def _share(text: str, option: str) -> float:
    """0.02 of ``"2%"`` or ``"0.02"``. Raises ConfigError."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise ConfigError(f"{text!r} is no share", where=option, expected="something like 2% or 0.02")
    return value
