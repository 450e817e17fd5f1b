"""The range of sizes of ``distsim collective``: nccl-tests' -b, -e and -f, its table, a plot, a comparison."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from distsim.cli.progress import Progress
from distsim.errors import ConfigError
from distsim.units import format_size, parse_size

if TYPE_CHECKING:
    from distsim.microbench import CollectiveTiming

_MOST = 1000  # sizes


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """The options that make it a sweep."""
    add = parser.add_argument
    add("-b", "--begin", metavar="SIZE", help="sweep from this size of the whole buffer, as nccl-tests counts (default 1KiB)")
    add("-e", "--end", metavar="SIZE", help="sweep up to this size (default 1GiB)")
    add("-f", "--factor", type=float, metavar="F", help="between sizes of a sweep (default 2)")
    add("--plot", metavar="FILE", help="draw busbw against size (.svg, .png, .pdf)")
    add("--compare", metavar="FILE", help="measured times: nccl-tests' output or a CSV; adds columns and the error")


def wanted(args: argparse.Namespace) -> bool:
    """Whether the arguments ask for a sweep."""
    return any(value is not None for value in (args.begin, args.end, args.factor, args.plot, args.compare))


def sweep(args: argparse.Namespace, members: int, time_one: Callable[[int], CollectiveTiming]) -> int:
    """Time every size and print. ``members``: of the group; ``time_one``: from the per-rank input in bytes."""
    from distsim.report.chart import check_chart
    from distsim.report.sweep import document, draw, text

    if args.plot:
        check_chart(args.plot)
    measured = _measured(args, members) if args.compare else {}
    sizes = _sizes(args, measured)
    shards = args.operation in ("all_gather", "gather")
    timings = []
    with Progress() as progress:
        for number, size in enumerate(sizes):
            progress(number / len(sizes), f"{args.operation} of {format_size(size)}")
            timings.append(time_one(size // members if shards else size))
    # NOTE: a shard is a whole number of bytes: where that rounds, the measured size is the one that was asked for
    measured = {timing.buffer: measured[size] for timing, size in zip(timings, sizes, strict=True) if size in measured}
    if args.plot:
        draw(args.plot, timings, measured)
    if args.json:
        print(json.dumps(document(timings, measured, args.network)))
    else:
        print(text(timings, measured, args.network))
    return 0


def _sizes(args: argparse.Namespace, measured: dict[int, float]) -> list[int]:
    """The sizes of the buffer, ascending: the measured ones within the range, else the range's. Raises ConfigError."""
    begin, end = parse_size(args.begin or "1KiB"), parse_size(args.end or "1GiB")
    factor = 2.0 if args.factor is None else args.factor
    if not 0 < begin <= end:
        raise ConfigError(f"sizes from {begin} to {end} bytes are none", where="--begin, --end", expected="0 < begin <= end")
    if not factor > 1:
        raise ConfigError(f"a factor of {factor:g} leads nowhere", where="--factor", expected="more than 1")
    if measured and args.factor is None:
        low, high = begin if args.begin else 0, end if args.end else max(measured)
        found = [size for size in sorted(measured) if low <= size <= high]
        if not found:
            raise ConfigError(f"no size from {begin} to {end} bytes was measured", where=args.compare)
        return found
    sizes: list[int] = []
    size = float(begin)
    while size <= end:
        if not sizes or round(size) > sizes[-1]:
            sizes.append(round(size))
        if len(sizes) > _MOST:
            raise ConfigError(f"more than {_MOST} sizes", where="--factor", fix="Take a larger factor.")
        size *= factor
    return sizes


def _measured(args: argparse.Namespace, members: int) -> dict[int, float]:
    """Buffer in bytes -> us. Raises ConfigError where the file holds nothing about this collective."""
    from distsim.nccl.measured import read_measured

    return read_measured(args.compare, args.operation, members)
