"""A saved results folder as a :class:`~distsim.result.Result` again, so that every finding can be made from it later.

What the folder does not hold stays empty: the profile's own figures, and what a workload remembers beyond its spans.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from distsim.errors import ConfigError, DistsimError
from distsim.profiles.loggops.params import is_loggops, parameters
from distsim.record import CollectiveRow
from distsim.report.damage import refuse_damaged
from distsim.report.folder import Saved, load
from distsim.result import LinkTable, Result, SpanTable
from distsim.topology.graph import Topology
from distsim.topology.spec import build


def reopen(folder: str | os.PathLike[str]) -> Result:
    """The Result of a folder that ``distsim run`` or ``distsim train`` wrote with ``-o``.

    Raises: ConfigError where it is no results folder or a damaged one, or where its topology cannot be built any more (a file
    that has gone).
    """
    return result_of(load(folder), os.fspath(folder))


def result_of(saved: Saved, where: str = "") -> Result:
    """The Result of tables in memory. Raises as :func:`reopen`."""
    summary = saved.summary
    refuse_damaged(summary, {"spans": saved.spans, "collectives": saved.collectives, "links": saved.links}, where)
    topology = _topology(summary, saved, where)
    spans = _spans(saved.spans)
    links = LinkTable(saved.links["bytes"].to_numpy(), saved.links["busy_ps"].to_numpy())
    rows = tuple(
        CollectiveRow(
            row["operation"], row["group"], row["bytes"], tuple(row["members"]), row["algorithm"], row["first_ps"],
            row["start_ps"], row["end_ps"], row.get("ranks", 0), row.get("instances", 1),
        )
        for row in saved.collectives.to_pylist()
    )  # fmt: skip
    representative = summary.get("representative")
    return Result(
        makespan=summary["makespan_ps"],
        finish=np.array([round(ns * 1000) for ns in summary["finish_ns"]], np.int64), ranks=summary["ranks"],
        topology=topology, links=links, collectives=rows, spec=summary["spec"], provenance=summary["provenance"],
        counts=summary["counts"], warnings=tuple(summary["warnings"]), profile_figures=summary.get("profile", {}),
        events=summary.get("events", {}), folded=tuple(summary.get("folded", ())),
        representative=None if representative is None else np.array(representative, np.int64), make_spans=lambda: spans,
    )  # fmt: skip


def _topology(summary: dict[str, Any], saved: Saved, where: str) -> Topology:
    """Built anew from its specification; it must have the links that the run had."""
    spec, network = summary["spec"].get("topo", ""), summary["spec"].get("network", "")
    if is_loggops(network):
        from distsim.profiles.loggops.run import nic_topology

        return nic_topology(summary["ranks"], saved.links.num_rows // (2 * summary["ranks"]), parameters(network))
    try:
        topology = build(spec, summary["ranks"])
    except DistsimError as error:
        raise ConfigError(f"its topology cannot be built any more: {error}", where=where) from None
    if topology.links != saved.links.num_rows:
        raise ConfigError(
            f"its topology {spec} has {topology.links} links now, {saved.links.num_rows} when it ran", where=where,
            fix="Run it again.",
        )  # fmt: skip
    return topology


def _spans(table: Any) -> SpanTable:
    """The span table of its columns."""

    def plain(name: str, kind: Any = np.int64) -> Any:
        return table[name].to_numpy().astype(kind)

    def named(name: str) -> tuple[Any, tuple[str, ...]]:
        """(index, names) of a dictionary column; the empty name is -1. Parquet keeps no order of names that it has twice."""
        column = table[name].combine_chunks()
        told = column.dictionary.to_pylist()
        names = tuple(dict.fromkeys(filter(None, told)))
        number = {one: place for place, one in enumerate(names)}
        index = np.array([*(number.get(one, -1) for one in told), -1], np.int32)
        return index[column.indices.to_numpy()], names

    (name, names), (kind, kinds), (stream, streams), (group, groups) = map(named, ("name", "kind", "stream", "group"))
    if (name < 0).any():  # tasks without a name have an index too
        name, names = np.where(name < 0, len(names), name).astype(np.int32), (*names, "")
    step, steps = named("step") if "step" in table.column_names else (None, ())
    multiplicity = plain("multiplicity")
    return SpanTable(
        rank=plain("rank", np.int32), node=plain("node"), kind=kind.astype(np.int8), stream=stream, group=group, name=name,
        bytes=plain("bytes"), ready=plain("ready_ps"), start=plain("start_ps"), end=plain("end_ps"),
        released_by=plain("released_by"), kinds=kinds, streams=streams, groups=groups, names=names,
        step=step if steps else None, steps=steps, multiplicity=multiplicity if (multiplicity != 1).any() else None,
    )  # fmt: skip
