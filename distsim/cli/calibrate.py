"""Fit a model to measurements of your own system.

  distsim calibrate nccl --data all_reduce_perf.txt -o h100.json
  distsim calibrate nccl --data all_reduce.txt --data all_gather.txt --gpu h100 --nodes 2 --nic-rate 400Gbps -o pod.json
  distsim calibrate nccl --data measured.csv --system h100_sxm -o h100.json

Reads what nccl-tests prints (out-of-place times; headers and all: ranks, hosts and GPUs are read from them), or CSV with the
columns size_bytes, latency_us, collective, gpus and perhaps nodes, gpu, system, dtype. Measure 1 KiB to 1 GiB, each size:
  all_reduce_perf -b 1K -e 1G -f 2 -g 8 > all_reduce.txt

Prints the error on points left out of the fit (cross-validation), by size, beside that of the shipped defaults, and writes
the calibration as a versioned JSON file for --calibration of distsim run and distsim collective.

  distsim calibrate compute --data gemm.csv --gpu h100 -o h100_gemm.json
  distsim calibrate compute --data gemm.parquet --system b200_sxm -o b200_gemm.json
  distsim calibrate compute --data gemm.csv --gpu mine.yaml --residual -o mine.json

Reads measured GEMMs, CSV or Parquet: columns m, n, k, latency_us, perhaps dtype (bf16) and system; at least 40 shapes of each
GPU and data type. y = x W, x (m, k), W (k, n). Fits the tile/wave model, starting from what ships for the GPU or its family,
and prints the error on weight shapes (n, k) left out of the fit. --residual also learns what it leaves (1,000 rows or more).
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from distsim.errors import ConfigError, UnknownNameError

#: what can be calibrated
SUBJECTS = ("nccl", "compute")


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add = parser.add_argument
    add("subject", metavar="SUBJECT", help=f"what to fit: {', '.join(SUBJECTS)}")
    add("--data", action="append", required=True, metavar="FILE", help="measurements (see above); may be repeated")
    add("-o", "--output", metavar="FILE", help="calibration to write (default: only print the error)")
    add("--gpu", default="", help="GPU, where the data do not say (h100, a100 ...; compute: or a YAML file)")
    add("--gpus", type=int, help="ranks, where the data do not say")
    add("--nodes", type=int, help="nodes, where the data do not say or are wrong")
    add("--operation", default="", help="collective, where the data do not say (all_reduce ...)")
    add("--system", default="", metavar="NAME", help="only rows of this system (column system)")
    add("--dtype", default="", help="compute: data type, where the data do not say (default: bf16)")
    add("--residual", action="store_true", help="compute: also learn what the tile/wave model leaves unexplained")
    add("--nics", type=int, help="NICs of one node (default: usual for the GPU)")
    add("--nic-rate", metavar="RATE", help="bandwidth of one NIC, such as 400Gbps (default: usual for the GPU)")
    add("--fabric", default="ib", help="ib (default), roce, efa")
    add("--seed", type=int, default=0, help="of the split into folds (default: 0)")
    add("--json", action="store_true", help="print the calibration as one JSON document")


def run(args: argparse.Namespace) -> int:
    """Fit, print, write."""
    if args.subject not in SUBJECTS:
        raise UnknownNameError("subject", args.subject, SUBJECTS, where="calibrate")
    if args.subject == "compute":
        return _compute(args)
    if args.dtype or args.residual:
        raise ConfigError("--dtype and --residual are of calibrate compute", where="calibrate nccl")
    from distsim.nccl.calibrate import calibrate, document, save

    content = document(calibrate(_samples(args), args.seed), args.data)
    if args.output:
        save(args.output, content)
    print(json.dumps(content) if args.json else _report(content, args.output))
    return 0


def _compute(args: argparse.Namespace) -> int:
    """Fit the tile/wave model to measured GEMMs."""
    nccl = [name for name in ("gpus", "nodes", "operation", "nics", "nic_rate") if getattr(args, name)]
    if nccl:
        raise ConfigError(f"--{nccl[0].replace('_', '-')} is of calibrate nccl", where="calibrate compute")
    if args.seed < 0:
        raise ConfigError(f"--seed {args.seed}", expected="a number of at least 0")
    from distsim.cost.fit.calibration import calibrate, file_of, measured
    from distsim.cost.kernels.fits import write_fits

    sets = measured(args.data, name=args.gpu, system=args.system, dtype=args.dtype)
    found = [calibrate(gemms, residual=args.residual, seed=args.seed) for gemms in sets]
    content = file_of([fit for fit, _ in found], args.data)
    if args.output:
        write_fits(args.output, content)
    if args.json:
        print(json.dumps({**content.model_dump(exclude_none=True), "figures": [figures for _, figures in found]}))
        return 0
    for fit, one in found:
        share = {name: f"{100 * one[name]:.1f} %" for name in ("error", "p90", "bias", "fitted", "before")}
        print(
            f"{one['gpu']}, {one['dtype']}: {one['rows']} points, mean error {share['error']} left out (5 folds of whole "
            f"weight shapes; p90 {share['p90']}, bias {share['bias']}); fitted {share['fitted']}, before {share['before']} "
            f"({one['prior']})"
        )
        if "learned" in one:
            print(f"  with the learned residual {100 * one['learned']:.1f} % left out")
        for name, value in fit.parameters.items():
            print(f"  {name:<22}{value:>10.4g}")
    if args.output:
        print(f"wrote {args.output}")
    return 0


def _samples(args: argparse.Namespace) -> list[Any]:
    """Rows of all files that are asked for, as samples. Raises ConfigError."""
    from dataclasses import replace

    from distsim.nccl.calibrate import Network, sample_of
    from distsim.nccl.measured import operation_name, read_rows
    from distsim.units import parse_bandwidth

    if args.operation and not operation_name(args.operation):
        raise ConfigError(f"unknown operation {args.operation!r}", where="--operation", expected="all_reduce, all_gather ...")
    for name in ("gpus", "nodes", "seed"):
        value = getattr(args, name)
        if value is not None and value < (0 if name == "seed" else 1):
            raise ConfigError(f"--{name} {value}", expected="a positive number")
    network = Network(args.nics, parse_bandwidth(args.nic_rate) if args.nic_rate else None, args.fabric)
    samples = []
    for path in args.data:
        rows = [row for row in read_rows(path) if row.impl.upper() == "NCCL"]
        systems = sorted({row.system for row in rows if row.system})
        if args.system:
            rows = [row for row in rows if row.system == args.system]
            if not rows:
                raise UnknownNameError("system", args.system, systems, where=path)
        elif len(systems) > 1:
            raise ConfigError(
                f"holds {len(systems)} systems", where=path, expected="one", near=systems[:6], fix="Pick one with --system."
            )
        for row in rows:
            known = replace(
                row, operation=row.operation or operation_name(args.operation), ranks=row.ranks or args.gpus or 0,
                system=args.system or row.system,
            )  # fmt: skip
            samples.append(sample_of(known, gpu=args.gpu, nodes=args.nodes, network=network, where=path))
    return samples


def _report(content: dict[str, Any], output: str | None) -> str:
    """The answer in words: what was fitted, how good it is where it was not fitted, and where it was written."""

    def percent(share: float) -> str:
        return f"{100 * share:.1f} %"

    error, system = content["error"], content["system"]
    ranks = ", ".join(str(count) for count in system["ranks"])
    nodes = ", ".join(str(count) for count in system["nodes"])
    lines = [
        f"{system['gpu']}, ranks {ranks}, nodes {nodes}: {error['rows']} points, mean error {percent(error['mape'])} left out "
        f"({error['folds']} folds; median {percent(error['median'])}, p90 {percent(error['p90'])}, bias "
        f"{percent(error['bias'])}); fitted {percent(error['fitted_mape'])}, defaults {percent(error['default_mape'])}",
        f"  {'size':<12}{'points':>8}{'left out':>10}{'bias':>8}{'defaults':>10}",
    ]
    for name, one in error["by_size"].items():
        lines.append(
            f"  {name:<12}{one['rows']:>8}{percent(one['mape']):>10}{percent(one['bias']):>8}{percent(one['default_mape']):>10}"
        )
    lines.append(f"  {'factors':<22}" + "".join(f"{part:>10}" for part in ("base", "intra", "inter", "transfer", "ramp")))
    for name, factors in content["factors"].items():
        lines.append(f"  {name:<22}" + "".join(f"{value:>10.3g}" for value in factors.values()))
    if output:
        lines.append(f"wrote {output}")
    return "\n".join(lines)
