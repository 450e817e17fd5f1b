"""The host side of a capture: every thread as a chain of what it did between the calls that order something.

A thread's time is cut where it launches work, synchronises, or hands over to another thread. In between it runs (Python,
dispatch, the runtime itself): that is host work of the recorded duration. While it waits for a GPU or for another thread it
does nothing: that is a dependency, whose length follows from what is waited for.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from distsim.trace.kineto.capture import CallKind, Capture, GpuKind
from distsim.trace.kineto.device import Lanes, Launches, Order

#: a pause between a thread's events that may be a wait for another thread; shorter ones are its own Python: 95 to 99.6 % of
#: the gaps of launching threads in five captures on V100 and A100 are. An unmodified replay is the same with any value
PAUSE_PS = 50_000_000
#: how long after another thread has stopped a thread goes on that was waiting for it; chosen, not measured: longer than a
#: wake by the scheduler, shorter than a step. An unmodified replay is the same with any value
WAKE_PS = 3_000_000_000

_MARK, _WAKE, _LAUNCH, _SYNC, _LEFT = range(5)


@dataclass(slots=True)
class HostNode:
    """A stretch of host work, or (thread -1) a delay. ``deps``: host nodes as -1 - k, kernels as their rows."""

    thread: int
    start_ps: int
    end_ps: int
    deps: list[int]
    call: int = -1  #: the call that ends it


@dataclass(slots=True)
class Host:
    """Host nodes in order of time, and what each call waits for before it is made."""

    nodes: list[HostNode] = field(default_factory=list)
    launch: dict[int, list[int]] = field(default_factory=dict)  #: call -> what must have ended when it is made
    last: dict[int, list[int]] = field(default_factory=dict)  #: thread -> its host nodes
    found: Counter[str] = field(default_factory=Counter)  #: syncs, contradicted syncs, wakes

    def ended(self, thread: int, time: int) -> int:
        """The thread's last host node that had ended by ``time``; -1: none."""
        mine = self.last.get(thread, [])
        at = bisect_right(mine, time, key=lambda k: self.nodes[k].end_ps) - 1
        return mine[at] if at >= 0 else -1


@dataclass(slots=True)
class _Thread:
    """Where a thread's chain has come to."""

    now: int
    deps: list[int]


def host_of(capture: Capture, lanes: Lanes, order: Order, launches: Launches) -> Host:
    """The host chains of all threads that launch or synchronise."""
    host = Host()
    waited = _synchronisations(capture, lanes, order, launches, host.found)
    calls = capture.calls
    launching = set(capture.kernels.launch[capture.kernels.launch >= 0].tolist())
    acting = sorted({int(calls.thread[c]) for c in launching | set(waited)})
    links, begins, finishes = _wakes(capture, acting)
    host.found["wakes"] = len(links)
    # (time, kind, number, thread): marks before wakes before calls of the same instant
    anchors: list[tuple[int, int, int, int]] = []
    for number, (thread, gap_start, wake, other, left) in enumerate(links):
        anchors.append((left, _MARK, number, other))
        anchors.append((wake, _WAKE, number, thread))
        if gap_start >= begins[thread]:
            anchors.append((gap_start, _LEFT, -1, thread))
    for call in sorted(launching | set(waited)):
        thread, start = int(calls.thread[call]), int(calls.start_ps[call])
        anchors.append((start, _LAUNCH, call, thread))
        if call in waited:
            anchors.append((start, _SYNC, call, thread))
            anchors.append((int(calls.end_ps[call]), _LEFT, -1, thread))
    anchors += [(finishes[thread], _LEFT, -1, thread) for thread in acting]
    anchors.sort()
    first_wake = {thread for thread, gap_start, *_ in links if gap_start < begins[thread]}
    threads: dict[int, _Thread] = {}
    ends = lanes.end_ps
    marks: dict[int, list[int]] = {}

    def node(thread: int, start: int, end: int, deps: list[int], call: int) -> int:
        host.nodes.append(HostNode(thread, start, end, deps, call))
        if thread >= 0:
            host.last.setdefault(thread, []).append(len(host.nodes) - 1)
        return -len(host.nodes)

    for time, kind, number, thread in anchors:
        state = threads.get(thread)
        if state is None:
            begin = begins[thread]
            state = threads[thread] = _Thread(begin, [])
            if begin > 0 and thread not in first_wake:
                state.deps = [node(-1, 0, begin, [], -1)]
        if kind == _WAKE:
            left = links[number][4]
            state.deps = [*state.deps, *(marks[number] if time == left else [node(-1, left, time, marks[number], -1)])]
            state.now = time
            continue
        if time > state.now:
            state.deps = [node(thread, state.now, time, state.deps, number if kind in (_LAUNCH, _SYNC) else -1)]
            state.now = time
        if kind == _MARK:
            marks[number] = list(state.deps)
        elif kind == _LAUNCH:
            host.launch[number] = list(state.deps)
        elif kind == _SYNC:
            sources = waited[number]
            resumed = max(time, max(int(ends[row]) for row in sources))
            state.deps = [*state.deps, *sources]
            state.now = resumed
    return host


