"""ServeSpec, Pool and Deployment on the command line, grouped. Static text, so that ``distsim serve --help`` imports nothing
heavy; a test holds it against the models' fields."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple


class Option(NamedTuple):
    """One option: field, type (a tuple: choices), what stands for the value, help, default to be named in the help."""

    name: str
    kind: type | tuple[str, ...]
    metavar: str
    about: str
    default: Any = None


#: group -> its options
GROUPS: Mapping[str, tuple[Option, ...]] = {
    "what runs where": (
        Option("model", str, "NAME", "model by name, a YAML file, or a Hugging Face config.json (--list models)"),
        Option("cluster", str, "SPEC", "topology: h100:gpus=8 (DGX boxes), h100_superpod:gpus=256, a YAML file (distsim topo)"),
        Option("gpu", str, "NAME", "GPU by name or YAML file; default: the cluster's"),
        Option("replicas", int, "N", "copies of the model; default: as many as fill the cluster"),
        Option("router", str, "NAME", "how requests find a replica, NAME:key=value,... (--list routers)", "round_robin"),
    ),
    "requests": (
        Option("requests", str, "SPEC", "a file, FORMAT:file=FILE,..., or an arrival process such as poisson:qps=4"),
        Option("qps", float, "X", "mean requests per second: stretches a file, or the rate of a process"),
        Option("n", int, "N", "how many; of a file: the first so many"),
        Option("duration", str, "TIME", "of arrivals, such as 10min; of a file: of its own time, before it is stretched"),
        Option("lengths", str, "LAW", "tokens of generated requests: fixed:prompt=1024,output=128 (--list lengths)"),
        Option("sessions", str, "LAW", "of generated requests: turns=4,think=10s,prefixes=8,prefix_tokens=512"),
        Option("arrivals", str, "SPEC", "an arrival process for the lengths of a file"),
        Option("stretch", float, "X", "arrivals of a file so many times as far apart"),
        Option("start", str, "TIME", "leave out what a file has before"),
        Option("order", ("error", "sort"), "", "rows of a file out of order", "error"),
        Option("zero", ("clamp", "drop", "error"), "", "rows of a file with 0 tokens", "clamp"),
        Option("max_prompt", int, "TOKENS", "longer prompts are clamped, and counted"),
        Option("max_output", int, "TOKENS", "longer answers are clamped, and counted"),
        Option("max_total", int, "TOKENS", "prompt and answer together; answers yield first"),
        Option("deadline", str, "TIME", "after arrival: the client gives up"),
        Option("concurrency", int, "N", "closed loop: keep so many requests in the system, arrivals ignored; 0: open", 0),
        Option("seed", int, "N", "of all random numbers", 0),
    ),
    "one replica (tp x dp x pp GPUs)": (
        Option("tp", int, "N", "tensor parallel ranks of attention and dense layers", 1),
        Option("pp", int, "N", "pipeline stages, each with a batch in flight", 1),
        Option("dp", int, "N", "attention data parallel ranks that step together", 1),
        Option("ep", int, "N", "expert parallel ranks", 1),
        Option("moe_tp", int, "N", "tensor parallel ranks of one expert; 0: tp x dp / ep", 0),
        Option("ep_imbalance", float, "X", "rows of the fullest expert-parallel rank over the mean", 1.0),
        Option("weights", str, "FORMAT", "of linear layers: bf16, fp8, fp8_block, nvfp4, mxfp4, int4", "bf16"),
        Option("experts", str, "FORMAT", "of experts; default: as the weights"),
        Option("kv_dtype", ("bf16", "fp8"), "", "keys and values", "bf16"),
    ),
    "software": (
        Option("scheduler", str, "NAME", "batching policy, NAME or NAME:key=value,... (--list schedulers)", "vllm_v1"),
        Option("backend", str, "NAME", "whose overheads and defaults: vllm, sglang or trtllm", "vllm"),
        Option("cuda_graphs", bool, "", "iterations that only generate are launched as one graph", True),
        Option("overlap", bool, "", "the host prepares the next iteration while the GPU computes", True),
        Option("speculation", str, "SPEC", "draft:tokens=4,acceptance=0.7,cost=0.1 or mtp:tokens=1,acceptance=0.8"),
        Option("kv_tiers", str, "SPEC", "below the GPU's memory: NAME:size=...,bandwidth=... joined by +"),
        Option("max_tokens", int, "N", "most new tokens of an iteration that memory is kept for; 0: the backend's", 0),
        Option("utilisation", float, "SHARE", "of GPU memory; 0: the backend's", 0.0),
        Option("max_model_len", int, "TOKENS", "longest sequence: prompts dropped, answers cut; default: none is enforced"),
        Option("block", int, "TOKENS", "of a KV block", 16),
        Option("kv_blocks", int, "N", "of a replica; default: what its memory leaves"),
        Option("times", str, "SPEC", "iteration times: model (shipped providers), vidur:file=..., profile:folder=...", "model"),
    ),
    "operations": (
        Option("admission", str, "SPEC", "who is let in, and how long anybody waits: queue:limit=100,timeout=30s"),
        Option("rate_limit", str, "SPEC", "of tenants: each:requests=5,tokens=20000 or NAME:..., joined by ;"),
        Option("autoscale", str, "SPEC", "POLICY:key=value,... such as target:outstanding=8,max=8,startup=60s"),
        Option("failures", str, "SPEC", "mtbf:hours=100,repair=10min, down:at=60s,replica=0 ..., or a YAML file"),
    ),
    "prompts and generation apart": (
        Option("disaggregate", str, "SPEC", "pools by role: prefill=2,decode=1,prefill_tp=4,decode_tp=8"),
        Option("kv_transfer", str, "HOW", "keys and values go whole, or layerwise:parts=8", "whole"),
        Option("decode_router", str, "NAME", "how requests find a replica that generates", "round_robin"),
    ),
    "network": (
        Option("network", str, "LEVEL", "closed (closed forms), or a level such as fluid (docs/networks.md)", "closed"),
        Option("live", ("auto", "always", "never"), "", "on a level: iterations on the links, with all other traffic", "auto"),
        Option("collectives", str, "NAME", "on a level: algorithm of the replicas' collectives", "direct"),
    ),
    "more": (
        Option("name", str, "NAME", "of the replicas' pool, for tables"),
        Option("role", ("both", "prefill", "decode"), "", "of its replicas: prompts, generation, or both", "both"),
        Option("stepped", bool, "", "simulate every iteration by itself: slower, same answer", False),
    ),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add them; what is not given does not appear in the parsed arguments."""
    for title, options in GROUPS.items():
        group = parser.add_argument_group(title)
        for one in options:
            _add(group, one)
    about = "a field by its name, as in --spec: max_prompt=4096"
    group.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help=about)


