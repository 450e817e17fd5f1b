"""Reading GOAL text (Group Operation Assembly Language: Hoefler, Siebert, Lumsdaine, ICPP 2009), LogGOPSim's input.

::

    num_ranks 2
    rank 0 {
      l1: send 64b to 1 tag 0 cpu 0 nic 0
      l2: calc 1000 cpu 0
      l2 requires l1
    }
    rank 1 { l1: recv 64b from 0 tag 0; l2: calc 500; l2 irequires l1 }

``calc`` is in nanoseconds; ``tag``, ``cpu`` and ``nic`` may be left out (0). ``b requires a``: b begins when a has ended;
``b irequires a``: when a has begun. ``recv ... from -1`` takes a message of any rank, ``tag -1`` of any tag.
:func:`parse` gives all of that as a :class:`Schedule`, :func:`graph_of` the task graph that every network level can run.
"""

from __future__ import annotations

import difflib
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError, TraceError
from distsim.trace import goal_scan
from distsim.trace.build import COLUMNS
from distsim.trace.defect import Defect
from distsim.trace.files import read_bytes
from distsim.trace.graph import NodeType, Program, TaskGraph
from distsim.trace.schedule import ANY, CALC, KINDS, Schedule
from distsim.units import PS_PER_NS

_SUFFIXES = (".goal", ".goal.gz")
_SCANNED = ("kind", "size", "peer", "tag", "cpu", "nic", "rank", "line", "label", "label_length")
_DEPENDENCIES = ("dep_start", "a", "a_length", "b", "b_length", "dep_rank", "dep_line")
#: ranks that a text may have
MOST_RANKS = 1 << 24


def is_goal(path: str, data: bytes) -> bool:
    """By the name, or by a text that begins as GOAL does."""
    return path.endswith(_SUFFIXES) or data.lstrip().startswith(b"num_ranks")


def read(path: str, groups: str | None = None) -> Schedule | None:
    """The schedule in a GOAL file (which may be gzip); None where the file is of another kind.

    Raises:
        TraceError: see :func:`parse`. ConfigError: ``groups``, of which GOAL knows none.
    """
    if not os.path.isfile(path):
        return None
    if not path.endswith(_SUFFIXES):
        with open(path, "rb") as file:
            if file.read(64).lstrip()[:9] != b"num_ranks":
                return None
    if groups is not None:
        raise ConfigError(f"a GOAL schedule has no groups, {groups} would be ignored", where=path, fix="Leave --groups out.")
    return parse(read_bytes(path), path)


def parse(data: bytes, source: str) -> Schedule:
    """The schedule that a GOAL text describes.

    Raises:
        TraceError: with line, rank and label, and what was expected there: text that is not GOAL, a rank that is missing, twice
            there or out of range, a label that is unknown or taken.
    """
    room = sum(data.count(mark) for mark in b"\n;}") + 2
    scan, compiled = goal_scan.scan.for_work(2 * len(data))
    text: Any = np.frombuffer(data, np.uint8) if compiled else data
    new = (lambda size: np.zeros(size, np.int64)) if compiled else (lambda size: [0] * size)
    columns: list[Any] = [new(room) for _ in (*_SCANNED, *_DEPENDENCIES, "block", "block_line")]
    state = new(goal_scan.STATE)
    wrong = int(scan(text, len(data), *columns, new(4), state))
    if wrong:
        raise _unexpected(data, source, wrong, [int(value) for value in state])
    ops, deps, blocks, ranks = (int(value) for value in state[:4])
    named = dict(zip((*_SCANNED, *_DEPENDENCIES), columns, strict=False))
    _check_blocks([int(r) for r in columns[-2][:blocks]], [int(k) for k in columns[-1][:blocks]], ranks, source)
    child, parent = _resolve(text, data, named, ops, deps, compiled, source)
    held = {name: np.asarray(named[name][:ops], np.int64) for name in _SCANNED}
    start = np.array(named["dep_start"][:deps], np.bool_)
    order = np.argsort(held["rank"], kind="stable")
    if not np.array_equal(order, np.arange(ops)):
        place = np.empty(ops, np.int64)
        place[order] = np.arange(ops)
        held = {name: column[order] for name, column in held.items()}
        child, parent = place[child], place[parent]
    _check_peers(held, ranks, data, source)
    calc = held["kind"] == CALC

    def label(op: int) -> str:
        return _label(data, int(held["label"][op]), int(held["label_length"][op]), int(held["line"][op]))

    return Schedule(
        source, ranks, held["rank"], held["kind"], np.where(calc, 0, held["size"]),
        np.where(calc, held["size"] * PS_PER_NS, 0), held["peer"], held["tag"], held["cpu"], held["nic"], child, parent, start,
        label,
    )  # fmt: skip


