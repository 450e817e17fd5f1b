"""Speed of the engine, in CPU seconds of whole processes beyond start-up, and peak memory.

Every case runs as its own process, beside the same command on 2 ranks and 1 KiB (or a 2-node trace); the difference of the
medians is what the case costs. Compiled kernels are loaded from the cache: the first round, which fills it, is not counted.

    python scripts/bench_engine.py [--repeat 5] [--traces DIR] [--only NAME] [--json]

DIR holds the traces of scripts/make_bench_traces.py (made there if absent) and, for gpt512, a copy of ASTRA-sim's
gpt512_dp64tp8 trace as DIR/gpt512/w.<rank>.et (skipped if absent).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SWITCH = "switch:bandwidth=50GiBps,latency=500ns"
ROOFLINE = ["--compute", "roofline", "--peak", "100TFLOPS", "--memory-bandwidth", "1600GB/s"]


@dataclass(frozen=True)
class Case:
    """One command, its small form, how many transfers or nodes it handles, and what the peer takes."""

    name: str
    command: list[str]
    small: list[str]
    work: int
    unit: str
    peer: str
    bar: str


def collective(name: str, algorithm: str, network: str, peer: str, bar: str) -> Case:
    base = ["collective", "all_reduce", "--topo", SWITCH, "--algorithm", algorithm, "--network", network, "--profile", "astra",
            "--splits", "1", "--json"]  # fmt: skip
    return Case(
        name, [*base, "--size", "64MiB", "--ranks", "1024"], [*base, "--size", "1KiB", "--ranks", "2"], 2 * 1023 * 1024,
        "transfers", peer, bar,
    )  # fmt: skip


def cases(folder: Path) -> list[Case]:
    """Every case whose data is there."""
    found = [
        collective("ring analytic", "ring", "analytic", "4.3-5.0 s, 354 MB", "0.2 s"),
        collective("ring chunk", "ring", "chunk", "6.6-8.7 s, 355 MB", "0.5 s"),
        collective("direct analytic", "direct", "analytic", "37 s, 868 MB", "0.4 s"),
        collective("direct chunk", "direct", "chunk", "53-56 s, 952 MB", "1.2 s"),
    ]
    group = folder / "shuffled.json"
    if not group.exists():
        import random

        ranks = list(range(1024))
        random.Random(1).shuffle(ranks)
        group.write_text(json.dumps(ranks[:1000]))
    for topo, crossings in (("fat_tree:k=16", 11_700_000), ("torus:dims=16x8x8", 16_000_000)):
        base = ["collective", "all_reduce", "--algorithm", "ring", "--network", "chunk", "--json"]
        found.append(
            Case(
                f"shuffled ring, {topo}",
                [*base, "--topo", topo, "--size", "64MiB", "--group", str(group)],
                [*base, "--topo", topo, "--size", "1KiB", "--ranks", "2"],
                crossings,
                "crossings",
                "",
                "5 M/s",
            )
        )
    tiny = str(folder / "tiny")
    for profile in ([], ["--profile", "astra"]):
        tail = [*ROOFLINE, *profile, "--json"]
        label = " (astra)" if profile else ""
        network = ["--network", "analytic"] if profile else []
        for name, nodes, peer, bar in (
            ("chain", 1_600_000, "39 s, 1,955 MB", "8 s, 900 MB"), ("fan", 40_000, "never ends", "0.8 s"),
        ):  # fmt: skip
            command = ["run", str(folder / name), "--topo", "ring", *network, *tail]
            found.append(
                Case(name + label, command, ["run", tiny, "--topo", "ring", *network, *tail], nodes, "nodes", peer, bar)
            )
        if (folder / "gpt512").is_dir():
            small = ["run", tiny, "--topo", "switch", *network, *tail]
            command = ["run", str(folder / "gpt512" / "w"), "--topo", "switch", *network, *tail]
            found.append(Case("gpt512_dp64tp8" + label, command, small, 51_200, "nodes", "8.3-10.4 s, 236 MB", "0.9 s, 350 MB"))
    return found


def measure(command: list[str]) -> tuple[float, float]:
    """(CPU seconds, peak MB) of one process."""
    code = (
        "import resource, subprocess, sys; p = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL); "
        "u = resource.getrusage(resource.RUSAGE_CHILDREN); print(p.returncode, u.ru_utime + u.ru_stime, u.ru_maxrss / 1024)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, sys.executable, "-m", "distsim", *command], capture_output=True, text=True, check=True
    ).stdout.split()
    if out[0] != "0":
        raise SystemExit(f"distsim {' '.join(command)} ended with {out[0]}")
    return float(out[1]), float(out[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--traces", type=Path, default=Path(tempfile.gettempdir()) / "distsim-bench")
    parser.add_argument("--only", default="")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    args.traces.mkdir(parents=True, exist_ok=True)
    if not (args.traces / "chain.0.et").exists():
        maker = Path(__file__).with_name("make_bench_traces.py")
        subprocess.run([sys.executable, str(maker), str(args.traces)], check=True, stdout=subprocess.DEVNULL)
    rows = []
    starts: dict[str, float] = {}
    for case in cases(args.traces):
        if args.only not in case.name:
            continue
        measure(case.command)
        key = " ".join(case.small)
        if key not in starts:
            measure(case.small)
            starts[key] = statistics.median(measure(case.small)[0] for _ in range(args.repeat))
        taken = [measure(case.command) for _ in range(args.repeat)]
        cpu, memory = statistics.median(t[0] for t in taken), max(t[1] for t in taken)
        beyond = max(cpu - starts[key], 0.01)
        rows.append({
            "case": case.name, "start_s": round(starts[key], 2), "beyond_s": round(beyond, 2), "peak_mb": round(memory),
            "rate": f"{case.work / beyond / 1e6:.2f} M {case.unit}/s", "bar": case.bar, "peer": case.peer,
        })  # fmt: skip
        print(f"{case.name}: {beyond:.2f} s", file=sys.stderr)
    if args.json:
        print(json.dumps(rows))
        return
    print("| case | start-up s | beyond it s | peak MB | rate | bar | ASTRA-sim, in all |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(str(v) for v in row.values()) + " |")


if __name__ == "__main__":
    main()
