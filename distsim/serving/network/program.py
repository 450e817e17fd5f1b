"""An iteration as the ranks of a stage go through it: blocks of computation, communications between them.

It is the operation list of distsim.serving.forward.operations with the kernels between two communications summed up, once
for every attention data parallel lane, so that lanes may have different shapes. Ranks of one tensor parallel group compute the
same and end every collective together: they are in lockstep, and one line stands for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from distsim.serving.deployment import Deployment
from distsim.serving.forward.layers.writer import Rank
from distsim.serving.forward.operations import Kind, after, attention_half, before, captured, kind_of, mlp_half, padded
from distsim.serving.forward.work import NOTHING, Work, work_of
from distsim.serving.iteration import Shape
from distsim.units import PS_PER_S
from distsim.workload.training.operations import Operation


class Operations(Protocol):
    """A provider of iteration times that tells operations, too: distsim.serving.times.model is one."""

    deployment: Deployment
    bucket: int

    def operation(self, one: Operation) -> int:
        """ps on an idle device or idle links."""
        ...


class Talk(NamedTuple):
    """One communication. group: tp, dp, ep or pp. bytes: per-rank input, or the message. closed: ps that software and idle
    links take, by the provider's closed form."""

    operation: str
    bytes: int
    group: str
    closed: int


class Line(NamedTuple):
    """What one lane does in one stage: block, talk, block, talk, ..., block. launching: ps that the host needs to launch all of
    it, from the beginning; 0 where a graph does."""

    blocks: tuple[int, ...]  #: ps
    talks: tuple[Talk, ...]
    launching: int


class Programs:
    """Lines by what is computed and stage, remembered."""

    def __init__(self, times: Operations) -> None:
        self.deployment = times.deployment
        self._times = times
        self._rank = Rank.of(times.deployment)
        self._captured = captured(times.deployment)
        self._known: dict[tuple[tuple[Work, ...], int], tuple[Line, ...]] = {}
        self._talks: dict[tuple[str, int, str], Talk] = {}

    def works(self, shape: Any) -> tuple[Work, ...]:
        """What each lane computes: the key of everything here. A Shape is one of all lanes (see IterationTimes.times), a shape
        with ``lanes`` has one each, None where a lane has nothing to do."""
        lanes: Sequence[Shape | None] | None = getattr(shape, "lanes", None)
        if lanes is None:
            return (self._work(shape),) * self.deployment.dp
        return tuple(NOTHING if lane is None else self._work(lane) for lane in lanes)

    def lines(self, works: tuple[Work, ...], stage: int) -> tuple[Line, ...]:
        """One per lane."""
        found = self._known.get((works, stage))
        if found is None:
            made: dict[Work, Line] = {}
            for work in works:
                if work not in made:
                    made[work] = self._line(work, works, stage)
            found = self._known[works, stage] = tuple(made[work] for work in works)
        return found

    def _work(self, shape: Shape) -> Work:
        return padded(work_of(shape, self._times.bucket, self._captured))

    def _line(self, work: Work, works: tuple[Work, ...], stage: int) -> Line:
        """As ModelTimes sums it: experts and dense layers see the rows of the fullest lane, and the tokens of all."""
        rank, deployment = self._rank, self.deployment
        rows, everyone = max(one.rows for one in works), sum(one.rows for one in works)
        halves: dict[Kind, list[Operation]] = {}
        parts = [before(rank, rows, stage)]
        for layer in deployment.layers_of(stage):
            kind = kind_of(rank, layer)
            if kind not in halves:
                sparse, window = kind
                halves[kind] = attention_half(rank, work, window) if work.rows else []
                halves[kind] += mlp_half(rank, rows, everyone, sparse)
            parts.append(halves[kind])
        parts.append(after(rank, work, stage))
        software = deployment.software
        sequences = max(one.sequences + len(one.prompts) for one in works)
        host = round((software.host + software.host_sequence * sequences) * PS_PER_S)
        blocks, talks, launches = [host], list[Talk](), 0
        summed: dict[int, tuple[list[int], list[Talk], int]] = {}
        for part in parts:
            if id(part) not in summed:
                summed[id(part)] = self._sum(part)
            own, said, launched = summed[id(part)]
            blocks[-1] += own[0]
            blocks += own[1:]
            talks += said
            launches += launched
        graph = all(one.graph for one in works)
        launching = 0 if graph else round(launches * software.launch * PS_PER_S) + host
        return Line(tuple(blocks), tuple(talks), launching)

    def _sum(self, operations: list[Operation]) -> tuple[list[int], list[Talk], int]:
        """(ps of blocks, what is between them, launches)."""
        blocks, talks, launches = [0], list[Talk](), 0
        for one in operations:
            launches += one.launches
            if one.kernel is not None:
                blocks[-1] += self._times.operation(one)
                continue
            talk = self._talk(one)
            if talk is not None:
                talks.append(talk)
                blocks.append(0)
        return blocks, talks, launches

    def _talk(self, one: Operation) -> Talk | None:
        """None where a communicator has one rank or nothing is sent."""
        deployment = self.deployment
        ranks = {
            "tp": deployment.tp, "dp": deployment.dp, "ep": deployment.tp * deployment.dp, "pp": deployment.pp,
        }[one.group]  # fmt: skip
        if ranks == 1 or one.bytes <= 0:
            return None
        key = (one.operation, one.bytes, one.group)
        found = self._talks.get(key)
        if found is None:
            found = self._talks[key] = Talk(*key, self._times.operation(one))
        return found

