"""What the error of a prediction is made of: compute, memory, communication, scheduling.

  distsim study error kineto/*.json.gz                          every kernel takes the mean of its name: what does that do?
  distsim study error rank0.json.gz --topo dgx_a100 --collectives nccl      recorded kernels, simulated network
  distsim study error rank0.json.gz --scale-compute 1.2x        a planted error
  distsim study error rank0.json.gz --host none                 simulators that know of GPUs only
  distsim study error measured.json --predicted predicted.json  two traces of the same nodes

One part at a time is swapped between the measured and the predicted world, and simulated again: at most 2^4 runs. Shares are
averaged over all orders of swapping, so they sum to the error exactly. docs/error_split.md says how to read the rest.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distsim.cli.progress import Progress
    from distsim.studies.finding import Finding


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    from distsim.cli.options import add_options

    parser.add_argument("trace", nargs="+", help="the measurement: files of captured ranks, or any trace with durations")
    parser.add_argument("--predicted", metavar="FILE", help="a trace with the same nodes, and the predicted durations")
    parser.add_argument(
        "--compute", choices=("recorded", "typical", "roofline"), default=argparse.SUPPRESS,
        help="predicted kernels: as recorded, the mean of their name, or their roofline (default typical, unless something "
        "else is predicted)",
    )  # fmt: skip
    parser.add_argument(
        "--host", choices=("recorded", "none"), default="recorded",
        help="predicted host work, launch latencies and gaps: as recorded (default), or none",
    )  # fmt: skip
    parser.add_argument(
        "--memory-kernels", action="store_true", help="kernels that only move data (norms, elementwise ...) count as memory"
    )
    add_options(parser, leave_out=("compute", "events"))


def run(args: argparse.Namespace, progress: Progress) -> Finding:
    """Read, predict, decompose."""
    import shlex

    from distsim.cli.options import given, spec_of
    from distsim.cli.shipped import resolve, traces
    from distsim.studies.error import Asked, study

    options = given(args)
    compute = options.pop("compute", None)
    fields = options | ({"compute": compute} if compute == "roofline" else {})
    spec = spec_of(traces(args.trace), fields)
    command = shlex.join(["distsim", "study", *_words(sys.argv[1:])])
    predicted = None if args.predicted is None else resolve(args.predicted)
    asked = Asked(spec, frozenset(options), compute, predicted, args.host == "recorded", args.memory_kernels, command)
    return study(asked, progress)


def _words(argv: list[str]) -> list[str]:
    """The command line from the study's name on."""
    return argv[argv.index("error") :] if "error" in argv else argv
