"""A replica's iterations as task graphs on the executor: they meet other traffic on the links, as they do in a real cluster.

A stage is one graph: per lane a chain of blocks of computation and communications (program.py), joined at its end.
A communication whose links nobody else uses takes as long as it takes alone, and is not sent (the static form of a lease, see
docs/serving_engine.md); the others are collectives and messages of the engine, on the simulated network. Software that is
slower than the transfers (launches, protocols, as the provider's closed form has them) is waited for after them.

A stage takes its next batch when the last one has left it, its messages to the next stage delivered: so live iterations on idle
links take exactly what :class:`Alone` says of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

from distsim.engine.communication import Communication
from distsim.engine.executor import Executor
from distsim.engine.placement import CollectiveOptions, Placer
from distsim.engine.task import MessageCall, Tasks
from distsim.kernel.clock import END_OF_TIME, Clock
from distsim.network.spec import build_network
from distsim.record import Recorder
from distsim.serving.forward.work import Work
from distsim.serving.iteration import Shape
from distsim.serving.lanes import GroupShape
from distsim.serving.network.program import Line, Programs, Talk
from distsim.serving.network.stage_graph import Ranks, StageGraphs
from distsim.topology.graph import Topology

#: ps that a scratch run is given at first, and ps at which the scratch engine of Alone is replaced by a new one
_SCRATCH_RUN, _SCRATCH_END = 1 << 36, 1 << 46


class Engine:
    """Clock, network, communication and executor of one run, wired."""

    def __init__(
        self, topology: Topology, hosts: Sequence[int], level: str, options: CollectiveOptions | None = None,
        clock: Clock | None = None,
    ) -> None:  # fmt: skip
        """hosts: of each device. level: of the network, see distsim.network.spec. Raises ConfigError, UnknownNameError."""
        self.topology, self.hosts, self.level = topology, tuple(hosts), level
        self.clock = clock or Clock()
        self.recorder = Recorder()
        self.network = build_network(level, topology)
        placer = Placer(topology, self.hosts, getattr(self.network, "stores", 0.0))
        self.communication = Communication(self.clock, self.network, placer, options or CollectiveOptions(), self.recorder)
        self.executor = Executor(self.clock, self.communication, self.recorder)


class Alone:
    """What a replica's communications and stages take on idle links, by running them alone on the network level; remembered."""

    def __init__(self, topology: Topology, hosts: Sequence[int], level: str, programs: Programs, algorithm: str) -> None:
        """hosts: of the replica's ranks."""
        self._topology, self._hosts, self._level = topology, tuple(hosts), level
        self._programs, self._algorithm = programs, algorithm
        self._ranks = Ranks(programs.deployment)
        self._engine: Engine | None = None
        self._free = 0  #: ps from which on the scratch engine may be used
        self._talks: dict[tuple[Talk, int], tuple[int, ...]] = {}
        self._stages: dict[tuple[tuple[Work, ...], int], int] = {}

    def talk(self, talk: Talk, stage: int) -> tuple[int, ...]:
        """ps until each lane may go on, all starting at once."""
        found = self._talks.get((talk, stage))
        if found is None:
            lanes = self._programs.deployment.dp
            line = Line((0, 0), (talk._replace(closed=0),), 0)
            found = self._talks[talk, stage] = self._run(stage, [line] * lanes, {talk.group})
        return found

    def stage(self, works: tuple[Work, ...], stage: int) -> int:
        """ps of a stage that computes ``works``: what its graph takes alone, found without running it, since lanes that do not
        meet on a link (see distsim.serving.network.footprint) do not slow each other."""
        found = self._stages.get((works, stage))
        if found is None:
            lines = self._programs.lines(works, stage)
            found = self._stages[works, stage] = longest(lines, lambda talk: self.talk(talk, stage))
        return found

    def _run(self, stage: int, lines: Sequence[Line], sent: Collection[str]) -> tuple[int, ...]:
        """When each lane's part of a graph ends, run alone."""
        if self._engine is None or self._free > _SCRATCH_END:
            self._engine, self._free = Engine(self._topology, self._hosts, self._level), 0
        executor, clock = self._engine.executor, self._engine.clock
        graphs = StageGraphs(self._ranks, stage, executor, self._algorithm, sent, lambda talk: (0,) * len(lines))
        tasks = graphs.tasks(lines)
        begin, ends = self._free, [0] * len(lines)
        owners = [_lane_of(tasks, row, self._ranks, stage) for row in range(len(tasks))]
        first = len(self._engine.recorder.ready)

        def ended(task: int) -> None:
            for lane in owners[task - first]:
                ends[lane] = max(ends[lane], clock.now - begin)

        # NOTE: a clock that has run dry has taken its network to the end of time; one that stops has taken it as far
        clock.call_at(begin, lambda _: _submit(executor, tasks, ended))
        span = _SCRATCH_RUN
        clock.run(until=begin + span)
        while executor.unfinished:
            if begin + 8 * span > END_OF_TIME:
                clock.run()
                executor.check_finished()
            span *= 8
            clock.run(until=begin + span)
        self._free = begin + span
        return tuple(ends)


def _submit(executor: Executor, tasks: Tasks, ended: Callable[[int], None]) -> None:
    executor.submit(tasks, ended)


