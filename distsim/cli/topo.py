"""Size, bisection bandwidth, diameter and links of a topology, and a drawing of it.

  distsim topo                                     the presets, the builders with their parameters, and the shipped files
  distsim topo h100_superpod --gpus 1024 --draw superpod.svg
  distsim topo h100_superpod:nodes=64,oversubscription=2    figures of a preset may be overridden
  distsim topo fat_tree --gpus 1024                a fat tree for 1,024 ranks
  distsim topo fat_tree:tiers=2,k=16,oversubscription=3 --draw tree.svg
  distsim topo torus:dims=16x8x8,bandwidth=50GB/s  dimension 0 is 16 long
  distsim topo nd:dims=ring4+switch8,bandwidth=300GBps+50GBps,latency=100ns+500ns
  distsim topo my_cluster.yaml --route gpu0 gpu9   a graph of your own; which links a message takes
  distsim topo fat_tree:k=4 --routing spray --route gpu0 gpu9   every route that this policy offers
  distsim topo rail_optimized:nodes=4 --json       the same for programs: bytes/s, ps
  distsim topo simai:Spectrum-X_128g               a topology file of SimAI

A specification is NAME:key=value,key=value. Bandwidths are written 400Gbps or 50GB/s, latencies 500ns; sizes that are left
out are inferred from --gpus, as `distsim run` infers them from the trace. Bisection bandwidth is what crosses the worst even
split of the GPUs, in one direction. Hops are links on a route; GPU - switch - GPU is two.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from distsim.errors import ConfigError
from distsim.topology.graph import Topology
from distsim.topology.metrics import Metrics, measure, size_of
from distsim.topology.presets import PRESETS, Preset
from distsim.topology.routed import routed
from distsim.topology.spec import ALIASES, FILE_SUFFIXES, SIMAI, build, parse
from distsim.units import format_bandwidth, format_time


def prepare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("topology", nargs="?", help="NAME, NAME:key=value,... or a .yaml file; left out: list them")
    parser.add_argument("--gpus", type=int, metavar="N", help="GPUs (ranks) to be placed; sizes that are left out follow")
    parser.add_argument(
        "--list", action="store_true", help="list presets, builders with parameters and defaults, and shipped files"
    )
    parser.add_argument("--links", action="store_true", help="print every directed link")
    parser.add_argument("--routing", default="static", help="routing policy, NAME:key=value, see --list (default: static)")
    parser.add_argument("--route", nargs=2, metavar=("FROM", "TO"), help="print the links between two GPUs")
    parser.add_argument("--draw", metavar="FILE", help="write a drawing, .svg or .png")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the summary, or the list."""
    if args.list or args.topology is None:
        return _list(args)
    topology = routed(args.routing, build(args.topology, args.gpus))
    metrics = measure(topology)
    routes = _routes(topology, *args.route) if args.route else None
    if args.draw:
        from distsim.topology.draw import draw

        draw(topology, args.draw)
    if args.json:
        print(json.dumps(_as_json(topology, metrics, routes, links=args.links), indent=2))
        return 0
    print(_answer(args.topology, topology, metrics))
    for sentence in topology.inferred:
        print(sentence)
    print()
    rows = [
        (
            row.name,
            row.ends,
            f"{row.cables:,}",
            _span(map(format_bandwidth, row.bandwidth)),
            _span(map(format_time, row.latency)),
        )
        for row in metrics.domains
    ]
    _table(("domain", "joins", "cables", "each way", "per hop"), rows)
    if topology.devices:
        print(f"\ndevices: {_devices(topology)}")
    preset = _preset(args.topology)
    if preset:
        print(f"\n{preset.about}")
        given = parse(args.topology)[1]
        figures = [(key, figure.value, figure.source) for key, figure in preset.figures.items() if key not in given]
        _table(("figure", "value", "source"), figures)
    print(f"\nspec: {topology.spec}")
    for lane, route in enumerate(routes or []):
        number = f" {lane}" if len(routes or []) > 1 else ""
        print(f"\nroute{number} {args.route[0]} to {args.route[1]}, {len(route)} hops")
        _table(_LINK_HEAD, [_link_row(topology, link) for link in route])
    if args.links:
        print()
        _table(_LINK_HEAD, [_link_row(topology, link) for link in range(topology.links)])
    if args.draw:
        print(f"drawn to {args.draw}", file=sys.stderr)
    return 0


def _answer(text: str, topology: Topology, metrics: Metrics) -> str:
    """The first line."""
    bisection = format_bandwidth(metrics.bisection)
    if not metrics.bisection_exact:
        bisection = f"at most {bisection} (best split found)"
    over = " (sampled)" if metrics.sampled else ""
    hops = f"diameter {metrics.diameter} hops, {metrics.average_hops:.2f} on average{over}"
    return f"{_title(text, topology)}: {size_of(topology)}; bisection {bisection}; {hops}"


def _title(text: str, topology: Topology) -> str:
    """The name with the sizes, given or inferred; other parameters are in the spec."""
    if text.endswith(FILE_SUFFIXES) or text.startswith(SIMAI):
        return topology.name
    name, options = topology.name, parse(topology.spec)[1]
    given = parse(text)[1]
    inferred = " ".join(topology.inferred)
    sizes = [f"{key}={value}" for key, value in options.items() if key in given or f"{key}={value}" in inferred]
    return " ".join([name, *sizes])


def _preset(text: str) -> Preset | None:
    """The preset that a specification names, if any."""
    return None if text.startswith(SIMAI) else PRESETS.get(parse(text)[0])


def _devices(topology: Topology) -> str:
    """``32 x h100, 64 x a100, 2 hosts without``."""
    counts = _device_counts(topology)
    return ", ".join(f"{count:,} x {name}" if name else f"{count:,} hosts without" for name, count in counts.items())


