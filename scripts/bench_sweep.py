"""Bars of sweeps and of the search, on GPT-3 175B and 1,024 H100: bounds/s, simulated plans/s, equal bytes, kills.

python scripts/bench_sweep.py               all of it
python scripts/bench_sweep.py bounds plans  only some: bounds, plans, bytes
python scripts/bench_sweep.py --points 50   a shorter study
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from distsim import registry
from distsim.errors import ConfigError
from distsim.sweep.evaluator import function
from distsim.sweep.points import Space, Tally
from distsim.sweep.shipped import shipped
from distsim.sweep.study import read_study

STUDY = "gpt3_175b_1024"


def bounds() -> None:
    """Bounds of the points of the shipped study in one process, after the first."""
    study = read_study(shipped("studies", ".yaml")[STUDY])
    evaluator = registry.lookup("study", "training")
    points = Space(study.model_copy(update={"sample": 0}), evaluator).points(Tally())
    bound = function(evaluator.bound)
    begin = 0.0
    refused = 0
    for at, one in enumerate(points[:4001]):
        if at == 1:
            begin = time.perf_counter()
        try:
            bound(one.point)
        except ConfigError:
            refused += 1
    count = min(len(points), 4001) - 1
    took = time.perf_counter() - begin
    print(f"bounds: {count / took:,.0f}/s in one process ({count:,} in {took:.2f} s, {refused:,} of them refusals)")
    print("        bar 1,500/s on two cores")


def sweep(folder: Path, points: int, *options: str) -> subprocess.Popen[str]:
    """``distsim sweep`` of the study cut to so many points."""
    text = shipped("studies", ".yaml")[STUDY].read_text()
    file = folder.parent / f"{STUDY}.yaml"
    file.write_text("".join(line for line in text.splitlines(True) if not line.startswith("sample:")) + f"sample: {points}\n")
    command = [sys.executable, "-m", "distsim", "sweep", str(file), "-o", str(folder), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Its output, once it has ended well."""
    out, notes = process.communicate()
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}\n{out}\n{notes}")
    return out, notes


def digest(folder: Path) -> str:
    """Of the table."""
    return hashlib.sha256((folder / "results.parquet").read_bytes()).hexdigest()[:16]


def plans(work: Path, points: int) -> None:
    """Simulated plans per second on all cores, start-up and checks included."""
    begin = time.perf_counter()
    out, notes = ended(sweep(work / "processes", points))
    took = time.perf_counter() - begin
    count = (work / "processes" / "journal.jsonl").read_bytes().count(b"\n")
    print(f"{out.splitlines()[0]}\n{out.splitlines()[1]}\n{notes.splitlines()[0]}")
    print(f"plans: {count / took:.2f}/s on {len(os.sched_getaffinity(0))} cores ({count} in {took:.1f} s); bar 6/s")


def equal_bytes(work: Path, points: int) -> None:
    """Processes, Dask, and a study killed three times give the same table."""
    if not (work / "processes" / "results.parquet").exists():
        ended(sweep(work / "processes", points))
    ended(sweep(work / "dask", points, "--dask", "local:2"))
    wanted = (work / "processes" / "journal.jsonl").read_bytes().count(b"\n")
    journal = work / "killed" / "journal.jsonl"
    kills = 0
    for share in (0.2, 0.5, 0.8):
        process = sweep(work / "killed", points)
        while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < share * wanted):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    ended(sweep(work / "killed", points))
    found = {name: digest(work / name) for name in ("processes", "dask", "killed")}
    print(f"bytes: {found}, killed {kills} times: {'the same' if len(set(found.values())) == 1 else 'DIFFERENT'}")


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["bounds", "plans", "bytes"], help="bounds, plans, bytes")
    parser.add_argument("--points", type=int, default=200)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if "bounds" in args.what:
            bounds()
        if "plans" in args.what:
            plans(Path(folder), args.points)
        if "bytes" in args.what:
            equal_bytes(Path(folder), args.points)


if __name__ == "__main__":
    main()
