"""Replay of a trace by representatives: the tasks of one rank per class, the load of all."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distsim.engine.executor import Executor
from distsim.engine.folded import FoldedCollective, FoldedMessage, FoldedWay
from distsim.engine.loads import factor
from distsim.engine.task import CollectiveCall, Kind, MessageCall
from distsim.errors import TraceError
from distsim.network.coflow import Coflow
from distsim.topology.graph import Topology
from distsim.trace.graph import NodeType, TaskGraph
from distsim.workload.fold import Fold, fold
from distsim.workload.images import MESSAGE, Images, images, operation_of, role
from distsim.workload.instances import Instances, Ints, Peers, Ways, instances, peers
from distsim.workload.replay import CostProvider, Replay
from distsim.workload.rows import unique_rows


class _Meeting(NamedTuple):
    """What collectives of a class of instances have in common."""

    members: tuple[int, ...]  #: representatives
    size: int
    instances: int
    label: str
    images: dict[tuple[str, int], int]  #: role -> class of images


class Folded:
    """A trace on a topology, folded: classes, and the coflows of their communication.

    Args:
        hosts: host of each rank.
        contention: False: no communication slows another.
        nccl: ask NCCL's model where it knows the topology's GPUs.
        folding: False: every rank is a class of its own.

    Raises: TraceError, CollectiveError, ConfigError, TopologyError.
    """

    def __init__(
        self, graph: TaskGraph, topology: Topology, hosts: Ints, *, contention: bool = True, nccl: bool = True,
        folding: bool = True,
    ) -> None:  # fmt: skip
        self.graph, self.topology = graph, topology
        self.groups: Instances = instances(graph)
        self.peers: Peers = peers(graph, self.groups)
        self.images: Images = images(graph, topology, hosts, self.groups, self.peers, contention=contention, nccl=nccl)
        self.fold: Fold = fold(graph, self.groups, self.peers, self.images, folding=folding)
        self.links = len(self.fold.link_first)  #: classes of links that can be full
        self.moved = [0] * len(self.fold.image_first)  #: see FoldedCommunication
        self._instances = np.bincount(self.fold.instance_class, minlength=len(self.fold.instance_first))
        self._coefficients = self._of_classes()
        self._met: dict[int, _Meeting] = {}
        self._coflows: dict[tuple[int, str, int], Coflow] = {}
        self._sends, self._receives = (self._of_representatives(way) for way in (self.peers.sends, self.peers.receives))

    def _of_classes(self) -> list[tuple[tuple[int, int], ...]]:
        """Per image class: (link class, sum of the coefficients of all its images on one such link)."""
        found: list[list[tuple[int, int]]] = [[] for _ in self.fold.image_first]
        mine = np.isin(self.images.link, self.fold.link_first)
        link = self.fold.link_class[self.images.link[mine]]
        owner = self.fold.image_class[self.images.image[mine]]
        key, which = np.unique(link * len(found) + owner, return_inverse=True)
        total = np.zeros(len(key), np.int64)
        np.add.at(total, which.ravel(), self.images.coefficient[mine])
        for one, weight in zip(key.tolist(), total.tolist(), strict=True):
            found[one % len(found)].append((one // len(found), weight))
        return [tuple(rows) for rows in found]

    def _of_representatives(self, way: Ways) -> dict[tuple[int, int], int]:
        """(representative, other rank) -> row."""
        mine = np.flatnonzero(np.isin(way.rank, self.fold.representative))
        return dict(zip(zip(way.rank[mine].tolist(), way.peer[mine].tolist(), strict=True), mine.tolist(), strict=True))

    def coflow(self, image_class: int, operation: str, size: int) -> Coflow:
        """What all images of a class do together."""
        key = (image_class, operation, size)
        found = self._coflows.get(key)
        if found is None:
            timing = self.images.timings[int(self.images.timing[self.fold.image_first[image_class]])]
            alone, rate = timing.alone(operation, size, self.images.shift)
            unit = 30 - self.images.shift  # a whole link is 2^70: see network/coflow.py
            rows = self._coefficients[image_class] if rate else ()
            found = self._coflows[key] = Coflow(alone, tuple((link, weight * rate << unit) for link, weight in rows))
        return found

    def collective(
        self, rank: int, group: int, number: int, operation: str, size: int, root: int, *, paced: Fraction | None = None
    ) -> FoldedCollective:
        """The part of a representative in the ``number``-th collective of its communicator."""
        kind = self.instance_class(rank, group)
        met = self._met.get(kind)
        if met is None:
            met = self._met[kind] = self._meeting(kind)
        moved, coflow, whole = -1, None, 0
        if met.size > 1:
            which = role(operation, root)
            if which not in met.images:
                image = int(self.images.collective[(group, *which)][self.fold.instance_first[kind]])
                met.images[which] = int(self.fold.image_class[image])
            moved, whole = met.images[which], factor(operation, size, met.size)
            coflow = self.coflow(moved, operation, size)
        return FoldedCollective(
            (kind, number), operation, size, met.members, met.label, root, met.size, met.instances, coflow, moved, whole, paced
        )

    def instance_class(self, rank: int, group: int) -> int:
        """Class of a rank's instance of a communicator."""
        return int(self.fold.instance_class[self.groups.of[group][rank]])

    def _meeting(self, kind: int) -> _Meeting:
        first = int(self.fold.instance_first[kind])
        ranks, group = np.array(self.groups.ranks(first)), int(self.groups.group[first])
        members = tuple(self.fold.representative[np.unique(self.fold.rank_class[ranks])].tolist())
        label = self.graph.groups[group].name if group >= 0 else ""
        return _Meeting(members, len(ranks), int(self._instances[kind]), label, {})

    def send(self, rank: int, peer: int, size: int) -> FoldedWay:
        """Sends of a representative."""
        at = self._sends[rank, peer]
        kind = int(self.fold.image_class[self.images.message[at]])
        channel = (int(self.fold.rank_class[rank]), int(self.peers.sends.slot[at]))
        return FoldedWay(channel, rank, peer, size, self.coflow(kind, MESSAGE, size), kind, 2 * size)

    def receive(self, rank: int, peer: int, size: int) -> FoldedWay:
        """Receives of a representative."""
        partner = int(self.peers.receives.partner[self._receives[rank, peer]])
        # nobody sends: a channel of its own, on which the receive waits for ever
        channel = (int(self.fold.rank_class[peer]), partner) if partner >= 0 else (-1 - rank, peer)
        return FoldedWay(channel, peer, rank, size, None)

    def usage(self) -> tuple[Ints, Ints]:
        """(bytes, busy ps) of every link, by what has been moved so far."""
        found = self.images
        size = np.array([one.members for one in found.timings], np.float64)[found.timing] if len(found) else np.zeros(0)
        total = np.array(self.moved, np.float64)[self.fold.image_class] / size
        carried = np.bincount(found.link, found.share * total[found.image], self.topology.links)
        busy = carried * 1e12 / np.where(self.topology.link_bandwidth > 0, self.topology.link_bandwidth, np.inf)
        return np.rint(carried).astype(np.int64), np.rint(busy).astype(np.int64)


