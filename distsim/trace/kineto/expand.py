"""A captured trace with every member of its collectives, so that a simulated network can move them.

Where all ranks were captured, nothing is added. Where one rank of a job was captured whose ranks all do the same (SPMD), every
rank runs its program, and its communicators are laid over the others: the whole job stays the whole job, a communicator of
evenly spaced ranks becomes one of every block of ranks. What that takes for granted is said in ``TaskGraph.defects``.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import numpy as np

from distsim.errors import ConfigError, TraceError
from distsim.trace import groups as grouping
from distsim.trace.graph import CollectiveType, Group, NodeType, Program, TaskGraph
from distsim.trace.groups import relative
from distsim.trace.kineto.facts import MOST_RANKS

#: nodes of all ranks that a run can hold: some 30 GB
_MOST_NODES = 1 << 27


def expand(graph: TaskGraph, ranks: int | None) -> TaskGraph:
    """All ranks of a captured job.

    Operations that no network can be asked for keep their recorded time as a delay on their stream: those outside every step
    whose size is not told, and those whose counterparts are missing although the files are there.

    Args:
        ranks: of the job, where one rank was captured; default: what the capture says. A communicator that reaches over the
            whole job grows or shrinks with it, others keep their size.

    Raises:
        ConfigError: ``ranks`` contradicts the captures. TraceError: sizes, members or peers are not known.
    """
    if not graph.captured or "kineto.groups" not in graph.metadata:
        if ranks not in (None, graph.ranks):
            raise ConfigError(f"the trace has {graph.ranks} ranks, not {ranks}", fix="Leave --ranks out.")
        return graph
    told: list[dict[str, Any]] = json.loads(graph.metadata["kineto.groups"])
    numbers: list[int] = json.loads(graph.metadata["kineto.ranks"])
    world = int(graph.metadata["kineto.world"])
    said: list[str] = []
    alone = len(numbers) == 1 and max(world, ranks or 1) > 1
    graph = _movable(graph, told, alone, said)
    if not alone:
        if ranks not in (None, graph.ranks):
            raise ConfigError(
                f"{graph.ranks} ranks were captured, not {ranks}", where=graph.source,
                fix="Leave --ranks out, or give the capture of one rank, to be expanded.",
            )  # fmt: skip
        _all_there(graph, told, numbers, world)
        return dataclasses.replace(graph, defects=(*graph.defects, *said))
    n = ranks or world
    if n > MOST_RANKS or n * graph.nodes > _MOST_NODES:
        raise ConfigError(
            f"{n:,} ranks of {graph.nodes:,} nodes are too many to be expanded to", where=graph.source,
            expected=f"--ranks up to {min(MOST_RANKS, _MOST_NODES // max(graph.nodes, 1)):,}",
        )  # fmt: skip
    groups = [
        _laid(group, info, numbers[0], world, n, graph.source, said)
        for group, info in zip(graph.groups, told, strict=True)
    ]
    spread = f"1 of {world} ranks was captured: all {n} run what rank {numbers[0]} ran, with its durations"
    return dataclasses.replace(
        graph, rank_program=np.zeros(n, np.int32), groups=tuple(groups),
        # NOTE: whose peers were missing moves over the network now
        defects=(*(one for one in graph.defects if not one.startswith("missing:")), spread, *dict.fromkeys(said)),
    )  # fmt: skip


def _movable(graph: TaskGraph, told: list[dict[str, Any]], alone: bool, said: list[str]) -> TaskGraph:
    """Programs in which every collective can be asked of a network. TraceError where the size of one in a step is not told."""
    of = np.array([one["of"] for one in told] or [-1], np.int64)
    # a group that stands for itself although its members are more: an operation without counterpart, or a batch of messages
    apart = np.array([
        one["kind"] == "batch" or (not alone and one["of"] < 0 and one["size"] != 1 and not one["missing"] and _lonely(group))
        for one, group in zip(told, graph.groups, strict=True)
    ] or [False], np.bool_)  # fmt: skip
    programs, kept, unknown = [], 0, 0
    for program in graph.programs:
        rows = np.flatnonzero((program.type == NodeType.COMM_COLL) & (program.group >= 0))
        group = np.where(of[program.group[rows]] >= 0, of[program.group[rows]], program.group[rows])
        sizeless = (program.bytes[rows] < 0) & (program.collective[rows] != CollectiveType.BARRIER)
        outside = sizeless & (program.step[rows] < 0 if program.step is not None else False)
        stays = apart[group] | outside
        unknown += int((sizeless & ~stays).sum())
        kept += int(stays.sum())
        kind, groups = program.type.copy(), program.group.copy()
        kind[rows[stays]] = NodeType.DELAY
        groups[rows] = np.where(stays, -1, group)
        programs.append(dataclasses.replace(program, type=kind, group=groups))
    if unknown:
        raise TraceError(
            f"the bytes of {unknown:,} communicating kernels are not told, so that no network can be simulated",
            where=graph.source, expected="captures with record_shapes=True, of PyTorch 2.2 or later, or with execution traces",
            fix="Put the execution traces beside the captures, or keep the recorded times with --communication recorded.",
        )  # fmt: skip
    if kept:
        said.append(f"{kept:,} communicating kernels without size or counterpart keep their recorded time, beside the network")
    return dataclasses.replace(graph, programs=tuple(programs))


def _lonely(group: Group) -> bool:
    return all(len(members) == 1 for members in group.members.values())


def _used(program: Program) -> set[int]:
    """Groups that collectives of a program meet in."""
    return set(np.unique(program.group[program.type == NodeType.COMM_COLL]).tolist())


def _all_there(graph: TaskGraph, told: list[dict[str, Any]], numbers: list[int], world: int) -> None:
    """TraceError where a collective that is to be simulated lacks members."""
    for number in sorted(set().union(*(_used(program) for program in graph.programs))):
        group, info = graph.groups[number], told[number]
        size = max((len(m) for m in group.members.values()), default=0)
        if number >= 0 and info["missing"]:
            absent = [rank for rank in info["ranks"] if rank not in numbers]
            shown = f", rank {absent[0]} first" if absent else ""
            raise TraceError(
                f"communicator {group.name!r} has {info['size']} members, {info['size'] - size} of them not captured{shown}",
                where=graph.source, expected=f"the captures of all {world} ranks, or of one",
                fix="Add the files, give one file of an SPMD job to be expanded, or keep the recorded times with "
                "--communication recorded.",
            )  # fmt: skip


def _laid(group: Group, info: dict[str, Any], mine: int, world: int, ranks: int, where: str, said: list[str]) -> Group:
    """A communicator of one rank as those of all ranks."""
    members, size = tuple(info["ranks"]), int(info["size"])
    if info["kind"] == "batch":
        return Group(group.name, {rank: (rank,) for rank in range(ranks)})
    if info["kind"] == "pair":
        raise TraceError(
            f"rank {mine} sends to or receives from single ranks ({group.name}): what those do is not in this capture",
            where=where, expected="the captures of all ranks of a pipeline",
            fix="Or keep the recorded times: --communication recorded.",
        )  # fmt: skip
    if not members and size and size != world:
        said.append(f"nothing tells which {size} ranks are in {group.name}: taken for every {size} ranks in a row")
        return _relative(group.name, size, 1, ranks, where)
    if len(members) == world or not members:
        # NOTE: one that only a stream stands for is called by its ranks, which are others now
        name = group.name.replace(f"all {world} ranks", f"all {ranks} ranks") if info["kind"] == "stream" else group.name
        return grouping.absolute(name, tuple(range(ranks)))
    strides = {b - a for a, b in itertools.pairwise(members)} or {1}
    stride = strides.pop()
    start = mine // (size * stride) * size * stride + mine % stride if stride > 0 else -1
    if strides or stride <= 0 or members != tuple(range(start, start + size * stride, stride)):
        raise TraceError(
            f"communicator {group.name!r} of rank {mine} has ranks that are not evenly spaced: "
            f"{', '.join(map(str, members[:8]))}{' ...' if size > 8 else ''}", where=where,
            expected="ranks first, first + stride, ... in blocks, to be laid over the other ranks",
            fix="Give the captures of all ranks, or keep the recorded times: --communication recorded.",
        )  # fmt: skip
    if stride > 1 and stride * size == world:
        size = ranks // stride
    return _relative(group.name, size, stride, ranks, where)


def _relative(name: str, size: int, stride: int, ranks: int, where: str) -> Group:
    if size < 1 or ranks % (size * stride):
        raise ConfigError(
            f"communicator {name!r} of {size} ranks, {stride} apart, does not divide {ranks} ranks", where=where,
            expected=f"a multiple of {max(size, 1) * stride} as --ranks",
        )  # fmt: skip
    return relative(name, size, stride, ranks)
