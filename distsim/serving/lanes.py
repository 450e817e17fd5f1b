"""Attention data parallelism: ranks with a scheduler and a KV cache each, whose iterations are one.

Experts are spread over all ranks, so that every layer is a meeting of all: ranks step together, and one that has nothing to do
runs along. Each request lives on one rank, the *lane*, chosen as vLLM does: the least of 4 * waiting + running,
the first among equals.

Source: vLLM documentation, "Data Parallel Deployment" (lockstep with dummy batches; the load is ``waiting * 4 + running``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from distsim.serving.batch import Batch
from distsim.serving.iteration import Shape, attended
from distsim.serving.replica import Replica
from distsim.serving.request import Request
from distsim.serving.scheduler import Scheduler
from distsim.serving.stretch import AHEAD


class GroupShape(NamedTuple):
    """Shapes of the lanes, None where one has nothing to do. What an iteration log tells of a shape is told of all together."""

    lanes: tuple[Shape | None, ...]

    @property
    def prefills(self) -> tuple[tuple[int, int], ...]:
        """See Shape."""
        return tuple(pair for lane in self.lanes if lane is not None for pair in lane.prefills)

    @property
    def sequences(self) -> int:
        """See Shape."""
        return sum(lane.sequences for lane in self.lanes if lane is not None)

    @property
    def kv(self) -> int:
        """See Shape."""
        return sum(lane.kv for lane in self.lanes if lane is not None)

    @property
    def prompt_tokens(self) -> int:
        """See Shape."""
        return sum(new for new, _ in self.prefills)

    @property
    def attended(self) -> int:
        """See Shape."""
        return attended(self.prefills)

    @property
    def tokens(self) -> int:
        """See Shape."""
        return sum(lane.tokens for lane in self.lanes if lane is not None)


class _Together:
    """Those that generate on all lanes, counted as a Cohort counts."""

    def __init__(self, lanes: Sequence[Batch | None]) -> None:
        self._cohorts = [lane.decodes for lane in lanes if lane is not None and lane.decodes is not None]

    @property
    def members(self) -> list[Request]:
        """See Cohort."""
        return [request for cohort in self._cohorts for request in cohort.members]

    @property
    def kv(self) -> int:
        """See Cohort."""
        return sum(cohort.kv for cohort in self._cohorts)

    def grown(self, count: int) -> int:
        """See Cohort."""
        return sum(cohort.grown(count) for cohort in self._cohorts)


class GroupBatch:
    """Batches of the lanes, None where one has nothing to do."""

    __slots__ = ("decodes", "lanes")

    def __init__(self, lanes: list[Batch | None]) -> None:
        self.lanes = lanes
        self.decodes = _Together(lanes)

    @property
    def wait(self) -> int:
        """See Batch: all wait for the last."""
        return max(lane.wait for lane in self.lanes if lane is not None)

    @property
    def behind(self) -> int:
        """See Batch."""
        return max(lane.behind for lane in self.lanes if lane is not None)

    @property
    def prefills(self) -> list[tuple[Request, int]]:
        """Of all lanes."""
        return [pair for lane in self.lanes if lane is not None for pair in lane.prefills]

    def shape(self) -> GroupShape:
        """Before the iteration."""
        return GroupShape(tuple(None if lane is None else lane.shape() for lane in self.lanes))

    @property
    def requests(self) -> list[Request]:
        """All of them."""
        return [request for lane in self.lanes if lane is not None for request in lane.requests]


class LaneBlocks:
    """The KV caches of all lanes as one, for those who look at a replica from outside."""

    def __init__(self, lanes: Sequence[Scheduler]) -> None:
        self._lanes = lanes
        self.block = lanes[0].kv.block
        self.shares = lanes[0].kv.shares

    @property
    def total(self) -> int:
        """Blocks."""
        return sum(lane.kv.total for lane in self._lanes)

    @property
    def free(self) -> int:
        """Blocks."""
        return sum(lane.kv.free for lane in self._lanes)

    @property
    def used(self) -> int:
        """Blocks that requests hold."""
        return sum(lane.kv.used for lane in self._lanes)

    @property
    def lookups(self) -> int:
        """Tokens that were looked for in the prefix caches."""
        return sum(getattr(lane.kv, "lookups", 0) for lane in self._lanes)

    @property
    def hits(self) -> int:
        """Tokens that were found there."""
        return sum(getattr(lane.kv, "hits", 0) for lane in self._lanes)

    def match(self, request: Request) -> int:
        """Tokens that the lane with most of them has of a request."""
        return max(lane.kv.match(request) for lane in self._lanes)

    def release(self, request: Request) -> None:
        """Take back what a request holds, on its lane."""
        self._lanes[request.lane].kv.release(request)


class Lanes(Scheduler):
    """Schedulers that decide together: an iteration is one batch of each."""

    def __init__(self, lanes: Sequence[Scheduler]) -> None:
        """lanes: made alike, one per attention rank."""
        self.lanes = list(lanes)
        self.params = lanes[0].params
        self.stages = lanes[0].stages
        self.kv = LaneBlocks(self.lanes)  # type: ignore[assignment]
        self.preemptions = 0

    @property
    def waiting(self) -> deque[Request]:  # type: ignore[override]
        """A copy of all queues."""
        return deque(request for lane in self.lanes for request in lane.waiting)

    @property
    def landed(self) -> deque[Request]:  # type: ignore[override]
        """A copy of all queues of those that came with keys and values."""
        return deque(request for lane in self.lanes for request in lane.landed)

    @property
    def swapped(self) -> deque[Request]:  # type: ignore[override]
        """A copy of all queues of those whose keys and values are in the host's memory."""
        return deque(request for lane in self.lanes for request in lane.swapped)

    @property
    def seated(self) -> int:  # type: ignore[override]
        """Requests admitted on any lane."""
        return sum(lane.seated for lane in self.lanes)

    @property
    def fetch(self) -> Callable[[Request], None] | None:
        """See Scheduler.fetch: one for all lanes."""
        return self.lanes[0].fetch

    @fetch.setter
    def fetch(self, fetch: Callable[[Request], None] | None) -> None:
        for lane in self.lanes:
            lane.fetch = fetch

    def next_batch(self) -> Batch | None:
        """One batch of each lane; None if none has anything to compute."""
        batches = [lane.next_batch() for lane in self.lanes]
        for lane, batch in zip(self.lanes, batches, strict=True):
            if lane.transfers is not None and batch is not None:
                lane.transfers.charge(batch)
        self._count()
        return None if all(batch is None for batch in batches) else GroupBatch(batches)  # type: ignore[return-value]

    def steady(self, batch: Batch) -> int:
        """While every lane is steady; one that does nothing stays so until somebody arrives."""
        assert isinstance(batch, GroupBatch)
        pairs = zip(self.lanes, batch.lanes, strict=True)
        return min(lane.steady(one) for lane, one in pairs if one is not None)

    def extend(self, batch: Batch, count: int) -> None:
        """See Scheduler.extend."""
        assert isinstance(batch, GroupBatch)
        for lane, one in zip(self.lanes, batch.lanes, strict=True):
            if one is not None:
                lane.extend(one, count)

    def finish(self, batch: Batch, count: int, now: int) -> list[Request]:
        """See Scheduler.finish."""
        assert isinstance(batch, GroupBatch)
        done = []
        for lane, one in zip(self.lanes, batch.lanes, strict=True):
            if one is not None:
                done += lane.finish(one, count, now)
        self._count()
        return done

    def enqueue(self, request: Request) -> None:
        """To the lane with the least to do."""
        loads = [4 * (len(lane.waiting) + len(lane.landed)) + lane.seated for lane in self.lanes]
        request.lane = loads.index(min(loads))
        self.lanes[request.lane].enqueue(request)

    def heeds(self, request: Request) -> bool:
        """See Scheduler.heeds."""
        return self.lanes[request.lane].heeds(request)

    def refusal(self, request: Request) -> str:
        """Lanes are alike."""
        return self.lanes[0].refusal(request)

    def withdraw(self, request: Request) -> bool:
        """See Scheduler.withdraw."""
        return self.lanes[request.lane].withdraw(request)

    def progress(self, batch: Batch, count: int) -> None:
        """See Scheduler.progress."""
        assert isinstance(batch, GroupBatch)
        for lane, one in zip(self.lanes, batch.lanes, strict=True):
            if one is not None:
                lane.progress(one, count)

    def abort(self, request: Request) -> bool:
        """See Scheduler.abort."""
        return self.lanes[request.lane].abort(request)

    @property
    def unread(self) -> int:
        """See Scheduler.unread."""
        return sum(lane.unread for lane in self.lanes)

    def fetched(self, request: Request) -> None:
        """See Scheduler.fetched."""
        self.lanes[request.lane].fetched(request)

    def vacate(self, request: Request) -> None:
        """See Scheduler.vacate."""
        self.lanes[request.lane].vacate(request)

    def _count(self) -> None:
        """Preemptions of all lanes."""
        self.preemptions = sum(lane.preemptions for lane in self.lanes)


