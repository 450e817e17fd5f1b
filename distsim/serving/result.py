"""What came of a service: a row per request, a row per iteration (or steady stretch), a row per replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.registry import lookup
from distsim.serving.replica import Replica
from distsim.serving.request import Request
from distsim.serving.tally import Tallies

#: ``RequestColumns.status``
FINISHED, DROPPED, UNFINISHED = 0, 1, 2
STATUS = ("finished", "dropped", "unfinished")


@dataclass(frozen=True, slots=True, eq=False)
class RequestColumns:
    """By row of the requests; times in ps, -1 where they never came."""

    arrival: NDArray[np.int64]
    scheduled: NDArray[np.int64]  #: first iteration began
    first: NDArray[np.int64]  #: first token
    completed: NDArray[np.int64]  #: last token
    prompt: NDArray[np.int64]
    output: NDArray[np.int64]
    cached: NDArray[np.int64]  #: prompt tokens that the prefix cache held
    restarts: NDArray[np.int64]
    replica: NDArray[np.int64]  #: the last one, -1 for none
    tenant: NDArray[np.int64]
    session: NDArray[np.int64]
    status: NDArray[np.int8]  #: FINISHED, DROPPED, UNFINISHED
    reason: tuple[str, ...]  #: why a request was dropped, else empty
    tenants: tuple[str, ...] = ("",)

    def __len__(self) -> int:
        return len(self.arrival)

    def __repr__(self) -> str:
        return f"RequestColumns({len(self)} requests, {int(np.count_nonzero(self.done))} finished)"

    @property
    def done(self) -> NDArray[np.bool_]:
        """Rows that finished."""
        return np.asarray(self.status == FINISHED)

    @property
    def ttft(self) -> NDArray[np.int64]:
        """Time to first token, ps from arrival; of finished rows only meaningful."""
        return self.first - self.arrival

    @property
    def latency(self) -> NDArray[np.int64]:
        """From arrival to last token, ps."""
        return self.completed - self.arrival

    @property
    def tpot(self) -> NDArray[np.float64]:
        """Time per output token after the first, ps; 0 for requests of one token."""
        after = np.maximum(self.output - 1, 1)
        return np.where(self.output > 1, (self.completed - self.first) / after, 0.0)


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    """One replica at the end of a run. Times in ps, hits and lookups in tokens of prompts."""

    number: int
    pool: str
    gpu: str
    gpus: int
    kv_blocks: int
    block: int
    iterations: int
    busy: int
    preemptions: int
    lookups: int
    hits: int
    started: int = 0  #: ps at which it took requests first
    stopped: int = -1  #: ps at which it was taken away, -1: never
    held: int = 0  #: ps in which its GPUs were taken, starts and failures included
    failures: int = 0
    down: int = 0  #: ps out of service after failures: repairs and starts


@dataclass(frozen=True, slots=True, eq=False)
class ServingResult:
    """A simulated service.

    end: ps at which the last request left. iterations: columns of distsim.serving.log. counts: events, and what operators ask
    for (dropped by reason among them). tallies: what tiers of KV cache, swapping and drafts did.
    """

    requests: RequestColumns
    iterations: Mapping[str, NDArray[np.int64]]
    replicas: tuple[ReplicaRow, ...]
    end: int
    spec: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    tallies: Tallies = field(default_factory=Tallies)

    def __repr__(self) -> str:
        done = int(np.count_nonzero(self.requests.done))
        return f"ServingResult({done} of {len(self.requests)} requests finished in {self.end / 1e12:.6g} s)"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return lookup("notebook", "serving")(self)  # type: ignore[no-any-return]


def request_columns(requests: list[Request | None], tenants: tuple[str, ...] = ("",)) -> RequestColumns:
    """Columns of the simulated requests (None: never arrived, left out)."""
    rows = [request for request in requests if request is not None]
    status = [FINISHED if r.completed >= 0 and not r.reason else DROPPED if r.reason else UNFINISHED for r in rows]

    def column(name: str) -> NDArray[np.int64]:
        return np.fromiter(map(attrgetter(name), rows), np.int64, len(rows))

    names = (
        "arrival", "scheduled", "first", "completed", "prompt", "output", "cached", "restarts", "replica", "tenant", "session",
    )  # fmt: skip
    return RequestColumns(
        **{name: column(name) for name in names}, status=np.array(status, dtype=np.int8),
        reason=tuple(r.reason for r in rows), tenants=tenants,
    )  # fmt: skip


def replica_row(replica: Replica, pool: str, gpu: str, gpus: int, end: int = 0) -> ReplicaRow:
    """The row of a replica. end: ps of the end of the run."""
    kv = replica.scheduler.kv
    return ReplicaRow(
        replica.number, pool, gpu, gpus, kv.total, kv.block, replica.iterations, replica.busy,
        replica.count("preemptions"), replica.count("lookups"), replica.count("hits"), replica.started, replica.stopped,
        replica.held + (max(end - replica.since, 0) if replica.since >= 0 else 0), replica.failures, replica.down,
    )  # fmt: skip
