"""What routing policies make of a permutation: every GPU sends to one of the same rail in another unit, all at once.

    python scripts/bench_routing.py [--topo h100_superpod:nodes=128 ...] [--policy spray ...] [--size 4MiB] [--part 16KiB]
                                    [--seed 0] [--json]

Every node of the first half sends to a random one of the second, and these to random ones of the first, each to another, GPU j
to GPU j: all traffic crosses the spines. A figure is what a flow gets of what its
GPU's ports into the fabric can carry: of the slowest flow, and in brackets the mean of all. Messages go in parts through
cut-through switches, so that a policy divides them as finely as its lanes allow.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from distsim.network.model import NEVER
from distsim.network.spec import build_network
from distsim.network.transfers import single
from distsim.topology.fabric import Fabric
from distsim.topology.graph import Topology
from distsim.topology.routed import routed
from distsim.topology.spec import build
from distsim.units import parse_size

TOPOLOGIES = [
    "h100_superpod:nodes=64", "h100_superpod:nodes=64,oversubscription=2", "meta_clos:nodes=64",
    "alibaba_hpn:nodes=64,nodes_per_unit=32,spines=15",
]  # fmt: skip
POLICIES = ["static", "ecmp", "ecmp:per=qp", "adaptive", "adaptive:paths=16", "spray", "spray:paths=64"]


def permutation(topology: Topology, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(sources, destinations)."""
    gpus = topology.levels[0]
    random, half = np.random.default_rng(seed), topology.hosts // gpus // 2
    to = np.concatenate([half + random.permutation(half), random.permutation(half)])
    turn = np.arange(gpus)
    return (np.arange(2 * half)[:, None] * gpus + turn).ravel(), (to[:, None] * gpus + turn).ravel()


def shares(topology: Topology, policy: str, size: int, part: str, seed: int) -> np.ndarray:
    """Of every flow: its rate over that of its GPU's ports."""
    src, dst = permutation(topology, seed)
    out = np.flatnonzero(Fabric(topology).outside & (topology.link_src < topology.hosts))
    ports = np.bincount(topology.link_src[out], topology.link_bandwidth[out], topology.hosts)
    network = build_network(f"cut_through:size={part}", routed(policy, topology))
    for one, other in zip(src.tolist(), dst.tolist(), strict=True):
        network.start(single(one, other, size), 0)
    times: dict[int, int] = {}
    while len(times) < len(src):
        times |= {done.group: done.at for done in network.run_until(NEVER)}
    took = np.array([times[group] for group in sorted(times)])
    return size / (took * 1e-12) / ports[src]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topo", nargs="+", default=TOPOLOGIES)
    parser.add_argument("--policy", nargs="+", default=POLICIES)
    parser.add_argument("--size", type=parse_size, default=parse_size("4MiB"))
    parser.add_argument("--part", default="16KiB")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for policy in options.policy:
        for spec in options.topo:
            share = shares(build(spec), policy, options.size, options.part, options.seed)
            rows.append({"topology": spec, "policy": policy, "slowest": float(share.min()), "mean": float(share.mean())})
    if options.json:
        print(json.dumps({"seed": options.seed, "bytes": options.size, "part": options.part, "rows": rows}, indent=1))
        return
    print("| policy | " + " | ".join(f"`{spec}`" for spec in options.topo) + " |")
    print("|---" * (len(options.topo) + 1) + "|")
    for policy in options.policy:
        cells = [f"{row['slowest']:.0%} ({row['mean']:.0%})" for row in rows if row["policy"] == policy]
        print(f"| `{policy}` | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
