"""The Parquet form: a TaskGraph as columns, for large traces. Everything that the columns cannot say stands in ``extra``.

One row per node, program after program; dependencies are row numbers within the program. The file's metadata (key
``distsim``) holds what is said once: ranks, groups, streams, and what the source file said about itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distsim.errors import TraceError
from distsim.trace.build import COLUMNS, NODE_COLUMNS
from distsim.trace.graph import Group, Program, TaskGraph
from distsim.trace.groups import instances, partition
from distsim.trace.native_write import row_object

FORMAT = "distsim-trace-parquet/1"
_PLAIN = tuple(name for name in NODE_COLUMNS if name != "name")


def write(
    graph: TaskGraph, path: str, extras: Sequence[Sequence[str | None]] = (), heads: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Write the graph to ``path``.

    ``extras``: for every program, per node, what its columns do not say (from :func:`extra_of`); ``heads``: for every
    program, the native ``head``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    programs = graph.programs

    def joined(name: str) -> Any:
        kind = COLUMNS[name][0]
        return np.concatenate([np.zeros(0, kind), *(getattr(program, name) for program in programs)])

    counts = [len(program) for program in programs]
    columns: dict[str, Any] = {"program": np.repeat(np.arange(len(programs), dtype=np.int32), counts)}
    names = joined("name")
    columns["name"] = pa.DictionaryArray.from_arrays(pa.array(names, mask=names < 0), pa.array(graph.names, pa.string()))
    columns |= {name: joined(name) for name in _PLAIN}
    if graph.steps:
        missing = [np.full(len(program), -1, np.int32) for program in programs]
        steps = [none if program.step is None else program.step for program, none in zip(programs, missing, strict=True)]
        columns["step"] = np.concatenate([np.zeros(0, np.int32), *steps])
    ends = np.cumsum([0, *(len(program.dep) for program in programs)])
    offsets = np.concatenate([np.zeros(1, np.int64), *(p.dep_ptr[1:] + base for p, base in zip(programs, ends, strict=False))])
    columns["dep"] = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(joined("dep")))
    if any(item is not None for program in extras for item in program):
        columns["extra"] = pa.array([item for program in extras for item in program], pa.string())
    said = {
        "format": FORMAT,
        "nodes": counts,
        "rank_program": graph.rank_program.tolist(),
        "streams": graph.streams,
        "groups": [
            {"name": g.name, "instances": instances(g), "aliases": {str(r): a for r, a in g.aliases.items()}}
            for g in graph.groups
        ],
        "metadata": dict(graph.metadata),
        "steps": graph.steps,
        "captured": graph.captured,
        "heads": list(heads),
    }
    table = pa.table(columns).replace_schema_metadata({"distsim": json.dumps(said)})
    pq.write_table(table, path, compression="zstd", use_dictionary=True)


def _open(source: str) -> tuple[Any, dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(source)
        said = json.loads((table.schema.metadata or {})[b"distsim"])
        if said["format"] != FORMAT:
            raise TraceError(f"has format {said['format']!r}", where=source, expected=FORMAT)
    except (OSError, pa.ArrowException) as error:
        raise TraceError(f"is not a readable Parquet file ({error})", where=source) from None
    except (KeyError, ValueError):
        raise TraceError("is a Parquet file, but not a distsim trace", where=source, expected=f"metadata of {FORMAT}") from None
    missing = [name for name in ("dep", *NODE_COLUMNS) if name not in table.column_names]
    if missing:
        raise TraceError(f"has no column {missing[0]!r}", where=source)
    return table, said


def is_captured(source: str) -> bool:
    """Whether the trace was captured, or tells the steps of its nodes. TraceError where the file is no trace."""
    _, said = _open(source)
    return bool(said.get("captured") or said.get("steps"))


def read(source: str) -> TaskGraph:
    """The graph of a Parquet trace. TraceError where the file is not one, or its columns contradict each other."""
    import pyarrow as pa

    try:
        return _read(source)
    except (pa.ArrowException, LookupError, ValueError, TypeError) as error:  # damaged pages, nulls, other metadata
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TraceError(f"is damaged: {text}", where=source) from None


def _read(source: str) -> TaskGraph:
    table, said = _open(source)
    if len(table) != sum(said["nodes"]):
        raise TraceError(f"has {len(table)} rows where its metadata speaks of {sum(said['nodes'])}", where=source)
    texts = table["name"].combine_chunks()
    if texts.type != "string":  # a dictionary, as it was written
        texts = texts.cast("string")
    texts = texts.dictionary_encode()
    columns = {name: table[name].to_numpy().astype(COLUMNS[name][0], copy=False) for name in _PLAIN}
    if "step" in table.column_names:
        columns["step"] = table["step"].to_numpy().astype(np.int32, copy=False)
    columns["name"] = texts.indices.fill_null(-1).to_numpy().astype(np.int32)
    lists = table["dep"].combine_chunks()
    offsets, deps = lists.offsets.to_numpy().astype(np.int64), lists.values.to_numpy()
    programs: list[Program] = []
    low = 0
    for count in said["nodes"]:
        high = low + count
        ptr = offsets[low : high + 1]
        dep = deps[ptr[0] : ptr[-1]]
        if len(dep) and not (dep.min() >= 0 and dep.max() < count):
            raise TraceError(f"program {len(programs)} has dependencies outside its {count} rows", where=source)
        part = {name: column[low:high] for name, column in columns.items()}
        programs.append(Program(dep_ptr=ptr - ptr[0], dep=dep.astype(np.int32), **part))
        low = high
    groups = []
    for group in said["groups"]:
        members = partition(group["name"], group["instances"], source).members
        groups.append(Group(group["name"], members, {int(rank): alias for rank, alias in group["aliases"].items()}))
    return TaskGraph(
        tuple(programs),
        np.array(said["rank_program"], np.int32),
        tuple(groups),
        tuple(texts.dictionary.to_pylist()),
        tuple(said["streams"]),
        source,
        metadata=said["metadata"],
        steps=tuple(said.get("steps", ())),
        captured=bool(said.get("captured", False)),
    )


def extra_of(node: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
    """What a native node says beyond the native form of its row, as JSON; None where they are equal."""
    differs = {key: value for key, value in node.items() if key not in row or row[key] != value}
    absent = [key for key in row if key not in node]
    if absent:
        differs["absent"] = absent
    return json.dumps(differs) if differs else None


def native_programs(source: str, graph: TaskGraph) -> list[dict[str, Any]]:
    """The trace's programs as native objects, extras included: the way from Parquet to every other format."""
    table, said = _open(source)
    extras = table["extra"].to_pylist() if "extra" in table.column_names else None
    programs = []
    base = 0
    for index, program in enumerate(graph.programs):
        ranks = np.flatnonzero(graph.rank_program == index).tolist()
        nodes = []
        for row in range(len(program)):
            node = row_object(graph, program, row)
            extra = json.loads(extras[base + row]) if extras and extras[base + row] else {}
            for key in extra.pop("absent", ()):
                node.pop(key, None)
            nodes.append(node | extra)
        base += len(program)
        head = {"head": said["heads"][index]} if said["heads"] else {}
        programs.append({"name": f"p{index}", "ranks": ranks, **head, "nodes": nodes})
    return programs
