"""Speed of GOAL: reading the text and running it under LogGOPS, in operations per CPU second, compiled kernels loaded.

    python scripts/bench_goal.py [--repeat 3] [--json]

Cases: a ring of 1,000 ranks (a dependent send, receive and calc a step), an all-to-all of 500 ranks (every receive posted at
once, so that hundreds of messages wait for each NIC), and an incast of 100,000 messages.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator

from distsim.profiles.loggops.model import simulate
from distsim.profiles.loggops.params import parameters
from distsim.trace.goal import parse

BAR = 1_000_000  #: operations per CPU second


def ring(ranks: int, steps: int) -> Iterator[str]:
    """Every rank passes something on, computes, and waits for what its neighbour passes on."""
    yield f"num_ranks {ranks}"
    for rank in range(ranks):
        yield f"rank {rank} {{"
        for step in range(steps):
            yield f"s{step}: send 4096b to {(rank + 1) % ranks} tag {step}"
            yield f"r{step}: recv 4096b from {(rank - 1) % ranks} tag {step}"
            yield f"c{step}: calc 500"
            yield f"c{step} requires r{step}"
            if step:
                yield f"s{step} requires c{step - 1}"
        yield "}"


def exchange(ranks: int) -> Iterator[str]:
    """Everybody sends to everybody at once."""
    yield f"num_ranks {ranks}"
    for rank in range(ranks):
        yield f"rank {rank} {{"
        for other in range(ranks):
            if other != rank:
                yield f"s{other}: send 1024b to {other}"
                yield f"r{other}: recv 1024b from {other}"
        yield "}"


def incast(ranks: int, each: int) -> Iterator[str]:
    """All send to rank 0."""
    yield f"num_ranks {ranks}\nrank 0 {{"
    yield from (f"r{rank}_{k}: recv 1024b from {rank} tag {k}" for rank in range(1, ranks) for k in range(each))
    yield "}"
    for rank in range(1, ranks):
        yield f"rank {rank} {{"
        yield from (f"s{k}: send 1024b to 0 tag {k}" for k in range(each))
        yield "}"


CASES: dict[str, Callable[[], Iterator[str]]] = {
    "ring 1000 x 350": lambda: ring(1000, 350), "all-to-all 500": lambda: exchange(500),
    "incast 1001 x 100": lambda: incast(1001, 100),
}  # fmt: skip


def measure(text: Callable[[], Iterator[str]], repeat: int) -> dict[str, float]:
    """Operations, bytes of text, and the least CPU seconds of reading and of running."""
    data = "\n".join(text()).encode()
    params = parameters("loggops:preset=ai")
    reading, running, events = [], [], 0
    for _ in range(repeat + 1):  # the first round loads or compiles the kernels
        begin = time.process_time()
        schedule = parse(data, "bench.goal")
        middle = time.process_time()
        events = simulate(schedule, params).events
        reading.append(middle - begin)
        running.append(time.process_time() - middle)
    ops = len(schedule)
    read, ran = min(reading[1:]), min(running[1:])
    return {"operations": ops, "text_bytes": len(data), "events": events, "read_s": read, "run_s": ran,
            "read_ops_per_s": ops / read, "run_ops_per_s": ops / ran, "both_ops_per_s": ops / (read + ran)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = {name: measure(text, args.repeat) for name, text in CASES.items()}
    if args.json:
        print(json.dumps(found))
        return
    print(f"{'case':18} {'operations':>11} {'read ops/s':>12} {'run ops/s':>12} {'both ops/s':>12}   (bar: {BAR:,} run)")
    for name, row in found.items():
        print(f"{name:18} {row['operations']:11,.0f} {row['read_ops_per_s']:12,.0f} {row['run_ops_per_s']:12,.0f} "
              f"{row['both_ops_per_s']:12,.0f}")  # fmt: skip


if __name__ == "__main__":
    main()