def _synchronisations(
    capture: Capture, lanes: Lanes, order: Order, launches: Launches, found: Counter[str]
) -> dict[int, list[int]]:
    """Call -> kernels whose end it waits for."""
    calls, kernels = capture.calls, capture.kernels
    ends = lanes.end_ps
    number = {place: k for k, place in enumerate(capture.streams)}
    by_correlation = {int(c): k for k, c in enumerate(calls.correlation.tolist()) if c >= 0}
    device = [d for d, _ in capture.streams]
    waited: dict[int, list[int]] = {}
    records: dict[int, list[int]] = {}
    for call in np.flatnonzero(calls.kind == CallKind.EVENT_RECORD).tolist():
        records.setdefault(int(calls.thread[call]), []).append(int(calls.start_ps[call]))

    def stream_of(call: int, thread: int, time: int) -> int:
        inferred = launches.before(thread, time)
        if calls.stream[call] < 0:
            return inferred
        return number.get((device[inferred] if inferred >= 0 else device[0], int(calls.stream[call])), -1)

    for call in np.flatnonzero(np.isin(calls.kind, (CallKind.STREAM_SYNC, CallKind.EVENT_SYNC, CallKind.DEVICE_SYNC))).tolist():
        thread, start, end = int(calls.thread[call]), int(calls.start_ps[call]), int(calls.end_ps[call])
        kind = calls.kind[call]
        if kind == CallKind.DEVICE_SYNC:
            last = launches.before(thread, start)
            where = device[last] if last >= 0 else device[0]
            sources = [order.latest(stream, start) for stream in range(len(device)) if device[stream] == where]
        elif kind == CallKind.STREAM_SYNC:
            stream = stream_of(call, thread, start)
            sources = [order.latest(stream, start)] if stream >= 0 else []
        else:
            told = by_correlation.get(int(calls.record[call]))
            mine = records.get(thread, [])
            at = bisect_left(mine, start) - 1
            when = int(calls.start_ps[told]) if told is not None else mine[at] if at >= 0 else -1
            stream = number.get((device[0], int(calls.waits_on[call])), -1) if calls.waits_on[call] >= 0 \
                else launches.before(int(calls.thread[told]) if told is not None else thread, when)  # fmt: skip
            sources = [order.latest(stream, when)] if stream >= 0 and when >= 0 else []
        sources = [row for row in sources if row >= 0]
        kept = [row for row in sources if ends[row] <= end]
        found["syncs"] += bool(kept)
        found["contradicted"] += len(sources) - len(kept)
        if kept:
            waited[call] = kept
    blocking = (kernels.kind == GpuKind.COPY) & (kernels.launch >= 0)
    for row in np.flatnonzero(blocking).tolist():
        call = int(kernels.launch[row])
        pageable = "-> Pageable" in capture.names[kernels.name[row]]
        if calls.kind[call] != CallKind.BLOCKING_COPY and not pageable:
            continue
        if ends[row] <= calls.end_ps[call]:
            waited[call] = [row]
            found["syncs"] += 1
        elif calls.kind[call] == CallKind.BLOCKING_COPY and "-> Device" not in capture.names[kernels.name[row]]:
            found["contradicted"] += 1
    return _without_nested(capture, waited, found)


def _without_nested(capture: Capture, waited: dict[int, list[int]], found: Counter[str]) -> dict[int, list[int]]:
    """Synchronisations during which their thread did nothing else that orders: others (a call within a call) tell no wait."""
    calls = capture.calls
    acts = set(capture.kernels.launch[capture.kernels.launch >= 0].tolist()) | set(waited)
    times: dict[int, list[int]] = {}
    for call in sorted(acts):
        times.setdefault(int(calls.thread[call]), []).append(int(calls.start_ps[call]))
    kept = {}
    for call, sources in waited.items():
        mine, start = times[int(calls.thread[call])], int(calls.start_ps[call])
        following = bisect_right(mine, start)
        if following < len(mine) and mine[following] < int(calls.end_ps[call]):
            found["contradicted"] += len(sources)
        else:
            kept[call] = sources
    return kept


def _wakes(
    capture: Capture, acting: list[int]
) -> tuple[list[tuple[int, int, int, int, int]], dict[int, int], dict[int, int]]:
    """(thread, start of its pause, end of it, thread that it waited for, when that one stopped); first and last times.

    A thread that pauses, goes on soon after exactly one other thread has stopped, and had paused before that one did its
    work, has waited for it: main thread and autograd thread take turns like this.
    """
    table = capture.host
    blocks: dict[int, list[tuple[int, int]]] = {thread: [] for thread in acting}
    for thread, start, end in zip(table.thread.tolist(), table.start_ps.tolist(), table.end_ps.tolist(), strict=True):
        mine = blocks.get(thread)
        if mine is None:
            continue
        if mine and start - mine[-1][1] <= PAUSE_PS:
            mine[-1] = (mine[-1][0], max(end, mine[-1][1]))
        else:
            mine.append((start, end))
    begins = {thread: mine[0][0] for thread, mine in blocks.items()}
    finishes = {thread: mine[-1][1] for thread, mine in blocks.items()}
    stops = {thread: [end for _, end in mine] for thread, mine in blocks.items()}
    links = []
    for thread, mine in blocks.items():
        for k, (wake, _) in enumerate(mine):
            pause = mine[k - 1][1] if k else -1
            candidates = []
            for other in acting:
                if other == thread:
                    continue
                at = bisect_right(stops[other], wake) - 1
                if at < 0 or stops[other][at] <= pause or wake - stops[other][at] > WAKE_PS:
                    continue
                worked = blocks[other][at][0] < stops[other][at]
                if worked and (at + 1 == len(blocks[other]) or blocks[other][at + 1][0] > wake):
                    candidates.append((other, stops[other][at]))
            if len(candidates) == 1:
                links.append((thread, pause, wake, *candidates[0]))
    return links, begins, finishes
