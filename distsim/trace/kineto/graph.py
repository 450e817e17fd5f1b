"""A capture as the program of one rank: host threads and GPU streams, launches, events and synchronisations as dependencies.

Replayed as it is, every kernel starts and ends where it was recorded, to the picosecond. What keeps it so is not a list of
start times but the reasons found for them: a kernel starts when it has been launched, when its stream is free, and when what
its stream waited for has ended. The last of these to come binds it; what then remains to its recorded start is

- added to the launch latency, where the launch binds (a delay between the host's launch and the kernel);
- a delay on the stream, where the kernel before binds (it runs right after that kernel, beside a launch that is on its way);
- a delay on the edge, where an event binds.

So a change of one duration moves what depends on it, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from distsim.trace.build import COLUMNS, NODE_COLUMNS
from distsim.trace.graph import BEFORE_CAPTURE, NodeType, Program
from distsim.trace.kineto.capture import Capture, GpuKind, GpuTable
from distsim.trace.kineto.device import TIGHT_PS, Lanes, Launches, Order, Waits, lanes_of, waits_of
from distsim.trace.kineto.host import Host, host_of
from distsim.trace.kineto.named import host_work
from distsim.trace.kineto.oddity import Oddity
from distsim.trace.kineto.ranks import Communication

#: launch latency of a capture without any kernel that ran as soon as it was launched (chosen;
#: the medians of five captures on V100 and A100 are 7 to 13 us). Such a capture replays the same with any value
_USUAL_LATENCY_PS = 5_000_000


@dataclass(slots=True)
class Numbering:
    """Names, streams and steps of all ranks of one trace, numbered as they come."""

    names: dict[str, int] = field(default_factory=dict)
    streams: dict[str, int] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)

    def name(self, text: str) -> int:
        return self.names.setdefault(text, len(self.names))

    def stream(self, text: str) -> int:
        return self.streams.setdefault(text, len(self.streams))


class _Nodes:
    """Rows under construction, in any order; :meth:`program` sorts them by time."""

    def __init__(self) -> None:
        self.type: list[int] = []
        self.start: list[int] = []
        self.end: list[int] = []
        self.stream: list[int] = []
        self.name: list[int] = []
        self.deps: list[list[int]] = []

    def add(self, kind: int, start: int, end: int, stream: int, name: int, deps: list[int]) -> int:
        self.type.append(kind)
        self.start.append(start)
        self.end.append(end)
        self.stream.append(stream)
        self.name.append(name)
        self.deps.append(deps)
        return len(self.type) - 1


def program_of_capture(
    capture: Capture, communication: Communication, shift_ps: int, numbering: Numbering
) -> tuple[Program, tuple[Oddity, ...]]:
    """The program of one rank, and what was odd in the capture.

    Args:
        communication: its communicating kernels as columns.
        shift_ps: time of the capture's zero on the clock of all ranks.
        numbering: grows by the names, streams and steps of this rank.
    """
    lanes = lanes_of(capture)
    order, launches = Order(capture), Launches(capture)
    host = host_of(capture, lanes, order, launches)
    waits = waits_of(capture, lanes, order, launches)
    nodes = _Nodes()
    _kernels(capture, lanes, numbering, nodes)
    hosts = _hosts(capture, host, numbering, nodes)
    early = _Bindings(capture, lanes, order, host, hosts, waits, numbering, nodes).bind()
    if shift_ps:
        _hold(nodes, shift_ps, numbering)
    program = _program(capture, communication, lanes, shift_ps, numbering, nodes)
    return program, (*capture.oddities, *_oddities(lanes, host, waits, early))


def _kernels(capture: Capture, lanes: Lanes, numbering: Numbering, nodes: _Nodes) -> None:
    """One node for each row of the GPU table: the first nodes, in its order. Their dependencies come later."""
    kernels = capture.kernels
    several = len({device for device, _ in capture.streams}) > 1
    labels = []
    for stream, number in zip(lanes.stream, lanes.number, strict=True):
        device, which = capture.streams[stream]
        text = (f"gpu {device} " if several else "gpu ") + f"stream {which}" + (f" ({number})" if number > 1 else "")
        labels.append(numbering.stream(text))
    texts = [numbering.name(name) if k in used else -1 for used in (set(kernels.name.tolist()),)
             for k, name in enumerate(capture.names)]  # fmt: skip
    for start, end, lane, kind, name in zip(
        kernels.start_ps.tolist(), lanes.end_ps.tolist(), lanes.lane.tolist(), kernels.kind.tolist(), kernels.name.tolist(),
        strict=True,
    ):  # fmt: skip
        if kind == GpuKind.COMMUNICATION:
            what = NodeType.COMM_COLL
        elif kind == GpuKind.COPY:
            what = NodeType.MEM_STORE if "DtoH" in capture.names[name] else NodeType.MEM_LOAD
        elif kind == GpuKind.SET:
            what = NodeType.MEM_STORE
        else:
            what = NodeType.COMP
        nodes.add(what, start, end, labels[lane], texts[name], [])


def _hosts(capture: Capture, host: Host, numbering: Numbering, nodes: _Nodes) -> list[int]:
    """Nodes of the host chains; the node of each of ``host.nodes``."""
    calls = capture.calls
    named: dict[int, int] = {}
    labels = {thread: numbering.stream(capture.threads[thread]) for thread in sorted(host.last)}
    rows: list[int] = []
    for node in host.nodes:
        deps = [rows[-1 - d] if d < 0 else d for d in node.deps]
        if node.thread < 0:
            name = numbering.name("thread wakes" if deps else "before the thread's first event")
            rows.append(nodes.add(NodeType.DELAY, node.start_ps, node.end_ps, -1, name, deps))
            continue
        call = int(calls.name[node.call]) if node.call >= 0 else -1
        if call not in named:
            named[call] = numbering.name(host_work(capture.names[call] if call >= 0 else ""))
        rows.append(nodes.add(NodeType.COMP, node.start_ps, node.end_ps, labels[node.thread], named[call], deps))
    return rows


class _Bindings:
    """Why each kernel starts when it does, as dependencies and delays."""

    def __init__(
        self, capture: Capture, lanes: Lanes, order: Order, host: Host, hosts: list[int], waits: Waits, numbering: Numbering,
        nodes: _Nodes,
    ) -> None:  # fmt: skip
        self._capture, self._lanes, self._host, self._hosts, self._waits = capture, lanes, host, hosts, waits
        self._nodes, self._launched = nodes, order.launched
        self._latency = numbering.name("launch latency")
        self._pause, self._event = numbering.name("stream pause"), numbering.name("event latency")
        self._before = numbering.name("before the stream's first kernel")

    def bind(self) -> int:
        """Give every kernel its dependencies; the number of those that started before their launch."""
        kernels, lanes, nodes = self._capture.kernels, self._lanes, self._nodes
        early = 0
        ends, before = lanes.end_ps.tolist(), lanes.before.tolist()
        usual = self._usual(ends, before)
        threads = self._capture.calls.thread.tolist()
        beside = _siblings(kernels, lanes, ends)
        calls = kernels.launch.tolist()
        for row, start in enumerate(kernels.start_ps.tolist()):
            call, previous = calls[row], before[row]
            sources = [s for s in (*self._waits.sources.get(row, ()), *beside.get(row, ())) if s != previous]
            front: list[int] = []
            launched = 0
            if call >= 0:
                launched = self._launched[row]
                front = [self._hosts[-1 - d] if d < 0 else d for d in self._host.launch[call]]
                if launched > start:
                    early += 1
                    at = self._host.ended(threads[call], start)
                    front, launched = ([self._hosts[at]], self._host.nodes[at].end_ps) if at >= 0 else ([], 0)
            latency = min(usual, start - launched) if front or call >= 0 else 0
            arrival = launched + latency if front or call >= 0 else -1
            free = ends[previous] if previous >= 0 else -1
            event = max((ends[s] for s in sources), default=-1)
            latest = max(arrival, free, event)
            deps = nodes.deps[row]
            if latest < 0:  # nothing is known before it
                if start > 0:
                    deps.append(nodes.add(NodeType.DELAY, 0, start, -1, self._before, []))
                continue
            rest = start - latest
            if rest and arrival == latest:
                latency, rest = latency + rest, 0
            if arrival >= 0:
                if latency:
                    deps.append(nodes.add(NodeType.DELAY, launched, launched + latency, -1, self._latency, front))
                else:
                    deps.extend(front)
            for source in sources:
                if rest and event == latest and ends[source] == event:
                    deps.append(nodes.add(NodeType.DELAY, event, start, -1, self._event, [source]))
                    rest = 0
                else:
                    deps.append(source)
            if rest:
                nodes.add(NodeType.DELAY, free, start, nodes.stream[row], self._pause, [])
        return early

    def _usual(self, ends: list[int], before: list[int]) -> int:
        """Median time from launch to start of the kernels that found their stream idle."""
        idle = [
            start - launched
            for start, launched, previous in zip(self._capture.kernels.start_ps.tolist(), self._launched, before, strict=True)
            if 0 <= launched <= start and (previous < 0 or ends[previous] <= launched)
        ]
        return int(np.median(idle)) if idle else _USUAL_LATENCY_PS


def _siblings(kernels: GpuTable, lanes: Lanes, ends: list[int]) -> dict[int, list[int]]:
    """What kernels waited for within their family, without an event in the file.

    A family is the kernels of one CUDA graph, whose edges are not recorded, or of one stream that ran beside others. A kernel
    has waited for the last that had ended on each of the family's other lanes, where that is later than what its lane had
    waited for before and, in a graph, so close that it was the reason (or nothing of the graph comes before it on its lane).
    """
    family = np.where(np.array([lanes.stream.count(stream) > 1 for stream in lanes.stream])[lanes.lane], kernels.stream, -1)
    calls, many = np.unique(kernels.launch, return_counts=True)
    graphs = calls[(calls >= 0) & (many > 1)]
    within = np.isin(kernels.launch, graphs)
    family = np.where(within, len(lanes.stream) + kernels.launch, family)
    found: dict[int, list[int]] = {}
    done: dict[int, dict[int, list[int]]] = {}  # family -> lane -> its kernels
    seen: dict[tuple[int, int], int] = {}
    rows = np.flatnonzero(family >= 0)
    columns = zip(rows.tolist(), family[rows].tolist(), lanes.lane[rows].tolist(), within[rows].tolist(),
                  kernels.start_ps[rows].tolist(), strict=True)  # fmt: skip
    for row, one, lane, graph, start in columns:
        mine = done.setdefault(one, {})
        for other, before in mine.items():
            if other == lane:
                continue
            source = next((k for k in reversed(before[-2:]) if ends[k] <= start), -1)
            if source < 0 or seen.get((lane, other), -1) >= source:
                continue
            if not graph or lane not in mine or start - ends[source] <= TIGHT_PS:
                seen[lane, other] = source
                found.setdefault(row, []).append(source)
        mine.setdefault(lane, []).append(row)
    return found


def _hold(nodes: _Nodes, shift_ps: int, numbering: Numbering) -> None:
    """What begins with the capture waits until the capture begins."""
    roots = [row for row, deps in enumerate(nodes.deps) if not deps and nodes.start[row] == 0]
    held = nodes.add(NodeType.DELAY, -shift_ps, 0, -1, numbering.name(BEFORE_CAPTURE), [])
    for row in roots:
        nodes.deps[row].append(held)


def _program(
    capture: Capture, communication: Communication, lanes: Lanes, shift_ps: int, numbering: Numbering, nodes: _Nodes
) -> Program:
    """Rows in order of time, which is an order of dependencies: what a row waits for has begun before it, or lasts no time."""
    kernels = capture.kernels
    count, known = len(nodes.type), len(kernels)
    start, end = np.array(nodes.start, np.int64), np.array(nodes.end, np.int64)
    columns: dict[str, NDArray[np.generic]] = {
        name: np.full(count, missing, kind) for name, (kind, missing) in COLUMNS.items() if name in NODE_COLUMNS
    }
    kind = np.array(nodes.type, np.int8)
    duration = end - start
    columns |= {"type": kind, "name": np.array(nodes.name, np.int32), "stream": np.array(nodes.stream, np.int32)}
    size = np.full(count, -1, np.int64)
    moved = np.isin(kernels.kind, (GpuKind.COPY, GpuKind.SET))
    size[:known][moved] = kernels.bytes[moved]
    columns["tensor_size"] = size
    columns["cpu"] = (kind == NodeType.COMP) & (np.arange(count) >= known)
    rows = communication.row
    for name, values in (("collective", communication.collective), ("bytes", communication.bytes),
                         ("group", communication.group), ("root", communication.root)):  # fmt: skip
        columns[name][rows] = values
    duration[rows] = np.maximum(communication.transfer_ps - (kernels.end_ps - lanes.end_ps)[rows], 0)
    columns["duration_ps"] = duration
    columns["start_ps"] = start + shift_ps
    step = _host_steps(capture, start)
    step[:known] = kernels.step
    named = [numbering.steps.setdefault(one.name, len(numbering.steps)) for one in capture.steps]
    by_time = np.lexsort((np.arange(count), end, start))
    place = np.empty(count, np.int64)
    place[by_time] = np.arange(count)
    degree = np.array([len(d) for d in nodes.deps], np.int64)[by_time]
    flat = np.array([d for row in by_time.tolist() for d in nodes.deps[row]], np.int64)
    ordered = {name: column[by_time] for name, column in columns.items() if name != "id"}
    return Program(
        id=np.arange(count, dtype=np.int64), dep_ptr=np.concatenate(([0], np.cumsum(degree))).astype(np.int64),
        dep=place[flat].astype(np.int32), step=np.array([*named, -1], np.int32)[step[by_time]], **ordered,  # type: ignore[arg-type]
    )  # fmt: skip


def _host_steps(capture: Capture, start: NDArray[np.int64]) -> NDArray[np.int32]:
    """Step in which each time lies, -1 for none."""
    begins = np.array([step.start_ps for step in capture.steps], np.int64)
    finishes = np.array([step.end_ps for step in capture.steps], np.int64)
    at = np.searchsorted(begins, start, side="right") - 1
    return np.where((at >= 0) & (start < finishes[at]), at, -1).astype(np.int32)


def _oddities(lanes: Lanes, host: Host, waits: Waits, early: int) -> tuple[Oddity, ...]:
    """What the recorded times contradict, and what was done about it."""
    beside = sum(number > 1 for number in lanes.number)
    return (
        Oddity("kernel", "kernels", "that ended after the next on the stream had begun: shortened", lanes.shortened,
               lanes.cut_ps),
        Oddity("stream", "streams", "with kernels beside each other: given lanes of their own", beside),
        Oddity("kernel", "kernels", "that started before the launch was called: taken for launched earlier", early),
        Oddity("synchronisation", "synchronisations", "over before what was waited for had ended: no dependency",
               host.found["contradicted"]),
        Oddity("wait", "waits", "of a stream for another that the times contradict: no dependency",
               waits.found["contradicted"]),
    )  # fmt: skip
