"""One door to every trace format: a path in, a :class:`TaskGraph` out."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from distsim.errors import ConfigError, TraceError
from distsim.trace import chakra, field
from distsim.trace import groups as grouping
from distsim.trace.build import Finding, defects_of
from distsim.trace.check import check_programs, check_ranks
from distsim.trace.defect import Defect, refuse
from distsim.trace.document import Document, RankTrace
from distsim.trace.files import Located, RankFile, is_tar, locate, read_bytes, shown
from distsim.trace.graph import Group, TaskGraph
from distsim.trace.groups import parse_groups

_ET_SUFFIXES = (".et", ".et.gz")


def read_trace(
    path: str | os.PathLike[str] | tuple[str, ...], groups: str | None = None, strict: bool = False, repair: bool = False,
    ranks: int | None = None, room: int | None = None,
) -> TaskGraph:  # fmt: skip
    """Read a trace of any format.

    Args:
        path: a native ``.json``, a ``.parquet``, an ``.et`` or Chakra-JSON file, a folder, tar or prefix of
            ``PREFIX.<rank>.et`` files, a SimAI workload; text and ``.et`` may be gzip. Or what the PyTorch profiler
            captured: a file, a folder, or the files of all ranks (docs/captured.md).
        groups: communicator-group file; default: the one beside (or inside) a Chakra trace.
        strict: refuse whatever is odd, repairable or not, and check that ranks agree with each other.
        repair: drop dangling dependencies; ``TaskGraph.defects`` says which, and lists what is odd but no obstacle.
        ranks: number of ranks, of a SimAI workload; any other trace must have as many.
        room: hosts of the topology, the number of ranks of a SimAI workload where nothing else says one.

    Raises:
        TraceError: the trace is unreadable, or has a defect that forbids a replay. ConfigError: another number of ranks.
    """
    graph, defects = load(path, groups, repair, ranks, room)
    refuse(defects, strict)
    if strict:
        refuse(check_ranks(graph), strict)
    return graph


def load(
    path: str | os.PathLike[str] | tuple[str, ...], groups: str | None = None, repair: bool = False, ranks: int | None = None,
    room: int | None = None,
) -> tuple[TaskGraph, list[Defect]]:  # fmt: skip
    """As :func:`read_trace`, but every defect within programs is listed, none raised; dangling dependencies are left out."""
    source = shown(path) if isinstance(path, tuple) else os.fspath(path)
    captured = captured_files(path)
    content: Any
    kind, content = ("kineto", captured) if captured else open_trace(source, groups)
    if kind == "kineto":
        from distsim.trace.kineto.read import read_captures

        _with_its_own_groups(source, groups)
        graph, labels, defects = read_captures(content, source)
        ranks = None  # of an SPMD job a run may make more
    elif kind == "parquet":
        from distsim.trace import parquet

        graph = parquet.read(source)
        labels, defects = [source] * len(graph.programs), list[Defect]()
        ranks = None if graph.captured else ranks
    elif kind == "native":
        graph, labels, defects = _native_graph(content, source, repair)
        ranks = None if graph.captured else ranks
    elif kind == "simai":
        from distsim.trace import simai

        graph, defects = simai.lower(content, ranks, room)
        labels = [source] * len(graph.programs)
    elif kind == "goal":
        from distsim.trace import goal

        graph, defects = goal.graph_of(content)
        labels = [source] * len(graph.programs)
    else:
        located, defined = content
        decoded = chakra.decode(located, defined) if kind == "et" else _decode_json(located, defined)
        graph, labels, defects = assemble(decoded, defined, source, repair)
        graph, mended = field.mend(graph)
        defects += mended
    if ranks is not None and ranks != graph.ranks:
        raise ConfigError(f"the trace has {graph.ranks} ranks, not {ranks}", where=source, fix="Leave --ranks out.")
    defects = defects + check_programs(graph, labels, kind in ("et", "json"))
    return dataclasses.replace(graph, source=source, defects=tuple(defect.line() for defect in defects)), defects


def captured_files(path: str | os.PathLike[str] | tuple[str, ...]) -> tuple[str, ...]:
    """The files of a captured trace: the one that the path is, those in a folder, or all that are named; else none.

    Raises:
        ConfigError: several paths of which one is no captured trace. TraceError: one that is not there.
    """
    from distsim.trace.kineto.sniff import captures_of

    paths = path if isinstance(path, tuple) else (os.fspath(path),)
    if len(paths) == 1:
        return captures_of(paths[0])
    files: list[str] = []
    for one in paths:
        if not os.path.exists(one):
            raise TraceError("there is no such file", where=one)
        found = captures_of(one)
        if not found:
            raise ConfigError(
                "is no captured (Kineto) trace; of other traces only one is read", where=one,
                expected="one path, or the Kineto files of the ranks of one run",
            )  # fmt: skip
        files += found
    return tuple(files)


def open_trace(source: str, groups: str | None = None) -> tuple[str, Any]:
    """What a path holds: ("parquet", path), ("native", Native), ("simai", Workload), ("goal", Schedule), or ("et" | "json",
    (rank files, groups))."""
    if os.path.isfile(source) and not is_tar(source):
        with open(source, "rb") as file:
            magic = file.read(4)
        if magic == b"PAR1":
            return "parquet", _with_its_own_groups(source, groups)
        if not magic:
            raise TraceError("is empty", where=source, expected="a trace")
        if not source.endswith(_ET_SUFFIXES):
            data = read_bytes(source)
            if data.lstrip()[:1] in (b"{", b"["):
                return _open_json(source, data, groups)
            from distsim.trace import goal, simai_text

            if goal.is_goal(source, data):
                return "goal", goal.parse(data, _with_its_own_groups(source, groups))
            if simai_text.recognises(data):
                return "simai", simai_text.parse(data, _with_its_own_groups(source, groups))
    try:
        located = locate(source)
    except TraceError:
        _refuse_host_traces(source)
        raise
    return located.kind, (located, _defined(located, groups))


def _refuse_host_traces(folder: str) -> None:
    """TraceError where all that a folder holds is PyTorch's host execution traces."""
    from distsim.trace.kineto.execution_trace import is_execution_trace

    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    found = [name for name in names if name.endswith((".json", ".json.gz")) and is_execution_trace(os.path.join(folder, name))]
    if found:
        some = ", ".join(found[:3]) + (" ..." if len(found) > 3 else "")
        raise TraceError(
            f"holds PyTorch host execution traces ({some}) without the Kineto captures of the run: they have no durations",
            where=folder, expected="kineto_rank<N>.json beside et_rank<N>.json",
            fix=f"distsim trace {os.path.join(folder, found[0])} says what is in one of them.",
        )  # fmt: skip


