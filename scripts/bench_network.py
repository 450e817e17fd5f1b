"""Speed of the network levels: link crossings per CPU second, setup (placement, routes, admission) included.

    python scripts/bench_network.py [--repeat 3] [--ranks 1000] [--size 64MiB] [--algorithm ring] [--json]

The two bar cases are an all-reduce over randomly shuffled ranks, where symmetry cannot help; bar: 5 M crossings/s at ``chunk``.
The compiled kernels are loaded before the clock starts. CPU time, because machines are shared; the median of the repeats.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time

import numpy as np

from distsim import registry
from distsim.collectives.schedule import Collective, Schedule, schedule
from distsim.engine.placement import place
from distsim.network.model import NEVER
from distsim.topology.graph import Topology
from distsim.topology.spec import build
from distsim.units import format_time, parse_size

TOPOLOGIES = ("fat_tree:k=16", "torus:dims=16x8x8", "switch:hosts=1024")
LEVELS = ("cut_through", "chunk", "analytic")


def once(level: str, topology: Topology, plan: Schedule, hosts: np.ndarray) -> tuple[float, int]:
    """(CPU seconds from placement to the last report, ps simulated)."""
    begin = time.process_time()
    network = registry.lookup("network", level)(topology)
    network.start(place(plan, hosts), 0)
    (done,) = network.run_until(NEVER)
    return time.process_time() - begin, done.at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=1000)
    parser.add_argument("--size", type=parse_size, default=parse_size("64MiB"))
    parser.add_argument("--algorithm", default="ring")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    plan = schedule(options.algorithm, Collective("all_reduce", options.ranks, options.size))
    rows = []
    for spec in TOPOLOGIES:
        topology = build(spec)
        hosts = np.random.default_rng(7).permutation(topology.hosts)[: options.ranks].astype(np.int32)
        for level in LEVELS:
            warm = max(1, 300_000 // options.ranks)
            once(level, topology, schedule(options.algorithm, Collective("all_reduce", options.ranks, warm)), hosts)
            runs = [once(level, topology, plan, hosts) for _ in range(options.repeat)]
            seconds = statistics.median(cpu for cpu, _ in runs)
            crossings = int(topology.hops(hosts[plan.src], hosts[plan.dst]).sum())
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            rows.append(
                {
                    "topology": spec, "level": level, "transfers": len(plan), "crossings": crossings, "cpu_s": seconds,
                    "crossings_per_s": crossings / seconds, "time_ps": runs[0][1], "peak_MiB": peak,
                }
            )  # fmt: skip
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    titles = ("topology", "level", "transfers", "crossings", "CPU s", "M/s", "simulated", "MiB")
    print("{:20} {:9} {:>10} {:>11} {:>7} {:>6} {:>10} {:>5}".format(*titles))
    for row in rows:
        print(
            f"{row['topology']:20} {row['level']:9} {row['transfers']:10,} {row['crossings']:11,} {row['cpu_s']:7.3f} "
            f"{row['crossings_per_s'] / 1e6:6.2f} {format_time(row['time_ps']):>10} {row['peak_MiB']:5}"
        )


if __name__ == "__main__":
    main()
