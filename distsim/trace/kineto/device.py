"""The GPU side of a capture: streams as lanes without overlap, and what on one stream a kernel on another waited for.

A profiler records ``cudaStreamWaitEvent`` but, in most files, neither the stream that waits nor the event; then order and times
tell: the wait is for the stream that the thread launches to next, and the event was recorded on a stream that has had work
since it was last waited for. What the recorded times contradict is dropped and counted.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from distsim.trace.kineto.capture import CallKind, Capture, GpuKind

#: overlap of two kernels of one stream up to this is the clock's granularity or an early start (programmatic dependent
#: launch): the earlier is shortened. More is real concurrency (branches of a CUDA graph): it gets a lane of its own.
OVERLAP_PS = 3_000_000
#: a stream that goes on so soon after another stream's kernel has waited for it (event latencies are 1 to 10 us)
TIGHT_PS = 20_000_000
#: a thread that made a stream wait launches to it this soon; chosen, not measured: tens of host operations
SOON_PS = 1_000_000_000


@dataclass(slots=True)
class Lanes:
    """Kernels of a capture on lanes: a lane is a stream, or what ran beside others on the same stream."""

    lane: NDArray[np.int32]  #: of each kernel
    end_ps: NDArray[np.int64]  #: of each kernel, shortened where the next on its lane began before it ended
    before: NDArray[np.int64]  #: kernel before on the lane; -1: none
    stream: list[int]  #: of each lane
    number: list[int]  #: of each lane within its stream
    shortened: int = 0
    cut_ps: int = 0  #: sum of what was cut


def lanes_of(capture: Capture) -> Lanes:
    """Lanes in the order in which they are first used."""
    kernels = capture.kernels
    count = len(kernels)
    lane = np.empty(count, np.int32)
    end = kernels.end_ps.copy()
    before = np.full(count, -1, np.int64)
    found = Lanes(lane, end, before, [], [])
    of_stream: dict[int, list[int]] = {}
    last: list[int] = []  # kernel of each lane
    starts, ends = kernels.start_ps.tolist(), kernels.end_ps.tolist()
    for row, stream in enumerate(kernels.stream.tolist()):
        mine = of_stream.setdefault(stream, [])
        start, fits = starts[row], -1
        for candidate in mine:
            over = ends[last[candidate]] - start
            if over <= 0 or (over <= OVERLAP_PS and ends[row] >= ends[last[candidate]]):
                fits = candidate
                break
        if fits < 0:
            fits = len(last)
            mine.append(fits)
            found.stream.append(stream)
            found.number.append(len(mine))
            last.append(-1)
        else:
            over = ends[last[fits]] - start
            if over > 0:
                found.shortened += 1
                found.cut_ps += over
                ends[last[fits]] = start
            before[row] = last[fits]
        lane[row] = fits
        last[fits] = row
    end[:] = ends
    return found


@dataclass(slots=True)
class Waits:
    """What kernels waited for on other lanes."""

    sources: dict[int, list[int]] = field(default_factory=dict)  #: kernel -> kernels before it
    found: Counter[str] = field(default_factory=Counter)  #: told, inferred, contradicted, unresolved waits


class Order:
    """Which kernel was the last to be launched on a stream before a time, for all streams."""

    def __init__(self, capture: Capture) -> None:
        kernels, calls = capture.kernels, capture.calls
        self.launched: list[int] = np.where(kernels.launch >= 0, calls.start_ps[kernels.launch], -1).tolist() \
            if len(calls) else [-1] * len(kernels)  # fmt: skip
        self.rows: list[list[int]] = [[] for _ in capture.streams]
        self.when: list[list[int]] = [[] for _ in capture.streams]
        for row, stream in enumerate(kernels.stream.tolist()):
            when = self.when[stream]
            self.rows[stream].append(row)
            when.append(max(self.launched[row], when[-1] if when else -1))

    def latest(self, stream: int, time: int) -> int:
        """The last kernel of the stream launched before ``time``; -1: none."""
        at = bisect_left(self.when[stream], time) - 1
        return self.rows[stream][at] if at >= 0 else -1

    def following(self, stream: int, time: int) -> int:
        """The first kernel of the stream launched after ``time``; -1: none."""
        at = bisect_right(self.when[stream], time)
        return self.rows[stream][at] if at < len(self.rows[stream]) else -1


class Launches:
    """Which stream each thread launched to, and when."""

    def __init__(self, capture: Capture) -> None:
        kernels, calls = capture.kernels, capture.calls
        self._compute: list[bool] = (kernels.kind == GpuKind.COMPUTE).tolist()
        self.time: dict[int, list[int]] = {}
        self.stream: dict[int, list[int]] = {}
        self.kernel: dict[int, list[int]] = {}
        rows = np.flatnonzero(kernels.launch >= 0)
        launch = kernels.launch[rows]
        order = np.lexsort((rows, launch))  # calls are in order of time, kernels of one call in theirs
        rows, launch = rows[order], launch[order]
        columns = zip(calls.thread[launch].tolist(), calls.start_ps[launch].tolist(), kernels.stream[rows].tolist(),
                      rows.tolist(), strict=True)  # fmt: skip
        for thread, start, stream, row in columns:
            self.time.setdefault(thread, []).append(start)
            self.stream.setdefault(thread, []).append(stream)
            self.kernel.setdefault(thread, []).append(row)

    def before(self, thread: int, time: int) -> int:
        """Stream of the thread's last launch before ``time``; -1: none."""
        at = bisect_left(self.time.get(thread, ()), time) - 1
        return self.stream[thread][at] if at >= 0 else -1

    def about(self, thread: int, time: int) -> int:
        """Stream that a call of the thread is about: that of its next launch if it comes soon, else that of its last compute.

        A backward thread that waits for its last collectives launches nothing more: the optimizer does, from another thread.
        """
        times = self.time.get(thread, ())
        at = bisect_right(times, time)
        if at < len(times) and times[at] - time <= SOON_PS:
            return self.stream[thread][at]
        while at > 0:
            at -= 1
            if self._compute[self.kernel[thread][at]]:
                return self.stream[thread][at]
        return -1