def _open_json(source: str, data: bytes, groups: str | None) -> tuple[str, Any]:
    from distsim.trace import native

    first = _first_object(data, source)
    if not first and data.translate(None, b" \t\r\n") in (b"{}", b"[]"):
        raise TraceError("is JSON with nothing in it", where=source, expected="a trace")
    if isinstance(first, dict) and "format" in first:
        return "native", native.parse(data, _with_its_own_groups(source, groups))
    located = Located(source, "json", (RankFile(0, source, lambda: data),))
    return "json", (located, _defined(located, groups))


def _with_its_own_groups(source: str, groups: str | None) -> str:
    """The source of a trace that holds its groups itself. ConfigError where another file of groups was given."""
    if groups is not None:
        raise ConfigError(
            f"the trace holds its own groups, {groups} would be ignored", where=source, fix="Leave the groups file out."
        )
    return source


def _defined(located: Located, groups: str | None) -> dict[str, tuple[int, ...]]:
    if groups is not None:
        return parse_groups(read_bytes(groups), groups)
    return parse_groups(located.groups[1], located.groups[0]) if located.groups else {}


def _first_object(data: bytes, label: str) -> Any:
    try:
        return json.JSONDecoder().raw_decode(data.decode().lstrip())[0]
    except (ValueError, RecursionError) as error:
        raise TraceError(f"is not JSON ({error})", where=label) from None


def _objects(text: str, label: str) -> Iterator[Any]:
    decoder, at = json.JSONDecoder(), 0
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        if at == len(text):
            return
        try:
            item, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise TraceError(f"is not JSON, or cut short ({error})", where=label) from None
        yield item


def read_json_rank(data: bytes, label: str) -> RankTrace:
    """One rank of either Chakra JSON form. TraceError for other JSON, saying what it is where that is known."""
    from distsim.trace import chakra_json

    if not data.strip():
        raise TraceError("is empty", where=label)
    try:
        objects = list(_objects(data.decode(), label))
    except UnicodeDecodeError:
        raise TraceError("is neither JSON nor another format that distsim reads", where=label) from None
    first = objects[0]
    if isinstance(first, dict):
        if "traceEvents" in first:
            said = json.dumps(first["traceEvents"])[:20]
            raise TraceError(
                f"is a Kineto trace whose traceEvents is {said}, no list of events", where=label,
                fix="Export it again (torch.profiler's export_chrome_trace), or copy it again from where it was made.",
            )  # fmt: skip
        if "workload_graph" in first:
            return chakra_json.read_legacy(first, label)
        if "schema" in first and "nodes" in first:
            raise TraceError(
                "is a PyTorch host execution trace: it holds operators and their order, but no durations",
                where=label,
                fix="Give the Kineto captures of the run (kineto_rank<N>.json, this one beside them as et_rank<N>.json).",
            )  # fmt: skip
        if first and all(isinstance(value, list) for value in first.values()) and "attr" not in first:
            raise TraceError("is a communicator-group file, not a trace", where=label, fix="Give the prefix of the rank files.")
    return chakra_json.read_objects(objects, label)