class LaneTimes(Protocol):
    """Iteration times that know lanes: a pure function of all their shapes (None: nothing to do)."""

    stages: int

    def group_times(self, shapes: Sequence[Shape | None]) -> tuple[int, ...]:
        """See IterationTimes.times."""
        ...

    def group_steady(self, lanes: Sequence[tuple[int, int, int] | None]) -> tuple[int, int]:
        """See IterationTimes.steady; of each lane (sequences, kv, longest)."""
        ...


class GroupTimes:
    """Iteration times of lanes that step together: what IterationTimes is to other replicas."""

    def __init__(self, times: LaneTimes) -> None:
        self.stages = times.stages
        self._times = times

    def times(self, shape: GroupShape) -> tuple[int, ...]:
        """See IterationTimes.times."""
        return self._times.group_times(shape.lanes)

    def steady(self, lanes: Sequence[tuple[int, int, int] | None]) -> tuple[int, int]:
        """See IterationTimes.steady; of each lane (sequences, kv, longest), None where it has nothing to do."""
        return self._times.group_steady(lanes)


class LockstepReplica(Replica):
    """A replica whose scheduler is :class:`Lanes` and whose times are :class:`GroupTimes`."""

    def _runs(self, batch: Batch, most: int) -> list[tuple[int, int, int, int]]:
        """See Replica: every lane grows by itself."""
        assert isinstance(batch, GroupBatch)
        assert isinstance(self.times, GroupTimes)
        lanes: list[tuple[int, int, int] | None] = []
        for one in batch.lanes:
            decodes = None if one is None else one.decodes
            lanes.append(None if decodes is None else (len(decodes.members), decodes.kv, decodes.longest))
        at, done = self._env._now, 0
        runs: list[tuple[int, int, int, int]] = []
        while done < most and len(runs) < AHEAD:
            ps, count = self.times.steady(lanes)
            ps, count = round(ps * self.speed), min(count, most - done)
            runs.append((done, at, ps, count))
            at += ps * count
            done += count
            lanes = [None if lane is None else (lane[0], lane[1] + lane[0] * count, lane[2] + count) for lane in lanes]
        return runs
