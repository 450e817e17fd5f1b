"""Summarise a trace and list its defects.

distsim trace traces/llama3_8b_tp8_dp8.json      ranks, nodes, bytes by collective and group, lower bound of the step time
distsim trace runs/et/w                          Chakra: runs/et/w.0.et, w.1.et ..., groups from runs/et/w.json
distsim trace et.tar.gz --groups groups.json     a tar of them, groups from elsewhere
distsim trace runs/et/w --strict                 exit code 1 on any defect
distsim trace capture/                           Kineto (PyTorch profiler): steps as measured, streams, what was repaired
distsim trace capture/rank*.json.gz              the same of some ranks
distsim trace w.json --json | jq .defects        one JSON document
distsim trace workload.txt --ranks 128           SimAI (AICB); --ranks where its header says no all_gpus
distsim trace et_rank0.json.gz                   PyTorch's host execution trace: its collectives; it has no times to replay
distsim trace --schema > trace.schema.json       JSON Schema of the native trace.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from distsim.cli.shipped import resolve
from distsim.errors import ConfigError

if TYPE_CHECKING:
    from distsim.trace.summary import Captured


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument(
        "file", nargs="*", help="trace: .json, .parquet, .et file, folder, tar or prefix; or the Kineto files of a run's ranks"
    )
    parser.add_argument("--groups", metavar="FILE", help='communicator groups, {"<id>": [ranks...]}; default: beside the trace')
    parser.add_argument("--ranks", type=int, metavar="N", help="number of ranks, of a SimAI workload")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if there is any defect")
    parser.add_argument("--repair", action="store_true", help="drop dangling dependencies")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of the native trace.json and leave")


def run(args: argparse.Namespace) -> int:
    """Exit code 1 if the trace cannot be replayed as it stands (with --strict: if it has any defect)."""
    if args.schema:
        from distsim.trace.native_model import schema

        print(json.dumps(schema(), indent=1))
        return 0
    if not args.file:
        raise ConfigError("no trace was given", fix="distsim trace FILE, or distsim trace --schema.")
    from distsim.trace.kineto.execution_trace import is_execution_trace
    from distsim.trace.read import load
    from distsim.trace.summary import summarise

    if len(args.file) == 1 and is_execution_trace(args.file[0]):
        return _host_trace(args, args.file[0])
    files = args.file if len(args.file) > 1 else [resolve(args.file[0])]
    graph, defects = load(files[0] if len(files) == 1 else tuple(files), args.groups, args.repair, args.ranks)
    if graph.captured and args.ranks is not None:
        raise ConfigError("has no effect on a trace that says its own", where="--ranks", fix="Leave it out.")
    summary = summarise(graph, defects)
    if args.json:
        print(json.dumps(summary.document()))
    else:
        _print(summary)
    grave = [d for d in summary.defects if args.strict or (d.severity == "error" and not d.repaired)]
    return 1 if grave else 0


def _host_trace(args: argparse.Namespace, path: str) -> int:
    """What a host execution trace without a capture tells; with --strict it fails, as it cannot be replayed."""
    from distsim.trace.kineto.execution_trace import contents, read_execution_trace
    from distsim.units import format_size

    trace = read_execution_trace(contents(path), path)
    document = trace.document()
    if args.json:
        print(json.dumps(document))
        return int(args.strict)
    threads = f"{trace.threads} thread{'' if trace.threads == 1 else 's'}"
    print(f"{trace.label}: PyTorch execution trace {trace.schema}, {trace.nodes:,} nodes on {threads}; no times: no replay")
    print()
    for one in document["collectives"]:
        group = f" of group {one['group']}" if one["group"] else ""
        members = f" ({one['ranks']} ranks)" if one["ranks"] else ""
        told = f", {one['unknown']:,} of unknown size" if one["unknown"] else ""
        print(f"  {one['count']:,} {one['operation']}{group}{members}: {format_size(one['bytes'])} in, "
              f"largest {format_size(max(one['largest'], 0))}{told}")  # fmt: skip
    print("  most called: " + ", ".join(f"{name} {count:,}" for name, count in list(document["operators"].items())[:6]))
    print("  to replay the run, give its Kineto captures, with this file beside them as et_rank<N>.json")
    return int(args.strict)


def _print(summary: object) -> None:
    from distsim.trace.summary import Summary
    from distsim.units import format_size, format_time

    assert isinstance(summary, Summary)
    s = summary
    if s.critical_path_ps is not None:
        bound = f"at least {format_time(s.critical_path_ps)} (critical path with an infinite network)"
    elif s.critical_path_ops is not None:
        bound = f"critical path {_count(s.critical_path_ops)}FLOP (no recorded durations)"
    else:
        bound = "no lower bound: it cannot end" if s.compute_ps or s.num_ops else "no lower bound: no durations"
    errors = sum(d.severity == "error" and not d.repaired for d in s.defects)
    told = f"; {errors} defect{'s' if errors != 1 else ''} that forbid{'s' if errors == 1 else ''} a replay" if errors else ""
    print(f"{s.source}: {s.ranks:,} rank{'' if s.ranks == 1 else 's'}, {s.nodes:,} nodes; {bound}{told}")
    print()
    print(f"  {s.programs:,} distinct program{'s' if s.programs != 1 else ''}: "
          + ", ".join(f"{count:,} {name}" for name, count in s.by_type.items()))  # fmt: skip
    if s.compute_ps is not None:
        low, high = map(format_time, s.compute_ps)
        print(f"  compute per rank: {high}" if low == high else f"  compute per rank: {low} to {high}")
    if s.num_ops:
        print(f"  operations: {_count(s.num_ops)}FLOP over all ranks")
    if s.untimed:
        print(f"  {s.untimed:,} compute nodes have no recorded duration (they count as 0 above; a run needs a GPU for them)")
    if s.traffic:
        rows = [("operation", "group", "ranks", "nodes", "bytes in", "largest")]
        for t in s.traffic:
            sizes = (
                f"{t.group_sizes[0]}"
                if len(t.group_sizes) == 1
                else f"{min(t.group_sizes, default=0)}-{max(t.group_sizes, default=0)}"
            )
            rows.append((t.operation, t.group, sizes, f"{t.nodes:,}", format_size(t.bytes), format_size(t.largest)))
        _table(rows, 2)
    if s.captured is not None:
        _print_captured(s.captured)
    if s.defects:
        print()
        print(f"  {len(s.defects)} defect{'s' if len(s.defects) != 1 else ''}:")
        for defect in s.defects:
            mark = "repaired" if defect.repaired else defect.severity
            print(f"    [{mark}] {defect.line()}")


#: steps and streams that are listed one by one; --json has all
_LISTED = 24


def _print_captured(captured: Captured) -> None:
    from distsim.units import format_time

    gpu = captured.gpu or "GPU not named"
    world = f" of {captured.world:,}" if captured.world else ""
    some = ", ".join(map(str, captured.ranks[:8])) + (" ..." if len(captured.ranks) > 8 else "")
    print(f"\n  captured on {gpu}: rank{'' if len(captured.ranks) == 1 else 's'} {some}{world}")
    rows: list[tuple[str, ...]] = [("rank", "step", "kernels", "span", "compute", "communication", "overlap", "exposed")]
    rows += [
        (str(rank), one.step, f"{one.kernels:,}",
         *map(format_time, (one.span_ps, one.compute_ps, one.communication_ps, one.overlap_ps, one.exposed_ps)))
        for rank, steps in zip(captured.ranks, captured.steps, strict=True) for one in steps
    ]  # fmt: skip
    _table(rows, 2)
    print("  (as recorded: spans from the first kernel's start to the last one's end, communication with its waiting)")
    streams = [(name, f"{nodes:,}", format_time(busy)) for name, nodes, busy in captured.streams]
    _table([("stream", "nodes", "busy"), *streams], 1)


def _table(rows: Sequence[tuple[str, ...]], texts: int) -> None:
    """Rows below a head; the first ``texts`` columns to the left."""
    shown = rows[: _LISTED + 1]
    widths = [max(len(row[k]) for row in shown) for k in range(len(rows[0]))]
    print()
    for row in shown:
        cells = [row[k].ljust(widths[k]) if k < texts else row[k].rjust(widths[k]) for k in range(len(row))]
        print("  " + "  ".join(cells).rstrip())
    if len(rows) > len(shown):
        print(f"  and {len(rows) - len(shown):,} more (--json lists all)")


def _count(number: int) -> str:
    """``1.2 P``: powers of 1000."""
    value, at = float(number), 0
    while value >= 1000 and at < 6:
        value /= 1000
        at += 1
    return f"{value:.4g} {('', 'k', 'M', 'G', 'T', 'P', 'E')[at]}"
