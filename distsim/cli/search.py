"""The best parallelism plan of a model on a cluster: bounds prune, survivors are simulated, the proof is shown.

  distsim search --model llama3-405b --cluster h100_superpod:gpus=16384 --seq 8192 --global-batch 2048 --budget 120s
  distsim search --model llama3-8b --cluster dgx_h100:nodes=4 --global-batch 128 --memory 70GiB
  distsim search ... --against tp=8,pp=16,vpp=4           where does the plan that you have come?
  distsim search ... --only tp=4,8 --only recompute=none  fewer values of a field than usual
  distsim search ... --set precision=fp8 --set clip=false what every plan has
  distsim search ... --json | jq .best.plan

All plans of the space get a lower bound on their time and memory; they are simulated in the order of bounds until no bound is
below the best time: then the best is proven, and the table says what was pruned by what. Where the budget of time ends first,
it says how many plans are unproven and what they could gain at most. docs/sweeps.md says which plans the space has.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distsim.cli.progress import Progress
from distsim.errors import ConfigError

if TYPE_CHECKING:
    from distsim.sweep.evaluator import Evaluator
    from distsim.sweep.study import Study


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    add = parser.add_argument
    add("--model", required=True, help="model: a shipped name, a YAML file, a Hugging Face config.json")
    add("--cluster", required=True, metavar="TOPOLOGY", help="cluster and its size, such as h100_superpod:gpus=1024")
    add("--gpus", type=int, metavar="N", help="use so many of its GPUs (default: all)")
    add("--global-batch", type=int, required=True, metavar="N", help="sequences per step")
    add("--seq", type=int, metavar="TOKENS", help="tokens per sequence (default: the model's)")
    for name, about in (("gpu", "GPU (default: the cluster's)"), ("stack", "training software"), ("network", "network level")):
        add(f"--{name}", help=about)
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="a field that all plans have")
    add("--only", action="append", default=[], metavar="FIELD=V,V", help="values of a field that is varied")
    add("--against", metavar="FIELD=V,FIELD=V", help="a plan to compare with; fields left out as --set, dp from the others")
    add("--budget", metavar="TIME", help="stop after this wall time, such as 120s (default: when proven)")
    add("--memory", metavar="SIZE", help="a plan may use so much of a GPU, such as 70GiB (default: what the GPU has)")
    add("--workers", type=int, default=0, metavar="N", help="local processes (default: one per core)")
    add("--dask", metavar="WHERE", help="Dask cluster: tcp://host:port of its scheduler, or local:N")
    add("--json", action="store_true", help="print one JSON document")
    add("--quiet", action="store_true", help="print the first line only")


def run(args: argparse.Namespace) -> int:
    """Bound, simulate, print."""
    from distsim import registry
    from distsim.models.catalog import model
    from distsim.sweep.executors import crew
    from distsim.sweep.points import Space, Tally
    from distsim.sweep.search import Limits, search
    from distsim.sweep.search_shown import answer, document, text
    from distsim.sweep.space import shape, space
    from distsim.units import PS_PER_S, parse_size, parse_time

    for name, value in (("--gpus", args.gpus), ("--global-batch", args.global_batch), ("--seq", args.seq)):
        if value is not None and value < 1:
            raise ConfigError(f"{value} is not positive", where=name)
    if args.workers < 0:
        raise ConfigError(f"{args.workers} is no number of processes", where="--workers", expected="1 or more")
    seconds = None if args.budget is None else parse_time(args.budget, "s") / PS_PER_S
    limits = Limits(seconds, None if args.memory is None else parse_size(args.memory))
    evaluator: Evaluator = registry.lookup("study", "training")
    chosen = model(args.model)
    base = {"model": args.model, "cluster": args.cluster, "global_batch": args.global_batch, "seq": args.seq or chosen.seq}
    base |= {name: value for name in ("gpu", "stack", "network") if (value := getattr(args, name)) is not None}
    given = assignments(args.set, "--set")
    twice = next((name for name in given if name in base), None)
    if twice is not None:
        raise ConfigError(f"{twice} is an option of its own", where="--set", fix=f"Use --{twice.replace('_', '-')}.")
    base |= given
    evaluator.check(set(base), "--set")
    only = {name: value if isinstance(value, list) else [value] for name, value in _listed(args.only).items()}
    cluster = shape(args.cluster, args.gpus)
    _check_fixed(base, cluster.gpus)
    plans = space(chosen, cluster, base, only)
    refused = Tally()
    with Progress() as progress:
        progress(None, "counting plans")
        whole = Space(plans, evaluator, "search")
        against = None if args.against is None else _against(args.against, base, cluster.gpus, evaluator)
        with crew(args.workers, args.dask) as workers:
            found = search(
                evaluator, whole.points(refused), whole.size, refused, workers, limits, against, progress
            )  # fmt: skip
    if args.json:
        print(json.dumps(document(found, limits) | {"space": _said(plans)}))
    elif args.quiet:
        print(answer(found, limits))
    else:
        print(text(found, limits, min(max(shutil.get_terminal_size((100, 24)).columns, 60), 140)))
        print("\nspace: " + "; ".join(f"{name} {' '.join(map(str, values))}" for name, values in _said(plans).items()))
    return 0 if found.best is not None else 1


def _check_fixed(base: Mapping[str, Any], gpus: int) -> None:
    """Raise ConfigError for what no plan could mend: an unknown stack or GPU, a precision that the GPU lacks, too few GPUs."""
    from distsim.training import TrainSpec, job

    fixed = {name: value for name, value in base.items() if name in TrainSpec.model_fields or name == "precision"}
    job(TrainSpec.of({**fixed, "dp": gpus, "global_batch": gpus, "seq": 1}))


def assignments(texts: list[str], where: str) -> dict[str, Any]:
    """``field=value`` of every text, values read as YAML does (8, true, fp8). Raises ConfigError.

    >>> assignments(["tp=8", "clip=false", "precision=fp8"], "--set")
    {'tp': 8, 'clip': False, 'precision': 'fp8'}
    """
    import yaml

    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise ConfigError(f"{text!r} is not FIELD=VALUE", where=where)
        if name in found:
            raise ConfigError(f"{name} is given twice", where=where)
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"{value!r} cannot be read", where=f"{where} {name}") from None
    return found


def _listed(texts: list[str]) -> dict[str, Any]:
    """``field=a,b`` -> field: [a, b]."""
    return assignments([text.replace("=", "=[", 1) + "]" if "=" in text else text for text in texts], "--only")


def _against(text: str, base: dict[str, Any], gpus: int, evaluator: Evaluator) -> dict[str, Any]:
    """The plan to compare with; dp, where it is left out, from the number of GPUs. Raises ConfigError."""
    given = assignments([part for part in text.split(",") if part.strip()], "--against")
    evaluator.check(set(given), "--against")
    point = {**base, **given}
    used = 1
    for name in ("tp", "cp", "pp"):
        size = point.get(name, 1)
        if not isinstance(size, int) or size < 1:
            raise ConfigError(f"{name}={size!r} is no whole number", where="--against")
        used *= size
    if "dp" not in point:
        if gpus % used:
            raise ConfigError(f"tp x cp x pp = {used} does not divide {gpus} GPUs", where="--against")
        point["dp"] = gpus // used
    if "sequence_parallel" not in point:
        point["sequence_parallel"] = point.get("tp", 1) > 1
    return point


def _said(plans: Study) -> dict[str, Any]:
    """The axes of the space."""
    from distsim.sweep.study import listed

    return {name: listed(axis) for name, axis in plans.grid.items()}
