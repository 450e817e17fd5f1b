"""The task graph of one stage of an iteration: chains of computation and communications, one per lane, joined at their end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np

from distsim.engine.executor import Executor
from distsim.engine.task import CollectiveCall, Kind, MessageCall, Tasks
from distsim.serving.deployment import Deployment
from distsim.serving.network.program import Line, Talk


class Ranks:
    """Devices of a replica: tensor parallel ranks are neighbours, then lanes (data parallel), then stages, from first on."""

    def __init__(self, deployment: Deployment, first: int = 0) -> None:
        self.deployment, self.first = deployment, first
        self._inner = deployment.tp * deployment.dp

    def stage(self, stage: int) -> range:
        """All of a stage."""
        start = self.first + stage * self._inner
        return range(start, start + self._inner)

    def lane(self, stage: int, lane: int) -> range:
        """The tensor parallel group of a lane."""
        start = self.first + stage * self._inner + lane * self.deployment.tp
        return range(start, start + self.deployment.tp)

    def groups(self, stage: int, group: str) -> list[tuple[int, ...]]:
        """Instances of a communicator in a stage; of ``pp`` the pairs (rank, its next)."""
        one = self.deployment
        if group == "tp":
            return [tuple(self.lane(stage, lane)) for lane in range(one.dp)]
        if group == "dp":
            return [tuple(self.stage(stage)[at :: one.tp]) for at in range(one.tp)]
        if group == "ep":
            return [tuple(self.stage(stage))]
        return [(rank, rank + self._inner) for rank in self.stage(stage)] if stage + 1 < one.pp else []


class _Columns:
    """Rows of Tasks, one by one."""

    def __init__(self) -> None:
        self.kind: list[int] = []
        self.stream: list[int] = []
        self.duration: list[int] = []
        self.call: list[int] = []
        self.degree: list[int] = [0]
        self.dep: list[int] = []
        self.calls: list[CollectiveCall | MessageCall] = []

    def add(
        self, kind: Kind, deps: Collection[int], stream: int = -1, duration: int = 0,
        call: CollectiveCall | MessageCall | None = None,
    ) -> int:  # fmt: skip
        """The new row."""
        self.kind.append(int(kind))
        self.stream.append(stream)
        self.duration.append(duration)
        self.call.append(-1 if call is None else len(self.calls))
        if call is not None:
            self.calls.append(call)
        self.dep.extend(deps)
        self.degree.append(len(self.dep))
        return len(self.kind) - 1

    def tasks(self) -> Tasks:
        return Tasks(
            np.array(self.kind, np.int8), np.array(self.stream, np.int32), np.array(self.duration, np.int64),
            np.array(self.call, np.int32), np.array(self.degree, np.int64), np.array(self.dep, np.int32), tuple(self.calls),
        )  # fmt: skip


class StageGraphs:
    """Writes the graphs of one stage of a replica for an executor."""

    def __init__(
        self, ranks: Ranks, stage: int, executor: Executor, algorithm: str, sent: Collection[str],
        alone: Callable[[Talk], Sequence[int]], name: str = "",
    ) -> None:  # fmt: skip
        """algorithm: of collectives ("": the run's options). sent: communicators whose traffic goes over the network. alone: ps
        that each lane waits for a communication on idle links."""
        self._ranks, self._stage = ranks, stage
        self._executor = executor
        self._algorithm = algorithm
        self._sent = frozenset(sent)
        self._alone = alone
        self._name = name
        lanes = range(ranks.deployment.dp)
        self._leaders = tuple(ranks.lane(stage, lane)[0] for lane in lanes)
        self._compute = [executor.stream(leader, "compute") for leader in self._leaders]
        self._host = [executor.stream(leader, "host") for leader in self._leaders]

    def tasks(self, lines: Sequence[Line], speed: float = 1.0) -> Tasks:
        """The graph; its last row ends when all is done. speed: computation takes so many times as long."""
        rows = _Columns()
        ends: list[list[int]] = [[] for _ in lines]
        left = [line.blocks[0] for line in lines]  # ps of computation and waiting before the next communication
        at = [0] * len(lines)  # communications behind each lane

        def flush(lane: int) -> None:
            ps = left[lane] if speed == 1.0 else round(left[lane] * speed)
            if ps:
                ends[lane] = [rows.add(Kind.TIMED, ends[lane], self._compute[lane], ps)]
            left[lane] = 0

        for lane, line in enumerate(lines):
            if line.launching:
                rows.add(Kind.TIMED, (), self._host[lane], round(line.launching * speed))
        while any(at[lane] < len(line.talks) for lane, line in enumerate(lines)):
            for lane, line in enumerate(lines):  # up to the next meeting of all lanes
                while at[lane] < len(line.talks) and (len(lines) == 1 or line.talks[at[lane]].group in ("tp", "pp")):
                    talk = line.talks[at[lane]]
                    at[lane] += 1
                    if talk.group in self._sent:
                        flush(lane)
                        ends[lane] = self._send(rows, talk, lane, ends[lane], at[lane])
                        left[lane] += max(0, talk.closed - self._alone(talk)[lane])
                    else:
                        left[lane] += max(talk.closed, self._alone(talk)[lane])
                    left[lane] += line.blocks[at[lane]]
            if any(at[lane] < len(line.talks) for lane, line in enumerate(lines)):
                self._meet(rows, lines, at, left, ends, flush)
        for lane in range(len(lines)):
            flush(lane)
        # NOTE: what the host launches is no dependency of anything but the end
        hosts = [row for row, stream in enumerate(rows.stream) if stream in self._host]
        rows.add(Kind.INSTANT, [*hosts, *(end for lane in ends for end in lane)])
        return rows.tasks()

    def _meet(
        self, rows: _Columns, lines: Sequence[Line], at: list[int], left: list[int], ends: list[list[int]],
        flush: Callable[[int], None],
    ) -> None:  # fmt: skip
        """A communication of all lanes; those that have ended (their stage does no more) wait for nobody."""
        talk = lines[0].talks[at[0]]
        alone = self._alone(talk)
        for lane in range(len(lines)):
            flush(lane)
        if talk.group in self._sent:
            found = []
            for number, group in enumerate(self._ranks.groups(self._stage, talk.group)):
                key = ((self._name, self._stage, talk.group, number), at[0])
                call = CollectiveCall(
                    key, talk.operation, talk.bytes, self._leaders, label=f"{self._name} {talk.group}", ranks=group,
                    algorithm=self._algorithm,
                )  # fmt: skip
                for lane, leader in enumerate(self._leaders):
                    stream = self._executor.stream(leader, f"{talk.group} {number}")
                    found.append(rows.add(Kind.COLLECTIVE, ends[lane], stream, call=call))
        else:
            found = [rows.add(Kind.INSTANT, [end for lane in ends for end in lane])]
        for lane, line in enumerate(lines):
            wait = max(talk.closed, alone[lane])
            left[lane] = wait if talk.group not in self._sent else max(0, talk.closed - alone[lane])
            ends[lane] = list(found)
            at[lane] += 1
            left[lane] += line.blocks[at[lane]]

    def _send(self, rows: _Columns, talk: Talk, lane: int, deps: list[int], place: int) -> list[int]:
        """A communication of one lane, on the network."""
        ranks, stage, executor = self._ranks, self._stage, self._executor
        if talk.group != "pp":
            group = tuple(ranks.lane(stage, lane)) if talk.group == "tp" else ranks.groups(stage, talk.group)[0]
            key = ((self._name, stage, talk.group, lane), place)
            leader = self._leaders[lane]
            call = CollectiveCall(
                key, talk.operation, talk.bytes, (leader,), label=f"{self._name} {talk.group}", ranks=group,
                algorithm=self._algorithm,
            )  # fmt: skip
            return [rows.add(Kind.COLLECTIVE, deps, executor.stream(leader, talk.group), call=call)]
        found = []
        own = ranks.lane(stage, lane)
        for source, target in ranks.groups(stage, "pp"):
            if source in own:
                message = MessageCall(source, target, 0, talk.bytes)
                found.append(rows.add(Kind.SEND, deps, executor.stream(source, f"send to {target}"), call=message))
                found.append(rows.add(Kind.RECEIVE, deps, call=message))
        return found
