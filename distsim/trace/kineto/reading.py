"""One Kineto file read into a :class:`~distsim.trace.kineto.capture.Capture`.

What differs between versions of PyTorch is settled here: names of categories (``kernel`` / ``Kernel``, ``cuda_runtime`` /
``Runtime``, ``gpu_memcpy`` / ``Memcpy``), times in whole or fractional microseconds, absolute or from ``baseTimeNanoseconds``,
streams and devices in ``args`` or in pid and tid. Times are kept to the nanosecond, which is what Kineto records.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.errors import TraceError
from distsim.trace.files import read_bytes
from distsim.trace.kineto.calls import call_kind
from distsim.trace.kineto.capture import CallKind, CallTable, Capture, GpuKind, GpuTable, HostTable, OpTable, Step
from distsim.trace.kineto.facts import MOST_RANKS
from distsim.trace.kineto.kernels import is_communication
from distsim.trace.kineto.oddity import Oddity
from distsim.trace.kineto.text import Events, plain, proper
from distsim.units import PS_PER_NS, PS_PER_US

_KERNEL, _COPY, _SET, _CALL, _SYNC, _OP, _NOTE, _LINK = range(1, 9)
_CATEGORY = {
    "kernel": _KERNEL, "gpu_memcpy": _COPY, "memcpy": _COPY, "gpu_memset": _SET, "memset": _SET,
    "cuda_runtime": _CALL, "runtime": _CALL, "cuda_driver": _CALL, "driver": _CALL, "hip_runtime": _CALL, "xpu_runtime": _CALL,
    "privateuse1_runtime": _CALL, "cuda_sync": _SYNC,
    "cpu_op": _OP, "operator": _OP, "user_annotation": _NOTE, "fwdbwd": _LINK, "forward_backward": _LINK,
}  # fmt: skip
_COMMUNICATES = re.compile(r"record_param_comms|nccl:|c10d::|gloo:")
_STEP = re.compile(r"ProfilerStep\s*#")
_DIGITS = re.compile(r"-?\d+")
#: years of nanoseconds that no capture spans; a time beyond is a damaged number
_LONGEST_US = 1e12
#: the year 5138: no capture is later
_LATEST_US = 1e17


def read_capture(source: str | os.PathLike[str] | bytes, label: str = "") -> Capture:
    """The capture that a file (or its bytes, unzipped) holds.

    Args:
        label: what messages call it; default: the path.

    Raises:
        TraceError: the file cannot be read, is no Kineto trace, or holds nothing that ran.
    """
    if isinstance(source, bytes):
        return _Reader(Events(source, label or "the trace"), label or "the trace").capture()
    path = os.fspath(source)
    return _Reader(Events(read_bytes(path), label or path), label or path).capture()


def _number(value: Any, default: int = -1) -> int:
    """The whole number that a value is, or that stands in its text (``"stream 7"``)."""
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        found = _DIGITS.search(value)
        return int(found[0]) if found and len(found[0]) < 19 else default
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return default


def _fits(value: int) -> int:
    return value if -(1 << 62) < value < 1 << 62 else -1


class _Table:
    """Rows of one kind of event as they come: times, and whole numbers in columns."""

    def __init__(self, columns: int) -> None:
        self.start = array("d")  # microseconds from the reader's origin
        self.length = array("d")
        self.numbers = tuple(array("q") for _ in range(columns))

    def add(self, start: float, length: float, *numbers: int) -> None:
        self.start.append(start)
        self.length.append(length)
        for column, number in zip(self.numbers, numbers, strict=True):
            column.append(number)

    def order(self) -> NDArray[np.int64]:
        return np.argsort(_ns(self.start), kind="stable")


def _ns(times: array[float]) -> NDArray[np.int64]:
    """Whole nanoseconds of microseconds."""
    return np.rint(np.frombuffer(times, np.float64) * 1000).astype(np.int64) if len(times) else np.zeros(0, np.int64)


class _Reader:
    """Sorts the events of one file into tables."""

    def __init__(self, events: Events, label: str) -> None:
        self._events, self._label = events, label
        self._names: dict[str, int] = {}
        self._streams: dict[tuple[int, int], int] = {}
        self._threads: dict[tuple[Any, Any], int] = {}
        self._calls_known: dict[int, CallKind] = {}
        self._communicates: dict[int, bool] = {}
        self._gpu = _Table(6)  # stream, kind, name, correlation, external, bytes
        self._gpu_args: dict[int, Mapping[str, Any]] = {}
        self._call = _Table(5)  # thread, kind, name, correlation, external
        self._host = _Table(1)  # thread
        self._op = _Table(3)  # thread, name, external
        self._op_args: list[Mapping[str, Any]] = []
        self._steps: list[tuple[float, float, str]] = []
        self._sync: dict[int, tuple[int, int, int]] = {}  # correlation -> stream, stream waited for, correlation of the record
        self._ends: dict[Any, list[tuple[Any, int, float]]] = {}
        self._origin: int | None = None
        self._bad = 0

    def capture(self) -> Capture:
        """Raises TraceError where there is nothing in the file that ran."""
        self._sort()
        return self._tables()

    # --- sorting ----------------------------------------------------------------------------------------------------------

    def _sort(self) -> None:
        category = _CATEGORY.get
        for event in self._events:
            cat = event.get("cat")
            kind = category(cat) or category(cat.lower()) if isinstance(cat, str) else None
            if kind is None:
                continue
            ph = event.get("ph")
            try:
                ts = event["ts"]
                if self._origin is None and abs(ts) < _LATEST_US:
                    self._origin = int(ts)
                start = float(ts - self._origin)  # without an origin: TypeError, no usable time
                if not abs(start) < _LONGEST_US:
                    raise ValueError("beyond any capture")
                if kind == _LINK:
                    place = self._ends.setdefault(event.get("id"), [])
                    place.append((ph, self._thread(event), start))
                    continue
                if ph != "X":
                    continue
                length = float(event["dur"])
                if not 0 <= length < _LONGEST_US:
                    raise ValueError("beyond any capture")
            except (KeyError, TypeError, ValueError, OverflowError, ArithmeticError):
                self._bad += ph == "X" or kind == _LINK
                continue
            args = event.get("args")
            if not isinstance(args, dict):
                args = {}
            name = event.get("name")
            name = name if isinstance(name, str) else str(name)
            if kind in (_OP, _CALL):
                thread = self._thread(event)
                self._host.add(start, length, thread)
                if kind == _CALL:
                    number = self._name(name)
                    call = self._calls_known.get(number)
                    if call is None:
                        call = self._calls_known[number] = call_kind(name)
                    self._call.add(start, length, thread, call, number, self._correlation(args), self._external(args))
                elif _COMMUNICATES.search(name):
                    self._communicating(start, length, thread, name, args)
                elif _STEP.match(name):  # older files have it among the operators
                    self._steps.append((start, length, name))
            elif kind == _NOTE:
                if _STEP.match(name):
                    self._steps.append((start, length, name))
                elif _COMMUNICATES.search(name):
                    self._communicating(start, length, self._thread(event), name, args)
            elif kind == _SYNC:
                self._sync[self._correlation(args)] = (
                    _fits(_number(args.get("stream"))), _fits(_number(args.get("wait_on_stream"))),
                    _fits(_number(args.get("wait_on_cuda_event_record_corr_id"))),
                )  # fmt: skip
            else:
                self._ran(start, length, kind, name, args, event)

    def _ran(self, start: float, length: float, kind: int, name: str, args: dict[str, Any], event: dict[str, Any]) -> None:
        """Something that ran on a GPU."""
        device = _number(args.get("device", event.get("pid")), 0)
        stream = _number(args.get("stream", event.get("tid")), 0)
        place = (_fits(device), _fits(stream))
        number = self._name(name)
        what = GpuKind.COPY if kind == _COPY else GpuKind.SET if kind == _SET else GpuKind.COMPUTE
        if kind == _KERNEL:
            talks = self._communicates.get(number)
            if talks is None:
                talks = self._communicates[number] = is_communication(name)
            if talks or "Collective name" in args:
                what = GpuKind.COMMUNICATION
                self._gpu_args[len(self._gpu.start)] = self._events.kept(args)
        self._gpu.add(
            start, length, self._streams.setdefault(place, len(self._streams)), what, number, self._correlation(args),
            self._external(args), _fits(_number(args.get("bytes"))),
        )  # fmt: skip

    def _communicating(self, start: float, length: float, thread: int, name: str, args: dict[str, Any]) -> None:
        self._op.add(start, length, thread, self._name(name), self._external(args))
        self._op_args.append(self._events.kept(args))

    def _name(self, name: str) -> int:
        number = self._names.get(name)
        return self._names.setdefault(name, len(self._names)) if number is None else number

    def _thread(self, event: dict[str, Any]) -> int:
        place = (event.get("pid"), event.get("tid"))
        try:
            number = self._threads.get(place)
        except TypeError:  # a list or an object
            place = (str(place[0]), str(place[1]))
            number = self._threads.get(place)
        return self._threads.setdefault(place, len(self._threads)) if number is None else number

    @staticmethod
    def _correlation(args: dict[str, Any]) -> int:
        value = args.get("correlation", 0)
        number = value if type(value) is int else _number(value)
        return _fits(number) if number > 0 else -1

    @staticmethod
    def _external(args: dict[str, Any]) -> int:
        value = args.get("External id", args.get("external id", -1))
        return _fits(value if type(value) is int else _number(value))

    # --- tables -----------------------------------------------------------------------------------------------------------

    def _tables(self) -> Capture:
        gpu, call = self._gpu, self._call
        if not len(gpu.start):
            ran = len(call.start) + len(self._host.start)
            raise TraceError(
                "is a Kineto trace without any kernel or copy of a GPU" + (": only the host was recorded" if ran else ""),
                where=self._label, expected="a trace of torch.profiler with ProfilerActivity.CUDA",
                fix="It was cut off before the first of them; copy it again." if self._events.cut else "",
            )  # fmt: skip
        starts = [_ns(table.start) for table in (gpu, call, self._host, self._op)]
        first = min(int(column.min()) for column in starts if len(column))

        def times(table: _Table, order: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
            start = (_ns(table.start)[order] - first) * PS_PER_NS
            return start, start + _ns(table.length)[order] * PS_PER_NS

        def columns(table: _Table, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
            return [np.array(column, np.int64)[order] for column in table.numbers]

        latest = max(int((_ns(table.start) + _ns(table.length)).max()) for table in (gpu, call) if len(table.start))
        steps = self._found_steps(first) or (Step("capture", 0, (latest - first) * PS_PER_NS),)
        order = call.order()
        start, end = times(call, order)
        thread, kind, name, correlation, external = columns(call, order)
        told = [self._sync.get(c, (-1, -1, -1)) if self._sync else (-1, -1, -1) for c in correlation.tolist()]
        said = np.array(told, np.int64).reshape(len(told), 3)
        order = gpu.order()
        place_of = np.argsort(order)
        stream, what, kernel, key, outer, size = columns(gpu, order)
        launch = _launches(key, correlation, kind)
        launched = launch[launch >= 0]
        kind[launched] = np.where(kind[launched] == CallKind.OTHER, CallKind.LAUNCH, kind[launched])
        calls = CallTable(
            start, end, thread.astype(np.int32), kind.astype(np.int8), name.astype(np.int32), correlation, external,
            said[:, 0], said[:, 1], said[:, 2],
        )  # fmt: skip
        began, ended = times(gpu, order)
        kernels = GpuTable(
            began, ended, stream.astype(np.int32), what.astype(np.int8), kernel.astype(np.int32), key, outer, launch,
            _steps_of(steps, launch, start) if self._steps else np.zeros(len(launch), np.int32), size,
            {int(place_of[row]): said for row, said in self._gpu_args.items()},
        )  # fmt: skip
        order = self._op.order()
        begun, left = times(self._op, order)
        of_thread, of_name, of_id = columns(self._op, order)
        ops = OpTable(
            begun, left, of_thread.astype(np.int32), of_name.astype(np.int32), of_id,
            tuple(self._op_args[row] for row in order.tolist()),
        )  # fmt: skip
        order = self._host.order()
        return self._finished(
            first, kernels, calls, ops, _merged(*times(self._host, order), columns(self._host, order)[0]), steps
        )

    def _found_steps(self, first: int) -> tuple[Step, ...]:
        found = []
        for start, length, name in sorted(self._steps):
            begin = round(start * 1000) - first
            found.append(Step(proper(name), begin * PS_PER_NS, (begin + round(length * 1000)) * PS_PER_NS))
        return tuple(found)

    def _finished(
        self, first: int, kernels: GpuTable, calls: CallTable, ops: OpTable, host: HostTable, steps: tuple[Step, ...]
    ) -> Capture:
        head = {key: plain(value) for key, value in self._events.head.items()}
        distributed = head.get("distributedInfo")
        distributed = distributed if isinstance(distributed, dict) else {}
        devices = head.get("deviceProperties")
        devices = tuple(d for d in devices if isinstance(d, dict)) if isinstance(devices, list) else ()
        streams = tuple(self._streams)
        used = {device for device, _ in streams}
        ran = [str(d.get("name", "")) for d in devices if _number(d.get("id")) in used]
        base = _number(head.get("baseTimeNanoseconds"), 0) * PS_PER_NS
        names, world = tuple(proper(name) for name in self._names), dict(head)
        for key in ("distributedInfo", "deviceProperties", "traceEvents"):
            world.pop(key, None)
        rank, ranks = _number(distributed.get("rank")), _number(distributed.get("world_size"))
        return Capture(
            self._label, rank if 0 <= rank < MOST_RANKS else -1, ranks if 0 <= ranks <= MOST_RANKS else 0,
            ran[0] if ran else "", distributed, devices,
            base + (self._origin or 0) * PS_PER_US + first * PS_PER_NS,
            kernels, calls, ops, host, steps, streams, _thread_names(self._threads), names, self._forward(first), world,
            self._oddities(kernels),
        )  # fmt: skip

    def _forward(self, first: int) -> NDArray[np.int64]:
        """Pairs of forward and backward that the file links."""
        rows = []
        for ends in self._ends.values():
            begun = [(thread, at) for ph, thread, at in ends if ph == "s"]
            rows += [
                (begun[0][0], (round(begun[0][1] * 1000) - first) * PS_PER_NS, thread, (round(at * 1000) - first) * PS_PER_NS)
                for ph, thread, at in ends
                if ph == "f" and begun
            ]
        return np.array(sorted(rows), np.int64).reshape(len(rows), 4)

    def _oddities(self, kernels: GpuTable) -> tuple[Oddity, ...]:
        events = self._events
        return (
            Oddity("file", "files", "cut short: what had been written before is used", int(events.cut)),
            Oddity("event", "events", "with numbers or escapes that are no JSON: mended", events.mended),
            Oddity("event", "events", "that cannot be read: left out", events.damaged),
            Oddity("event", "events", "without a usable time: left out", self._bad),
            Oddity("kernel or copy", "kernels and copies", "without a launch: after what came before on the stream",
                   int((kernels.launch < 0).sum())),
        )  # fmt: skip


def _thread_names(threads: Mapping[tuple[Any, Any], int]) -> tuple[str, ...]:
    """Names that the threads of all ranks share: the main thread of a process has its number, others count as they come."""
    names, others = [], 1
    for pid, tid in threads:
        if pid == tid and "main thread" not in names:
            names.append("main thread")
        else:
            others += 1
            names.append(f"thread {others}")
    return tuple(names)


def _launches(keys: NDArray[np.int64], correlation: NDArray[np.int64], kind: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of the call that each kernel comes from: of those with its correlation, a launch before others, then the earliest."""
    if not len(correlation):
        return np.full(len(keys), -1, np.int64)
    launches = (kind == CallKind.LAUNCH) | (kind == CallKind.BLOCKING_COPY)
    order = np.lexsort((np.arange(len(kind)), ~launches, correlation))
    ascending = correlation[order]
    at = np.minimum(np.searchsorted(ascending, keys), len(order) - 1)
    return np.where((ascending[at] == keys) & (keys >= 0), order[at], -1)