def _label(data: bytes, at: int, length: int, line: int) -> str:
    return data[at : at + length].decode() if at >= 0 else f"line {line}"


def _unexpected(data: bytes, source: str, wrong: int, state: list[int]) -> TraceError:
    """What stands where something else was expected."""
    at, end, line, rank = (state[k] for k in (goal_scan.S_AT, goal_scan.S_END, goal_scan.S_LINE, goal_scan.S_RANK))
    found = data[at : max(end, at + 1)][:40].decode(errors="replace")
    what = "the text ends" if at >= len(data) else "the line ends" if found in ("\n", ";") else f"found {found!r}"
    label, length = state[goal_scan.S_LABEL], state[goal_scan.S_LABEL_LENGTH]
    where = f"{source}: line {line}"
    where += f", rank {rank}" if rank >= 0 else ""
    where += f', "{_label(data, label, length, line)}"' if label >= 0 and length else ""
    return TraceError(what, where=where, expected=goal_scan.EXPECTED[wrong])


def _check_blocks(found: list[int], lines: list[int], ranks: int, source: str) -> None:
    """Every rank has one block."""
    if ranks < 1 or ranks > MOST_RANKS:
        what = "says no num_ranks" if ranks < 0 else f"has {ranks:,} ranks"
        raise TraceError(what, where=source, expected=f"num_ranks N, from 1 to {MOST_RANKS:,}, before the first rank")
    seen: dict[int, int] = {}
    for rank, line in zip(found, lines, strict=True):
        if rank >= ranks:
            raise TraceError(
                f"there is no rank {rank}", where=f"{source}: line {line}", expected=f"0 to {ranks - 1}, by num_ranks"
            )
        if rank in seen:
            first = f"It is described on line {seen[rank]}."
            raise TraceError(f"rank {rank} is described again", where=f"{source}: line {line}", fix=first)
        seen[rank] = line
    if len(seen) < ranks:
        missing = next(rank for rank in range(ranks) if rank not in seen)
        others = ranks - len(seen) - 1
        raise TraceError(
            f"rank {missing}" + (f" and {others} others are" if others else " is") + " not described", where=source,
            expected=f"{ranks} ranks (num_ranks)", fix=f"A rank that does nothing is written `rank {missing} {{ }}`.",
        )  # fmt: skip


