"""The highest load that a service bears under an objective; deployments side by side; the GPUs that a load takes.

  distsim capacity --model llama3-70b --cluster h100:gpus=8 --tp 4 --slo ttft=2s,tpot=50ms \\
                   --requests poisson --lengths lognormal:prompt_median=1000,prompt_sigma=1,output_mean=200,output_p99=800
  distsim capacity ... --requests traces/chat_sessions.jsonl    a file, its gaps scaled; no randomness: one run per load
  distsim capacity ... --tp 1,2,4 --scheduler vllm_v1,sarathi --price 2.5 -o out    all combinations; out/pareto.html
  distsim capacity ... --deployments deployments.yaml   a list of mappings of these options, pools among them
  distsim capacity ... --load 50 --router least_outstanding --max-gpus 256    the fewest replicas that serve 50 requests/s
  distsim capacity ... --json | jq .capacity_per_s      every run of the search is in the document

A load passes if the objective is met and the service keeps up: at the last arrival no more than 5 % of the requests (or 10)
wait for admission. Without --slo keeping up alone counts. Loads are bracketed and bisected for each seed; the answer is the
mean of the highest that pass, with a 95 % interval over the seeds. A service that misses the objective even when idle has
capacity 0, and the first line says which bound fails. Deployments that cannot run are counted with their reasons.
docs/capacity.md says more.
"""

from __future__ import annotations

import argparse
import json
import shutil
from typing import TYPE_CHECKING, Any

from distsim.cli.progress import Progress
from distsim.errors import ConfigError

if TYPE_CHECKING:
    from distsim.cli.serving_options import Option

#: options of ``distsim serve`` that fix the load: refused in words
_FIXED = ("qps", "concurrency", "stretch", "duration")
#: copies that a load may take, where nothing is said
_MOST_GPUS = 1024


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    from distsim.cli.serving_options import GROUPS

    parser.add_argument("--spec", metavar="FILE", help="YAML with the options below as keys, and pools; options override it")
    for title, options in GROUPS.items():
        requests = any(one.name == "requests" for one in options)
        group = parser.add_argument_group(title if requests else f"{title}: one value, or several, such as 1,2,4")
        for one in options:
            _add(group, one, several=not requests)
    search = parser.add_argument_group("search")
    search.add_argument("--slo", metavar="BOUNDS", help="ttft=2s,tpot=50ms,latency=20s,queueing=1s,percentile=99: one or more")
    search.add_argument("--seeds", type=int, metavar="N", help="how many, from --seed on (default 3; of a file 1)")
    search.add_argument("--tolerance", type=float, metavar="X", help="between failing and passing loads (default 0.02)")
    search.add_argument("--deployments", metavar="FILE", help="YAML: a list of deployments, each a mapping of options")
    search.add_argument("--load", type=float, metavar="X", help="requests/s: how many replicas and GPUs serve it?")
    search.add_argument("--max-gpus", type=int, metavar="N", help=f"with --load: no more than these (default {_MOST_GPUS})")
    search.add_argument("--price", type=float, metavar="X", help="of one GPU for an hour: cost per million output tokens")
    search.add_argument("--workers", type=int, default=0, metavar="N", help="deployments: processes (default: one per core)")
    search.add_argument("-o", "--output", metavar="FOLDER", help="deployments: results.parquet, pareto.html, summary.json")
    search.add_argument("--json", action="store_true", help="print one JSON document")
    search.add_argument("--quiet", action="store_true", help="print the first line only")


def _add(group: Any, one: Option, several: bool) -> None:
    """One option of ``distsim serve``; where it may have several values it is read as text."""
    flag, about = f"--{one.name.replace('_', '-')}", one.about.replace("%", "%%")
    if one.name == "n":
        about, default = "requests of a run (of a file: its first); more: less of the start", "2000, 500 per replica if more"
        group.add_argument(flag, type=int, metavar=one.metavar, default=argparse.SUPPRESS, help=f"{about} (default {default})")
        return
    if one.name in _FIXED:
        about = argparse.SUPPRESS
    elif one.default is not None and one.kind is not bool:
        about += f" (default {one.default})"
    if one.kind is bool:
        action: Any = argparse.BooleanOptionalAction if one.default else "store_true"
        group.add_argument(flag, action=action, default=argparse.SUPPRESS, help=about)
    elif isinstance(one.kind, tuple) and not several:
        group.add_argument(flag, choices=one.kind, default=argparse.SUPPRESS, help=about)
    else:
        shown = f"{{{','.join(one.kind)}}}" if isinstance(one.kind, tuple) else one.metavar
        kind = str if several or isinstance(one.kind, tuple) else one.kind
        group.add_argument(flag, type=kind, metavar=shown, default=argparse.SUPPRESS, help=about)


