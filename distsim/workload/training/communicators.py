"""Communicators of a plan: which ranks they join, and how long their collectives take on idle links.

Rank order (fastest first): tp, cp, dp, pp. The data-parallel communicator joins dp and cp: they hold the same weights. The
expert-parallel ranks are neighbours within tp * cp * dp of a stage (with etp inside), as in Megatron-Core.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distsim.errors import CollectiveError, TopologyError, UnknownNameError
from distsim.nccl.model import plan as nccl_plan
from distsim.nccl.system import System, box_of_hosts, system_of_topology
from distsim.topology.graph import Topology
from distsim.workload.training.plan import Plan

#: communicator -> what it is for
NAMES = {
    "tp": "tensor parallel", "cp": "context parallel", "dp": "data parallel", "ep": "expert parallel",
    "shard": "ranks that share out one copy of the weights (HSDP)", "replica": "ranks with the same part of the copies (HSDP)",
    "etp": "tensor parallel inside experts", "edp": "data parallel of experts", "pp": "pipeline", "embedding": "tied embedding",
    "mirror": "the two copies of a stage's weights (DualPipe)", "world": "all ranks",
}  # fmt: skip


def members(plan: Plan, name: str, rank: int) -> tuple[int, ...]:
    """Ordered ranks of the communicator ``name`` that ``rank`` is in."""
    return tuple(_members(plan, name, rank))


def _members(plan: Plan, name: str, rank: int) -> Sequence[int]:
    # NOTE: ranges, where they can be: bounds ask for the first and last of thousands
    inner = plan.tp * plan.cp * plan.dp
    stage, place = divmod(rank, inner)
    first = stage * inner
    t = place % plan.tp
    d = place // (plan.tp * plan.cp)
    if name == "tp":
        return range(rank - t, rank - t + plan.tp)
    if name == "cp":
        start = first + t + plan.tp * plan.cp * d
        return range(start, start + plan.tp * plan.cp, plan.tp)
    if name == "dp":
        return range(first + t, first + inner, plan.tp)
    if name in ("shard", "replica"):
        everyone = range(first + t, first + inner, plan.tp)
        size = plan.shard_group or len(everyone)
        at = (place - t) // plan.tp
        return everyone[at // size * size :][:size] if name == "shard" else everyone[at % size :: size]
    if name == "etp":
        base = rank - place % plan.etp
        return range(base, base + plan.etp)
    if name == "ep":
        block = plan.ep * plan.etp
        base = first + place // block * block + place % plan.etp
        return range(base, base + block, plan.etp)
    if name == "edp":
        block = plan.ep * plan.etp
        return range(first + place % block, first + inner, block)
    if name == "pp":
        return range(place, plan.world, inner)
    if name == "mirror":
        return tuple(sorted((rank, (plan.pp - 1 - stage) * inner + place)))
    if name == "embedding":
        return (place, place + (plan.pp - 1) * inner) if plan.pp > 1 else (place,)
    return range(plan.world)


class Collectives:
    """Durations of a plan's collectives and messages on idle links, ps: NCCL's own closed form where the topology says which
    GPUs its hosts are, else a ring (alpha-beta)."""

    def __init__(self, topology: Topology, plan: Plan, known: dict[tuple[object, ...], int] | None = None,
                 placed: dict[tuple[object, ...], tuple[int, ...]] | None = None) -> None:  # fmt: skip
        """known, placed: times and placements that other plans on the same topology have found."""
        self._topology = topology
        self._plan = plan
        self._systems: dict[tuple[int, ...], System | None] = {}
        self._shared = {} if known is None else known
        self._known: dict[tuple[object, ...], int] = {}
        self._placed: dict[tuple[object, ...], tuple[int, ...]] = {} if placed is None else placed

    def time(self, operation: str, size: int, name: str, rank: int = 0) -> int:
        """ps of a collective of ``size`` bytes (per-rank input) in the communicator of ``rank``."""
        key = (operation, size, name, rank)
        found = self._known.get(key)
        if found is None:
            ranks = _members(self._plan, name, rank)
            by_ranks = (operation, size, len(ranks), *ranks[:2], ranks[-1])
            found = self._shared.get(by_ranks)
            if found is None:
                found = self._shared[by_ranks] = self._time(operation, size, tuple(ranks))
            self._known[key] = found
        return found

    def slowest(self, operation: str, size: int, name: str) -> int:
        """ps of a collective in the worst placed of the communicators of that name: steps wait for it."""
        return max(self.time(operation, size, name, rank) for rank in self.representatives(name))

    def representatives(self, name: str) -> tuple[int, ...]:
        """A rank of every kind of placement that the communicators ``tp``, ``cp``, ``ep`` or ``etp`` have.

        A placement is which of the members share a node (or rack) with which: one, unless some straddle what others fit in.
        """
        plan = self._plan
        inner = plan.tp * plan.cp * plan.dp
        around, size = {
            "tp": (1, plan.tp), "cp": (plan.tp, plan.cp), "etp": (1, plan.etp), "ep": (plan.etp, plan.ep),
        }[name]  # fmt: skip
        key = ("placed", name, around, size, inner, plan.pp)
        found = self._placed.get(key)
        if found is None:
            box = box_of_hosts(self._topology)[: plan.world]
            ranks = np.arange(plan.world).reshape(-1, size, around).swapaxes(1, 2).reshape(-1, size)
            of = box[ranks]
            pattern = (of[:, :, None] == of[:, None, :]).reshape(len(of), -1) if size <= 64 else of - of[:, :1]
            _, first = np.unique(pattern, axis=0, return_index=True)
            found = self._placed[key] = tuple(int(ranks[at, 0]) for at in sorted(first.tolist()))
        return found

    def message(self, size: int, src: int, dst: int) -> int:
        """ps of a message between two ranks."""
        key = ("send", size, src, dst)
        found = self._shared.get(key)
        if found is None:
            found = self._shared[key] = self._message(size, src, dst)
        return found

    def _message(self, size: int, src: int, dst: int) -> int:
        if src == dst or size <= 0:
            return 0
        system = self._system((src, dst))
        return self._path(size, src, dst) if system is None else nccl_plan("send_recv", size, system).time_ps

    def _time(self, operation: str, size: int, ranks: tuple[int, ...]) -> int:
        n = len(ranks)
        if n == 1 or size <= 0:
            return 0
        if operation == "send":  # a step round the ring
            return max(self.message(size, ranks[i], ranks[(i + 1) % n]) for i in range(n))
        system = self._system(ranks)
        if system is not None:
            whole = size * n if operation == "all_gather" else size
            try:
                return nccl_plan(operation, whole, system).time_ps
            except CollectiveError:
                pass
        each = size if operation in ("all_gather", "send") else -(-size // n)
        turns = {"all_reduce": 2 * (n - 1)}.get(operation, n - 1)
        return turns * max(self._path(each, ranks[i], ranks[(i + 1) % n]) for i in range(n))

    def domains(self, name: str) -> int:
        """NVLink domains that the communicator of rank 0 is spread over; its ranks where the topology names no GPUs."""
        ranks = _members(self._plan, name, 0)
        key = ("domains", len(ranks), *ranks[:2], ranks[-1])
        if key not in self._shared:
            system = self._system(tuple(ranks)) if len(ranks) > 1 else None
            self._shared[key] = len(ranks) if system is None else system.nodes
        return self._shared[key]

    def _system(self, ranks: tuple[int, ...]) -> System | None:
        if ranks not in self._systems:
            try:
                self._systems[ranks] = system_of_topology(self._topology, list(ranks))
            except (TopologyError, UnknownNameError):  # no GPU that NCCL is known to run on
                self._systems[ranks] = None
        return self._systems[ranks]

    def _path(self, size: int, src: int, dst: int) -> int:
        _, links = self._topology.paths(np.array([src], np.int32), np.array([dst], np.int32))
        if not len(links):
            return 0
        slowest = float(self._topology.link_bandwidth[links].min())
        return int(self._topology.link_latency[links].sum()) + round(size / slowest * 1e12)
