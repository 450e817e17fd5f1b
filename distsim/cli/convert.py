"""Convert a trace between all formats; nothing in it is lost.

  distsim convert runs/et/w trace.json                 Chakra .et files to one native trace.json
  distsim convert trace.json out/w                     and back: out/w.0.et, out/w.1.et ..., groups in out/w.json
  distsim convert trace.json et.tar.gz                 the same in a tar
  distsim convert runs/et/w big.parquet                columns, for large traces
  distsim convert runs/et/w out/w --to chakra-json     out/w.0.json ..., as protobuf-JSON objects
  distsim convert runs/et/w out/w --to chakra-legacy   out/w.0.json ..., as {"workload_graph": [...]}

Formats: native (.json), parquet (.parquet), et (anything else), chakra-json, chakra-legacy.
"""

from __future__ import annotations

import argparse
import json

from distsim.cli.shipped import resolve


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("src", help="trace of any format")
    parser.add_argument("dst", help="file, prefix, folder (ends in /) or tar to write")
    parser.add_argument(
        "--to", metavar="FORMAT", help="native, parquet, et, chakra-json or chakra-legacy; default: by name of dst"
    )
    parser.add_argument("--groups", metavar="FILE", help="communicator groups of a Chakra source; default: beside it")
    parser.add_argument("--ranks", type=int, metavar="N", help="number of ranks, of a SimAI workload")
    parser.add_argument(
        "--repair", action="store_true", help="drop dangling dependencies (for parquet, which cannot hold them)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Convert and say what was written."""
    from distsim.trace.convert import FORMATS, convert

    kind = convert(resolve(args.src), args.dst, args.to, args.groups, args.repair, args.ranks)
    if args.json:
        print(json.dumps({"source": args.src, "written": args.dst, "format": kind}))
    else:
        print(f"wrote {args.dst} as {kind} ({FORMATS[kind].partition(':')[0]})")
    return 0