def _device_counts(topology: Topology) -> dict[str, int]:
    if topology.host_device is None:
        return dict.fromkeys(topology.devices, topology.hosts)
    counts = np.bincount(topology.host_device, minlength=len(topology.devices)).tolist()
    return dict(zip(topology.devices, counts, strict=True))


def _span(texts: Iterable[str]) -> str:
    return " to ".join(dict.fromkeys(texts))


_LINK_HEAD = ("link", "from", "to", "domain", "bandwidth", "latency")


def _link_row(topology: Topology, link: int) -> tuple[str, ...]:
    return (
        str(link),
        topology.node_names[topology.link_src[link]],
        topology.node_names[topology.link_dst[link]],
        topology.domains[topology.link_domain[link]],
        format_bandwidth(topology.link_bandwidth[link]),
        format_time(int(topology.link_latency[link])),
    )


def _routes(topology: Topology, start: str, end: str) -> list[list[int]]:
    """The links of every lane between two hosts."""
    hosts = {name: number for number, name in enumerate(topology.node_names[: topology.hosts])}
    for name in (start, end):
        if name not in hosts:
            names = topology.node_names[: topology.hosts]
            near = difflib.get_close_matches(name, names, n=3)
            raise ConfigError(f"unknown host {name!r}", near=near, expected=f"one of {names[0]} ... {names[-1]}")
    src, dst = np.array([hosts[start]], np.int32), np.array([hosts[end]], np.int32)
    lanes = np.arange(topology.lanes(src, dst)[0], dtype=np.int32)
    return [topology.paths(src, dst, lane)[1].tolist() for lane in lanes[:, None]]


def _as_json(topology: Topology, metrics: Metrics, routes: list[list[int]] | None, *, links: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "name": topology.name,
        "spec": topology.spec,
        "inferred": list(topology.inferred),
        "hosts": metrics.hosts,
        "switches": metrics.switches,
        "cables": metrics.cables,
        "bisection_bytes_per_s": metrics.bisection,
        "bisection_exact": metrics.bisection_exact,
        "diameter_hops": metrics.diameter,
        "average_hops": metrics.average_hops,
        "hops_sampled": metrics.sampled,
        "devices": _device_counts(topology),
        "dimensions": [
            {"kind": d.kind, "size": d.size, "bandwidth_bytes_per_s": d.bandwidth, "latency_ps": d.latency}
            for d in topology.dimensions
        ],
        "domains": [
            {
                "name": row.name,
                "joins": row.ends,
                "cables": row.cables,
                "bandwidth_bytes_per_s": list(row.bandwidth),
                "latency_ps": list(row.latency),
            }
            for row in metrics.domains
        ],
    }
    if routes is not None:
        answer["route"] = [topology.link_name(link) for link in routes[0]]
        answer["routes"] = [[topology.link_name(link) for link in route] for route in routes]
    if links:
        answer["links"] = [
            {
                "from": topology.node_names[topology.link_src[link]],
                "to": topology.node_names[topology.link_dst[link]],
                "domain": topology.domains[topology.link_domain[link]],
                "bandwidth_bytes_per_s": float(topology.link_bandwidth[link]),
                "latency_ps": int(topology.link_latency[link]),
            }
            for link in range(topology.links)
        ]
    return answer


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _list(args: argparse.Namespace) -> int:
    from distsim.registry import lookup, names
    from distsim.topology.custom import SpecFile, read, shipped

    builders = {name: lookup("topology", name) for name in names("topology")}
    policies = {name: lookup("routing", name) for name in names("routing")}
    files = {name: read(path) for name, path in shipped().items()}
    if args.json:
        print(
            json.dumps(
                {
                    "builders": {name: builder.Params.model_json_schema() for name, builder in builders.items()},
                    "presets": {
                        name: {
                            "about": preset.about,
                            "builder": preset.builder,
                            "figures": {
                                key: {"value": figure.value, "source": figure.source} for key, figure in preset.figures.items()
                            },
                        }
                        for name, preset in PRESETS.items()
                    },
                    "routing": {name: policy.Params.model_json_schema() for name, policy in policies.items()},
                    "aliases": ALIASES,
                    "files": {name: file.description for name, file in files.items()},
                },
                indent=2,
            )
        )
        return 0
    sizes = f"{len(PRESETS)} presets, {len(builders)} builders and {len(files)} files"
    print(f"{sizes}; `distsim topo NAME` describes one, with the source of every figure of a preset")
    print("\npresets")
    _table(("    name", "what it is", "source"), [(f"    {name}", it.about, it.source) for name, it in PRESETS.items()])
    for name, builder in builders.items():
        _describe(name, builder, "such as ")
    print("\naliases: " + ", ".join(f"{alias} = {name}" for alias, name in ALIASES.items()))
    print("\nrouting policies, for --routing NAME:key=value")
    for name, policy in policies.items():
        _describe(name, policy)
    if files:
        print("\nfiles")
        about = [
            (f"    {name}", file.spec if isinstance(file, SpecFile) else "graph", file.description)
            for name, file in files.items()
        ]
        _table(("    name", "builds", "what it is"), about)
    return 0


def _describe(name: str, component: Any, lead: str = "") -> None:
    """What it is, from its docstrings, and its parameters."""
    module = sys.modules[component.__module__].__doc__ or ""
    print(f"\n{name}: {module.strip().splitlines()[0]}\n    {lead}{(component.__doc__ or '').strip().splitlines()[0]}")
    fields = component.Params.model_fields.items()
    rows = [
        (f"    {key}", "" if field.default is None or field.is_required() else str(field.default), field.description or "")
        for key, field in fields
    ]
    if rows:
        _table(("    key", "default", "meaning"), rows)
