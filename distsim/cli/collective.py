"""Time one collective on a topology.

  distsim collective all_reduce --size 64MiB --ranks 64 --topo fat_tree
  distsim collective all_reduce --size 64MiB --ranks 1024 --topo switch:bandwidth=50GiBps,latency=500ns --algorithm ring
  distsim collective all_to_all --size 1MiB --ranks 32 --topo torus:dims=8x4 --algorithm direct4
  distsim collective all_gather --size 1MiB --ranks 16 --topo nd:dims=ring4+switch4 --algorithm hierarchical
  distsim collective all_reduce --size 64MiB --ranks 64 --topo rail_optimized --group groups.json
  distsim collective all_to_all --size 16MiB --ranks 128 --topo fat_tree:k=8 --routing ecmp:seed=3 --network chunk:size=64KiB
  distsim collective all_reduce -b 1KiB -e 8GiB -f 2 --ranks 16 --topo rail_optimized --plot busbw.svg
  distsim collective all_reduce --ranks 8 --topo switch --compare measured.txt
  distsim collective all_reduce --size 1GiB --topo rail_optimized:nodes=2,device=h100 --collectives nccl --network fluid

--size is the input of each rank (for all_gather its shard). --group names a JSON file: a list of ranks in ring order, or
{"id": [ranks], ...}, whose groups then run at once. algbw and busbw count bytes as nccl-tests does, in GB/s of 1e9 bytes.
-b, -e, -f sweep sizes of the whole buffer and print nccl-tests' table; --compare holds it against nccl-tests' own output.
--profile astra gives ASTRA-sim's exact cycles (--network chunk: its congestion-aware backend, analytic: the unaware one).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any

from distsim.cli.progress import Progress
from distsim.cli.sizes import add_sizes, sweep, wanted
from distsim.errors import ConfigError
from distsim.units import format_bandwidth, format_size, format_time, parse_size, parse_time


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add = parser.add_argument
    add(
        "operation",
        metavar="OP",
        help="all_reduce, all_gather, reduce_scatter, all_to_all, broadcast, reduce, gather, scatter, barrier",
    )
    add("--size", help="input of each rank (default: 64MiB)")
    add("--ranks", type=int, help="number of ranks (default: the topology's hosts)")
    add("--topo", default="fat_tree", help="topology, as for distsim run (default: fat_tree)")
    add("--algorithm", default="", help="ring, direct, direct<window>, halving_doubling, recursive_doubling, binary_tree, "
        "double_binary_tree, hierarchical (default: by operation; hierarchical where all levels are spanned)")  # fmt: skip
    add("--collectives", choices=("native", "nccl"), default="native",
        help="distsim's own algorithms, or as NCCL runs them (default: native)")  # fmt: skip
    add("--nccl-algo", help="nccl: only this algorithm: ring, tree, nvls, nvls_tree, pat (as NCCL_ALGO does)")
    add("--nccl-proto", help="nccl: only this protocol: ll, ll128, simple (as NCCL_PROTO does)")
    add("--nccl-pxn", help="nccl: all_to_all between nodes by rail: on (default) or off (as NCCL_PXN_DISABLE does)")
    add("--nccl-fabric", help="nccl: what the NICs are: ib (default), roce, efa")
    add("--calibration", metavar="FILE", help="nccl: calibration file, see distsim calibrate nccl")
    add("--network", help="analytic, fluid, cut_through (default), chunk, ideal, with options as in fluid:mtu=4096; or by link "
        "domain: nvlink=analytic+*=fluid; profile astra: analytic (default), chunk")  # fmt: skip
    add("--routing", default="static", help="static (default), shortest, ecmp, spray, adaptive, valiant, table: NAME:key=value")
    add("--splits", type=int, default=1, help="chunks, pipelined through the algorithm (default: 1)")
    add("--optimization", choices=("local_bw_aware", "baseline"), default="local_bw_aware", help="all_reduce over dimensions")
    add("--per-dim", default="", help="hierarchical: algorithm of each dimension, joined by +")
    add("--endpoint-delay", help="added to every delivery (default: 0; profile astra: 10ns)")
    add("--group", metavar="FILE", help="JSON: the ranks of the group, or several groups")
    add("--root", type=int, default=0, help="root of a rooted operation, as index in the group")
    add("--profile", choices=("native", "astra"), default="native", help="whose semantics")
    add("--active-chunks", type=int, default=1, help="profile astra: active-chunks-per-dimension")
    add("--local-mem-bw", type=float, default=1600.0, help="profile astra: local-mem-bw in GB/s")
    add("--scheduling", choices=("LIFO", "FIFO"), default="LIFO", help="profile astra: scheduling-policy")
    add("--queues-per-dim", type=int, default=1, help="profile astra: num-queues-per-dim")
    add("--json", action="store_true", help="print one JSON document")
    add_sizes(parser)


def run(args: argparse.Namespace) -> int:
    """Time it and print."""
    from distsim.topology.routed import routed
    from distsim.topology.spec import build

    args.network = args.network or ("analytic" if args.profile == "astra" else "cut_through")
    if args.size is not None and args.operation == "barrier":
        raise ConfigError("has no effect on a barrier, which moves no data", where="--size", fix="Leave it out.")
    size = 0 if args.operation == "barrier" else parse_size(args.size or "64MiB")
    groups = read_groups(args.group) if args.group else ()
    if args.splits < 1:
        raise ConfigError(f"--splits {args.splits}", expected="at least 1")
    if args.ranks is not None and args.ranks < 1:
        raise ConfigError(f"--ranks {args.ranks}", expected="at least 2")
    topology = build(args.topo, args.ranks or (1 + max(max(g) for g in groups) if groups else None))
    if args.profile == "astra" and args.routing != "static":
        raise ConfigError("--routing has no effect on --profile astra, which has routes of its own", fix="Leave it out.")
    if args.profile == "astra" and args.collectives != "native":
        raise ConfigError("--collectives nccl has no effect on --profile astra", fix="Leave it out.")
    topology = routed(args.routing, topology)
    ranks = args.ranks or topology.hosts
    if args.profile == "astra" and ranks != topology.hosts:
        raise ConfigError(
            f"{topology.spec} has {topology.hosts} hosts for {ranks} ranks", expected="as many hosts as ranks, as in ASTRA-sim"
        )

    def time_one(size: int) -> Any:
        return _astra(args, size, topology, groups) if args.profile == "astra" else _native(args, size, ranks, topology, groups)

    if wanted(args):
        return sweep(args, len(groups[0]) if groups else ranks, time_one)
    timing = time_one(size)
    if args.json:
        print(json.dumps(document(timing, args)))
        return 0
    print(
        f"{timing.operation} of {format_size(size)} on {timing.group_size} ranks"
        + (f" ({len(groups)} groups at once)" if len(groups) > 1 else "")
        + f": {format_time(timing.time_ps)}, algbw {format_bandwidth(timing.algbw)}, busbw {format_bandwidth(timing.busbw)}"
    )
    chunks = "" if timing.algorithm.startswith("nccl ") else f"{args.splits} chunk{'s' if args.splits > 1 else ''}, "
    print(
        f"  {timing.algorithm}, {chunks}{timing.transfers:,} transfers; "
        f"{args.network} network" + (f", routing {args.routing}" if args.routing != "static" else "")
    )
    print(f"  {topology.spec}")
    for line in topology.inferred:
        print(f"  {line}")
    if timing.links.busy.any() and timing.time_ps:
        worst = int(timing.links.busy.argmax())
        names = topology.node_names
        print(
            f"  busiest link {names[topology.link_src[worst]]} -> {names[topology.link_dst[worst]]}: "
            f"{100 * timing.links.busy[worst] / timing.time_ps:.1f} % busy, {format_size(int(timing.links.bytes[worst]))}"
        )
        if timing.links.busy[worst] > timing.time_ps:
            print(
                f"  warning: level {args.network} knows no contention, and here transfers share links that it lets them use at "
                "once: too fast. Take --network cut_through"
            )
    return 0


def document(timing: Any, args: argparse.Namespace) -> dict[str, Any]:
    """The JSON document."""

    def ns(ps: int) -> float:
        return ps // 1000 if args.profile == "astra" else ps / 1000

    return {
        "operation": timing.operation, "bytes": timing.bytes, "ranks": timing.group_size, "algorithm": timing.algorithm,
        "network": args.network, "routing": args.routing,
        "profile": args.profile, "splits": args.splits, "topology": timing.topology.spec,
        "inferred": list(timing.topology.inferred), "time_ns": ns(timing.time_ps), "time_ps": timing.time_ps,
        "per_rank_ns": {str(rank): ns(end) for rank, end in sorted(timing.finish_ps.items())},
        "transfers": timing.transfers, "algbw": timing.algbw / 1e9, "busbw": timing.busbw / 1e9, **timing.detail,
    }  # fmt: skip


def _native(args: argparse.Namespace, size: int, ranks: int, topology: Any, groups: tuple[tuple[int, ...], ...]) -> Any:
    from distsim.engine.nccl import NcclOptions
    from distsim.engine.placement import CollectiveOptions
    from distsim.microbench import time_collective
    from distsim.run_spec import calibration_of

    native = {"--algorithm": bool(args.algorithm), "--splits": args.splits > 1, "--per-dim": bool(args.per_dim)}
    nccl = NcclOptions.parse(
        args.collectives, args.nccl_algo, args.nccl_proto, calibration_of(args.collectives, args.calibration, topology),
        pxn=args.nccl_pxn, fabric=args.nccl_fabric,
        native=native,
    )
    options = CollectiveOptions.parse(
        args.algorithm, chunks=args.splits, optimization=args.optimization,
        per_dim=tuple(filter(None, args.per_dim.split("+"))),
        endpoint_ps=parse_time(args.endpoint_delay or 0), nccl=nccl,
    )  # fmt: skip
    with Progress() as progress:
        return time_collective(
            args.operation, size, ranks, topology, network=args.network, options=options, groups=groups, root=args.root,
            watch=lambda now: progress(None, f"{args.operation} of {format_size(size)}: simulated {format_time(now)}"),
        )  # fmt: skip


def _astra(args: argparse.Namespace, size: int, topology: Any, groups: tuple[tuple[int, ...], ...]) -> Any:
    from distsim.profiles.astra.single import time_collective
    from distsim.profiles.astra.system import config_of_topology, whole_ns, with_algorithms

    if len(groups) > 1:
        raise ConfigError(f"{args.group} holds {len(groups)} groups; --profile astra times one")
    text = args.per_dim or ("" if args.algorithm == "hierarchical" else args.algorithm)
    config = with_algorithms(config_of_topology(topology, args.network), text)
    config = replace(
        config, splits=args.splits, active_chunks=args.active_chunks, local_memory_gbps=args.local_mem_bw,
        policy=args.scheduling, queues_per_dim=args.queues_per_dim,
        optimization="localBWAware" if args.optimization == "local_bw_aware" else args.optimization,
    )  # fmt: skip
    if args.endpoint_delay is not None:
        config = replace(config, endpoint_ns=whole_ns(args.endpoint_delay))
    return time_collective(args.operation, size, topology, config, groups[0] if groups else ())


def read_groups(path: str) -> tuple[tuple[int, ...], ...]:
    """Groups of a JSON file: a list of ranks, or an object of such lists. Raises ConfigError."""
    try:
        with open(path) as file:
            content = json.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read the group file: {error.strerror}", where=path) from None
    except ValueError as error:
        raise ConfigError(f"is not JSON: {error}", where=path) from None
    lists = [content] if isinstance(content, list) else list(content.values()) if isinstance(content, dict) else []
    if not lists or not all(isinstance(g, list) and g and all(type(r) is int for r in g) for g in lists):
        raise ConfigError("is not a group file", where=path, expected="[ranks] or {id: [ranks], ...}")
    return tuple(tuple(g) for g in lists)
