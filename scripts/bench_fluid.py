"""Speed of the level ``fluid`` on a 1,024-host fat tree (k=16): CPU seconds from an empty network to the last report.

    python scripts/bench_fluid.py [--repeat 5] [--json]

Bars: 1,000 random 16 MB flows, all completions, 0.3 s; 10,000 of them, first 100 completions, 0.9 s; all-to-all among 1,024
hosts (1,047,552 flows), 5 s. Routes, admission and reports are included, the topology and loading the compiled kernels are not.
CPU time, because machines are shared; medians.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np

from distsim.collectives.schedule import Collective, schedule
from distsim.engine.placement import place
from distsim.network.fluid import Fluid
from distsim.network.model import NEVER, Transfers
from distsim.network.transfers import single
from distsim.topology.graph import Topology
from distsim.topology.spec import build
from distsim.units import format_time

SIZE = 16_000_000  #: bytes of a random flow


def random_flows(topology: Topology, flows: int, completions: int) -> tuple[float, int, int, int]:
    """One DAG of flows between random distinct hosts, all at 0: (CPU s, ps, completions, solves)."""
    dice = np.random.default_rng(1)
    src = dice.integers(0, topology.hosts, flows)
    dst = (src + dice.integers(1, topology.hosts, flows)) % topology.hosts
    none = np.zeros(flows, dtype=np.int64)
    no_deps = np.zeros(flows + 1, dtype=np.int64), np.zeros(0, dtype=np.int32)
    transfers = Transfers(src.astype(np.int32), dst.astype(np.int32), none + SIZE, *no_deps, none)
    begin = time.process_time()
    network = Fluid(topology)
    network.start(transfers, 0)
    while network.delivered < completions:
        network.run_until(network.next_event())
    return time.process_time() - begin, network.now, network.delivered, network.solves


def one_by_one(topology: Topology, flows: int) -> tuple[float, int, int, int]:
    """As above, every flow a group of its own that is reported by itself."""
    dice = np.random.default_rng(1)
    src = dice.integers(0, topology.hosts, flows)
    dst = (src + dice.integers(1, topology.hosts, flows)) % topology.hosts
    messages = [single(one, other, SIZE) for one, other in zip(src.tolist(), dst.tolist(), strict=True)]
    begin = time.process_time()
    network = Fluid(topology)
    for message in messages:
        network.start(message, 0)
    done = 0
    while done < flows:
        done += len(network.run_until(NEVER))
    return time.process_time() - begin, network.now, done, network.solves


def all_to_all(topology: Topology, size: int) -> tuple[float, int, int, int]:
    """Everybody sends ``size`` bytes to everybody else, directly."""
    plan = schedule("direct", Collective("all_to_all", topology.hosts, size * topology.hosts))
    begin = time.process_time()
    network = Fluid(topology)
    network.start(place(plan, np.arange(topology.hosts, dtype=np.int32)), 0)
    (done,) = network.run_until(NEVER)
    return time.process_time() - begin, done.at, len(plan), network.solves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    topology = build("fat_tree:k=16")
    cases: tuple[tuple[str, float | None, Callable[[], tuple[float, int, int, int]]], ...] = (
        ("1,000 flows, all", 0.3, lambda: random_flows(topology, 1_000, 1_000)),
        ("10,000 flows, first 100", 0.9, lambda: random_flows(topology, 10_000, 100)),
        ("1,000 groups of one", None, lambda: one_by_one(topology, 1_000)),
        ("all-to-all of 1,024", 5.0, lambda: all_to_all(topology, 1_000_000)),
    )
    random_flows(topology, 2_000, 2_000)  # loads the compiled kernels
    all_to_all(build("fat_tree:k=12"), 1_000_000)
    rows = []
    for name, bar, run in cases:
        runs = [run() for _ in range(options.repeat)]
        cpu = statistics.median(run[0] for run in runs)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        rows.append(
            {"case": name, "cpu_s": cpu, "bar_s": bar, "time_ps": runs[0][1], "flows": runs[0][2], "solves": runs[0][3],
             "peak_MiB": peak}
        )  # fmt: skip
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print("{:24} {:>7} {:>6} {:>10} {:>10} {:>7} {:>6}".format("case", "CPU s", "bar s", "simulated", "done", "solves", "MiB"))
    for row in rows:
        bar = row["bar_s"] or "-"
        print(
            f"{row['case']:24} {row['cpu_s']:7.3f} {bar:>6} {format_time(row['time_ps']):>10} {row['flows']:10,} "
            f"{row['solves']:7,} {row['peak_MiB']:6,}"
        )


if __name__ == "__main__":
    main()