def _decode_json(located: Located, defined: Mapping[str, Any]) -> chakra.Decoded:
    from distsim.trace.rows import decode_document

    return decode_document(chakra_document(located, defined), defined)


def chakra_document(located: Located, groups: Mapping[str, tuple[int, ...]]) -> Document:
    """Rank files as documents; a rank whose bytes equal those of the rank before gives the same object."""
    from distsim.trace import protobuf

    last: list[tuple[bytes, RankTrace]] = []

    def load_rank(rank: int) -> RankTrace:
        file = located.files[rank]
        data = file.load()
        if not last or last[0][0] != data:
            reader = protobuf.read_document if located.kind == "et" else read_json_rank
            last[:] = [(data, reader(data, file.label))]
        return last[0][1]

    labels = tuple(file.label for file in located.files)
    return Document(located.source, len(located.files), load_rank, groups, labels)


def assemble(
    decoded: chakra.Decoded, groups: Mapping[str, tuple[int, ...]], source: str, repair: bool, fold: bool = True
) -> tuple[TaskGraph, list[str], list[Defect]]:
    """TaskGraph of decoded rank files, the file of each of its programs, and what was wrong with their ids.

    ``fold`` lets ranks that differ only in group names and absolute peers share a program.
    """
    from distsim.trace.share import share

    used = np.zeros(len(decoded.groups) + 1, np.bool_)
    for program in decoded.programs:
        used[program.group] = True  # the last entry serves -1
    renumber = np.append(np.cumsum(used[:-1]) - 1, -1).astype(np.int32)
    programs = decoded.programs
    if not used[:-1].all():
        programs = [dataclasses.replace(program, group=renumber[program.group]) for program in programs]
    names = [name for name, kept in zip(decoded.groups, used[:-1], strict=True) if kept]
    if fold:
        kept, rank_program, members, stands = share(programs, decoded.rank_program, names, groups)
    else:
        kept, rank_program = list(programs), np.array(decoded.rank_program, np.int32)
        names += [name for name in groups if name not in names]
        members, stands = tuple(grouping.absolute(name, groups.get(name, ())) for name in names), list(range(len(programs)))
    texts = tuple(decoded.names)
    ranks: list[list[int]] = [[] for _ in programs]
    for rank, p in enumerate(decoded.rank_program):
        ranks[p].append(rank)
    found: dict[tuple[int, str, int, str], tuple[int, Finding, list[int]]] = {}
    for p, findings in enumerate(decoded.findings):
        for finding in findings:
            found.setdefault((stands[p], finding.kind, finding.row, finding.text), (p, finding, []))[2].extend(ranks[p])
    defects: list[Defect] = []
    for p, finding, affected in found.values():
        program = decoded.programs[p]
        defects += defects_of([finding], program, sorted(affected), decoded.labels[p], texts.__getitem__, source, repair)
    labels = [""] * len(kept)
    for p in reversed(range(len(programs))):
        labels[stands[p]] = decoded.labels[p]
    graph = TaskGraph(tuple(kept), rank_program, members, texts, tuple(decoded.streams), source, metadata=decoded.metadata)
    return graph, labels, defects


def _native_graph(content: Any, source: str, repair: bool) -> tuple[TaskGraph, list[str], list[Defect]]:
    from distsim.trace import native

    numbering = native.Numbering(groups={group.name: k for k, group in enumerate(content.groups)})
    programs, labels, defects = [], [], []
    ranks: list[list[int]] = [[] for _ in content.spec.programs]
    for rank, p in enumerate(content.rank_program):
        ranks[p].append(rank)
    for index in range(len(content.spec.programs)):
        program, findings = native.build_program(content, index, numbering)
        programs.append(program)
        labels.append(content.label(index))
        if findings and ranks[index]:
            texts = list(numbering.names)
            defects += defects_of(findings, program, ranks[index], source, texts.__getitem__, source, repair)
    undefined = [Group(name, {}) for name in list(numbering.groups)[len(content.groups) :]]
    graph = TaskGraph(
        tuple(programs), np.array(content.rank_program, np.int32), (*content.groups, *undefined), tuple(numbering.names),
        tuple(numbering.streams), source, metadata=dict(content.spec.metadata), steps=tuple(numbering.steps),
        captured=content.spec.captured,
    )  # fmt: skip
    return graph, labels, defects
