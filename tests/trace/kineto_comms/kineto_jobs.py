"""Captures of made-up jobs whose truth is known: a MoE training job with ep, tp, pp and dp communicators, on several hosts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np

_ITEM = 2  # BFloat16
_NS = 1000


@dataclass
class Made:
    """A communicating kernel as it truly was, ns on the true clock."""

    communicator: tuple[int, ...]
    operation: str
    start: int
    end: int
    last: int
    bytes: int


@dataclass
class Job:
    """Files of all ranks, and the truth."""

    files: list[bytes]
    kernels: list[list[Made]]
    offset_ns: list[int]  #: of each rank's clock
    groups: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)


class _Rank:
    def __init__(self, rank: int, world: int, offset: int, style: str) -> None:
        self.rank, self.world, self.offset, self.style = rank, world, offset, style
        self.host = self.compute = 20 * _NS
        self.free: dict[int, int] = {}
        self.sequence: dict[tuple, int] = {}
        self.numbered = False
        self.events: list[dict] = []
        self.made: list[Made] = []
        self.correlation = 100
        self.external = 0
        self.annotated = 0

    def event(self, cat: str, name: str, start: int, end: int, tid: object, **args: object) -> None:
        self.events.append({
            "ph": "X", "cat": cat, "name": name, "pid": 0 if cat == "kernel" else 4242, "tid": tid,
            "ts": (start + self.offset) / 1000, "dur": (end - start) / 1000, "args": args,
        })  # fmt: skip

    def launch(self) -> tuple[int, int]:
        """(correlation, time of the call)."""
        self.correlation += 1
        self.event("cuda_runtime", "cudaLaunchKernel", self.host, self.host + 4 * _NS, 4242, correlation=self.correlation)
        return self.correlation, self.host

    def kernel(self, duration: int) -> None:
        correlation, called = self.launch()
        start = max(called + 5 * _NS, self.compute)
        self.compute = start + duration
        self.event("kernel", "ampere_bf16_gemm", start, self.compute, 7, device=0, stream=7, correlation=correlation)
        self.host += 8 * _NS

    def arrives(self, stream: int) -> int:
        return max(self.host + 5 * _NS, self.compute, self.free.get(stream, 0))

    def communicate(self, operation: str, group: tuple[int, ...], stream: int, start: int, end: int, last: int, count: int,
                    sync: bool, extra: dict) -> None:  # fmt: skip
        ranks = f"[{', '.join(map(str, group))}]"
        if len(group) > 30:
            ranks = f"[{', '.join(map(str, group[:29]))}, ..., {group[-1]}]"
        told = {
            "Collective name": operation, "In msg nelems": count, "Out msg nelems": count, "dtype": "BFloat16",
            "Group size": len(group), "In split size": "[]", "Out split size": "[]", "Process Group Ranks": ranks, **extra,
        }  # fmt: skip
        counter = ("messages", 0) if operation in ("send", "recv") else group
        self.sequence[counter] = self.sequence.get(counter, 0) + 1
        if self.numbered:
            told["Seq"] = self.sequence[counter]
        self.external += 3
        begin = self.host - 1 * _NS
        annotation = {
            "allreduce": "nccl:all_reduce", "all_to_allv": "nccl:all_to_all", "_allgather_base": "nccl:_all_gather_base",
            "_reduce_scatter_base": "nccl:_reduce_scatter_base", "send": "nccl:send", "recv": "nccl:recv",
        }[operation]  # fmt: skip
        dims = {} if self.style == "bare" else {"Input Dims": [[count]], "Input type": ["c10::BFloat16"]}
        self.event("cpu_op", "record_param_comms", begin, self.host + 6 * _NS, 4242,
                   **{"External id": self.external, **(told if self.style == "new" else {})})  # fmt: skip
        self.event("user_annotation", annotation, begin + 500, self.host + 5 * _NS, 4242,
                   **{"External id": self.external + 1, **dims})  # fmt: skip
        correlation, _ = self.launch()
        kind = {"allreduce": "AllReduce_Sum_bf16_RING_LL", "_allgather_base": "AllGather_RING_LL",
                "_reduce_scatter_base": "ReduceScatter_Sum_bf16_RING_LL"}.get(operation, "SendRecv")  # fmt: skip
        args = {"device": 0, "stream": stream, "correlation": correlation, "External id": self.external}
        self.event("kernel", f"ncclDevKernel_{kind}(ncclDevKernelArgsStorage<4096ul>)", start, end, stream,
                   **args, **(told if self.style == "new" else {}))  # fmt: skip
        self.free[stream] = end
        self.compute = max(self.compute, end) if sync else self.compute
        self.host += 12 * _NS
        self.made.append(Made(group, operation, start, end, last, count * _ITEM))

    def document(self, base_ns: int, config: list[dict]) -> bytes:
        return json.dumps({
            "schemaVersion": 1, "baseTimeNanoseconds": base_ns, "deviceProperties": [{"id": 0, "name": "NVIDIA H100"}],
            "distributedInfo": {"backend": "nccl", "rank": self.rank, "world_size": self.world, "pg_config": config},
            "traceEvents": self.events,
        }).encode()  # fmt: skip


def moe_job(
    seed: int, hosts: int = 2, per_host: int = 4, *, steps: int = 2, layers: int = 2, clock_us: float = 5000.0,
    jitter_us: float = 0.0, style: str = "new", pipeline: bool = True, late: dict[int, int] | None = None,
    numbered: bool = False,
) -> Job:  # fmt: skip
    """A job.

    Args:
        clock_us: the clocks of hosts differ by up to so much.
        jitter_us: members of a collective end within so much of each other.
        style: "new" tells all in args, "old" by annotations with Input Dims, "bare" by their names alone.
        late: rank -> kernels that its capture lacks at the beginning.
        numbered: operations have sequence numbers, as PyTorch 2.5 has them; the first rank of a host has sent more messages.
    """
    rng = np.random.default_rng(seed)
    n = hosts * per_host
    clock = [int(c) for c in rng.uniform(0, clock_us * 1000, hosts)]
    ranks = [_Rank(r, n, clock[r // per_host], style) for r in range(n)]
    for one in ranks:
        one.numbered, one.sequence["messages", 0] = numbered, 0 if one.rank % per_host else 7
    groups = {
        "ep": [tuple(range(h * per_host, (h + 1) * per_host)) for h in range(hosts)],
        "tp": [(r, r + 1) for r in range(0, n, 2)],
        "dp": [tuple(range(n))],
    }
    # process groups are numbered over the whole job: each member of one knows it by the same name
    number = {one: str(k) for k, one in enumerate((kind, g) for kind in ("dp", "ep", "tp") for g in groups[kind])}
    stream = {"ep": 20, "tp": 24, "dp": 28, "pp": 32}

    def collective(kind: str, operation: str, count: int, sync: bool) -> None:
        for group in groups[kind]:
            arrivals = {r: ranks[r].arrives(stream[kind]) for r in group}
            last = max(arrivals.values())
            end = last + int(rng.integers(5, 400)) * _NS
            for r in group:
                parts = rng.multinomial(count, [1 / len(group)] * len(group)).tolist()
                extra = {"Process Group Name": number[kind, group], "Process Group Description": kind, "Rank": group.index(r)}
                if operation == "all_to_allv":
                    extra["In split size"] = f"[{', '.join(map(str, parts))}]"
                moved = int(rng.integers(-1, 2) * rng.uniform(0, jitter_us * 500))
                own = max(end + moved, last)
                ranks[r].communicate(operation, group, stream[kind], arrivals[r], own, last, count, sync, extra)

    def message(pair: tuple[int, int], count: int) -> None:
        arrivals = {r: ranks[r].arrives(stream["pp"]) for r in pair}
        last = max(arrivals.values())
        end = last + int(rng.integers(5, 50)) * _NS
        for r, operation, key in ((pair[0], "send", "Dst Rank"), (pair[1], "recv", "Src Rank")):
            other = pair[1] if operation == "send" else pair[0]
            ranks[r].communicate(operation, pair, stream["pp"], arrivals[r], end, last, count, True,
                                 {"Process Group Name": number["dp", groups["dp"][0]], key: other,
                                  "Process Group Ranks": "[]", "Group size": n})  # fmt: skip

    for step in range(steps):
        begins = [one.host for one in ranks]
        for _ in range(layers):
            for one in ranks:
                for _ in range(2):
                    one.kernel(int(rng.integers(10, 300)) * _NS)
            collective("ep", "all_to_allv", 4096, True)
            collective("tp", "_allgather_base", 1024, bool(rng.integers(2)))
            if pipeline:
                for r in range(n // 2):
                    message((r, r + n // 2), 512)
            collective("tp", "_reduce_scatter_base", 2048, False)
        collective("dp", "allreduce", 65536, False)
        for r, one in enumerate(ranks):
            one.kernel(int(rng.integers(10, 100)) * _NS)
            end = max(one.host, one.compute, *one.free.values())
            one.event("cuda_runtime", "cudaDeviceSynchronize", one.host, end + 2 * _NS, 4242, correlation=10_000_000 + step)
            one.event("user_annotation", f"ProfilerStep#{step + 5}", begins[r], end + 3 * _NS, 4242)
            one.host = end + 5 * _NS
    base = 1_700_000_000_000_000_000
    config = [{"pg_name": name, "pg_desc": "", "pg_size": len(g), "ranks": list(g)} for (_, g), name in number.items()]
    for r, count in (late or {}).items():
        _forget(ranks[r], count)
    files = [one.document(base, config) for one in ranks]
    return Job(files, [one.made for one in ranks], [one.offset for one in ranks], groups)


def _forget(one: _Rank, count: int) -> None:
    """Drop what the capture of a rank would lack, had it begun after its first ``count`` communicating kernels."""
    since = one.made[count].start + one.offset
    one.events = [event for event in one.events if event["ts"] * 1000 >= since - 12_000]
    kept = [event for event in one.events if event["cat"] == "kernel" and event["name"].startswith("nccl")]
    one.made = one.made[len(one.made) - len(kept) :]
