"""Bars of captured traces, explain, what-if, the report and the ratio study: CPU, wall and peak memory of whole commands.

python scripts/bench_captured.py --data ../shared/reference/traces    all of it
python scripts/bench_captured.py capture ranks                        only some: capture, ranks, step, ratio, validate

The captures are made of one that is there, its events repeated with later times and other ids.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SOURCE = "hta_ddp_2xA100/kineto_rank0.json.gz"
#: one step on 1,024 ranks, every micro-batch of every rank a task of its own
STEP = ("train", "--model", "llama3-8b", "--cluster", "h100_superpod:gpus=1024", "--tp", "8", "--pp", "4", "--global-batch",
        "512", "--memory", "warn")  # fmt: skip
_IDS = ("External id", "external id", "correlation")


def repeated(source: dict[str, Any], megabytes: float, path: Path, rank: int | None = None) -> None:
    """Write a capture of about that size: the events of another, again and again."""
    events = sorted(source["traceEvents"], key=lambda event: event.get("ts", 0))  # what is cut off is the end of the run
    timed = [event for event in events if event.get("ph") == "X" and "ts" in event]
    span = int(max(event["ts"] + event.get("dur", 0) for event in timed) - min(event["ts"] for event in timed)) + 1000
    ids = [event.get("args", {}).get(key, 0) for event in events for key in _IDS] + [event.get("id", 0) for event in events]
    beyond = 1 + max(one for one in ids if isinstance(one, int))
    head = {key: value for key, value in source.items() if key != "traceEvents"}
    if rank is not None:
        head["distributedInfo"] = {**head.get("distributedInfo", {}), "rank": rank}
    with path.open("w") as file:
        file.write(json.dumps(head)[:-1] + ', "traceEvents": [')
        turn = 0
        while file.tell() < megabytes * 1e6:
            for k, event in enumerate(events):
                file.write((", " if turn or k else "") + json.dumps(_later(event, turn, span, beyond)))
                if file.tell() >= megabytes * 1e6:
                    break
            turn += 1
        file.write("]}")


def _later(event: dict[str, Any], turn: int, span: int, beyond: int) -> dict[str, Any]:
    """The event of another turn."""
    moved = dict(event)
    if "ts" in moved:
        moved["ts"] += turn * span
    if isinstance(moved.get("id"), int):
        moved["id"] += turn * beyond
    name, number = str(moved.get("name")), str(moved.get("name")).rpartition("#")[2]
    if name.startswith("ProfilerStep") and number.isdigit():
        moved["name"] = f"ProfilerStep#{int(number) + 1000 * turn}"
    if isinstance(moved.get("args"), dict):
        moved["args"] = {
            key: value + turn * beyond if key in _IDS and isinstance(value, int) and value > 0 else value
            for key, value in moved["args"].items()
        }
    return moved


def measured(what: str, bar: str, *command: str, repeat: int = 1, cache: bool = True) -> None:
    """Run ``distsim`` with these arguments and print a row of the table: medians; CPU of all its processes."""
    rows = []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as empty:
            place = os.environ if cache else {**os.environ, "NUMBA_CACHE_DIR": empty}
            begin = time.perf_counter()
            process = subprocess.Popen([sys.executable, "-m", "distsim", *command], stdout=subprocess.DEVNULL,
                                       stderr=subprocess.PIPE, env=place)  # fmt: skip
            notes = process.stderr.read().decode() if process.stderr else ""
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"distsim {' '.join(command)}: exit code {process.returncode}\n{notes}")
            rows.append((used.ru_utime + used.ru_stime, time.perf_counter() - begin, used.ru_maxrss / 1024))
    cpu, wall, peak = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"| {what} | {cpu:.1f} | {wall:.1f} | {peak:.0f} | {bar} |", flush=True)


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["capture", "ranks", "step", "ratio", "validate"])
    parser.add_argument("--data", type=Path, default=Path("../shared/reference/traces"), help="reference captures")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    print("| command | CPU s | wall s | peak MB | bar |\n|---|---|---|---|---|")

    def row(what: str, bar: str, *command: str, cache: bool = True) -> None:
        measured(what, bar, *command, repeat=args.repeat, cache=cache)

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if {"capture", "ranks"} & set(args.what):
            with gzip.open(args.data / SOURCE) as file:
                source = json.load(file)
        if "capture" in args.what:
            repeated(source, 100, place / "capture.json")
            row("`trace` of one file of 100 MB", "12 s, 1,500 MB", "trace", str(place / "capture.json"))
            row("`run` of it", "", "run", str(place / "capture.json"))
        if "ranks" in args.what:
            (place / "ranks").mkdir()
            for rank in range(64):
                repeated(source, 5, place / "ranks" / f"rank{rank}.json", rank)
            graph, results = str(place / "ranks.parquet"), str(place / "ranks_out")
            row("`trace` of 64 files of 5 MB", "", "trace", str(place / "ranks"))
            row("`convert` of them to Parquet", "", "convert", str(place / "ranks"), graph)
            row("`run -o` of that", "", "run", graph, "-o", results)
            row("`explain` of it", "10 s", "explain", results)
        if "step" in args.what:
            results = str(place / "step")
            row("a step on 1,024 ranks, `train -o`", "", *STEP, "-o", results)
            row("`explain` of it", "", "explain", results)
            row("`whatif --no-simulate`", "", "whatif", results, "--set", "gpu.compute=1.5x", "--no-simulate")
            row("`report` of it", "10 s", "report", results, "-o", str(place / "step.html"))
            print(f"\nthe report has {(place / 'step.html').stat().st_size / 1e6:.2f} MB (bar 8 MB)\n")
        if "ratio" in args.what:
            row("`study ratio`", "60 s wall", "study", "ratio", "--quiet")
            row("`study ratio`, no kernel compiled before", "60 s wall", "study", "ratio", "--quiet", cache=False)
        if "validate" in args.what:
            row("`validate kineto`", "", "validate", "kineto", "--data", str(args.data))


if __name__ == "__main__":
    main()
