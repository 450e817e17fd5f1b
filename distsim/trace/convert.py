"""From any trace format to any other, losing nothing.

Everything goes through documents (the complete form), rank by rank, except where columns say all there is: then an ``.et``
trace becomes Parquet without a Python object per node. What the target cannot say is refused by name.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from distsim.errors import ConfigError, TraceError, UnknownNameError
from distsim.trace import chakra, native_write, protobuf
from distsim.trace.defect import refuse
from distsim.trace.document import Document, RankTrace
from distsim.trace.files import Output, is_tar, output
from distsim.trace.graph import NodeType, TaskGraph
from distsim.trace.groups import format_groups
from distsim.trace.read import assemble, captured_files, chakra_document, load, open_trace
from distsim.trace.rows import decode_document

if TYPE_CHECKING:
    from distsim.trace.native import Native

#: name -> what it is
FORMATS = {
    "native": "distsim's own trace.json: one file, written and read by people",
    "parquet": "columns, for large traces: one file",
    "et": "Chakra protobuf: PREFIX.<rank>.et and PREFIX.json (groups), a folder or a tar of them",
    "chakra-json": "Chakra as concatenated protobuf-JSON objects: PREFIX.<rank>.json",
    "chakra-legacy": "Chakra's older workload_graph JSON: PREFIX.<rank>.json",
}


def convert(
    src: str, dst: str, to: str | None = None, groups: str | None = None, repair: bool = False, ranks: int | None = None
) -> str:
    """Write the trace ``src`` as ``dst``.

    Args:
        to: one of FORMATS; default by ``dst``: ``.json`` native, ``.parquet`` parquet, anything else et.
        groups: communicator-group file of the source.
        repair: drop dangling dependencies (parquet only; the other formats keep them as they are).
        ranks: number of ranks, of a SimAI workload.

    Returns:
        The format that was written.

    Raises:
        ConfigError: unknown format. TraceError: unreadable source, or something in it that the target cannot say.
    """
    if to is not None and to not in FORMATS:
        raise UnknownNameError("trace format", to, FORMATS)
    kind = to or format_of(dst)
    if os.path.abspath(src) == os.path.abspath(dst):
        raise ConfigError("source and destination are the same", where=dst)
    if ranks is not None and (captured_files(src) or open_trace(src, groups)[0] != "simai"):
        raise ConfigError("has no effect on a trace that says its own", where="--ranks", fix="Leave it out.")
    with output() as out:
        captured = _as_captured(src, groups, repair)
        if captured:
            _write_captured(*captured, dst, kind, out)
        elif kind == "parquet":
            _write_parquet(src, dst, groups, repair, ranks, out)
        elif kind == "native":
            document = open_document(src, groups, ranks)
            out.write(dst, native_write.write_document(document))
        else:
            _write_ranks(open_document(src, groups, ranks), dst, "et" if kind == "et" else "json", _WRITERS[kind], out)
    return kind


def write_graph(graph: TaskGraph, dst: str, to: str | None = None) -> str:
    """Write a graph made in memory as ``dst``; formats and errors as :func:`convert`. Returns the format written."""
    from distsim.trace import native

    if to is not None and to not in FORMATS:
        raise UnknownNameError("trace format", to, FORMATS)
    kind = to or format_of(dst)
    content = native_of(graph)
    with output() as out:
        if kind == "parquet":
            _write_content_as_parquet(graph, content, dst, out)
        elif kind == "native":
            out.write(dst, native_write.write_document(native.document(content)))
        else:
            _write_ranks(native.document(content), dst, "et" if kind == "et" else "json", _WRITERS[kind], out)
    return kind


def _as_captured(src: str, groups: str | None, repair: bool) -> tuple[TaskGraph, list[dict[str, Any]] | None] | None:
    """A captured trace, or one that tells the steps of its nodes, with its programs as native objects (None: they say nothing
    but the graph); None for any other trace.

    Such a trace has no form as documents: steps, and what is recorded of collectives, are not Chakra's.
    """
    content: Any
    kind, content = ("kineto", None) if captured_files(src) else open_trace(src, groups)
    if kind not in ("kineto", "native", "parquet") or (kind == "native" and not (content.spec.captured or content.steps())):
        return None
    from distsim.trace import native, parquet

    if kind == "parquet" and not parquet.is_captured(src):
        return None
    graph, defects = load(src, groups, repair)
    refuse(defects, strict=False)
    if kind == "kineto":
        return graph, None
    if kind == "parquet":
        return graph, parquet.native_programs(src, graph)
    nodes = [list(map(native.placed_object, content.unrolled(index))) for index in range(len(graph.programs))]
    return graph, _programs(graph, nodes)


def _rows(graph: TaskGraph) -> list[list[dict[str, Any]]]:
    """The rows of every program as native nodes."""
    return [[native_write.row_object(graph, program, row) for row in range(len(program))] for program in graph.programs]


def _programs(graph: TaskGraph, nodes: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [
        {"name": f"p{index}", "ranks": np.flatnonzero(graph.rank_program == index).tolist(), "nodes": mine}
        for index, mine in enumerate(nodes)
    ]


def _write_captured(graph: TaskGraph, programs: list[dict[str, Any]] | None, dst: str, kind: str, out: Output) -> None:
    """TraceError: a format that cannot hold it."""
    from distsim.trace import parquet

    if kind == "native":
        head = _native_object(graph, []) | native_write.captured_object(graph)
        del head["format"], head["programs"]
        out.write(dst, native_write.write(head, _programs(graph, _rows(graph)) if programs is None else programs))
    elif kind == "parquet":
        extras = [
            [parquet.extra_of(node, row) for node, row in zip(said["nodes"], rows, strict=True)]
            for said, rows in zip(programs, _rows(graph), strict=True)
        ] if programs is not None else []  # fmt: skip
        parquet.write(graph, out.reserve(dst), extras)
    else:
        raise TraceError(
            "is a captured trace, which Chakra cannot hold: it knows no delays (launch latencies, pauses of streams), steps "
            "or transfer times of collectives", where=graph.source, fix="Use --to native or --to parquet.",
        )  # fmt: skip


def format_of(dst: str) -> str:
    """The format that a destination's name asks for."""
    name = dst.removesuffix(".gz")
    return "native" if name.endswith(".json") else "parquet" if name.endswith(".parquet") else "et"


