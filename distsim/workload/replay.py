"""Replay: a trace becomes tasks, all handed to the executor at the start.

Streams of a rank, where the trace names none: ``compute`` and ``host`` for computation, ``copy`` for memory nodes, one per
communicator for collectives (as NCCL has them), one per peer for sends. A receive holds no stream. Communicators, and streams
that the trace names, are in order, as on a GPU; the others take the first of the nodes that are ready, since a trace of
dependencies alone does not tell an order.
Collectives of one communicator are matched in program order, the k-th of one rank with the k-th of every other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from distsim.engine.executor import Executor
from distsim.engine.task import CollectiveCall, Kind, MessageCall, Tasks
from distsim.errors import TraceError
from distsim.trace.graph import CollectiveType, NodeType, Program, TaskGraph
from distsim.trace.order import program_order
from distsim.workload.rows import unique_rows


class CostProvider(Protocol):
    """The role ``cost``: durations in ps of the rows of a program."""

    def durations(self, program: Program, where: str) -> NDArray[np.int64]: ...


class Replay:
    """A workload: every rank of a trace on its own device."""

    def __init__(
        self, graph: TaskGraph, cost: CostProvider, *, device_offset: int = 0, ranks: Sequence[int] | None = None,
        recorded: bool = False,
    ) -> None:  # fmt: skip
        """
        Args:
            device_offset: device of rank 0 (a workload beside another takes devices of its own).
            ranks: only these, ascending (workload/folded.py); default: all.
            recorded: a collective that has a recorded duration takes that, from when its last member has come; the network
                is not asked.
        """
        self.graph = graph
        self.ranks: Sequence[int] = range(graph.ranks) if ranks is None else ranks
        self.first_task = 0  #: set by start()
        self._cost = cost
        self._recorded = recorded
        self._offset = device_offset
        self._order: dict[int, NDArray[np.int64]] = {}
        self._static: dict[
            int, tuple[NDArray[np.int64], NDArray[np.int8], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
        ] = {}
        self.durations = np.zeros(0, dtype=np.int64)  #: ps of every task
        self.rank_start = np.zeros(graph.ranks + 1, dtype=np.int64)  #: first task of each rank, relative to first_task
        self._rings: dict[tuple[int, ...], int] = {}

    def rows(self, rank: int) -> NDArray[np.int64]:
        """Row of the rank's program that each of its tasks is, in task order."""
        return self._order[int(self.graph.rank_program[rank])]

    def start(self, executor: Executor) -> None:
        """Submit everything. Raises TraceError, CollectiveError."""
        graph = self.graph
        sizes = np.zeros(graph.ranks, dtype=np.int64)
        sizes[self.ranks] = [len(graph.program(r)) for r in self.ranks]
        self.rank_start = np.concatenate(([0], np.cumsum(sizes)))
        calls: list[CollectiveCall | MessageCall] = []
        shared: dict[tuple[object, ...], int] = {}
        kinds, streams, durations, call_rows, pointers, deps = [], [], [], [], [np.zeros(1, dtype=np.int64)], []
        edges = 0
        for rank in self.ranks:
            number = int(graph.rank_program[rank])
            if number not in self._static:
                self._static[number] = self._lower(number, rank)
                self._order[number] = self._static[number][0]
            order, kind, duration, dep_ptr, dep = self._static[number]
            kinds.append(kind)
            durations.append(duration)
            streams.append(self._streams(executor, rank, order))
            call_rows.append(self._calls(rank, order, kind, calls, shared))
            pointers.append(dep_ptr[1:] + edges)
            deps.append(dep + self.rank_start[rank])
            edges += len(dep)
        self.durations = np.concatenate(durations) if durations else self.durations
        tasks = Tasks(
            kind=np.concatenate(kinds), stream=np.concatenate(streams), duration=self.durations, call=np.concatenate(call_rows),
            dep_ptr=np.concatenate(pointers), dep=np.concatenate(deps), calls=tuple(calls),
        )  # fmt: skip
        self.first_task = executor.submit(tasks)

    def _lower(self, number: int, rank: int):  # type: ignore[no-untyped-def]
        """(order, kind, duration, dep_ptr, dep) of a program, rows in program order."""
        program = self.graph.programs[number]
        where = f"{self.graph.source}: rank {rank}"
        order = np.asarray(program_order(program), dtype=np.int64)
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        of_type = np.full(len(NodeType), Kind.INSTANT, dtype=np.int8)
        of_type[[NodeType.COMP, NodeType.MEM_LOAD, NodeType.MEM_STORE]] = Kind.TIMED
        of_type[NodeType.COMM_COLL], of_type[NodeType.COMM_SEND], of_type[NodeType.COMM_RECV] = (
            Kind.COLLECTIVE,
            Kind.SEND,
            Kind.RECEIVE,
        )
        degree = np.diff(program.dep_ptr)[order]
        dep_ptr = np.concatenate(([0], np.cumsum(degree)))
        if np.array_equal(order, np.arange(len(order))):
            dep = program.dep.astype(np.int64)
        else:
            take = np.repeat(program.dep_ptr[order] - dep_ptr[:-1], degree) + np.arange(dep_ptr[-1])
            dep = place[program.dep[take]]
        kind = of_type[program.type]
        kind[program.type == NodeType.DELAY] = Kind.DELAY
        kind[(program.type == NodeType.DELAY) & (program.stream >= 0)] = Kind.TIMED
        return order, kind[order], self._cost.durations(program, where)[order], dep_ptr, dep

    def _streams(self, executor: Executor, rank: int, order: NDArray[np.int64]) -> NDArray[np.int32]:
        """Stream of each task."""
        graph, program = self.graph, self.graph.program(rank)
        device = rank + self._offset
        kind = program.type
        # one small key per row, then one look-up per distinct key
        key = np.full(len(kind), -1, dtype=np.int64)
        comp = kind == NodeType.COMP
        key[comp & ~program.cpu], key[comp & program.cpu] = 0, 1
        key[(kind == NodeType.MEM_LOAD) | (kind == NodeType.MEM_STORE)] = 2
        coll = kind == NodeType.COMM_COLL
        key[(kind == NodeType.DELAY) & (program.stream >= 0)] = 0
        key[coll] = 10 + 2 * (program.group[coll].astype(np.int64) + 1)
        send = np.flatnonzero(kind == NodeType.COMM_SEND)
        key[send] = 11 + 2 * self._peers(rank, send)
        named = (program.stream >= 0) & (key >= 0)
        key[named] = -2 - program.stream[named].astype(np.int64)
        unique, inverse = np.unique(key, return_inverse=True)
        ids = []
        for k in unique.tolist():
            if k == -1:
                ids.append(-1)
                continue
            if k < -1:
                name = graph.streams[-2 - k]
            elif k < 3:
                name = ("compute", "host", "copy")[k]
            elif k % 2:
                name = f"send to {(k - 11) // 2}"
            else:
                group = (k - 10) // 2 - 1
                name = f"comm {graph.groups[group].name}" if group >= 0 else "comm"
            ids.append(executor.stream(device, name, in_order=k < -1 or (k >= 10 and k % 2 == 0)))
        return np.array(ids, dtype=np.int32)[inverse.ravel()][order]

    def _peers(self, rank: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Other side of each of these sends and receives; TraceError as TaskGraph.peer."""
        program = self.graph.program(rank)
        _, first, which = unique_rows(program.peer_kind[rows], program.peer[rows], program.group[rows])
        peers = np.empty(len(first), np.int64)
        for number in np.argsort(first).tolist():  # what is wrong is told of the first row
            peers[number] = self.graph.peer(rank, int(rows[first[number]]))
        return peers[which]

    def _calls(
        self, rank: int, order: NDArray[np.int64], kind: NDArray[np.int8], calls: list[CollectiveCall | MessageCall],
        shared: dict[tuple[object, ...], int],
    ) -> NDArray[np.int32]:  # fmt: skip
        """Index into ``calls`` of each task; members of one collective share one entry where they agree."""
        graph, program = self.graph, self.graph.program(rank)
        found = np.full(len(order), -1, dtype=np.int32)
        rows = np.flatnonzero((kind == Kind.COLLECTIVE) | (kind == Kind.SEND) | (kind == Kind.RECEIVE))
        if not len(rows):
            return found
        picked = order[rows]
        columns = zip(
            rows.tolist(), picked.tolist(), kind[rows].tolist(),
            *(column[picked].tolist() for column in (
                program.collective, program.bytes, program.group, program.root, program.dims, program.tag, program.duration_ps
            )), strict=True,
        )  # fmt: skip
        count: dict[int, int] = {}
        members_of: dict[int, tuple[tuple[int, ...], int]] = {}
        for row, at, what, coll, size, group, root, dims, tag, took in columns:
            if what == Kind.COLLECTIVE:
                if group not in members_of:
                    ring = tuple(m + self._offset for m in graph.members(rank, group))
                    members_of[group] = ring, self._rings.setdefault(ring, len(self._rings))
                members, ring_number = members_of[group]
                number = count.get(group, 0)
                count[group] = number + 1
                transfer = took if self._recorded else -1
                key: tuple[object, ...] = (group, ring_number, number, coll, size, root, dims, transfer)
                index = shared.get(key)
                if index is None:
                    if coll < 0:
                        raise TraceError(
                            f"node {int(program.id[at])} is a collective of no known type", where=f"{graph.source}: rank {rank}"
                        )
                    operation = CollectiveType(coll).name.lower().removesuffix("_block")
                    label = graph.groups[group].name if group >= 0 else ""
                    call = CollectiveCall(
                        ((self._offset, group, members[0]), number), operation, max(size, 0), members, max(root, 0), dims,
                        label, transfer_ps=transfer,
                    )  # fmt: skip
                    index = shared[key] = len(calls)
                    calls.append(call)
            else:
                peer = graph.peer(rank, at) + self._offset
                mine = rank + self._offset
                src, dst = (mine, peer) if what == Kind.SEND else (peer, mine)
                key = (src, dst, tag, size)
                index = shared.get(key)
                if index is None:
                    index = shared[key] = len(calls)
                    calls.append(MessageCall(src, dst, 0 if tag == -1 else tag, max(size, 0)))
            found[row] = index
        return found
