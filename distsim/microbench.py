"""One collective, timed alone on a cluster: the micro-benchmark behind ``distsim collective``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distsim.collectives.bandwidth import bus_factor, whole_buffer
from distsim.engine.placement import CollectiveOptions, Placer
from distsim.engine.task import CollectiveCall
from distsim.errors import CollectiveError, TopologyError
from distsim.network.model import NEVER, Finished, NetworkModel
from distsim.network.spec import build_network
from distsim.result import LinkTable
from distsim.topology.graph import Topology

_SLICE = 0.5  # seconds between two words to who watches


@dataclass(frozen=True, slots=True, eq=False)
class CollectiveTiming:
    """What one collective (or several groups' at once) took."""

    time_ps: int  #: until the last delivery
    finish_ps: dict[int, int]  #: rank -> its last delivery
    transfers: int
    operation: str
    bytes: int  #: per-rank input
    group_size: int
    algorithm: str
    topology: Topology
    links: LinkTable
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def buffer(self) -> int:
        """Bytes that bandwidths are counted by, as nccl-tests does: the whole buffer, for all_gather all shards."""
        return whole_buffer(self.operation, self.bytes, self.group_size)

    @property
    def algbw(self) -> float:
        """Buffer / time, in bytes/s."""
        return self.buffer / (self.time_ps * 1e-12) if self.time_ps else 0.0

    @property
    def busbw(self) -> float:
        """algbw scaled to what a link must carry at least (nccl-tests, doc/PERFORMANCE.md), in bytes/s."""
        return self.algbw * bus_factor(self.operation, self.group_size)


def check_groups(groups: Sequence[tuple[int, ...]], ranks: int) -> None:
    """CollectiveError where a group has too few, repeated or unknown ranks; TopologyError is the topology's."""
    if ranks < 2:
        raise CollectiveError(f"a collective of {ranks} ranks", expected="at least 2")
    for group in groups:
        if len(group) < 2:
            raise CollectiveError(f"group {list(group)} has fewer than two ranks")
        if len(set(group)) != len(group) or not all(0 <= r < ranks for r in group):
            raise CollectiveError(f"group {list(group)[:8]} repeats ranks or names some outside 0 to {ranks - 1}")
        if len(group) != len(groups[0]):
            raise CollectiveError("groups that run at once must be of one size", expected=f"{len(groups[0])} ranks in each")


def time_collective(
    operation: str, size: int, ranks: int, topology: Topology, *, network: str = "chunk",
    options: CollectiveOptions | None = None, groups: Sequence[tuple[int, ...]] = (),
    root: int = 0, watch: Callable[[int], None] | None = None,
) -> CollectiveTiming:  # fmt: skip
    """Time one collective of all ranks, or of each of ``groups`` at once, on a native network level.

    ``watch`` is told the simulated time (ps) now and then.

    Raises: CollectiveError, ConfigError, UnknownNameError, TopologyError.
    """
    options = options or CollectiveOptions()
    check_groups(groups, ranks)
    if topology.hosts < ranks:
        raise TopologyError(f"{topology.spec} has {topology.hosts} hosts for {ranks} ranks")
    level = build_network(network, topology)
    placer = Placer(topology, range(ranks), getattr(level, "stores", 0.0))
    transfers, algorithm, owner = 0, "", {}
    for members in groups or (tuple(range(ranks)),):
        moved, algorithm = placer.collective(CollectiveCall(("alone", 0), operation, size, members, root), options)
        transfers += int(np.count_nonzero(moved.src != moved.dst))
        if len(moved.src):
            owner[level.start(moved, 0)] = members
    finish: dict[int, int] = {}
    end = 0
    for group in _run(level, watch):
        end = max(end, group.at)
        finish |= {member: group.host_end.get(member, 0) for member in owner[group.group]}
    usage = level.usage()
    return CollectiveTiming(
        end, finish, transfers, operation, size, len(groups[0]) if groups else ranks, algorithm, topology,
        LinkTable(usage.bytes, usage.busy),
    )  # fmt: skip


def _run(level: NetworkModel, watch: Callable[[int], None] | None) -> Iterator[Finished]:
    """Run a level dry, in slices where someone watches: of simulated time that take about as long as it takes to look."""
    window = NEVER if watch is None else 1_000_000
    while (next_event := level.next_event()) < NEVER:
        begin = time.monotonic()
        limit = min(NEVER, next_event + window)
        yield from level.run_until(limit)
        if watch is not None:
            watch(limit)
            if time.monotonic() - begin < _SLICE:
                window = min(NEVER, 2 * window)
