"""A service under load, request by request: throughput, latencies, goodput, what limits it. No GPU.

  distsim serve --model llama3-70b --cluster h100:gpus=8 --tp 4 --requests traces/chat_sessions.jsonl --qps 4
  distsim serve --model llama3-8b --cluster h100:gpus=1 --requests poisson:qps=10 --n 1000 \\
                --lengths uniform:prompt=100-2000,output=10-500 --slo ttft=500ms,tpot=30ms
  distsim serve ... --slo latency=10s,percentile=95 --price 2.5      goodput under an objective; cost per million tokens
  distsim serve ... --scheduler sarathi:chunk=512 --router lor       other batching, other routing
  distsim serve ... --requests traces/chat_sessions.jsonl --stretch 2    a trace at half its load, shared prefixes and all
  distsim serve --spec serve.yaml --qps 8                            fields from a file, options over them; pools of replicas
  distsim serve ... -o results/chat                                  tables (Parquet), summary.json, page.html with charts
  distsim serve ... --timeline chat.json.gz                          iterations and requests, for ui.perfetto.dev
  distsim serve ... --json | jq .throughput.whole.requests_per_s     one JSON document
  distsim serve --model llama3-8b --cluster h100:gpus=8 --replicas 4 --requests traces/chat_sessions.jsonl --n 100 \\
                --beside traces/pipeline_send_recv.json              a training job on the same cluster: what each costs
  distsim serve --list schedulers                                    what there is (models, gpus, routers, lengths ...)

traces/ is in distsim's repository; docs/requests.md says where measured traces come from. Times have units (2s, 50ms).
The first line is the answer; dropped requests and warnings come right below it. serve.yaml has the options as keys, and
`pools`, a list of mappings, for replicas that differ (docs/serving.md):

  cluster: h100:gpus=8
  model: llama3-70b
  requests: traces/chat_sessions.jsonl
  pools: [{name: large, tp: 4}, {name: small, tp: 2, replicas: 2, weights: fp8}]
"""

from __future__ import annotations

import argparse
from typing import Any

from distsim.cli.progress import Progress

_LISTS = ("models", "gpus", "schedulers", "routers", "autoscalers", "requests", "arrivals", "lengths")
#: what is not a field of the service
_BESIDE = ("slo", "price")


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    from distsim.cli.serving_options import add_options

    parser.add_argument("--spec", metavar="FILE", help="YAML with these options as keys, and pools; options given go over it")
    add_options(parser)
    job = parser.add_argument_group("a training job beside it (docs/serving_engine.md)")
    job.add_argument("--beside", metavar="TRACE", help="a training step, repeated: any trace that distsim run reads")
    job.add_argument("--beside-at", metavar="HOSTS", help="of its ranks, such as 0-7,16; default: the first ones")
    job.add_argument("--serve-at", metavar="HOSTS", help="that the service may use; default: all others")
    job.add_argument("--beside-steps", metavar="N", type=int, help="how often; 0, the default: until the service has ended")
    answers = parser.add_argument_group("answers")
    answers.add_argument("--slo", metavar="BOUNDS", help="ttft=2s,tpot=50ms,latency=20s,queueing=1s,percentile=99: one or more")
    answers.add_argument("--price", type=float, metavar="X", help="of one GPU for an hour: cost per million tokens")
    answers.add_argument("-o", "--out", metavar="FOLDER", help="write tables, summary.json and page.html there")
    answers.add_argument("--timeline", metavar="FILE", help="write a timeline in Chrome's trace format (.json or .json.gz)")
    answers.add_argument("--json", action="store_true", help="print one JSON document")
    answers.add_argument("--quiet", action="store_true", help="print the first line only")
    answers.add_argument("--list", choices=_LISTS, help="print what there is to choose from, and nothing else")


def run(args: argparse.Namespace) -> int:
    """Simulate, write, print."""
    if args.list:
        import json

        from distsim.report import serving_catalog

        print(json.dumps(serving_catalog.rows(args.list)) if args.json else serving_catalog.text(args.list))
        return 0
    from distsim.analysis.serving_findings import findings
    from distsim.cli.serving_options import check_pools, given, read_file
    from distsim.report.document import dumps
    from distsim.report.serving import answer, text
    from distsim.report.serving_document import document
    from distsim.report.serving_folder import check_target, save
    from distsim.report.serving_timeline import check_timeline, write_timeline
    from distsim.serve import ServeSpec, serve

    fields = read_file(args.spec) if args.spec else {}
    beside = {name: fields.pop(name, None) for name in _BESIDE}
    slo = _objective(args.slo if args.slo is not None else beside["slo"])
    price = _price(args.price if args.price is not None else beside["price"])
    if args.out is not None:
        _announce(check_target(args.out), args.out)
    if args.timeline is not None:
        check_timeline(args.timeline)
    both = None
    with Progress() as progress:
        options = given(args)
        check_pools(options, fields.get("pools") or ())
        spec = ServeSpec.of({**fields, **options}, where=args.spec if args.spec and not args.set else "")
        if _has_job(args):
            from distsim.corun import corun

            steps = args.beside_steps or 0
            both = corun(spec, args.beside, at=args.beside_at, serve_at=args.serve_at, steps=steps, progress=progress)
        result = serve(spec, progress=progress) if both is None else both.service
        progress(None, "summing up")
        found = findings(result, slo, price)
        if args.out is not None:
            save(result, args.out, found)
        if args.timeline is not None:
            write_timeline(args.timeline, result)
    if args.json:
        print(dumps(document(result, found) | ({} if both is None else {"beside": both.summary})))
    else:
        print(answer(result, found) if args.quiet else text(result, found))
        if both is not None:
            from distsim.report import corun as report

            print(report.line(both) if args.quiet else report.text(both))
    return 0


def _announce(target: Any, folder: str) -> None:
    """Say that earlier results will be replaced."""
    import sys

    if target.is_dir() and any(target.iterdir()):
        print(f"distsim: {folder}: replaces the earlier results there", file=sys.stderr)


def _has_job(args: argparse.Namespace) -> bool:
    """Raises ConfigError where options speak of a training job that is not given."""
    from distsim.errors import ConfigError

    for name in ("beside_at", "serve_at", "beside_steps"):
        if getattr(args, name) is not None and args.beside is None:
            raise ConfigError(f"--{name.replace('_', '-')} without --beside", expected="--beside TRACE")
    return args.beside is not None


def _objective(given: Any) -> Any:
    """The objective of an option, or of a file's text or mapping; None without one. Raises ConfigError."""
    from distsim.analysis.serving_slo import Slo

    if given is None:
        return None
    return Slo.parse(",".join(f"{key}={value}" for key, value in given.items()) if isinstance(given, dict) else str(given))


def _price(given: Any) -> float | None:
    """Per GPU and hour. Raises ConfigError for what is no price."""
    from distsim.errors import ConfigError

    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < float("inf"):
        raise ConfigError(f"{given!r} per GPU and hour is no price", where="--price", expected="a positive number")
    return float(given)