def _resolve(
    text: Any, data: bytes, named: dict[str, Any], ops: int, deps: int, compiled: bool, source: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(child, parent) of every dependency, as operations in the order of the text."""
    room = 1 << max(2 * ops, 4).bit_length()
    new = (lambda size: np.zeros(size, np.int64)) if compiled else (lambda size: [0] * size)
    table, child, parent = new(room), new(deps), new(deps)
    kernel = goal_scan.resolve.compiled if compiled else goal_scan.resolve.interpreted
    names = ("dep_rank", "a", "a_length", "b", "b_length")
    bad = int(kernel(text, ops, named["rank"], named["label"], named["label_length"], deps, *(named[name] for name in names),
                     table, room - 1, child, parent))  # fmt: skip
    if bad < 0:
        return np.asarray(child, np.int64), np.asarray(parent, np.int64)
    if bad < ops:
        rank, line = int(named["rank"][bad]), int(named["line"][bad])
        label = _label(data, int(named["label"][bad]), int(named["label_length"][bad]), line)
        where = f"{source}: line {line}, rank {rank}"
        raise TraceError(f"label {label!r} is taken", where=where, expected="one operation a label")
    k, second = divmod(bad - ops, 2)
    rank, line = int(named["dep_rank"][k]), int(named["dep_line"][k])
    side = "b" if second else "a"
    label = _label(data, int(named[side][k]), int(named[f"{side}_length"][k]), line)
    of_rank = [_label(data, int(named["label"][op]), int(named["label_length"][op]), 0)
               for op in range(ops) if named["rank"][op] == rank and named["label"][op] >= 0]  # fmt: skip
    raise TraceError(
        f"no operation of rank {rank} is labelled {label!r}", where=f"{source}: line {line}, rank {rank}",
        near=difflib.get_close_matches(label, of_rank[:10_000], n=3),
    )  # fmt: skip


def _check_peers(held: dict[str, NDArray[np.int64]], ranks: int, data: bytes, source: str) -> None:
    outside = np.flatnonzero((held["kind"] != CALC) & (held["peer"] >= ranks))
    if len(outside):
        op = int(outside[0])
        line = int(held["line"][op])
        label = _label(data, int(held["label"][op]), int(held["label_length"][op]), line)
        raise TraceError(
            f"{KINDS[int(held['kind'][op])]} names rank {int(held['peer'][op])}",
            where=f'{source}: line {line}, rank {int(held["rank"][op])}, "{label}"', expected=f"0 to {ranks - 1} (num_ranks)",
        )  # fmt: skip


def graph_of(schedule: Schedule) -> tuple[TaskGraph, list[Defect]]:
    """The schedule as a task graph, and what a task graph cannot say of it.

    A calc is a compute node of its duration, on a stream of its own for each CPU above 0; NIC numbers are not kept (a topology
    says what shares what). ``b irequires a`` becomes "b waits for what a waits for": a may begin later, when its CPU is free.
    """
    defects = _unsayable(schedule)
    child, parent = _from_starts(schedule)
    first = np.searchsorted(schedule.rank, np.arange(schedule.ranks + 1))
    order = np.lexsort((np.arange(len(child)), child))
    child, parent = child[order], parent[order]
    dep_ptr = np.searchsorted(child, np.arange(len(schedule) + 1))
    names: dict[str, int] = {}
    name = np.array([names.setdefault(schedule.label(op), len(names)) for op in range(len(schedule))], np.int32)
    types = np.array([0, NodeType.COMM_SEND, NodeType.COMM_RECV, NodeType.COMP], np.int8)[schedule.kind]
    calc = schedule.kind == CALC
    cpus = np.unique(schedule.cpu[calc & (schedule.cpu > 0)])
    stream = np.where(calc & (schedule.cpu > 0), np.searchsorted(cpus, schedule.cpu), -1).astype(np.int32)
    programs = []
    for rank in range(schedule.ranks):
        rows = slice(int(first[rank]), int(first[rank + 1]))
        count = rows.stop - rows.start
        said: dict[str, Any] = {
            "id": np.arange(1, count + 1, dtype=np.int64), "type": types[rows], "name": name[rows],
            "duration_ps": np.where(calc, schedule.duration, -1)[rows], "bytes": np.where(calc, -1, schedule.bytes)[rows],
            "peer": schedule.peer[rows].astype(np.int32), "tag": np.where(calc, -1, schedule.tag)[rows], "stream": stream[rows],
            "dep_ptr": dep_ptr[rows.start : rows.stop + 1] - dep_ptr[rows.start],
            "dep": (parent[dep_ptr[rows.start] : dep_ptr[rows.stop]] - rows.start).astype(np.int32),
        }  # fmt: skip
        unsaid: dict[str, Any] = {
            key: np.full(count, missing, kind) for key, (kind, missing) in COLUMNS.items() if key not in said
        }
        programs.append(Program(**said, **unsaid))
    streams = tuple(f"cpu {number}" for number in cpus.tolist())
    numbers = np.arange(schedule.ranks, dtype=np.int32)
    return TaskGraph(tuple(programs), numbers, (), tuple(names), streams, schedule.source), defects


def _unsayable(schedule: Schedule) -> list[Defect]:
    """What a task graph cannot say: receives from anywhere (no replay), waiting for a start (a replay takes it as told)."""
    defects = []
    for wild, what in ((schedule.peer == ANY, "any rank"), (schedule.tag == ANY, "any tag")):
        rows = np.flatnonzero(wild & (schedule.kind != CALC))
        if len(rows):
            text = f"{schedule.describe(int(rows[0]))} matches {what}: only --network loggops runs that"
            more = f" (and {len(rows) - 1} others)" if len(rows) > 1 else ""
            defects.append(Defect("message", text + more, schedule.source))
    starts = int(np.count_nonzero(schedule.at_start))
    if starts:
        text = f"{starts:,} irequires: the second operation waits for what the first waits for, not for its start"
        defects.append(Defect("order", text, schedule.source, "warning", fix="--network loggops knows starts."))
    return defects


def _from_starts(schedule: Schedule) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(child, parent) where waiting for a start has become waiting for all that the started one waits for."""
    child, parent, start = schedule.child, schedule.parent, schedule.at_start
    if not start.any():
        return child, parent
    needs: dict[int, set[int]] = {}
    begins: dict[int, list[int]] = {}
    for a, b, at_start in zip(child.tolist(), parent.tolist(), start.tolist(), strict=True):
        if at_start:
            begins.setdefault(a, []).append(b)
        else:
            needs.setdefault(a, set()).add(b)
    settled: set[int] = set()
    for last in list(begins):
        path = [last]
        while path:
            op = path[-1]
            open_ = [b for b in begins.get(op, ()) if b in begins and b not in settled]
            circle = [b for b in open_ if b in path]
            if circle:  # none of them could ever start: kept as a plain cycle, which readers refuse by name
                needs.setdefault(op, set()).update(circle)
                settled.update(circle)
            elif open_:
                path.append(open_[0])
            else:
                for b in begins.get(op, ()):
                    needs.setdefault(op, set()).update(needs.get(b, ()))
                settled.add(op)
                path.pop()
    pairs = np.array([(a, b) for a, found in sorted(needs.items()) for b in sorted(found)], np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]
