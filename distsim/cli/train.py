"""One training step of a model on a cluster: step time, utilisation, memory, and where the time goes. No GPU, no trace.

  distsim train --model llama3-8b --cluster dgx_h100:gpus=8 --tp 2 --global-batch 64
  distsim train --model llama3-405b --cluster h100_superpod:gpus=16384 --tp 8 --pp 16 --vpp 7 --zero 2 --memory warn
  distsim train --model gpt3-175b --cluster dgx_a100:gpus=64 --tp 8 --pp 8 --vpp 3 --recompute selective --global-batch 64
  distsim train --model deepseek-v3 --cluster gb200_nvl72:gpus=256,gpus_per_node=64 --pp 8 --ep 32 --seq 4096
  distsim train --model ./config.json --cluster my_cluster.yaml --zero 3 --stack torchtitan_compile
  distsim train --list models                            names of models (gpus, stacks, schedules); clusters: distsim topo
  distsim train ... --json | jq .mfu                     one JSON document
  distsim train ... -o results/step                      tables, summary and timeline (Perfetto) there

The first line is the answer. Ranks that do the same on symmetric links are simulated once, exactly (--no-fold: all of them).
A plan that does not fit in memory is refused, with the nearest change that does (--memory warn: simulate it all the same).
`distsim generate` writes the same step as a trace; `distsim sweep` and `distsim search` compare plans.
docs/training.md says what is modelled, docs/accuracy.md how well.
"""

from __future__ import annotations

import argparse

from distsim.cli.progress import Progress


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    from distsim.cli.training_options import add_options

    add_options(parser)
    parser.add_argument("-o", "--output", metavar="FOLDER", help="write tables, summary.json and timeline.json.gz there")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--quiet", action="store_true", help="print the first line only")
    parser.add_argument(
        "--list", choices=("models", "gpus", "stacks", "schedules"), help="print what there is to choose from, and nothing else"
    )


def run(args: argparse.Namespace) -> int:
    """Simulate, write, print."""
    if args.list:
        import json

        from distsim.report import catalog

        print(json.dumps(catalog.rows(args.list)) if args.json else catalog.text(args.list))
        return 0
    from distsim.cli.training_options import point
    from distsim.report.document import dumps
    from distsim.report.training import answer, document, text
    from distsim.training import TrainSpec, train

    if args.output is not None:
        from distsim.report.folder import check_target

        check_target(args.output)
    with Progress() as progress:
        training = train(TrainSpec.of(point(args)), progress=progress)
        if args.output is not None:
            from distsim.analysis.summary import summarise
            from distsim.report.folder import save

            save(training.result, args.output, summarise(training.result))
    if args.json:
        print(dumps(document(training)))
    else:
        print(answer(training) if args.quiet else text(training))
    return 0
