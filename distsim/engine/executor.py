"""The executor: dependency counters, streams, meetings of communicating tasks. It knows no trace and no file.

``submit`` may be called at any time: a replay hands over its whole graph at the start, a server adds tasks as it decides.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping
from fractions import Fraction
from heapq import heappop, heappush
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.engine.beside import Beside
from distsim.engine.communication import Communication
from distsim.engine.folded import FoldedCommunication
from distsim.engine.speed import Speed
from distsim.engine.stream import Stream
from distsim.engine.task import Kind, Tasks
from distsim.errors import DeadlockError
from distsim.kernel.clock import Call, Clock
from distsim.record import Recorder

_TIMED, _COLLECTIVE, _SEND, _RECEIVE, _INSTANT, _DELAY = (int(k) for k in Kind)


class Executor:
    """Runs tasks on streams.

    States of a task: waiting (for dependencies) -> ready (for its stream) -> running -> done; recorded when done.
    """

    def __init__(
        self, clock: Clock, communication: Communication | FoldedCommunication, recorder: Recorder,
        speeds: Mapping[int, Speed] | None = None,
    ) -> None:  # fmt: skip
        """speeds: of the devices that do not compute at full speed all the time."""
        self.clock = clock
        self._env = clock.env  # NOTE: its _now spares the hot path a property
        self._speeds = speeds or {}
        self._besides: dict[int, Beside] = {}  # by device
        self.recorder = recorder
        self.unfinished = 0
        self._communication = communication
        communication.on_done(self._communicated)
        self._streams: list[Stream] = []
        self._stream_ids: dict[tuple[int, str], int] = {}
        self._kind = bytearray()
        self._stream = array("i")
        self._waiting = array("i")
        self._child_ptr = array("q", [0])
        self._child = array("q")
        # running totals of durations up to and after each task, begun anew where the stream changes: a run of tasks takes
        # the difference of its last after and its first before
        self._before, self._after = array("q"), array("q")
        self._run_end = array("q")  #: last task of the run that starts here
        # NOTE: the recorder's own columns, written in place: this is the hot path of every task
        self._ready_ps, self._released_by = recorder.ready, recorder.by
        self._loose = bytearray()  #: timed tasks that release nothing and that nobody is told of
        self._calls: dict[int, Any] = {}
        self._hooked: list[int] = []  # first tasks of the batches that have a hook, and (end, hook) of each
        self._hooks: list[tuple[int, Callable[[int], None]]] = []
        self._dirty: list[Stream] = []
        self._chosen = -1  # last instant in which streams have chosen

    def stream(self, device: int, name: str, in_order: bool = False) -> int:
        """Number of the stream of that name on a device, made on first use (in_order: see Stream)."""
        number = self._stream_ids.get((device, name))
        if number is None:
            number = self._stream_ids[device, name] = len(self._streams)
            self._streams.append(Stream(device, name, in_order))
        return number

    def slow_beside(self, streams: Collection[int], factors: Collection[Fraction]) -> None:
        """Timed tasks on these streams take longer while a communication with one of these factors (``paced``) runs on their
        device. To be told before their tasks are submitted: they run one by one."""
        for number in streams:
            device = self._streams[number].device
            one = self._streams[number].beside = self._besides.setdefault(device, Beside(factors))
            one.streams.add(number)

    def beside(self, devices: Collection[int], factor: Fraction, change: int) -> None:
        """So many more communications of this factor run on these devices."""
        now = self._env._now
        for device in devices:
            one = self._besides.get(device)
            if one is not None and one.change(factor, change):
                for number in sorted(one.streams):
                    stream = self._streams[number]
                    if stream.call is not None:
                        stream.call = self.clock.call_at(one.turn(stream, now), self._ran, stream)

    def submit(self, tasks: Tasks, on_done: Callable[[int], None] | None = None) -> int:
        """Add a batch; its rows become tasks ``first, first + 1, ...`` where ``first`` is returned.

        on_done: called with the task number at the end of every task of the batch; it may submit more.
        """
        first, n = len(self._kind), len(tasks)
        degree = np.diff(tasks.dep_ptr)
        self._kind.extend(tasks.kind.astype(np.uint8).tobytes())
        self._stream.frombytes(tasks.stream.astype(np.intc).tobytes())
        self._waiting.frombytes(degree.astype(np.intc).tobytes())
        # children by parent, each parent's in row order
        child = np.repeat(np.arange(n, dtype=np.int64), degree)
        order = np.argsort(tasks.dep, kind="stable") if np.any(tasks.dep[1:] < tasks.dep[:-1]) else slice(None)
        counts = np.bincount(tasks.dep, minlength=n).astype(np.int64)
        offset = self._child_ptr[-1]
        self._child_ptr.frombytes((np.cumsum(counts) + offset).tobytes())
        self._child.frombytes((child[order] + first).tobytes())
        before, after = _totals(tasks)
        self._before.frombytes(before.tobytes())
        self._after.frombytes(after.tobytes())
        steady = self._steady(tasks.stream)
        self._run_end.frombytes((_runs(tasks, degree, counts, steady, merge=on_done is None) + first).tobytes())
        loose = (tasks.kind == Kind.TIMED) & (tasks.duration > 0) & (counts == 0) & (on_done is None) & steady
        self._loose.extend(loose.astype(np.uint8).tobytes())
        calls = np.flatnonzero(tasks.call >= 0)
        for row, number in zip((calls + first).tolist(), tasks.call[calls].tolist(), strict=True):
            self._calls[row] = tasks.calls[number]
        self._line_up(tasks.stream, first)
        self.recorder.grow(n)
        self.unfinished += n
        if on_done is not None:
            self._hooked.append(first)
            self._hooks.append((first + n, on_done))
        for row in np.flatnonzero(degree == 0).tolist():
            self._release(first + row, -1)
        return first

    def _steady(self, streams: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which rows are on devices of one speed; the others run task by task."""
        if not self._speeds and not self._besides:
            return np.ones(len(streams), dtype=np.bool_)
        slowed = {number for one in self._besides.values() for number in one.streams}
        steady = [s.device not in self._speeds and number not in slowed for number, s in enumerate(self._streams)]
        return np.array([*steady, True], dtype=np.bool_)[streams]

    def _line_up(self, streams: Any, first: int) -> None:
        """Queue the tasks of in-order streams in the order of their submission."""
        in_order = np.array([s.order is not None for s in self._streams] + [False], dtype=bool)
        rows = np.flatnonzero(in_order[streams])
        for row, number in zip(rows.tolist(), streams[rows].tolist(), strict=True):
            order = self._streams[number].order
            assert order is not None
            order.append(first + row)

    def stream_names(self, first: int, count: int) -> tuple[Any, tuple[str, ...]]:
        """(index per task, names) of the streams of tasks first .. first+count; tasks that hold none have an empty name."""
        names = ("", *dict.fromkeys(s.name for s in self._streams))
        number = {name: i for i, name in enumerate(names)}
        of_stream = np.array([number[s.name] for s in self._streams] + [0], dtype=np.int32)
        return of_stream[np.array(self._stream[first : first + count], dtype=np.int64)], names

    def check_finished(self) -> None:
        """Raise DeadlockError if tasks wait although nothing can happen any more, or messages were never received."""
        who = self._communication.blame()
        if self.unfinished or who:
            raise DeadlockError(
                (f"{self.unfinished} tasks can never finish" if self.unfinished else "messages are left over")
                + (": " + "; ".join(who[:4]) if who else ""),
                where=f"at {self.clock.now} ps",
                fix="" if len(who) <= 4 else f"{len(who) - 4} more are stuck in the same way.",
            )

    def stop(self) -> None:
        """Record what is running as if it ended now: the run breaks off."""
        now = self.clock.now
        for stream in self._streams:
            if stream.first < 0 or self._kind[stream.first] != _TIMED:
                continue
            shift = self._before[stream.first] - stream.start
            current = min(bisect_right(self._after, now + shift, stream.first, stream.last + 1), stream.last)
            if current > stream.first:
                self.recorder.ran(stream.first, current - 1, stream.start, self._after[current - 1] - shift)
                self.unfinished -= current - stream.first
            self.recorder.ran(current, current, self._before[current] - shift, now)

    # --- releasing and starting -----------------------------------------------------------------------------------------

    def _release(self, task: int, by: int) -> None:
        """Its dependencies are done: queue it, or do it if it needs no stream. ``by``: the last dependency to end."""
        now = self._env._now
        self._ready_ps[task] = now
        self._released_by[task] = by
        kind = self._kind[task]
        if kind == _INSTANT:
            self.recorder.ran(task, task, now, now)
            self._end(task)
        elif kind == _RECEIVE:
            self.recorder.started(task, now)
            self._communication.receive(task, self._calls[task])
        elif kind == _DELAY:
            self.clock.call_at(now + self._after[task] - self._before[task], self._passed, task)
        else:
            stream = self._streams[self._stream[task]]
            heappush(stream.ready, task)
            order = stream.order
            if (stream.first < 0 and (order is None or order[0] == task)) or (order is None and task < stream.last):
                self._touch(stream)

    def _touch(self, stream: Stream) -> None:
        """Let the stream choose at the end of this instant."""
        if not self._dirty:
            self.clock.settle(self._choose)
        self._dirty.append(stream)

    def _choose(self) -> None:
        """End of an instant: every idle stream with ready tasks takes one; runs that must give way are cut."""
        dirty, self._dirty = self._dirty, []
        # what is ready only after tasks of no duration ran in this instant has missed the boundaries that lie in it
        again, self._chosen = self._chosen == self._env._now, self._env._now
        for stream in dirty:
            if stream.first < 0:
                if (
                    stream.ready and (stream.order is None or stream.order[0] == stream.ready[0])
                    and not (self._speeds and self._away(stream))
                ):  # fmt: skip
                    self._start(stream)
            elif stream.order is None and stream.ready and stream.ready[0] < stream.last and stream.first < stream.last:
                self._cut(stream, again)
                if stream.first < 0:
                    self._start(stream)

    def _start(self, stream: Stream) -> None:
        """The stream takes its first ready task, and with it the run that it begins."""
        task = heappop(stream.ready)
        now = self._env._now
        stream.first, stream.start = task, now
        kind = self._kind[task]
        if kind == _TIMED:
            last, ready = self._run_end[task], stream.ready
            if last > task:
                if ready and ready[0] <= last:
                    last = ready[0] - 1  # a ready task goes before the rest of the run
                stream.loose = False
            elif stream.order is None:
                loose = self._loose
                while ready and ready[0] == last + 1 and loose[last] and loose[last + 1]:
                    last = heappop(ready)
                stream.loose = last > task
            stream.last = last
            if stream.order is not None:
                for _ in range(task, last + 1):
                    stream.order.popleft()
            self._schedule(stream)
            return
        if stream.order is not None:
            stream.order.popleft()
        stream.last = task
        self.recorder.started(task, now)
        if kind == _COLLECTIVE:
            self._communication.enter(task, stream.device, self._calls[task])
        else:
            self._communication.send(task, self._calls[task])

    def _away(self, stream: Stream) -> bool:
        """Whether the stream's device is lost; if so, the stream chooses again when another takes over."""
        speed, now = self._speeds.get(stream.device), self.clock.now
        back = now if speed is None else speed.back(now)
        if back > now:
            self.clock.call_at(back, lambda _: self._touch(stream))
        return back > now

    def _schedule(self, stream: Stream) -> None:
        """(Re)schedule the end of the stream's run."""
        end = stream.start + self._after[stream.last] - self._before[stream.first]
        if self._speeds and stream.device in self._speeds:
            end = self._speeds[stream.device].end(stream.start, end - stream.start)
        elif stream.beside is not None:
            end = stream.beside.start(stream, stream.start, end - stream.start)
        stream.call = self.clock.call_at(end, self._ran, stream)

    def _cut(self, stream: Stream, again: bool) -> None:
        """A task that goes before the rest of the run is ready: end the run with the task that is running now."""
        now = self._env._now
        shift = self._before[stream.first] - stream.start  # task k ends at after[k] - shift
        # it ends after now; at the first choice of an instant it may end now, since that was before the choice
        current = bisect_right(self._after, now + shift - (not again), stream.first, stream.last + 1)
        if current >= stream.last:
            return
        if stream.loose:
            for task in range(current + 1, stream.last + 1):
                heappush(stream.ready, task)
        stream.last = current
        if self._after[current] - shift == now:
            self._run_ended(stream)
        else:
            self._schedule(stream)

    # --- ending ---------------------------------------------------------------------------------------------------------

    def _ran(self, call: Call) -> None:
        """A run of timed tasks has ended."""
        stream: Stream = call.subject
        if stream.call is call:  # else the run was cut
            self._run_ended(stream)

    def _passed(self, call: Call) -> None:
        """A delay is over."""
        task: int = call.subject
        self.recorder.ran(task, task, self._ready_ps[task], self._env._now)
        self._end(task)

    def _run_ended(self, stream: Stream) -> None:
        """Record the run, free its stream, release what waited for its last task."""
        self.recorder.ran(stream.first, stream.last, stream.start, self._env._now)
        self.unfinished -= stream.last - stream.first
        last = stream.last
        stream.first = stream.last = -1
        stream.call = None
        if stream.ready:
            self._touch(stream)
        self._end(last)

    def _communicated(self, tasks: list[int]) -> None:
        """Communicating tasks have ended now."""
        now, ended, numbers, kinds = self._env._now, self.recorder.ended, self._stream, self._kind
        for task in tasks:
            ended(task, now)
            number = numbers[task]
            if number >= 0 and kinds[task] != _RECEIVE:
                stream = self._streams[number]
                stream.first = stream.last = -1
                if stream.ready:
                    self._touch(stream)
            self._end(task)

    def _end(self, task: int) -> None:
        """Release what waited for a task."""
        self.unfinished -= 1
        waiting, child = self._waiting, self._child
        pointers = self._child_ptr
        for i in range(pointers[task], pointers[task + 1]):
            released = child[i]
            left = waiting[released] = waiting[released] - 1
            if left == 0:
                self._release(released, task)
        if self._hooks:
            i = bisect_right(self._hooked, task) - 1
            if i >= 0 and task < self._hooks[i][0]:
                self._hooks[i][1](task)


