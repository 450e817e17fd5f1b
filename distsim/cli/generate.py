"""Write the execution graph of a training step as a trace, to replay, to look at, or for another simulator.

  distsim generate --model llama3-8b --cluster dgx_h100:gpus=8 --tp 4 --global-batch 16 -o step.json
  distsim generate ... --grain kernel -o step.parquet    every kernel and every collective a node
  distsim generate ... -o et/w                           Chakra et/w.0.et, et/w.1.et ..., groups in et/w.json
  distsim run step.json --topo dgx_h100 --network fluid --collectives nccl

Options are those of `distsim train`. Durations are those of the compute providers, written down as recorded durations.
"""

from __future__ import annotations

import argparse
import json

from distsim.errors import ConfigError


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    from distsim.cli.training_options import add_options

    add_options(parser, leave_out=("fold", "network"))
    parser.add_argument("-o", "--output", metavar="TRACE", required=True, help="file, prefix, folder (ends in /) or tar")
    parser.add_argument(
        "--to", metavar="FORMAT", help="native, parquet, et, chakra-json or chakra-legacy; default: by name of the output"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Build, write, say what was written."""
    from distsim.cli.training_options import point
    from distsim.trace.convert import FORMATS, write_graph
    from distsim.training import TrainSpec, execution_graph, job

    if not args.output:
        raise ConfigError("the trace has no name", where="--output", expected="a file, a prefix or a folder")
    graph = execution_graph(job(TrainSpec.of(point(args))))
    kind = write_graph(graph, args.output, args.to)
    if args.json:
        print(json.dumps({"written": args.output, "format": kind, "ranks": graph.ranks, "nodes": graph.nodes}))
    else:
        form = FORMATS[kind].partition(":")[0]
        print(f"wrote {args.output} as {kind} ({form}): {graph.ranks:,} ranks, {graph.nodes:,} nodes")
    return 0