def run(args: argparse.Namespace) -> int:
    """Search, print."""
    from distsim.cli.serving_options import check_pools, read_file

    base = read_file(args.spec) if args.spec else {}
    fixed, grid = _split(args)
    check_pools({**fixed, **grid}, base.get("pools") or ())
    base |= fixed
    said = next((name for name in _FIXED if base.get(name)), None)
    if said is not None:
        fix = "Leave it out, or ask `distsim serve`."
        raise ConfigError(f"{said} fixes the load that is looked for", where=f"--{said}", fix=fix)
    for name in grid:
        base.pop(name, None)
    base |= {name: value for name in ("slo", "seeds", "tolerance", "price") if (value := getattr(args, name)) is not None}
    if isinstance(base.get("slo"), dict):
        base["slo"] = ",".join(f"{key}={value}" for key, value in base["slo"].items())
    if args.workers < 0:
        raise ConfigError(f"{args.workers} is no number of processes", where="--workers", expected="1 or more")
    many = bool(grid) or args.deployments is not None
    if args.load is not None:
        if many:
            raise ConfigError("--load takes one deployment", fix="Give one value to every option.")
        return _fleet(args, base)
    if args.max_gpus is not None:
        raise ConfigError("is of no effect without --load", where="--max-gpus")
    if many:
        return _deployments(args, base, grid)
    if args.output is not None:
        raise ConfigError("is for several deployments", where="--output", fix="Use --json for one.")
    return _one(args, base)


def _one(args: argparse.Namespace, point: dict[str, Any]) -> int:
    from distsim.report.capacity import answer, document, text
    from distsim.report.document import dumps
    from distsim.sweep.kinds.capacity import cost, found
    from distsim.sweep.kinds.serving import priced

    with Progress() as progress:
        made, loads = found(point, progress)
    money, told = cost(made, priced(point)), list(loads.warnings)
    if args.json:
        print(dumps(document(made, loads.spec, loads.slo, money, told)))
    else:
        print(answer(made, loads.spec, loads.slo) if args.quiet else text(made, loads.spec, loads.slo, money, told, _width()))
    return 0


def _fleet(args: argparse.Namespace, point: dict[str, Any]) -> int:
    from distsim.report.capacity import fleet_answer, fleet_document, fleet_text
    from distsim.report.document import dumps
    from distsim.sweep.kinds.capacity import asked, bound, seeds, tolerance
    from distsim.sweep.kinds.serving import objective, priced
    from distsim.sweep.replicas import fleet

    if "pools" not in point and "disaggregate" not in point:
        point.setdefault("replicas", 1)
    bound(point)
    unit, slo = asked(point), objective(point)
    most = _MOST_GPUS if args.max_gpus is None else args.max_gpus
    with Progress() as progress:
        made = fleet(unit, args.load, slo, seeds(point, unit), tolerance(point), most, progress)
    if args.json:
        print(dumps(fleet_document(made, unit, slo, priced(point), made.warnings)))
    elif args.quiet:
        print(fleet_answer(made, unit, slo))
    else:
        print(fleet_text(made, unit, slo, priced(point), made.warnings, _width()))
    return 0


def _deployments(args: argparse.Namespace, base: dict[str, Any], grid: dict[str, list[Any]]) -> int:
    from distsim.report.capacity import deployments_answer, deployments_document, deployments_text
    from distsim.sweep.deployments import compare, read_deployments

    cases = [] if args.deployments is None else read_deployments(args.deployments)
    for name in {name for case in cases for name in case}:
        if name in grid:
            raise ConfigError(f"{name} is given by {args.deployments} and by an option", where=f"--{name.replace('_', '-')}")
    with Progress() as progress:
        made = compare(base, grid, cases, folder=args.output, workers=args.workers, progress=progress)
    if args.json:
        print(json.dumps(deployments_document(made)))
    else:
        print(deployments_answer(made) if args.quiet else deployments_text(made, _width()))
    return 0 if any(row["failed"] is None for row in made.rows) else 1


def _width() -> int:
    return min(max(shutil.get_terminal_size((120, 24)).columns, 60), 160)


def _split(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Fields with one value, and those with several. Raises ConfigError for what is no number or no choice."""
    from distsim.cli.serving_options import GROUPS

    fixed: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}
    for options in GROUPS.values():
        requests = any(one.name == "requests" for one in options)
        for one in options:
            if not hasattr(args, one.name):
                continue
            value = getattr(args, one.name)
            values = [value] if requests or not isinstance(value, str) else [_read(part, one) for part in parts(value)]
            if len(values) > 1:
                grid[one.name] = values
            else:
                fixed[one.name] = values[0]
    return fixed, grid


def _read(text: str, one: Option) -> Any:
    flag = f"--{one.name.replace('_', '-')}"
    if isinstance(one.kind, tuple):
        if text not in one.kind:
            raise ConfigError(f"{text!r} is no choice", where=flag, expected=f"one of {', '.join(one.kind)}")
        return text
    try:
        return one.kind(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no number", where=flag, expected="one, or several such as 1,2,4") from None


def parts(text: str) -> list[str]:
    """The values of a list. ``key=value`` belongs to the name before it: commas separate options as well.

    >>> parts("vllm_v1,sarathi:chunk=512,max_num_seqs=64"), parts("1,2,4")
    (['vllm_v1', 'sarathi:chunk=512,max_num_seqs=64'], ['1', '2', '4'])
    """
    found: list[str] = []
    for part in text.split(","):
        key, equals, _ = part.partition("=")
        if found and equals and ":" not in key:
            found[-1] += f",{part}"
        elif part.strip():
            found.append(part.strip())
    return found or [text]
