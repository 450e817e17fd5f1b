"""Whether the parts of a results folder can be what a run wrote: files that were cut, edited, or copied from another folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distsim.errors import ConfigError

#: key of summary.json -> what it holds
_SUMMARY = {
    "makespan_ps": int, "ranks": int, "finish_ns": list, "spec": dict, "provenance": dict, "counts": dict, "warnings": list,
}  # fmt: skip
#: fields of the specification that are read before anything else; each may be absent
_SPEC: dict[str, tuple[type, ...]] = {"topo": (str,), "network": (str,), "trace": (str, list, type(None))}
#: table -> its columns of whole numbers, and of names
_NUMBERS = {
    "spans": ("rank", "multiplicity", "node", "bytes", "ready_ps", "start_ps", "end_ps", "released_by"),
    "collectives": ("bytes", "first_ps", "start_ps", "end_ps"), "links": ("bytes", "busy_ps"),
}  # fmt: skip
_NAMES = {"spans": ("name", "kind", "stream", "group"), "collectives": ("operation", "group", "algorithm"), "links": ()}


def refuse_damaged(summary: dict[str, Any], tables: dict[str, Any], where: str) -> None:
    """Raises ConfigError where the summary and its tables (Arrow, by name) cannot be of one run."""
    for what in _damage(summary, tables):
        raise ConfigError(
            f"is damaged: {what}", where=where, expected="the files as distsim wrote them together", fix="Run it again."
        )


def _damage(summary: dict[str, Any], tables: dict[str, Any]) -> Iterator[str]:
    """What is wrong, one after the other: what comes later relies on what came before."""
    for key, kind in _SUMMARY.items():
        if not isinstance(summary.get(key), kind):
            yield f"its summary.json has no usable {key}"
    spec, ranks = summary["spec"], summary["ranks"]
    for key, kinds in _SPEC.items():
        if not isinstance(spec.get(key, ""), kinds):
            yield f"its specification has no usable {key}"
    trace = spec.get("trace")
    if isinstance(trace, list) and not all(isinstance(one, str) for one in trace):
        yield "its specification has no usable trace"
    finish = summary["finish_ns"]
    if ranks < 1 or len(finish) != ranks or not all(isinstance(one, (int, float)) for one in finish):
        yield "its summary.json has no end for each of its ranks"
    yield from _columns(tables)
    spans, makespan = tables["spans"], summary["makespan_ps"]
    if spans.num_rows:
        low, high = _range(spans["rank"])
        if low < 0 or high >= ranks:
            yield f"its spans.parquet is of rank {high if low >= 0 else low}, its summary.json of {ranks} ranks"
        last = _range(spans["end_ps"])[1]
        if last > makespan:
            yield f"its spans.parquet ends at {last} ps, its summary.json at {makespan} ps"
        low, high = _range(spans["released_by"])
        if low < -1 or high >= spans.num_rows:
            yield "its spans.parquet has tasks released by none of its rows"
    members = tables["collectives"]["members"].combine_chunks().flatten()
    if len(members) and not 0 <= _range(members)[0] <= _range(members)[1] < ranks:
        yield f"its collectives.parquet has members beyond its {ranks} ranks"


def _columns(tables: dict[str, Any]) -> Iterator[str]:
    import pyarrow as pa

    for name, table in tables.items():
        kinds = {field.name: field.type for field in table.schema}
        for column in _NUMBERS[name]:
            if column not in kinds or not pa.types.is_integer(kinds[column]) or table[column].null_count:
                yield f"its {name}.parquet has no usable column {column}"
        for column in _NAMES[name]:
            kind = kinds.get(column)
            if kind is None or not pa.types.is_string(kind.value_type if pa.types.is_dictionary(kind) else kind):
                yield f"its {name}.parquet has no usable column {column}"
        if name == "collectives" and not pa.types.is_list(kinds.get("members", pa.null())):
            yield "its collectives.parquet has no usable column members"


def _range(column: Any) -> tuple[int, int]:
    import pyarrow.compute as pc

    found = pc.min_max(column).as_py()
    return found["min"], found["max"]