def _totals(tasks: Tasks) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Total of durations before and after each row, since the last change of stream (a sum over all ranks may overflow)."""
    total = np.cumsum(tasks.duration, dtype=np.int64)
    first = np.flatnonzero(np.append(True, tasks.stream[1:] != tasks.stream[:-1])[: len(tasks)])
    base = np.repeat((total - tasks.duration)[first], np.diff(np.append(first, len(tasks))))
    after = total - base
    return after - tasks.duration, after


def _runs(tasks: Tasks, degree: Any, children: Any, steady: Any, *, merge: bool) -> Any:
    """Last row of the run that starts at each row: rows i, i+1 are of one run when i+1 waits for i alone, i releases i+1
    alone, and both are timed tasks of one stream on a steady device. Batches that are told of every end
    (merge False) have no runs."""
    n = len(tasks)
    if n == 0 or not merge:
        return np.arange(n, dtype=np.int64)
    joined = np.zeros(n, dtype=bool)  # row i goes on into row i + 1
    if n > 1:
        one = degree[1:] == 1
        previous = np.full(n - 1, -1, dtype=np.int64)
        previous[one] = tasks.dep[tasks.dep_ptr[1:-1][one]]
        timed = (tasks.kind == Kind.TIMED) & (tasks.duration > 0) & steady  # one of no duration takes a turn of its own
        joined[:-1] = (
            one & (previous == np.arange(n - 1)) & (children[:-1] == 1) & timed[1:] & timed[:-1]
            & (tasks.stream[1:] == tasks.stream[:-1])
        )  # fmt: skip
    ends = np.flatnonzero(~joined)
    return ends[np.searchsorted(ends, np.arange(n))].astype(np.int64)
