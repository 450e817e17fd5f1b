"""From a call to transfers between hosts: which algorithm, which schedule, on which hosts. Answers are remembered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distsim import registry
from distsim.collectives.schedule import Collective, Schedule, schedule
from distsim.engine.task import CollectiveCall, MessageCall
from distsim.errors import CollectiveError, ConfigError, UnknownNameError
from distsim.network.model import Transfers
from distsim.network.pattern import Pattern
from distsim.network.transfers import single
from distsim.topology.graph import Topology

if TYPE_CHECKING:
    from distsim.engine.nccl import NcclOptions, NcclPlacer

#: algorithm of each operation where nothing is asked for: bandwidth-optimal rings for the reductions, direct exchange for
#: all_to_all, trees for the rooted ones (what NCCL and MPI libraries do for large messages)
DEFAULTS = {
    "all_reduce": "ring", "all_gather": "ring", "reduce_scatter": "ring", "all_to_all": "direct", "broadcast": "binary_tree",
    "reduce": "binary_tree", "gather": "direct", "scatter": "direct", "barrier": "recursive_doubling",
}  # fmt: skip

#: operations that go hierarchically over all levels of a topology that they span
_SPREAD = ("all_reduce", "all_gather", "reduce_scatter")

#: transfers kept in remembered patterns and placements, all together (about 40 bytes each)
_REMEMBER = 4_000_000


@dataclass(frozen=True, slots=True)
class CollectiveOptions:
    """How collectives are run.

    Attributes:
        algorithms: operation -> algorithm; what is not named takes DEFAULTS.
        chunks: parts that follow one another through the algorithm (pipelining).
        window: direct: peers in flight, 0 = all.
        per_dim: hierarchical: algorithm of each dimension.
        optimization: hierarchical: local_bw_aware | baseline.
        endpoint_ps: added to every delivery.
        nccl: as NCCL runs them, where it has the operation; None: all by distsim's own algorithms.
    """

    algorithms: dict[str, str] = field(default_factory=dict)
    chunks: int = 1
    window: int = 0
    per_dim: tuple[str, ...] = ()
    optimization: str = "local_bw_aware"
    endpoint_ps: int = 0
    nccl: NcclOptions | None = None

    @classmethod
    def parse(cls, text: str, **rest: object) -> CollectiveOptions:
        """From ``ring``, or ``all_reduce=double_binary_tree,all_to_all=direct``; ``direct4`` is direct with window 4."""
        algorithms: dict[str, str] = {}
        window = 0
        for part in filter(None, text.split(",")):
            operation, _, name = part.rpartition("=")
            if not name:
                raise ConfigError(f"{part!r} names no algorithm", where="--algorithm", expected="NAME or operation=NAME")
            if name.startswith("direct") and name[6:].isdigit():
                window, name = int(name[6:]), "direct"
            registry.lookup("collective", name, where="--algorithm")  # even where a trace has no collective that asks for it
            if operation and operation not in DEFAULTS:
                raise UnknownNameError("collective operation", operation, DEFAULTS, where="--algorithm")
            for known in [operation] if operation else DEFAULTS:
                algorithms[known] = name
        return cls(algorithms=algorithms, window=window, **rest)  # type: ignore[arg-type]


class Placer:
    """Makes transfers for a topology and a placement of devices on hosts.

    ``stores``: bytes that the network level stores before it forwards them, see ``network.model``.
    """

    def __init__(self, topology: Topology, hosts: Sequence[int], stores: float = 0.0) -> None:
        self._topology = topology
        self._stores = stores
        self._nccl: NcclPlacer | None = None
        self._hosts = np.asarray(hosts, dtype=np.int32)
        self._patterns: dict[tuple[str, Collective, int], Pattern] = {}
        self._transfers: dict[tuple[str, Collective, int, tuple[int, ...]], Transfers] = {}
        self._held = 0
        self._message = lru_cache(maxsize=4096)(single)

    def collective(self, call: CollectiveCall, options: CollectiveOptions) -> tuple[Transfers, str]:
        """Transfers of a collective and the algorithm's name. Raises CollectiveError, ConfigError, UnknownNameError."""
        if call.operation not in DEFAULTS:
            raise UnknownNameError("collective operation", call.operation, DEFAULTS)
        if options.nccl is not None and not call.algorithm:
            self._refuse_part(call)
            if self._nccl is None:
                from distsim.engine.nccl import NcclPlacer

                self._nccl = NcclPlacer(self._topology, self._stores)
            if self._nccl.serves(call.operation):
                hosts = self._hosts[np.array(call.ranks or call.members)]
                return self._nccl.collective(call, hosts, options.nccl, options.endpoint_ps)
        members = call.ranks or call.members
        algorithm = call.algorithm or options.algorithms.get(call.operation) or self._usual(call)
        dims, per_dim = self._dims(call, options, algorithm)
        wanted = Collective(
            call.operation, len(members), call.bytes, options.chunks, call.root, options.window, dims, per_dim,
            options.optimization,
        )  # fmt: skip
        plan = (algorithm, wanted, options.endpoint_ps)
        key = (*plan, members)
        found = self._transfers.get(key)
        if found is None:
            pattern = self._patterns.get(plan)
            if pattern is None:
                pattern = pattern_of(schedule(algorithm, wanted), options.endpoint_ps)
            found = pattern.on(self._hosts[np.array(members)])
            self._held += len(pattern)
            if self._held > _REMEMBER:
                self._patterns.clear()
                self._transfers.clear()
                self._held = len(pattern)
            self._patterns[plan] = pattern
            self._transfers[key] = found
        return found, algorithm

    def message(self, call: MessageCall) -> Transfers:
        """One message."""
        return self._message(int(self._hosts[call.src]), int(self._hosts[call.dst]), call.bytes)

    def _usual(self, call: CollectiveCall) -> str:
        """The algorithm where none is asked for: DEFAULTS; hierarchical where a large operation spans a whole topology of
        several levels, in order, so that all rails or all dimensions carry it."""
        sizes = tuple(d.size for d in self._topology.dimensions) or self._topology.levels
        ranks = call.ranks or call.members
        if call.operation not in _SPREAD or sum(size > 1 for size in sizes) < 2 or math.prod(sizes) != len(ranks):
            return DEFAULTS[call.operation]
        hosts = self._hosts[np.array(ranks)]
        return "hierarchical" if np.array_equal(hosts, np.arange(len(hosts))) else DEFAULTS[call.operation]

    def _dims(
        self, call: CollectiveCall, options: CollectiveOptions, algorithm: str
    ) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Dimensions of a hierarchical collective: those of the topology."""
        sizes = tuple(d.size for d in self._topology.dimensions) or self._topology.levels
        self._refuse_part(call)
        if algorithm != "hierarchical":
            return (), ()
        size = len(call.ranks or call.members)
        if not sizes or math.prod(sizes) != size:
            raise ConfigError(
                f"hierarchical {call.operation} of {size} ranks does not fit {self._topology.spec}",
                expected="a topology of several dimensions whose sizes multiply to the group's, such as nd:...",
                fix="Take another --algorithm for this operation.",
            )
        kinds = [d.kind for d in self._topology.dimensions] or ["switch"] * len(sizes)
        return sizes, options.per_dim or tuple("direct" if kind == "fully_connected" else "ring" for kind in kinds)

    def _refuse_part(self, call: CollectiveCall) -> None:
        """CollectiveError where a call is meant for some dimensions of its group only."""
        sizes = tuple(d.size for d in self._topology.dimensions) or self._topology.levels
        every = (1 << max(1, len(sizes))) - 1
        if call.dims & every != every:
            raise CollectiveError(
                f"{call.operation} over some dimensions only (involved_dim) needs a communicator of those ranks",
                fix="Give the node a group (pg_name), or run with --profile astra.",
            )


def pattern_of(plan: Schedule, endpoint_ps: int = 0) -> Pattern:
    """A schedule as networks see it. Every delivery takes ``endpoint_ps`` more, joins excepted."""
    delay = np.zeros(len(plan), dtype=np.int64) if plan.delay is None else plan.delay.copy()
    if endpoint_ps:
        delay[(plan.src != plan.dst) | (plan.bytes != 0)] += endpoint_ps
    return Pattern.of(plan.src, plan.dst, plan.bytes, plan.dep_ptr, plan.dep, delay)


def place(plan: Schedule, hosts: NDArray[np.int32], endpoint_ps: int = 0) -> Transfers:
    """Put member m of a schedule on ``hosts[m]``. Every delivery takes ``endpoint_ps`` more, joins excepted."""
    return pattern_of(plan, endpoint_ps).on(hosts)