def waits_of(capture: Capture, lanes: Lanes, order: Order, launches: Launches) -> Waits:
    """Sources of all waits of streams for streams."""
    kernels, calls = capture.kernels, capture.calls
    starts, ends, streams = kernels.start_ps.tolist(), lanes.end_ps.tolist(), kernels.stream.tolist()
    device = [d for d, _ in capture.streams]
    number = {place: k for k, place in enumerate(capture.streams)}
    by_correlation = {int(c): k for k, c in enumerate(calls.correlation.tolist()) if c >= 0}
    waits = Waits()
    seen: dict[tuple[int, int], int] = {}  # (stream, stream waited for) -> latest kernel waited for
    pending: dict[int, list[int]] = {}  # kernel -> calls that made its stream wait, untold of which

    def told(call: int) -> tuple[int, int] | None:
        """(kernel that waits, kernel waited for) as the file tells."""
        if calls.waits_on[call] < 0 or calls.stream[call] < 0:
            return None
        record = by_correlation.get(int(calls.record[call]), call)
        about = launches.about(int(calls.thread[call]), int(calls.start_ps[call]))
        where = device[about] if about >= 0 else device[0]
        waiting, waited = number.get((where, int(calls.stream[call]))), number.get((where, int(calls.waits_on[call])))
        if waiting is None or waited is None or waiting == waited:
            return -1, -1
        return order.following(waiting, int(calls.start_ps[call])), order.latest(waited, int(calls.start_ps[record]))

    def note(kernel: int, source: int) -> None:
        seen[streams[kernel], streams[source]] = max(seen.get((streams[kernel], streams[source]), -1), source)
        known = waits.sources.setdefault(kernel, [])
        if source not in known:
            known.append(source)

    for call in np.flatnonzero(calls.kind == CallKind.EVENT_WAIT).tolist():
        pair = told(call)
        if pair is None:
            thread, time = int(calls.thread[call]), int(calls.start_ps[call])
            stream = launches.about(thread, time)
            kernel = order.following(stream, time) if stream >= 0 else -1
            if kernel < 0:
                waits.found["unresolved"] += 1
            else:
                pending.setdefault(kernel, []).append(call)
            continue
        kernel, source = pair
        if kernel < 0 or source < 0:
            waits.found["unresolved"] += 1
        elif source < kernel and ends[source] <= starts[kernel]:
            waits.found["told"] += 1
            note(kernel, source)
        else:
            waits.found["contradicted"] += 1
    for kernel in sorted(pending):
        mine = streams[kernel]
        asked = pending[kernel]
        when = int(calls.start_ps[asked[-1]])
        candidates, contradicted = [], False
        for stream in range(len(capture.streams)):
            if stream == mine or device[stream] != device[mine]:
                continue
            source = order.latest(stream, when)
            if source < 0 or source <= seen.get((mine, stream), -1):
                continue
            talks = kernels.kind[source] == GpuKind.COMMUNICATION
            if ends[source] > starts[kernel] or source > kernel:
                # a wait for an earlier collective, while later ones were on their way; a record is of what came last
                source = _ended(order, stream, source, starts[kernel], ends) if talks else -1
                if source <= seen.get((mine, stream), -1):
                    contradicted = True
                    continue
            candidates.append((ends[source], source))
        candidates.sort(reverse=True)
        tight = [source for end, source in candidates[: len(asked)] if starts[kernel] - end <= TIGHT_PS]
        chosen = tight or [source for _, source in candidates[:1]]
        for source in chosen:
            note(kernel, source)
        waits.found["inferred"] += len(chosen)
        waits.found["contradicted"] += contradicted and not chosen
    return waits


def _ended(order: Order, stream: int, latest: int, time: int, ends: list[int]) -> int:
    """The last kernel of the stream, up to ``latest``, that had ended at ``time``; -1: none."""
    rows = order.rows[stream]
    at = bisect_right(rows, latest) - 1
    while at >= 0 and ends[rows[at]] > time:
        at -= 1
    return rows[at] if at >= 0 else -1
