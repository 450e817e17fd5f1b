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
    from distsim.report.sweep import ROOTED, document, draw, text

    if args.size is not None:
        raise ConfigError("has no effect on a sweep, whose sizes -b and -e say", where="--size", fix="Leave it out.")
    if args.operation == "barrier":
        fix = "Leave -b, -e, -f, --plot and --compare out."
        raise ConfigError("a barrier moves no data: there are no sizes to sweep", fix=fix)
    if args.plot:
        check_chart(args.plot)
    measured = _measured(args, members) if args.compare else {}
    parts = max(1, members) if args.operation in ("all_gather", "gather") else 1
    # NOTE: a shard is a whole number of bytes: where that rounds, the measured size is the one that was asked for
    inputs = {size // parts: size for size in _sizes(args, measured) if size >= parts}
    if not inputs:
        raise ConfigError(f"no size gives each of {members} ranks a byte", where="--end", expected=f"at least {members} bytes")
    timings = []
    with Progress() as progress:
        for number, (one, size) in enumerate(inputs.items()):
            progress(number / len(inputs), f"{args.operation} of {format_size(size)}")
            timings.append(time_one(one))
    asked = zip(timings, inputs.values(), strict=True)
    measured = {timing.buffer: measured[size] for timing, size in asked if size in measured}
    if args.plot:
        draw(args.plot, timings, measured)
    if args.json:
        print(json.dumps(document(timings, measured, args.network)))
    else:
        print(text(timings, measured, args.network, args.root if args.operation in ROOTED else -1))
    return 0


def _sizes(args: argparse.Namespace, measured: dict[int, float]) -> list[int]:
    """The sizes of the buffer, ascending: the measured ones within the range, else the range's. Raises ConfigError."""
    by_file = bool(measured) and args.factor is None
    first, last = (min(measured), max(measured)) if by_file else (1 << 10, 1 << 30)
    begin = first if args.begin is None else parse_size(args.begin)
    end = last if args.end is None else parse_size(args.end)
    factor = 2.0 if args.factor is None else args.factor
    if by_file:
        found = [size for size in sorted(measured) if begin <= size <= end]
        if not found:
            held = f"{format_size(first)} to {format_size(last)}"
            raise ConfigError(f"no size from {begin} to {end} bytes was measured", where=args.compare, expected=held)
        return found
    if not 0 < begin <= end:
        raise ConfigError(f"sizes from {begin} to {end} bytes are none", where="--begin, --end", expected="0 < begin <= end")
    if not factor > 1:
        raise ConfigError(f"a factor of {factor:g} leads nowhere", where="--factor", expected="more than 1")
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
