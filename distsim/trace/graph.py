"""The trace in memory: columns, one row per node, programs shared by the ranks that run them (SPMD).

A :class:`TaskGraph` is what every reader makes and every engine run starts from. It knows nothing of streams, time or
networks. Node and collective types carry Chakra's own numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from distsim.errors import TraceError

#: name of the DELAY that a rank begins with whose capture began after that of the first
BEFORE_CAPTURE = "before the capture"


class NodeType(IntEnum):
    """Chakra's NodeType; DELAY is distsim's own."""

    INVALID = 0
    METADATA = 1
    MEM_LOAD = 2
    MEM_STORE = 3
    COMP = 4
    COMM_SEND = 5
    COMM_RECV = 6
    COMM_COLL = 7
    DELAY = 8  #: takes its duration on its stream; without a stream, beside anything else: a latency


class CollectiveType(IntEnum):
    """Chakra's CollectiveCommType; the lower-case names are distsim's operations."""

    ALL_REDUCE = 0
    REDUCE = 1
    ALL_GATHER = 2
    GATHER = 3
    SCATTER = 4
    BROADCAST = 5
    ALL_TO_ALL = 6
    REDUCE_SCATTER = 7
    REDUCE_SCATTER_BLOCK = 8
    BARRIER = 9


class PeerKind(IntEnum):
    """How ``Program.peer`` names the other side of a send or receive."""

    RANK = 0  #: a rank number
    OFFSET = 1  #: this rank + peer
    IN_GROUP = 2  #: (this rank's index in the node's group + peer) modulo the group's size


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """The nodes that one rank, or each of several ranks, runs. All columns have one entry per node (n in all).

    Missing values: -1 in integer columns. Dependencies are rows of this program (not ids), data before control.
    """

    id: NDArray[np.int64]  #: node id as in the file
    type: NDArray[np.int8]  #: NodeType
    dep_ptr: NDArray[np.int64]  #: n + 1 offsets into ``dep``
    dep: NDArray[np.int32]  #: rows that must finish before this one starts
    name: NDArray[np.int32]  #: index into TaskGraph.names
    duration_ps: NDArray[np.int64]  #: recorded duration; -1 where none was recorded
    start_ps: NDArray[np.int64]  #: recorded start; -1 where none
    num_ops: NDArray[np.int64]  #: floating-point operations
    tensor_size: NDArray[np.int64]  #: bytes of memory traffic of a compute or memory node
    cpu: NDArray[np.bool_]  #: runs on the host
    collective: NDArray[np.int8]  #: CollectiveType of a COMM_COLL node, else -1
    bytes: NDArray[np.int64]  #: communication bytes: the per-rank input of a collective, the message of a send or receive
    group: NDArray[np.int32]  #: index into TaskGraph.groups; -1 = all ranks
    peer: NDArray[np.int32]  #: other side of a send or receive, by ``peer_kind``
    peer_kind: NDArray[np.int8]  #: PeerKind
    tag: NDArray[np.int64]  #: message tag
    priority: NDArray[np.int32]  #: collective priority
    root: NDArray[np.int32]  #: root of a rooted collective, as index in its group (0 where not said)
    dims: NDArray[np.int32]  #: bit d set: topology dimension d takes part; -1 = all
    stream: NDArray[np.int32]  #: index into TaskGraph.streams; -1 = by node type
    step: NDArray[np.int32] | None = None  #: index into TaskGraph.steps, -1 for none; None: the trace tells no steps

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True, slots=True)
class Group:
    """A communicator by name: for every rank that is in it, the ordered ranks of its instance.

    ``members`` maps a rank to a tuple of ranks; ranks of one instance share one tuple. A relative group ("8 ranks with
    stride 1") has many instances, one absolute group has one. Where a reader has folded groups of several names into one
    (ranks that differ in nothing but the name of their group), ``aliases`` keeps each rank's own name for it.
    """

    name: str
    members: Mapping[int, tuple[int, ...]]
    aliases: Mapping[int, str] = field(default_factory=dict)

    def label(self, rank: int) -> str:
        """The name that ``rank`` knows the group by."""
        return self.aliases.get(rank, self.name)


@dataclass(frozen=True, slots=True, eq=False)
class TaskGraph:
    """A whole trace: ``programs[rank_program[r]]`` is what rank r runs."""

    programs: tuple[Program, ...]
    rank_program: NDArray[np.int32]
    groups: tuple[Group, ...] = ()
    names: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    source: str = ""  #: file or prefix, for messages
    defects: tuple[str, ...] = ()  #: what was found while reading: repaired, or odd but no obstacle to a replay
    metadata: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[str, ...] = ()  #: names of the iterations that a captured trace holds
    captured: bool = False  #: recorded on a real system: collectives have their recorded transfer as duration

    @property
    def ranks(self) -> int:
        """Number of ranks."""
        return len(self.rank_program)

    @property
    def nodes(self) -> int:
        """Nodes over all ranks."""
        sizes = np.array([len(p) for p in self.programs], dtype=np.int64)
        return int(sizes[self.rank_program].sum()) if len(sizes) else 0

    def program(self, rank: int) -> Program:
        """What rank runs."""
        return self.programs[int(self.rank_program[rank])]

    def members(self, rank: int, group: int) -> tuple[int, ...]:
        """Ordered ranks of the instance of ``group`` that holds ``rank`` (-1: all ranks). TraceError where it is in none."""
        if group < 0:
            return tuple(range(self.ranks))
        members = self.groups[group].members.get(rank)
        if members is None:
            raise TraceError(
                f"rank {rank} uses communicator group {self.groups[group].label(rank)!r} but is not a member of it",
                where=self.source,
                fix="Add the rank to the group, or give the groups file (--groups).",
            )
        return members

    def peer(self, rank: int, row: int) -> int:
        """The other rank of a send or receive. TraceError where it falls outside the trace."""
        program = self.program(rank)
        peer, kind = int(program.peer[row]), int(program.peer_kind[row])
        if kind == PeerKind.OFFSET:
            peer += rank
        elif kind == PeerKind.IN_GROUP:
            members = self.members(rank, int(program.group[row]))
            peer = members[(members.index(rank) + peer) % len(members)]
        if not 0 <= peer < self.ranks:
            raise TraceError(
                f"names rank {peer} as its peer, but the trace has ranks 0 to {self.ranks - 1}",
                where=f"{self.source}: rank {rank}, node {int(program.id[row])}",
            )
        return peer
