"""Kineto files built by hand or at random, as several versions of PyTorch write them."""

from __future__ import annotations

import json
import random
from typing import Any

HOST, MAIN, BACKWARD = 4000, 4000, 4001


_OLD = {"kernel": "Kernel", "gpu_memcpy": "Memcpy", "gpu_memset": "Memset", "cuda_runtime": "Runtime", "cpu_op": "Operator"}
_BASE_US = {"whole": 1_694_128_201_000_000, "old": 1_594_128_201_000_000, "exact": 1_694_128_201_000_000}


class KinetoFile:
    """Events of one rank, times in ns; ``data()`` writes them in one of the styles.

    Styles: ``new`` (categories in lower case, fractional us from baseTimeNanoseconds), ``whole`` (absolute whole us), ``old``
    (PyTorch 1.8: capitals), ``exact`` (absolute us with a fraction that a float64 cannot hold), ``list`` (no document around).
    """

    def __init__(self, style: str = "new", **head: Any) -> None:
        self.style, self.head, self.events, self.correlation = style, head, [], 0

    def event(self, cat: str, name: str, start: int, end: int, pid: int = HOST, tid: int = MAIN, **args: Any) -> dict[str, Any]:
        base = _BASE_US.get(self.style, 0)
        if self.style in ("whole", "old"):
            assert start % 1000 == end % 1000 == 0
            ts, dur = base + start // 1000, (end - start) // 1000
        elif self.style == "exact":
            ts, dur = f"@{base + start // 1000}.{start % 1000:03d}@", (end - start) / 1000
        else:
            ts, dur = start / 1000, (end - start) / 1000
        cat = _OLD.get(cat, cat) if self.style == "old" else cat
        event = {"ph": "X", "cat": cat, "name": name, "pid": pid, "tid": tid, "ts": ts, "dur": dur, "args": args}
        self.events.append(event)
        return event

    def call(self, name: str, start: int, end: int, tid: int = MAIN, correlation: int | None = None, **args: Any) -> int:
        """A runtime call; its correlation."""
        if correlation is None:
            self.correlation += 1
            correlation = self.correlation
        self.event("cuda_runtime", name, start, end, HOST, tid, correlation=correlation, **args)
        return correlation

    def ran(self, name: str, start: int, end: int, stream: int, correlation: int = 0, device: int = 0, **args: Any) -> None:
        """A kernel, or a copy or set by its name."""
        cat = "gpu_memcpy" if name.startswith("Memcpy") else "gpu_memset" if name.startswith("Memset") else "kernel"
        args |= {"correlation": correlation} if correlation else {}
        self.event(cat, name, start, end, device, stream, device=device, stream=stream, **args)

    def launched(self, called: int, start: int, end: int, stream: int = 7, tid: int = MAIN, name: str = "gemm_kernel") -> int:
        """A kernel with its launch, which takes 2 us."""
        correlation = self.call("cudaLaunchKernel", called, called + 2000, tid)
        self.ran(name, start, end, stream, correlation)
        return correlation

    def step(self, number: int, start: int, end: int) -> None:
        self.event("user_annotation", f"ProfilerStep#{number}", start, end)

    def data(self) -> bytes:
        if self.style == "list":
            return json.dumps(self.events).encode()
        base = {"baseTimeNanoseconds": 1_700_000_000_000_000_000} if self.style == "new" else {}
        text = json.dumps({"schemaVersion": 1, **base, **self.head, "traceEvents": self.events, "traceName": "x.json"})
        return text.replace('"@', "").replace('@"', "").encode()


def random_file(seed: int, style: str = "new") -> bytes:
    """Threads that launch, copy, wait for streams and synchronise, streams that run behind; sometimes against all reason."""
    rng = random.Random(seed)
    grain = 1000 if style in ("whole", "old") else rng.choice((1, 1000))
    file = KinetoFile(style, distributedInfo={"backend": "nccl", "rank": 0, "world_size": 1})

    def some(low: int, high: int) -> int:
        return rng.randint(low // 1000, high // 1000) * 1000 if grain == 1000 else rng.randint(low, high)

    streams = rng.sample(range(5, 40), rng.randint(1, 4))
    free = dict.fromkeys(streams, 0)
    turns = [MAIN] if rng.random() < 0.4 else [MAIN, BACKWARD] * rng.randint(1, 3)
    clock = dict.fromkeys(turns, some(0, 90_000))
    now = min(clock.values())
    for thread in turns:
        now = clock[thread] = max(now, clock[thread]) + some(0, 400_000)
        for _ in range(rng.randint(1, 8)):
            now += some(0, 30_000)
            file.event("cpu_op", "aten::mm", now, now + some(0, 9_000), HOST, thread)
            stream, what = rng.choice(streams), rng.random()
            length = some(0, 5_000)
            if what < 0.6:
                begin = max(now + some(0, 30_000), free[stream]) + rng.choice((0, some(0, 3_000)))
                if rng.random() < 0.05:
                    begin = max(begin - some(0, 60_000), 0)  # clocks that disagree, kernels beside each other
                end = begin + some(0, 60_000)
                free[stream] = max(free[stream], end)
                name = rng.choice(("gemm_kernel", "elementwise_kernel", "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclArgs)",
                                   "Memcpy DtoH (Device -> Pageable)", "Memset (Device)"))  # fmt: skip
                runtime = "cudaMemcpyAsync" if name.startswith("Memcpy") else "cudaLaunchKernel"
                if rng.random() < 0.1:
                    file.ran(name, begin, end, stream, 999_000 + len(file.events))  # its launch is not in the file
                else:
                    number = file.call(runtime, now, now + length, thread)
                    file.ran(name, begin, end, stream, number)
                    if rng.random() < 0.1:  # a CUDA graph
                        file.ran("graph_kernel", end, end + some(0, 9_000), rng.choice(streams), number)
            elif what < 0.75:
                file.call("cudaStreamWaitEvent", now, now + length, thread)
            elif what < 0.8:
                file.call("cudaEventRecord", now, now + length, thread)
            else:
                length = max(free[stream] - now, 0) + length if rng.random() < 0.7 else length
                file.call(rng.choice(("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")), now,
                          now + length, thread)  # fmt: skip
            now += length
        clock[thread] = now
    if not any("stream" in event["args"] for event in file.events):
        file.launched(now, now + 5_000, now + 9_000, streams[0])
    if rng.random() < 0.5:
        file.step(1, 0, now // 2000 * 1000)
        file.step(2, now // 2000 * 1000, now // 1000 * 1000)
    rng.shuffle(file.events)
    return file.data()