def open_document(src: str, groups: str | None = None, ranks: int | None = None) -> Document:
    """Any trace as documents."""
    kind, content = open_trace(src, groups)
    if kind in ("et", "json"):
        return chakra_document(*content)
    from distsim.trace import native

    if kind == "parquet":
        from distsim.trace import parquet

        graph = parquet.read(src)
        content = native.parse(json.dumps(_native_object(graph, parquet.native_programs(src, graph))).encode(), src)
    if kind in ("simai", "goal"):
        content = _graph_as_native(src, ranks)
    return native.document(content)


def _graph_as_native(src: str, ranks: int | None) -> Native:
    """A SimAI workload, its layers run in order, or a GOAL schedule in the native form. TraceError: what that cannot say."""
    graph, defects = load(src, ranks=ranks)
    refuse([defect for defect in defects if defect.kind in ("message", "order")], True)
    return native_of(graph)


def native_of(graph: TaskGraph) -> Native:
    """A graph in the native form: programs shared by their ranks."""
    from distsim.trace import native

    programs = [
        {
            "name": f"stage{index}" if len(graph.programs) > 1 else "rank",
            "ranks": native_write.ranks_text([r for r, p in enumerate(graph.rank_program.tolist()) if p == index]),
            "nodes": [native_write.row_object(graph, program, row) for row in range(len(program))],
        }
        for index, program in enumerate(graph.programs)
    ]
    return native.parse(json.dumps(_native_object(graph, programs)).encode(), graph.source)


def _native_object(graph: TaskGraph, programs: list[dict[str, Any]]) -> dict[str, Any]:
    from distsim.trace.groups import instances

    groups = {group.name: [list(members) for members in instances(group)] for group in graph.groups}
    return {"format": native_write.FORMAT, "ranks": graph.ranks, "groups": groups, "programs": programs}


def _objects(trace: RankTrace, label: str) -> bytes:
    from distsim.trace import chakra_json

    return chakra_json.write_objects(trace)


def _legacy(trace: RankTrace, label: str) -> bytes:
    from distsim.trace import chakra_json

    return chakra_json.write_legacy(trace, label)