def _add(group: Any, one: Option) -> None:
    flag, about = f"--{one.name.replace('_', '-')}", one.about.replace("%", "%%")
    if one.default is not None and one.kind is not bool:
        about += f" (default {one.default})"
    if one.kind is bool:
        action: Any = argparse.BooleanOptionalAction if one.default else "store_true"
        group.add_argument(flag, action=action, default=argparse.SUPPRESS, help=about)
    elif isinstance(one.kind, tuple):
        group.add_argument(flag, choices=one.kind, default=argparse.SUPPRESS, help=about)
    else:
        kind = partial(_number, one.kind) if one.kind is not str else str
        group.add_argument(flag, type=kind, metavar=one.metavar, default=argparse.SUPPRESS, help=about)


def _number(kind: type, text: str) -> Any:
    """A number of an option. Raises ArgumentTypeError, which tells a list where lists are taken."""
    try:
        return kind(text)
    except ValueError:
        said = f"{text!r} is no {'whole ' if kind is int else ''}number"
        if "," in text:
            said += ": one service has one value; `distsim capacity` compares deployments and finds the highest load, "
            said += "`distsim sweep` runs a list of loads (docs/capacity.md has one ready)"
        raise argparse.ArgumentTypeError(said) from None


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, by field. Raises ConfigError for a --set that is no KEY=VALUE."""
    from distsim.errors import ConfigError

    known = [one.name for options in GROUPS.values() for one in options]
    found = {name: getattr(args, name) for name in known if hasattr(args, name)}
    for text in args.set:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key or not value:
            raise ConfigError(f"{text!r} is not KEY=VALUE", where="--set", expected="--set max-prompt=4096")
        found[key.replace("-", "_")] = value
    return found


def read_file(path: str) -> dict[str, Any]:
    """The fields of a YAML file: those of the options, and ``pools``, a list of mappings. Raises ConfigError."""
    from pathlib import Path

    import yaml

    from distsim.errors import ConfigError

    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot be read: {' '.join(str(error).split())}", where=path) from None
    if not isinstance(found, dict):
        raise ConfigError("is no specification", where=path, expected="keys such as model, cluster, requests, pools")
    pools = found.get("pools", [])
    if not isinstance(pools, list) or not all(isinstance(pool, dict) for pool in pools):
        raise ConfigError("pools is no list of mappings", where=path, expected="pools: [{name: fast, tp: 4, replicas: 1}, ...]")
    return {str(key).replace("-", "_"): value for key, value in found.items()}


def check_pools(options: Mapping[str, Any], pools: Any) -> None:
    """Raises ConfigError for an option that a pool of the file has of its own: what a pool says goes over it."""
    from distsim.serve import overruled

    for key, value in options.items():
        if any(key in pool for pool in pools):
            raise overruled(key, value, pools)
