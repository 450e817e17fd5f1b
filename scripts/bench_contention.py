"""Speed of the FIFO levels where collectives contend: many concurrent ring all-reduces on an oversubscribed fat tree.

    python scripts/bench_contention.py [--topo fat_tree:k=20,oversubscription=4] [--groups 100] [--ranks 64] [--size 64MiB]
                                       [--routing static,ecmp] [--repeat 3] [--json]

Every group is 64 random hosts of its own (6,400 of 8,000 in the default tree, whose leaves offer 4:1), in random order, so that
rings cross each other at the up-links and neither leases nor symmetry can help; all start at once. Bar: 5 M link crossings per
CPU second at ``chunk``, with placement, routes and admission. An event is one crossing or one delivery. The compiled kernels
are loaded before the clock starts; CPU time, as machines are shared; the median of the repeats, and the best of them.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time

import numpy as np

from distsim.collectives.schedule import Collective, schedule
from distsim.engine.placement import pattern_of
from distsim.network.model import NEVER
from distsim.network.pattern import Pattern
from distsim.network.spec import build_network
from distsim.topology.graph import Topology
from distsim.topology.routed import routed
from distsim.topology.spec import build
from distsim.units import format_time, parse_size

LEVELS = ("chunk", "cut_through")


def once(level: str, topology: Topology, pattern: Pattern, groups: np.ndarray) -> tuple[float, int, int]:
    """(CPU seconds from placement to the last report, ps simulated, bytes over all links)."""
    begin = time.process_time()
    network = build_network(level, topology)
    for hosts in groups:
        network.start(pattern.on(hosts), 0)
    end, reported = 0, 0
    while reported < len(groups):
        done = network.run_until(NEVER)
        reported, end = reported + len(done), done[-1].at
    return time.process_time() - begin, end, int(network.usage().bytes.sum())


def crossings(topology: Topology, pattern: Pattern, groups: np.ndarray) -> tuple[int, int]:
    """(links crossed by all rows of all groups, deliveries)."""
    rows = np.bincount(pattern.pair, minlength=len(pattern.src))
    hops = sum(int((topology.hops(hosts[pattern.src], hosts[pattern.dst]) * rows).sum()) for hosts in groups)
    return hops, len(pattern) * len(groups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topo", default="fat_tree:k=20,oversubscription=4")
    parser.add_argument("--groups", type=int, default=100)
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--size", type=parse_size, default=parse_size("64MiB"))
    parser.add_argument("--routing", default="static,ecmp")
    parser.add_argument("--levels", default=",".join(LEVELS))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    plain = build(options.topo)
    dice = np.random.default_rng(7)
    needed = options.groups * options.ranks
    if needed > plain.hosts:
        raise SystemExit(f"{options.topo} has {plain.hosts} hosts for {needed} ranks")
    groups = dice.permutation(plain.hosts)[:needed].astype(np.int32).reshape(options.groups, options.ranks)
    pattern = pattern_of(schedule("ring", Collective("all_reduce", options.ranks, options.size)))
    rows = []
    for routing in options.routing.split(","):
        topology = routed(routing, plain)
        crossed, delivered = crossings(topology, pattern, groups)
        for level in options.levels.split(","):
            once(level, topology, pattern, groups[:2])
            runs = [once(level, topology, pattern, groups) for _ in range(options.repeat)]
            seconds = statistics.median(cpu for cpu, _, _ in runs)
            rows.append(
                {
                    "topology": plain.spec, "routing": routing, "level": level, "groups": options.groups,
                    "transfers": delivered, "crossings": crossed, "events": crossed + delivered, "cpu_s": seconds,
                    "crossings_per_s": crossed / seconds, "best_crossings_per_s": crossed / min(cpu for cpu, _, _ in runs),
                    "events_per_s": (crossed + delivered) / seconds,
                    "time_ps": runs[0][1], "peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                }
            )  # fmt: skip
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{options.groups} x {options.ranks} ranks, {plain.hosts} hosts, {plain.spec}")
    titles = ("routing", "level", "transfers", "crossings", "CPU s", "M crossings/s", "best", "M events/s", "simulated", "MiB")
    print("{:10} {:12} {:>10} {:>11} {:>7} {:>13} {:>5} {:>10} {:>10} {:>5}".format(*titles))
    for row in rows:
        print(
            f"{row['routing']:10} {row['level']:12} {row['transfers']:10,} {row['crossings']:11,} {row['cpu_s']:7.3f} "
            f"{row['crossings_per_s'] / 1e6:13.2f} {row['best_crossings_per_s'] / 1e6:5.2f} "
            f"{row['events_per_s'] / 1e6:10.2f} {format_time(row['time_ps']):>10} {row['peak_MiB']:5}"
        )


if __name__ == "__main__":
    main()
