"""Nodes of a program under construction: rows of plain integers, turned into columns at the end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from distsim.trace.build import COLUMNS, NODE_COLUMNS
from distsim.trace.graph import CollectiveType, Group, NodeType, PeerKind, Program
from distsim.workload.training.communicators import members
from distsim.workload.training.costs import Costs
from distsim.workload.training.operations import COMPUTE, Operation

OFFSET, _IN_GROUP, _RANK = int(PeerKind.OFFSET), int(PeerKind.IN_GROUP), int(PeerKind.RANK)
# NOTE: arrays of plain integers are made many times faster than those of IntEnum members
COMP, _COLLECTIVE, SEND, RECEIVE = (
    int(kind) for kind in (NodeType.COMP, NodeType.COMM_COLL, NodeType.COMM_SEND, NodeType.COMM_RECV)
)
_KIND = {kind.name.lower(): int(kind) for kind in CollectiveType}
_FILLED = ("type", "name", "duration_ps", "collective", "bytes", "group", "peer", "tag", "stream",
           "peer_kind")  # fmt: skip


class Names:
    """Strings numbered in the order of their first use."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._number: dict[str, int] = {}

    def __getitem__(self, name: str) -> int:
        number = self._number.get(name)
        if number is None:
            number = self._number[name] = len(self.all)
            self.all.append(name)
        return number


class Groups:
    """Communicators of the plan as groups of the graph, made when first used."""

    def __init__(self, costs: Costs) -> None:
        self._plan = costs.plan
        self.made: list[Group] = []
        self._number: dict[str, int] = {}

    def __getitem__(self, name: str) -> int:
        number = self._number.get(name)
        if number is None:
            plan = self._plan
            of: dict[int, tuple[int, ...]] = {}
            ranks: Sequence[int] = range(plan.world)
            if name == "embedding":
                inner = plan.world // plan.pp
                ranks = (*range(inner), *range(plan.world - inner, plan.world))
            for rank in ranks:
                if rank not in of:
                    ring = members(plan, name, rank)
                    of.update((member, ring) for member in ring)
            number = self._number[name] = len(self.made)
            self.made.append(Group(name, of))
        return number


class Nodes:
    """What one stage runs, node by node. Computation is a chain on one stream; the rest waits for what it names.

    _last: last node on the compute stream. _held: what the next compute node waits for besides.
    """

    def __init__(self, costs: Costs, stage: int, names: Names, streams: Names, groups: Groups) -> None:
        self.stage = stage
        self._names, self._streams, self._groups = names, streams, groups
        self._rows: list[tuple[int, ...]] = []  #: columns _FILLED of every node
        self._dep_ptr, self._dep = [0], list[int]()
        self._last = -1
        self._held: list[int] = []
        self._inner = costs.plan.world // costs.plan.pp
        self._message_bytes = costs.message_bytes


    def _compute(self, name: str, duration: int) -> int:
        self._last = self._append(self._row(COMP, name, duration_ps=duration, stream=self._streams[COMPUTE]), self._waits())
        return self._last

    def _waits(self) -> Collection[int]:
        """What the next compute node waits for: what is held, and the one before it."""
        held, last = self._held, self._last
        if not held:
            return (last,) if last >= 0 else ()
        deps = {*held, last} if last >= 0 else {*held}
        held.clear()
        return deps

    def _collective(self, name: str, operation: str, size: int, group: str, after: Sequence[int]) -> int:
        row = self._row(
            _COLLECTIVE, name, collective=_KIND[operation], bytes=size, group=self._groups[group], stream=self._streams[group]
        )
        return self._append(row, {i for i in after if i >= 0})

    def _pass_on(self, operation: Operation, deps: Sequence[int]) -> int:
        """A step round a communicator's ring: to the next member, from the one before."""
        group, tag = self._groups[operation.group], len(self._rows)
        ring = {"bytes": operation.bytes, "group": group, "tag": tag, "peer_kind": _IN_GROUP}
        sent = self._append(self._row(SEND, operation.name, peer=1, **ring), {i for i in deps if i >= 0})
        return self._append(self._row(RECEIVE, operation.name, peer=-1, **ring), (sent,))

    def _send(self, stage: int, tag: int) -> int:
        return self._append(
            (SEND, self._names["send"], -1, -1, self._message_bytes, -1, self._offset(stage), tag, -1, OFFSET), (self._last,)
        )

    def _receive(self, stage: int, tag: int) -> int:
        return self._append(
            (RECEIVE, self._names["receive"], -1, -1, self._message_bytes, -1, self._offset(stage), tag, -1, OFFSET), ()
        )

    def _offset(self, stage: int) -> int:
        return (stage - self.stage) * self._inner

    def _row(
        self, kind: int, name: str, duration_ps: int = -1, collective: int = -1, bytes: int = -1, group: int = -1,
        peer: int = -1, tag: int = -1, stream: int = -1, peer_kind: int = _RANK,
    ) -> tuple[int, ...]:  # fmt: skip
        """Columns _FILLED of a node."""
        return kind, self._names[name], duration_ps, collective, bytes, group, peer, tag, stream, peer_kind

    def _append(self, row: tuple[int, ...], deps: Collection[int]) -> int:
        # NOTE: the hot path of sweeps: one tuple a node, turned into columns at the end
        self._rows.append(row)
        self._dep.extend(sorted(deps) if len(deps) > 1 else deps)
        self._dep_ptr.append(len(self._dep))
        return len(self._rows) - 1

    def _made(self) -> Program:
        n = len(self._rows)
        given = dict(zip(_FILLED, zip(*self._rows, strict=True), strict=True))
        arrays: dict[str, Any] = {}
        for column in NODE_COLUMNS:
            dtype, missing = COLUMNS[column]
            arrays[column] = np.array(given[column], dtype) if column in given else np.full(n, missing, dtype)
        arrays["id"] = np.arange(n, dtype=np.int64)
        return Program(dep_ptr=np.array(self._dep_ptr, np.int64), dep=np.array(self._dep, np.int32), **arrays)

