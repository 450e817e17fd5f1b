"""Images: every collective of every instance and every message of every rank, as loads on the links of a topology.

An *image* is one pattern (ring, exchange, star) of one instance of a communicator, or the messages of one rank to one other.
Its sizes and operations differ, its links do not. For each link that it crosses, an image has a coefficient: ps that the link
needs for one byte of the operation's factor (engine/loads.py), in 2^-``shift``, so that a coflow of ``rate`` bytes/ps (in
2^-40) takes ``coefficient * rate`` of a link. Coefficients are integers and add up.

What it takes alone, on idle links, is NCCL's closed form where the topology says which GPUs its hosts are, else latencies and
bytes over the narrowest link.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distsim.engine.loads import GATHER, SCATTER, edges, factor, pattern_of, steps
from distsim.errors import TopologyError, UnknownNameError
from distsim.nccl.model import plan
from distsim.nccl.selection import OPERATIONS as NCCL_OPERATIONS
from distsim.nccl.system import System, box_of_hosts, system_of_topology, traits_of_hosts
from distsim.topology.equal_cost import mix
from distsim.topology.graph import Topology
from distsim.topology.routing import ragged
from distsim.trace.graph import CollectiveType, NodeType, Program, TaskGraph
from distsim.workload.instances import Instances, Ints, Peers
from distsim.workload.rows import unique_rows

MESSAGE = "send_recv"
RATE_BITS = 40
#: an image that crosses more links than this is not asked which of them are dominated
_COMPARED = 64


class Use(NamedTuple):
    """What a program does over and over: an operation of a size, on a stream."""

    operation: str
    bytes: int  #: per-rank input
    stream: int  #: of the trace; -1: by node type


class Timing(NamedTuple):
    """What decides how long an image takes alone: NCCL's system (None: it has none), and the narrowest and longest way."""

    system: System | None
    members: int
    narrowest: int  #: largest coefficient
    latency: int  #: ps, of the longest way

    def alone(self, operation: str, size: int, shift: int) -> tuple[int, int]:
        """(ps on idle links, rate in bytes of the factor per ps, in 2^-RATE_BITS). Raises CollectiveError as NCCL's plan."""
        n = self.members
        whole = size * n if operation == MESSAGE else factor(operation, size, n)
        if self.system is not None and operation in NCCL_OPERATIONS:
            ps = plan(operation, size * n if operation == "all_gather" else size, self.system).time_ps
        else:
            hops = 1 if operation == MESSAGE else steps(operation, n)
            ps = -(-whole * self.narrowest // (n << shift)) + hops * self.latency
        rate = (whole << RATE_BITS) // (n * ps) if ps else 0
        if self.narrowest:  # a closed form with a better idea of the links than their bandwidth rules
            rate = min(rate, (1 << shift + RATE_BITS) // self.narrowest)
        return ps, rate


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """All images, in columns.

    Attributes:
        collective: (group, pattern, root) -> image of every instance (-1: none).
        message: image of every row of ``Peers.sends``.
        timing: index into ``timings`` of each image.
        taken: index into ``answers`` of each image: all that its uses take alone.
        image, link, coefficient: crossings, ascending by image.
        share: bytes that cross per byte of the factor.
        shift: bits of the coefficients.
        full: links that can be full, and full before any other that all they carry crosses: only they decide speeds.
        notes: what was taken for granted.
    """

    collective: dict[tuple[int, str, int], Ints]
    message: Ints
    timing: Ints
    timings: tuple[Timing, ...]
    taken: Ints
    image: Ints
    link: Ints
    coefficient: Ints
    share: NDArray[np.float64]
    shift: int
    full: NDArray[np.bool_]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.timing)


def role(operation: str, root: int) -> tuple[str, int]:
    """(pattern, root that matters)."""
    pattern = pattern_of(operation)
    return pattern, root if pattern in (GATHER, SCATTER) else 0


def operation_of(number: int) -> str:
    """distsim's name of a collective type."""
    return CollectiveType(number).name.lower().removesuffix("_block")


def images(
    graph: TaskGraph, topology: Topology, hosts: Ints, groups: Instances, ways: Peers, *, contention: bool, nccl: bool
) -> Images:
    """All images of a trace on a topology; rank r sits on ``hosts[r]``. contention: False: no link is ever full."""
    node = box_of_hosts(topology)
    made = _Made()
    uses: list[list[Use]] = []
    collective: dict[tuple[int, str, int], Ints] = {}
    for number in np.unique(graph.rank_program).tolist():
        ranks = np.flatnonzero(graph.rank_program == number)
        for (group, pattern, root), found in _collectives(graph.programs[number]).items():
            own = collective.setdefault((group, pattern, root), np.full(len(groups), -1, np.int64))
            wanted = np.unique(groups.of[group][ranks])
            wanted = wanted[groups.size[wanted] > 1]
            new = wanted[own[wanted] < 0]
            for n in np.unique(groups.size[new]).tolist():
                some = new[groups.size[new] == n]
                placed = hosts[groups.members[groups.ptr[some][:, None] + np.arange(n)]]
                laid = edges(pattern, placed, node, root)
                own[some] = made.add(placed, laid.instance, laid.src, laid.dst, laid.share)
            made.used(own[wanted], np.full(len(wanted), len(uses)))
            uses.append(found)
    sends = ways.sends
    placed = np.stack([hosts[sends.rank], hosts[sends.peer]], axis=1)
    message = made.add(placed, np.arange(len(placed)), placed[:, 0], placed[:, 1], np.ones(len(placed)))
    row, expression = sends.raw
    said: dict[int, int] = {}
    for number in np.unique(graph.rank_program).tolist():
        for e, found in _messages(graph.programs[number], ways.expression[number]).items():
            said[e] = len(uses)
            uses.append(found)
    if said:
        known = np.full(max(said) + 1, -1, np.int64)
        known[list(said)] = list(said.values())
        made.used(message[row], known[expression])
    return made.on(topology, node, uses, collective, message, contention=contention, nccl=nccl)


def _collectives(program: Program) -> dict[tuple[int, str, int], list[Use]]:
    """(group, pattern, root) -> distinct uses."""
    rows = np.flatnonzero((program.type == NodeType.COMM_COLL) & (program.collective >= 0))
    columns = (program.group, program.collective, program.bytes, np.maximum(program.root, 0), program.stream)
    table = unique_rows(*(column[rows] for column in columns))[0]
    found: dict[tuple[int, str, int], list[Use]] = {}
    for group, kind, size, root, stream in table.tolist():
        operation = operation_of(kind)
        found.setdefault((group, *role(operation, root)), []).append(Use(operation, max(size, 0), stream))
    return found


def _messages(program: Program, expression: Ints) -> dict[int, list[Use]]:
    """Expression -> distinct uses by sends."""
    rows = np.flatnonzero(program.type == NodeType.COMM_SEND)
    table = unique_rows(expression[rows], program.bytes[rows], program.stream[rows])[0]
    found: dict[int, list[Use]] = {}
    for e, size, stream in table.tolist():
        found.setdefault(e, []).append(Use(MESSAGE, max(size, 0), stream))
    return found


class _Made:
    """Images while they are being made: their edges, members and uses."""

    def __init__(self) -> None:
        self._count = 0
        self._edges: list[tuple[Ints, Ints, Ints, NDArray[np.float64]]] = []
        self._members: list[tuple[Ints, NDArray[np.int64]]] = []  # images, hosts (images, members)
        self._uses: list[tuple[Ints, Ints]] = []

    def add(self, placed: Ints, instance: Ints, src: NDArray[Any], dst: NDArray[Any], share: NDArray[np.float64]) -> Ints:
        """Images of instances of one size; returns their numbers."""
        numbers = self._count + np.arange(len(placed))
        self._count += len(placed)
        self._edges.append((instance + (self._count - len(placed)), np.asarray(src), np.asarray(dst), share))
        self._members.append((numbers, placed))
        return numbers

    def used(self, image: Ints, use: Ints) -> None:
        """These images do what these entries of the list of uses say."""
        self._uses.append((image, use))

    def on(
        self, topology: Topology, node: Ints, uses: list[list[Use]], collective: dict[tuple[int, str, int], Ints],
        message: Ints, *, contention: bool, nccl: bool,
    ) -> Images:  # fmt: skip
        """Everything, on the links."""
        image, link, coefficient, share, shift, latency = self._crossings(topology)
        narrowest = np.zeros(self._count, np.int64)
        np.maximum.at(narrowest, image, coefficient)
        size = np.zeros(self._count, np.int64)
        for numbers, placed in self._members:
            size[numbers] = placed.shape[1]
        systems, notes = self._systems(topology, node) if nccl else ([], ())
        system = np.full(self._count, -1, np.int64)
        for number, (numbers, _) in enumerate(systems):
            system[numbers] = number
        table, _, timing = unique_rows(system, size, narrowest, latency)
        timings = tuple(
            Timing(systems[s][1] if s >= 0 else None, n, narrow, late) for s, n, narrow, late in table.tolist()
        )  # fmt: skip
        taken, most = self._answers(timing, timings, uses, message, shift)
        full = np.zeros(topology.links, dtype=bool)
        if contention:
            asked = np.bincount(link, coefficient.astype(np.float64) * most[image], topology.links)
            full = asked > float(1 << shift + RATE_BITS) * (1 + 1e-9)
            full[_dominated(image, link, coefficient, full)] = False
        return Images(collective, message, timing, timings, taken, image, link, coefficient, share, shift, full, notes)

    def _crossings(self, topology: Topology) -> tuple[Ints, Ints, Ints, NDArray[np.float64], int, Ints]:
        columns: list[NDArray[Any]] = [np.concatenate(column) for column in zip(*self._edges, strict=True)]
        owner, src, dst, share = columns
        src, dst = src.astype(np.int32), dst.astype(np.int32)
        lane = None
        lanes = topology.lanes(src, dst)
        if (lanes > 1).any():
            row, which = ragged(lanes)
            owner, src, dst, share, lane = owner[row], src[row], dst[row], share[row] / lanes[row], which.astype(np.int32)
        offsets, links = topology.paths(src, dst, lane)
        if len(links) and not topology.link_bandwidth[links].all():
            raise TopologyError(
                f"{topology.link_name(int(links[topology.link_bandwidth[links] == 0][0]))} is down, and a route crosses it",
                where=topology.spec, fix="Coflows have no events of links: take --network fluid.",
            )  # fmt: skip
        edge, _ = ragged(np.diff(offsets))
        latency = np.zeros(self._count, np.int64)
        taken = np.zeros(len(src), np.int64)
        np.add.at(taken, edge, topology.link_latency[links])
        np.maximum.at(latency, owner, taken)
        key, inverse = np.unique(owner[edge] * topology.links + links, return_inverse=True)
        total: NDArray[np.float64] = np.bincount(inverse.ravel(), share[edge], len(key)).astype(np.float64)
        image, link = (key // topology.links).astype(np.int64), (key % topology.links).astype(np.int64)
        per_byte = total * 1e12 / topology.link_bandwidth[link]
        # NOTE: sums over all images of a link must stay below 2^62
        most = float(np.bincount(link, per_byte, topology.links).max(initial=0.0)) if len(link) else 0.0
        shift = min(30, 61 - math.frexp(most)[1]) if most > 0 else 30
        return image, link, np.ceil(per_byte * float(1 << shift)).astype(np.int64), total, shift, latency

    def _systems(self, topology: Topology, node: Ints) -> tuple[list[tuple[Ints, System]], tuple[str, ...]]:
        """NCCL's systems, and the images that have them. Members count, not their order."""
        if not topology.devices:
            return [], ()
        trait = mix(traits_of_hosts(topology).astype(np.uint64) + np.uint64(1))
        found: list[tuple[Ints, System]] = []
        known: dict[System, int] = {}
        notes: dict[str, None] = {}
        for numbers, placed in self._members:
            if not len(numbers):
                continue
            n = placed.shape[1]
            key = (np.arange(len(numbers))[:, None] * len(node) + node[placed]).ravel()
            boxes, box = np.unique(key, return_inverse=True)
            inside = np.zeros(len(boxes), np.uint64)
            np.add.at(inside, box.ravel(), trait[placed].ravel())
            whole = np.zeros(len(numbers), np.uint64)
            np.add.at(whole, boxes // len(node), mix(inside))
            for at in np.unique(whole, return_index=True)[1].tolist():
                mine = numbers[whole == whole[at]]
                if n == 2 and placed[at, 0] == placed[at, 1]:
                    continue  # a message to itself
                try:
                    system = system_of_topology(topology, placed[at].tolist())
                except (UnknownNameError, TopologyError) as error:
                    notes[f"communication is timed by links alone, not by NCCL's model: {error.what}"] = None
                    continue
                if system not in known:
                    known[system] = len(found)
                    found.append((mine, system))
                else:
                    number = known[system]
                    found[number] = (np.concatenate([found[number][0], mine]), system)
        return found, tuple(notes)

    def _answers(
        self, timing: Ints, timings: tuple[Timing, ...], uses: list[list[Use]], message: Ints, shift: int
    ) -> tuple[Ints, NDArray[np.float64]]:
        """Per image: a number for all that its uses take alone, and the largest rate that it can have at any instant."""
        most = np.zeros(self._count)
        taken = np.zeros(self._count, np.int64)
        if not self._uses:
            return taken, most
        image, use = (np.concatenate(column) for column in zip(*self._uses, strict=True))
        pairs = unique_rows(image, use)[0]
        image, use = pairs[:, 0], pairs[:, 1]
        together = np.zeros(self._count, np.uint64)
        np.add.at(together, image, mix(use.astype(np.uint64) + np.uint64(1)))
        is_message = np.zeros(self._count, dtype=bool)
        is_message[message] = True
        _, at, which = unique_rows(timing, together.view(np.int64), is_message)
        numbers: dict[tuple[tuple[str, int, int, int], ...], int] = {}
        number_of, most_of = [], []
        begin = np.searchsorted(image, np.arange(self._count + 1))
        for one in at.tolist():
            sums = []
            every: set[tuple[str, int, int, int]] = set()
            for mine in use[begin[one] : begin[one + 1]].tolist():
                by_stream: dict[int, int] = {}
                for operation, size, stream in uses[mine]:
                    ps, rate = timings[int(timing[one])].alone(operation, size, shift)
                    every.add((operation, size, ps, rate))
                    by_stream[stream] = max(by_stream.get(stream, 0), rate)
                sums.append(sum(by_stream.values()))
            number_of.append(numbers.setdefault(tuple(sorted(every)), len(numbers)))
            most_of.append(float(sum(sums) if is_message[one] else max(sums, default=0)))
        return np.array(number_of, np.int64)[which], np.array(most_of)[which]


def _dominated(image: Ints, link: Ints, coefficient: Ints, full: NDArray[np.bool_]) -> Ints:
    """Of the links that can be full, those that never are before another one is: it carries all that they carry, each image
    at the same coefficient or a larger one. Of equals the lowest stays."""
    kept = np.flatnonzero(full[link])
    image, link, coefficient = image[kept], link[kept], coefficient[kept]
    if not len(kept):
        return kept
    count = len(full)
    degree = np.bincount(image)
    crossing = image * count + link  # ascending
    # what a link is compared with: the other links of that of its images which crosses the fewest
    order = np.lexsort((image, degree[image], link))
    links, first, carried = np.unique(link[order], return_index=True, return_counts=True)
    narrow = image[order[first]]
    few = degree[narrow] <= _COMPARED
    begin = np.searchsorted(image, narrow[few])
    row, step = ragged(degree[narrow[few]])
    mine, other = np.flatnonzero(few)[row], link[begin[row] + step]
    mine, other = mine[other != links[mine]], other[other != links[mine]]
    enough = carried[np.searchsorted(links, other)] >= carried[mine]
    mine, other = mine[enough], other[enough]
    pair, step = ragged(carried[mine])
    at = order[first[mine[pair]] + step]
    wanted = image[at] * count + other[pair]
    found = np.minimum(np.searchsorted(crossing, wanted), len(crossing) - 1)
    there = crossing[found] == wanted
    covers = np.ones(len(mine), dtype=bool)
    np.logical_and.at(covers, pair, there & (coefficient[found] >= coefficient[at]))
    equal = carried[np.searchsorted(links, other)] == carried[mine]
    np.logical_and.at(equal, pair, there & (coefficient[found] == coefficient[at]))
    return np.asarray(links[mine[covers & (~equal | (other < links[mine]))]], np.int64)
