"""A finished run: columns of what happened, with the specification and provenance that made it. Immutable.

Times are integer picoseconds from the start of the run, sizes bytes. Presentation (text, Parquet, timeline) is in
:mod:`distsim.report`, findings (breakdown, critical path) in :mod:`distsim.analysis`; both only read this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.record import CollectiveRow
from distsim.registry import lookup
from distsim.tables import collectives_table, links_table, spans_table
from distsim.topology.graph import Topology

#: version of the columns below and of the files written from them
SCHEMA = 1

#: kinds of spans that are computation; every other kind that takes time is communication, except ``memory`` and ``none``
COMPUTE = ("compute", "host")


@dataclass(frozen=True, slots=True, eq=False)
class SpanTable:
    """One row per task that was run, ordered by rank, then program order.

    ``kind``, ``stream``, ``group`` and ``name`` are indices into the tuples of the same name in the plural; group -1 is
    "all ranks". Kinds: compute, host, memory, send, recv, none (metadata), delay (latencies and gaps that
    were recorded) and the collective operations.
    """

    rank: NDArray[np.int32]
    node: NDArray[np.int64]  #: node id as in the trace
    kind: NDArray[np.int8]
    stream: NDArray[np.int32]
    group: NDArray[np.int32]
    name: NDArray[np.int32]
    bytes: NDArray[np.int64]  #: communication bytes, 0 for the rest
    ready: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    released_by: NDArray[np.int64]  #: row of this table whose end released the task; -1 for none
    kinds: tuple[str, ...]
    streams: tuple[str, ...]
    groups: tuple[str, ...]
    names: tuple[str, ...]
    step: NDArray[np.int32] | None = None  #: index into ``steps``, -1 for none; None: the trace tells no steps
    steps: tuple[str, ...] = ()  #: iterations of a captured trace
    multiplicity: NDArray[np.int64] | None = None  #: ranks that each row stands for, where ranks were folded; None: one

    def __len__(self) -> int:
        return len(self.rank)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Arrow's PyCapsule interface: ``polars.DataFrame(spans)``, ``pyarrow.table(spans)``, DuckDB's ``FROM spans``."""
        return spans_table(self).__arrow_c_stream__(requested_schema)


@dataclass(frozen=True, slots=True, eq=False)
class LinkTable:
    """Use of every directed link of the topology."""

    bytes: NDArray[np.int64]
    busy: NDArray[np.int64]  #: ps spent sending


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What a run gave: :mod:`distsim.analysis` finds things in it, :mod:`distsim.report` shows and saves it.

    >>> from distsim.analysis.summary import summarise      # doctest: +SKIP
    >>> from distsim.report.terminal import text            # doctest: +SKIP
    >>> print(text(result, summarise(result), 100))         # doctest: +SKIP
    """

    makespan: int  #: ps
    finish: NDArray[np.int64]  #: ps, per rank
    ranks: int
    topology: Topology
    links: LinkTable
    collectives: tuple[CollectiveRow, ...]
    spec: Mapping[str, Any]  #: the complete run specification, JSON-ready
    provenance: Mapping[str, Any]  #: version, input hashes, network level, seed, what was inferred
    counts: Mapping[str, int]  #: nodes, events, transfers ...
    warnings: tuple[str, ...] = ()  #: everything that was ignored, repaired or guessed
    profile_figures: Mapping[str, Any] = field(default_factory=dict)  #: what a profile reports besides, by its tool's names
    events: Mapping[str, Any] = field(default_factory=dict)  #: what timed events did and cost (docs/events.md)
    #: where ranks were folded: rank whose spans stand for each rank's (docs/folding.md)
    representative: NDArray[np.int64] | None = None
    folded: tuple[str, ...] = ()  #: how ranks were folded, and why no further
    make_spans: Callable[[], SpanTable] = field(default=lambda: _empty(), repr=False)  #: builds the span table on demand

    def __repr__(self) -> str:
        return f"Result(makespan={self.makespan} ps, ranks={self.ranks}, topology={self.topology.spec!r})"

    @property
    def stand_for(self) -> NDArray[np.int64]:
        """Of every rank, the ranks that its spans stand for: 0 where another stands for it."""
        if self.representative is None:
            return np.ones(self.ranks, np.int64)
        return np.bincount(self.representative, minlength=self.ranks).astype(np.int64)

    def spans(self) -> SpanTable:
        """The span table; built on first use."""
        found = self.__dict__.get("_spans")
        if found is None:
            found = self.make_spans()
            self.__dict__["_spans"] = found
        return found

    def spans_table(self) -> Any:
        """The spans as a pyarrow Table, one row per task; its numbers are not copied."""
        return spans_table(self.spans())

    def links_table(self) -> Any:
        """The use of links as a pyarrow Table, one row per directed link."""
        return links_table(self.topology, self.links, self.makespan)

    def collectives_table(self) -> Any:
        """The collectives as a pyarrow Table, one row each."""
        return collectives_table(self.collectives)

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer, what the step is made of, the longest communication, and the warnings."""
        return lookup("notebook", "result")(self)  # type: ignore[no-any-return]


def _empty() -> SpanTable:
    none = np.zeros(0, dtype=np.int64)
    return SpanTable(
        none.astype(np.int32), none, none.astype(np.int8), none.astype(np.int32), none.astype(np.int32), none.astype(np.int32),
        none, none, none, none, none, (), (), (), (),
    )  # fmt: skip