class FoldedReplay(Replay):
    """A workload: one rank of each class, on its own device; see Replay for streams and order.

    Args:
        interference: name of a communicator ("" is all ranks) -> how many times as long computation on a device takes while one
            of its collectives runs there. Names of communicators that the trace has none of have no effect.
    """

    def __init__(self, folded: Folded, cost: CostProvider, interference: Mapping[str, Fraction] | None = None) -> None:
        super().__init__(folded.graph, cost, ranks=folded.fold.representative.tolist())
        self._folded = folded
        names = ["", *(group.name for group in folded.graph.groups)]
        none = Fraction(1)
        factors = {number - 1: (interference or {}).get(name, none) for number, name in enumerate(names)}
        self._factors = {group: factor for group, factor in factors.items() if factor != none}

    def _streams(self, executor: Executor, rank: int, order: Ints) -> NDArray[np.int32]:
        """As Replay's; those that compute are slowed beside communication."""
        found = super()._streams(executor, rank, order)
        if self._factors:
            program = self.graph.program(rank)
            computes = ((program.type == NodeType.COMP) & ~program.cpu)[order]
            executor.slow_beside(np.unique(found[computes]).tolist(), set(self._factors.values()))
        return found

    def _calls(
        self, rank: int, order: NDArray[np.int64], kind: NDArray[np.int8], calls: list[CollectiveCall | MessageCall],
        shared: dict[tuple[object, ...], int],
    ) -> NDArray[np.int32]:  # fmt: skip
        """As Replay's, between classes."""
        folded, program = self._folded, self.graph.program(rank)
        found = np.full(len(order), -1, dtype=np.int32)
        rows = np.flatnonzero(kind == Kind.COLLECTIVE)
        picked = order[rows]
        columns = (program.collective, program.bytes, program.group, program.root)
        count: dict[int, int] = {}
        classes: dict[int, int] = {}
        for row, at, coll, size, group, root in zip(
            rows.tolist(), picked.tolist(), *(column[picked].tolist() for column in columns), strict=True
        ):
            size = max(size, 0)
            if coll < 0:
                raise TraceError(
                    f"node {int(program.id[at])} is a collective of no known type", where=f"{self.graph.source}: rank {rank}"
                )
            number = count.get(group, 0)
            count[group] = number + 1
            if group not in classes:
                classes[group] = folded.instance_class(rank, group)
            key = (group, classes[group], number, coll, size, root)
            if key not in shared:
                shared[key] = len(calls)
                calls.append(folded.collective(  # type: ignore[arg-type]
                    rank, group, number, operation_of(coll), size, max(root, 0), paced=self._factors.get(group)
                ))  # fmt: skip
            found[row] = shared[key]
        self._messages(rank, order, kind, calls, found)
        return found

    def _messages(
        self, rank: int, order: Ints, kind: NDArray[np.int8], calls: list[CollectiveCall | MessageCall],
        found: NDArray[np.int32],
    ) -> None:  # fmt: skip
        """The calls of sends and receives."""
        folded, program = self._folded, self.graph.program(rank)
        rows = np.flatnonzero((kind == Kind.SEND) | (kind == Kind.RECEIVE))
        if not len(rows):
            return
        picked = order[rows]
        by_place = np.argsort(picked)
        peer = np.empty(len(rows), np.int64)
        peer[by_place] = self._peers(rank, picked[by_place])
        sends = kind[rows] == Kind.SEND
        tag = program.tag[picked].astype(np.int64)
        distinct, _, which = unique_rows(sends, peer, np.maximum(program.bytes[picked], 0), np.where(tag == -1, 0, tag))
        found[rows] = which + len(calls)
        ways: dict[tuple[int, int, int], FoldedWay] = {}
        for sent, other, size, label in distinct.tolist():
            way = ways.get((sent, other, size))
            if way is None:
                way = ways[sent, other, size] = (folded.send if sent else folded.receive)(rank, other, size)
            calls.append(FoldedMessage(way, label))  # type: ignore[arg-type]