#: format of Chakra -> what writes a rank's file
_WRITERS: dict[str, Callable[[RankTrace, str], bytes]] = {
    "et": lambda trace, _: protobuf.write_document(trace), "chakra-json": _objects, "chakra-legacy": _legacy,
}  # fmt: skip


def _write_ranks(document: Document, dst: str, suffix: str, writer: Callable[[RankTrace, str], bytes], out: Output) -> None:
    """A file per rank and the groups file: beside each other, in a folder (dst ends in /), or in a tar."""
    parts = {}
    prefix = "trace" if is_tar(dst) else os.path.join(dst, "trace") if dst.endswith("/") or os.path.isdir(dst) else dst
    zipped = prefix.endswith(".gz")
    prefix = prefix.removesuffix(".gz").removesuffix(f".{suffix}")
    for rank, trace in enumerate(document):
        delay = next((node for node in trace.nodes if node.type == NodeType.DELAY), None)
        if delay is not None:
            raise TraceError(
                f"node {delay.id} is a delay, which Chakra does not know", where=document.label(rank),
                fix="Use --to native or --to parquet.",
            )  # fmt: skip
        data = writer(trace, document.label(rank))
        name = f"{prefix}.{rank}.{suffix}" + (".gz" if zipped else "")
        if is_tar(dst):
            parts[name] = data
        else:
            out.write(name, data)
    if document.groups:
        if is_tar(dst):
            parts[f"{prefix}.json"] = format_groups(document.groups)
        else:
            out.write(f"{prefix}.json", format_groups(document.groups))
    if is_tar(dst):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, data in parts.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        out.write(dst, buffer.getvalue())


def _write_parquet(src: str, dst: str, groups: str | None, repair: bool, ranks: int | None, out: Output) -> None:
    from distsim.trace import parquet

    kind, content = open_trace(src, groups)
    if kind == "parquet":
        raise ConfigError("source and destination are both Parquet", where=src, fix="Copy the file.")
    if kind in ("native", "simai", "goal"):
        stated = content if kind == "native" else _graph_as_native(src, ranks)
        _write_native_as_parquet(src, stated, dst, repair, ranks, out)
        return
    located, defined = content
    decoded = chakra.decode(located, defined) if kind == "et" else None
    extras: list[list[str | None]] = []
    heads: list[dict[str, Any]] = []
    if decoded is None or decoded.unmodelled:
        document = chakra_document(located, defined)
        held: dict[int, RankTrace] = {}

        def load_rank(rank: int) -> RankTrace:
            # NOTE: each distinct program is read again below; only the numbers of programs are kept here
            trace = document.load(rank)
            held.setdefault(id(trace), trace)
            return trace

        decoded = decode_document(Document(document.source, document.ranks, load_rank, defined, document.labels), defined)
        graph, _, defects = assemble(decoded, defined, src, repair, fold=False)
        for program, trace in zip(graph.programs, held.values(), strict=True):
            rows = (native_write.row_object(graph, program, row) for row in range(len(program)))
            extras.append(
                [parquet.extra_of(native_write.node_object(node), row) for node, row in zip(trace.nodes, rows, strict=True)]
            )
            heads.append(native_write.head_object(trace))
    else:
        graph, _, defects = assemble(decoded, defined, src, repair, fold=False)
        heads = [native_write.head_object(protobuf.read_document(head, located.source)) for head in decoded.heads]
    refuse(defects, strict=False)
    parquet.write(graph, out.reserve(dst), extras, heads)


def _write_native_as_parquet(src: str, content: Any, dst: str, repair: bool, ranks: int | None, out: Output) -> None:
    """A native trace keeps its shared programs and relative groups."""
    graph, defects = load(src, repair=repair, ranks=ranks)
    refuse([defect for defect in defects if defect.kind in ("dangling", "duplicate")], strict=False)
    _write_content_as_parquet(graph, content, dst, out)


def _write_content_as_parquet(graph: TaskGraph, content: Any, dst: str, out: Output) -> None:
    from distsim.trace import native, parquet

    extras = [
        [parquet.extra_of(native.placed_object(placed), native_write.row_object(graph, program, row))
         for row, placed in enumerate(content.unrolled(index))]
        for index, program in enumerate(graph.programs)
    ]  # fmt: skip
    heads = [p.head.model_dump() if p.head else {"version": "0.0.4"} for p in content.spec.programs]
    parquet.write(graph, out.reserve(dst), extras, heads)
