"""Results as Arrow tables: columns that pandas, polars and DuckDB take without copying numbers.

Columns of numbers share the memory of the result's own; names are dictionary columns, the empty name standing for none. The
Parquet files of a results folder hold the same columns (docs/results.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distsim.record import CollectiveRow
from distsim.topology.graph import Topology

if TYPE_CHECKING:
    from distsim.result import LinkTable, SpanTable


def spans_table(spans: SpanTable) -> Any:
    """One row per task: a pyarrow Table."""
    import pyarrow as pa

    multiplicity = np.ones(len(spans), np.int32) if spans.multiplicity is None else spans.multiplicity.astype(np.int32)
    steps = {} if spans.step is None else {"step": _named(spans.step, spans.steps)}
    return pa.table(
        {
            "rank": spans.rank, "multiplicity": multiplicity, "node": spans.node, "name": _named(spans.name, spans.names),
            "kind": _named(spans.kind, spans.kinds), "stream": _named(spans.stream, spans.streams),
            "group": _named(spans.group, spans.groups), "bytes": spans.bytes, "ready_ps": spans.ready, "start_ps": spans.start,
            "end_ps": spans.end, "released_by": spans.released_by, **steps,
        }
    )  # fmt: skip


def collectives_table(collectives: Sequence[CollectiveRow]) -> Any:
    """One row per collective: a pyarrow Table."""
    import pyarrow as pa

    text, number = pa.string(), pa.int64()
    columns = {
        "operation": ("operation", text), "group": ("label", text), "algorithm": ("algorithm", text),
        "bytes": ("bytes", number), "members": ("members", pa.list_(pa.int32())), "ranks": ("ranks", number),
        "instances": ("instances", number), "first_ps": ("first_ps", number), "start_ps": ("start_ps", number),
        "end_ps": ("end_ps", number),
    }  # fmt: skip
    return pa.table({name: pa.array([getattr(row, key) for row in collectives], kind) for name, (key, kind) in columns.items()})


def links_table(topology: Topology, links: LinkTable, makespan: int) -> Any:
    """One row per directed link: a pyarrow Table. makespan: ps; utilisation is busy time over it."""
    import pyarrow as pa

    share = links.busy / makespan if makespan else np.zeros(len(links.busy))
    return pa.table(
        {
            "link": np.arange(topology.links, dtype=np.int32), "src": _named(topology.link_src, topology.node_names),
            "dst": _named(topology.link_dst, topology.node_names), "domain": _named(topology.link_domain, topology.domains),
            "bandwidth_bytes_per_s": topology.link_bandwidth, "latency_ps": topology.link_latency, "bytes": links.bytes,
            "busy_ps": links.busy, "utilisation": share,
        }
    )  # fmt: skip


def _named(index: Any, names: Sequence[str]) -> Any:
    """A dictionary column; -1 is the empty name. Every name is in the dictionary once, as pandas wants it."""
    import pyarrow as pa

    place = {"": 0}
    where = np.array([0, *(place.setdefault(name, len(place)) for name in names)], np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(where[index.astype(np.int64) + 1]), pa.array(list(place), pa.string()))
