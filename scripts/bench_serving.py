"""Speed of serving, in CPU seconds of the simulation alone (start-up and reading left out), and peak memory of the process.

Every case runs as its own process, ``--repeat`` times; the median is shown.

    python scripts/bench_serving.py --data ../shared/reference/serving [--only NAME] [--repeat 3] [--json]

- vidur: run 7b_a100_tp1_vllm with Vidur's own durations, beside the CPU seconds that Vidur took.
- azure: the Azure conversation trace of 2023, arrivals four times as far apart, one replica.
- long: 100,000 requests, 4 million iterations, one replica.
- fleet: 100,000 requests over 64 replicas, round robin. fleet-least: least_outstanding. fleet-operated: with failures,
  timeouts, rate limits and autoscaling.

Durations of all but vidur are affine in tokens and in the mean length, in steps of 64 tokens, about those of an 8B model on an
H100: the cost of looking them up is not what is measured here.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: CPU seconds, or times faster than Vidur; GB
BARS = {"vidur": ">= 60x", "azure": "<= 2 s", "long": "<= 10 s", "fleet": "<= 20 s, 1 GB"}
CASES = ("vidur", "azure", "long", "fleet", "fleet-least", "fleet-operated")


class Affine:
    """ps: 6 ms, 25 us per token computed, 2 us per sequence and 64 tokens of its mean length."""

    stages = 1

    def times(self, shape: Any) -> tuple[int, ...]:
        """See distsim.serving.iteration."""
        n = shape.sequences
        buckets = n * -(-(shape.kv // n) // 64) if n else 0
        return (6_000_000_000 + 25_000_000 * (shape.tokens - n) + 2_000_000 * (n + buckets),)

    def steady(self, sequences: int, kv: int, longest: int) -> tuple[int, int]:
        """See distsim.serving.iteration."""
        mean = kv // sequences
        bucket = -(-mean // 64)
        return 6_000_000_000 + 2_000_000 * (sequences + sequences * bucket), bucket * 64 - mean + 1


def vidur(data: Path) -> tuple[Callable[[], None], Callable[[], dict[str, Any]]]:
    """The parity run."""
    from distsim.validation.vidur import prepared, read

    run = read(data / "vidur" / "7b_a100_tp1_vllm", data / "vidur")
    clock, service = prepared(run)
    return clock.run, lambda: {**_told(service, clock), "vidur_s": run.cpu}


def azure(data: Path) -> tuple[Callable[[], None], Callable[[], dict[str, Any]]]:
    """The conversation trace."""
    from distsim.serving.requests.read import requests

    table = requests(f"azure:file={data / 'requests' / 'AzureLLMInferenceTrace2023_conv.csv.gz'}", stretch=4.0)
    return _service(table, 1)


def generated(replicas: int, qps: float, output: int, **options: Any) -> tuple[Any, Any]:
    """100,000 requests, Poisson, lengths uniform about 200 and ``output`` tokens."""
    import numpy as np

    from distsim.serving.requests.table import requests_of

    rng, n = np.random.default_rng(1), 100_000
    table = requests_of(
        np.cumsum(rng.exponential(1e12 / qps, n)).astype(np.int64), rng.integers(20, 381, n), rng.integers(1, 2 * output, n)
    )
    return _service(table, replicas, **options)


def _service(table: Any, replicas: int, router: str = "round_robin", **control: Any) -> tuple[Any, Any]:
    from distsim.kernel.clock import Clock
    from distsim.serve import router_of
    from distsim.serving.fleet import Pool, make_scheduler
    from distsim.serving.log import IterationLog
    from distsim.serving.operations.control import Control
    from distsim.serving.replica import Replica
    from distsim.serving.seeds import stream
    from distsim.serving.service import Service

    clock, log = Clock(), IterationLog()
    pool = Pool.of({"model": "llama3-8b", "gpu": "h100", "replicas": replicas})
    operated = Control(table, [pool], **control)
    service = Service(clock, table, router_of(router, stream(0, "router")), gate=operated.gate)
    made = [
        Replica(number, clock, make_scheduler("vllm_v1", 28_000, 1), Affine(), log, service.ended)
        for number in range(operated.most(0, [1], 2 * replicas))
    ]  # fmt: skip
    operated.attach(service, made, {replica.number: 0 for replica in made})
    service.start(made)
    operated.start()
    return clock.run, lambda: {**_told(service, clock), **operated.counts}


def _told(service: Any, clock: Any) -> dict[str, Any]:
    return {
        "requests": len(service.table), "finished": service.finished, "events": clock.events,
        "iterations": sum(replica.iterations for replica in service.replicas),
    }  # fmt: skip


def one(name: str, data: Path) -> dict[str, Any]:
    """Run a case in this process."""
    from distsim.kernel.collector import collector_paused

    if name == "vidur":
        run, told = vidur(data)
    elif name == "azure":
        run, told = azure(data)
    elif name == "long":
        run, told = generated(1, 4.0, 245)
    else:
        options = {
            "fleet": {}, "fleet-least": {"router": "least_outstanding"},
            "fleet-operated": {
                "router": "least_outstanding", "failing": "mtbf:hours=1,repair=1min",
                "admit": "queue:timeout=10s,deadline=2min", "rate_limit": "each:requests=1000",
                "autoscale": "target:outstanding=8,startup=30s",
            },
        }[name]  # fmt: skip
        run, told = generated(64, 256.0, 245, **options)
    with collector_paused():
        start = time.process_time()
        run()
        cpu = time.process_time() - start
    return {"cpu_s": cpu, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, **told()}


def main() -> None:
    """The table."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--data", type=Path, default=Path("../shared/reference/serving"))
    reader.add_argument("--only", choices=CASES)
    reader.add_argument("--repeat", type=int, default=3)
    reader.add_argument("--json", action="store_true")
    reader.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    given = reader.parse_args()
    if given.case:
        print(json.dumps(one(given.case, given.data)))
        return
    rows = {}
    for name in [given.only] if given.only else CASES:
        command = [sys.executable, __file__, "--case", name, "--data", str(given.data)]
        runs = []
        for _ in range(given.repeat):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
            runs.append(json.loads(done.stdout))
        row = rows[name] = {**runs[0], "cpu_s": statistics.median(run["cpu_s"] for run in runs)}
        row["peak_mb"] = max(run["peak_mb"] for run in runs)
        if "vidur_s" in row:
            row["times_faster"] = row["vidur_s"] / row["cpu_s"]
        if not given.json:
            faster = f", {row['times_faster']:.0f} times faster than Vidur's {row['vidur_s']:.2f} s" if "vidur_s" in row else ""
            print(
                f"{name:15} {row['cpu_s']:7.3f} s {row['peak_mb']:6.0f} MB {row['finished']:7,} of {row['requests']:,} requests"
                f" {row['iterations']:10,} iterations {row['events']:8,} events  (bar {BARS.get(name, '-')}){faster}"
            )
    if given.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