def _lane_of(tasks: Tasks, row: int, ranks: Ranks, stage: int) -> list[int]:
    """Lanes that wait for a communicating row."""
    number = int(tasks.call[row])
    if number < 0:
        return []
    call = tasks.calls[number]
    devices = (call.src,) if isinstance(call, MessageCall) else call.members
    return [lane for lane in range(ranks.deployment.dp) if set(ranks.lane(stage, lane)) & set(devices)]


def longest(lines: Sequence[Line], alone: Callable[[Talk], Sequence[int]]) -> int:
    """ps of a stage's graph on idle links: the longest way through it."""
    now = [line.blocks[0] for line in lines]
    at = [0] * len(lines)
    while any(at[lane] < len(line.talks) for lane, line in enumerate(lines)):
        for lane, line in enumerate(lines):
            while at[lane] < len(line.talks) and (len(lines) == 1 or line.talks[at[lane]].group in ("tp", "pp")):
                talk = line.talks[at[lane]]
                at[lane] += 1
                now[lane] += max(talk.closed, alone(talk)[lane]) + line.blocks[at[lane]]
        if any(at[lane] < len(line.talks) for lane, line in enumerate(lines)):
            talk, met = lines[0].talks[at[0]], max(now)
            for lane, line in enumerate(lines):
                at[lane] += 1
                now[lane] = met + max(talk.closed, alone(talk)[lane]) + line.blocks[at[lane]]
    return max(*now, *(line.launching for line in lines))


class LevelTimes:
    """The role ``iteration``: durations on the idle links of a network level, in place of closed forms of collectives."""

    def __init__(self, times: Any, programs: Programs, alone: Alone) -> None:
        """times: the provider that tells operations, and for how long durations hold."""
        self.stages: int = times.stages
        self._times, self._programs, self._alone = times, programs, alone

    def times(self, shape: Any) -> tuple[int, ...]:
        """See IterationTimes.times."""
        works = self._programs.works(shape)
        return tuple(self._alone.stage(works, stage) for stage in range(self.stages))

    def steady(self, sequences: int, kv: int, longest: int) -> tuple[int, int]:
        """See IterationTimes.steady."""
        _, count = self._times.steady(sequences, kv, longest)
        return sum(self.times(Shape((), sequences, kv, longest, sequences))), count

    def group_times(self, shapes: Sequence[Shape | None]) -> tuple[int, ...]:
        """ps of each stage where lanes have different shapes (see distsim.serving.lanes)."""
        return self.times(GroupShape(tuple(shapes)))

    def group_steady(self, lanes: Sequence[tuple[int, int, int] | None]) -> tuple[int, int]:
        """As ``steady``, of lanes: (sequences, kv, longest) of each, None where it has nothing to do."""
        _, count = self._times.group_steady(lanes)
        shapes = [None if one is None else Shape((), one[0], one[1], one[2], one[0]) for one in lanes]
        return sum(self.group_times(shapes)), count


class _Flight:
    """A batch on its way through the stages."""

    __slots__ = ("busy", "done", "shape", "speed", "works")

    def __init__(self, shape: Any, works: tuple[Work, ...], speed: float, done: Callable[[int], None]) -> None:
        self.shape, self.works, self.speed, self.done = shape, works, speed, done
        self.busy = 0


class LiveIterations:
    """Runs the iterations of one replica on an executor (the runner of a Replica)."""

    def __init__(
        self, engine: Engine, ranks: Ranks, programs: Programs, alone: Alone, algorithm: str,
        sent: Sequence[Collection[str]], name: str,
    ) -> None:  # fmt: skip
        """sent: of every stage, the communicators whose traffic goes over the network."""
        self._executor, self._clock = engine.executor, engine.clock
        self._programs = programs
        stages = programs.deployment.pp

        def waits(stage: int) -> Callable[[Talk], Sequence[int]]:
            return lambda talk: alone.talk(talk, stage)

        self._graphs = [
            StageGraphs(ranks, stage, engine.executor, algorithm, sent[stage], waits(stage), name) for stage in range(stages)
        ]
        self._queues: list[deque[_Flight]] = [deque() for _ in range(stages)]
        self._busy = [False] * stages
        self._known: dict[tuple[tuple[Work, ...], int, float], Tasks] = {}

    def run(self, shape: Any, speed: float, done: Callable[[int], None]) -> None:
        """Start an iteration as soon as the first stage is free. done: told, at its end, the ps that the first stage took."""
        self._queues[0].append(_Flight(shape, self._programs.works(shape), speed, done))
        self._next(0)

    def _next(self, stage: int) -> None:
        """Let a stage take its next batch, if it can."""
        queue = self._queues[stage]
        if self._busy[stage] or not queue:
            return
        flight = queue.popleft()
        self._busy[stage] = True
        key = (flight.works, stage, flight.speed)
        tasks = self._known.get(key)
        if tasks is None:
            lines = self._programs.lines(flight.works, stage)
            tasks = self._known[key] = self._graphs[stage].tasks(lines, flight.speed)
        left, begin = len(tasks), self._clock.now

        def ended(_: int) -> None:
            nonlocal left
            left -= 1
            if not left:
                self._leave(stage, flight, begin)

        self._executor.submit(tasks, ended)

    def _leave(self, stage: int, flight: _Flight, begin: int) -> None:
        """A batch leaves a stage."""
        self._busy[stage] = False
        if stage == 0:
            flight.busy = self._clock.now - begin
        if stage + 1 < len(self._queues):
            self._queues[stage + 1].append(flight)
            self._next(stage + 1)
        else:
            flight.done(flight.busy)
        self._next(stage)