def _steps_of(steps: tuple[Step, ...], launch: NDArray[np.int64], called: NDArray[np.int64]) -> NDArray[np.int32]:
    """Step in which each kernel was launched."""
    begins = np.array([step.start_ps for step in steps], np.int64)
    ends = np.array([step.end_ps for step in steps], np.int64)
    when = called[launch] if len(called) else np.zeros(len(launch), np.int64)
    at = np.searchsorted(begins, when, side="right") - 1
    inside = (launch >= 0) & (at >= 0) & (when < ends[at])
    return np.where(inside, at, -1).astype(np.int32)


def _merged(start: NDArray[np.int64], end: NDArray[np.int64], thread: NDArray[np.int64]) -> HostTable:
    """Intervals in which each thread was in some event."""
    if not len(start):
        return HostTable(start, end, thread.astype(np.int32))
    order = np.lexsort((start, thread))
    start, end, thread = start[order], end[order], thread[order]
    # a running maximum within each thread: threads are kept apart by an offset larger than any time
    apart = thread * (int(end.max()) + 1)
    reach = np.maximum.accumulate(end + apart) - apart
    new = np.ones(len(start), np.bool_)
    new[1:] = (thread[1:] != thread[:-1]) | (start[1:] > reach[:-1])
    begins = np.flatnonzero(new)
    last = np.append(begins[1:], len(start)) - 1
    return HostTable(start[begins], reach[last], thread[begins].astype(np.int32))
