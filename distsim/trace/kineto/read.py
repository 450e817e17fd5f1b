"""The captures of a run's ranks as one :class:`TaskGraph`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

import numpy as np

from distsim.errors import TraceError
from distsim.trace.defect import Defect
from distsim.trace.files import shown
from distsim.trace.graph import TaskGraph
from distsim.trace.kineto.capture import Capture
from distsim.trace.kineto.execution_trace import told_beside
from distsim.trace.kineto.facts import Facts
from distsim.trace.kineto.graph import Numbering, program_of_capture
from distsim.trace.kineto.measure import metadata_of
from distsim.trace.kineto.oddity import defects_of
from distsim.trace.kineto.ranks import match
from distsim.trace.kineto.reading import read_capture

_RANK = re.compile(r"rank[_\-.]?(\d{1,7})|(?:^|[^0-9a-z])r(\d{1,7})(?=[._\-])", re.IGNORECASE)
_LAST_NUMBER = re.compile(r"(\d{1,7})(?!.*\d)")


def read_captures(paths: Sequence[str], source: str | None = None) -> tuple[TaskGraph, list[str], list[Defect]]:
    """The captures of one run's ranks as a graph, the file of each of its programs, and what was odd in them.

    A rank is what distributedInfo says, or else its file's name.

    ``TaskGraph.metadata["kineto.ranks"]`` holds the ranks of the job that the graph's ranks 0, 1 ... stand for.

    Raises:
        TraceError: a file cannot be read or is no Kineto trace, or two files are of one rank.
    """
    captures = [read_capture(path) for path in paths]
    numbers = _numbers(captures, paths)
    order = sorted(range(len(paths)), key=lambda k: numbers[k])
    captures, numbers, files = [captures[k] for k in order], [numbers[k] for k in order], [paths[k] for k in order]
    told, odd = zip(*(told_beside(path, capture) for path, capture in zip(files, captures, strict=True)), strict=True)
    graph, defects = graph_of_captures(captures, numbers, source or shown(tuple(files)), told)
    return graph, files, [*(one for listed in odd for one in listed), *defects]


def graph_of_captures(
    captures: Sequence[Capture], numbers: Sequence[int], source: str, told: Sequence[Mapping[int, Facts] | None] | None = None
) -> tuple[TaskGraph, list[Defect]]:
    """The graph of captures in memory, in order of their ranks, and what was odd in them.

    Args:
        told: of each capture, what its execution trace says.
    """
    matched = match(captures, numbers, told)
    numbering = Numbering()
    programs, found = [], []
    for capture, communication, shift in zip(captures, matched.ranks, matched.shift_ps, strict=True):
        program, oddities = program_of_capture(capture, communication, shift, numbering)
        programs.append(program)
        found.append((capture.label, oddities))
    graph = TaskGraph(
        tuple(programs), np.arange(len(programs), dtype=np.int32), matched.groups, tuple(numbering.names),
        tuple(numbering.streams), steps=tuple(numbering.steps), captured=True, source=source,
        metadata=_metadata(captures) | dict(matched.metadata),
    )  # fmt: skip
    return graph, [*defects_of(found), *matched.defects]


def _metadata(captures: Sequence[Capture]) -> dict[str, str]:
    gpus = dict.fromkeys(capture.gpu for capture in captures if capture.gpu)
    said = {"kineto.gpu": ", ".join(gpus)} if gpus else {}
    return {"format": "kineto"} | said | metadata_of(captures)


def _numbers(captures: Sequence[Capture], paths: Sequence[str]) -> list[int]:
    """Rank of each capture. TraceError where two are of one rank."""
    if len(captures) == 1:
        return [max(captures[0].rank, 0)]
    said = [capture.rank if capture.rank >= 0 else _of_name(path) for capture, path in zip(captures, paths, strict=True)]
    if all(number < 0 for number in said):
        return list(range(len(captures)))
    first: dict[int, str] = {}
    for number, path in zip(said, paths, strict=True):
        if number < 0:
            raise TraceError(
                "does not say which rank it is", where=path,
                expected="distributedInfo with a rank, or a name such as rank3.json",
            )  # fmt: skip
        if number in first:
            raise TraceError(
                f"is of rank {number}, as is {first[number]}", where=path, fix="Give one file for each rank of one run."
            )
        first[number] = path
    return said


def _of_name(path: str) -> int:
    """The rank that a file's name tells: ``rank3``, ``r3_``, or its last number; -1 where it has none."""
    name = os.path.basename(path)
    found = _RANK.search(name)
    if found:
        return int(found[1] or found[2])
    last = _LAST_NUMBER.search(name.removesuffix(".gz").removesuffix(".json"))
    return int(last[1]) if last else -1
