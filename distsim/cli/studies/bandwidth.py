"""What share of peak memory bandwidth does each compute provider imply, per class of kernel, size and GPU?

  distsim study bandwidth                                        three GPUs, every provider, kernels of Llama-3-70B at tp 8
  distsim study bandwidth --gpus h100_sxm,mi300x -o share.html   the page: a chart per class
  distsim study bandwidth --model llama3-8b --tp 1 --sizes 1,16,256,4096 --classes gemm,norm
  distsim study bandwidth --providers roofline,chain --dtype fp8

The share is the bytes that a kernel has to move (each operand once) over its time, against the data sheet. More than 100 % is
flagged: the provider is faster than memory. `chain` is what runs use: the first provider that can answer.
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
    from distsim.studies.bandwidth import CLASSES, Asked

    usual = Asked()
    listed = ",".join
    group = parser.add_argument_group("study")
    group.add_argument("--gpus", default=listed(usual.gpus), metavar="LIST", help=f"GPUs (default {listed(usual.gpus)})")
    group.add_argument(
        "--providers", default=listed(usual.providers), metavar="LIST", help=f"providers (default {listed(usual.providers)})"
    )
    group.add_argument("--classes", default=listed(CLASSES), metavar="LIST", help=f"of kernels (default {listed(CLASSES)})")
    group.add_argument("--sizes", default=listed(map(str, usual.sizes)), metavar="LIST", help="tokens (default 1 to 65536)")
    group.add_argument("--model", default=usual.model, help=f"whose kernels (default {usual.model})")
    group.add_argument("--tp", type=int, default=usual.tp, metavar="N", help=f"ranks that share them (default {usual.tp})")
    group.add_argument("--dtype", default=usual.dtype, help=f"data type (default {usual.dtype})")


def run(args: argparse.Namespace, progress: Progress) -> Finding:
    """Conduct it."""
    from distsim.cost.kernel import WIDTH
    from distsim.errors import UnknownNameError
    from distsim.studies.bandwidth import Asked, conduct

    if args.dtype not in WIDTH:
        raise UnknownNameError("data type", args.dtype, WIDTH, where="--dtype")
    sizes = []
    for part in _listed(args.sizes, "--sizes"):
        if not part.isdigit():
            raise ConfigError(f"{part!r} is no number of tokens", where="--sizes", expected="1,16,256")
        sizes.append(int(part))
    asked = Asked(
        _listed(args.gpus, "--gpus"), _listed(args.providers, "--providers"), _listed(args.classes, "--classes"), tuple(sizes),
        args.model, args.tp, args.dtype,
    )  # fmt: skip
    return conduct(asked, progress)


def _listed(text: str, option: str) -> tuple[str, ...]:
    """The parts of a list, each once. Raises ConfigError where there are none."""
    found = tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))
    if not found:
        raise ConfigError("nothing is named", where=option)
    return found
