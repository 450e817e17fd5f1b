"""What the iterations of a service were made of: a sample of them, taken apart into the kernels and messages of one rank.

Each kernel is bound by what would take longer on an ideal GPU, its arithmetic or its traffic with main memory (Williams et al.,
Roofline, 2009), and counts with the time that the compute providers give it. The host's is what the software makes the GPU wait
for (distsim.serving.times.model); it is left out where measured tables tell the time of an iteration. What an iteration took
beyond all that on a network level is other traffic's. A draft's own kernels are left out.

Iterations with prompts and those that only generate are sampled each for themselves, in proportion to time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.cost.kernel import Kernel
from distsim.errors import DistsimError
from distsim.hardware.gpu import Gpu
from distsim.serving.deployment import Deployment
from distsim.serving.forward.layers import attention
from distsim.serving.forward.layers.writer import Rank, Writer
from distsim.serving.forward.operations import BUCKET, after, before, captured, kind_of, mlp_half, padded
from distsim.serving.forward.work import Work, work_of
from distsim.serving.iteration import Shape
from distsim.serving.network.seating import CLOSED
from distsim.serving.result import ServingResult
from distsim.serving.speculation import speculation_of
from distsim.serving.times.model import ModelTimes
from distsim.topology.graph import Topology
from distsim.topology.spec import build
from distsim.units import PS_PER_S
from distsim.workload.training.operations import Operation

#: what an iteration is bound by -> what it is
PARTS = {
    "compute": "arithmetic", "weights": "reading weights and activations", "kv": "reading the KV cache",
    "network": "messages between GPUs", "host": "waiting for the host",
}  # fmt: skip
#: iterations of a pool that are taken apart, of those with prompts and of those without: shares are good to about 1 %
_SAMPLE = 300


def parts(result: ServingResult) -> dict[str, float] | None:
    """Share of the iteration time by part, over all pools by their busy time; None where the run does not say its deployments,
    or no provider can time their kernels."""
    total = dict.fromkeys(PARTS, 0.0)
    cluster = result.spec.get("cluster")
    topology = build(str(cluster)) if cluster else None
    pools = {_name(pool, number): pool for number, pool in enumerate(result.spec.get("pools", ()))}
    for name, deployment in deployments(result).items():
        numbers = [row.number for row in result.replicas if row.pool == name]
        try:
            found = _of_pool(result, pools[name], deployment, topology, numbers)
        except DistsimError:
            return None
        for part, ps in found.items():
            total[part] += ps
    everything = sum(total.values())
    return {part: ps / everything for part, ps in total.items()} if everything else None


def deployments(result: ServingResult) -> dict[str, Deployment]:
    """By name of the pool; empty where the run does not say."""
    found: dict[str, Deployment] = {}
    for number, pool in enumerate(result.spec.get("pools", ())):
        fields: Mapping[str, Any] = pool["deployment"]
        found[_name(pool, number)] = Deployment.of(**fields)
    return found


def _name(pool: Mapping[str, Any], number: int) -> str:
    return str(pool["name"] or f"pool {number}")


def _of_pool(
    result: ServingResult, pool: Mapping[str, Any], deployment: Deployment, topology: Topology | None, numbers: list[int]
) -> dict[str, float]:
    """ps of the busy time of some replicas by part."""
    log = result.iterations
    rows = np.flatnonzero(np.isin(log["replica"], numbers))
    rows = rows[np.lexsort((log["start"][rows], log["replica"][rows]))]
    prompts = log["prefills"][rows] > 0
    width = speculation_of(str(pool["speculation"]), deployment.spec.layers).tokens + 1 if pool.get("speculation") else 1
    anatomy = _Anatomy(deployment, topology)
    model = pool.get("times", "model") == "model"
    level = model and width == 1 and deployment.pp == 1 and result.spec.get("network", CLOSED) != CLOSED
    total = dict.fromkeys(PARTS, 0.0)
    for stratum in (rows[prompts], rows[~prompts]):
        busy = int((log["ps"] * log["count"])[stratum].sum())
        found = dict.fromkeys(PARTS, 0.0)
        for row, number, times in _sample(log, stratum):
            made = anatomy.shares(_shape(log, row, number, deployment.dp, width), int(log["ps"][row]) if level else 0, model)
            for part, share in made.items():
                found[part] += share * times
        sampled = sum(found.values())
        for part, share in found.items():
            total[part] += share * busy / sampled if sampled else 0.0
    return total


def _sample(log: Mapping[str, Any], rows: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Of the iterations of these rows, at equal steps of their time: row, number within it, how often it was met.

    NOTE: a sample in proportion to time that needs no random numbers, and that steady stretches and single steps have alike"""
    took = log["ps"][rows] * log["count"][rows]
    until = np.cumsum(took)
    if not len(until) or not until[-1]:
        return
    marks = ((np.arange(_SAMPLE) + 0.5) * (float(until[-1]) / _SAMPLE)).astype(np.int64)
    place = np.searchsorted(until, marks, side="right")
    inside = (marks - (until - took)[place]) // np.maximum(log["ps"][rows][place], 1)
    for (row, number), times in Counter(zip(rows[place].tolist(), inside.tolist(), strict=True)).items():
        yield row, number, times


def _shape(log: Mapping[str, Any], row: int, number: int, lanes: int, width: int = 1) -> Shape:
    """The shape of iteration ``number`` of a row as far as the row tells: prompts of equal length, evenly over the lanes, with
    as much in cache as all their new tokens attend to."""
    prefills, tokens, sequences = (-(-int(log[name][row]) // lanes) for name in ("prefills", "tokens", "sequences"))
    kv = -(-(int(log["kv"][row]) + int(log["sequences"][row]) * number) // lanes)
    each, more = divmod(tokens, prefills) if prefills else (0, 0)
    cached = round(int(log["attended"][row]) / lanes / tokens - (each + 1) / 2) if tokens else 0
    pairs = tuple((each + (at < more), max(0, cached)) for at in range(prefills) if each + (at < more))
    return Shape(pairs, sequences, kv, -(-kv // sequences) if sequences else 0, sequences * width + prefills, width)


class _Anatomy:
    """Takes iterations of a deployment apart. Halves of layers are remembered: shapes hardly repeat, their parts do."""

    def __init__(self, deployment: Deployment, topology: Topology | None) -> None:
        self._rank, self._times = Rank.of(deployment), ModelTimes(deployment, topology)
        self._captured = captured(deployment)
        self._stages = [
            Counter(kind_of(self._rank, layer) for layer in deployment.layers_of(stage)) for stage in range(deployment.pp)
        ]
        self._pieces: dict[Hashable, tuple[dict[str, float], int]] = {}
        self._known: dict[tuple[Work, int], dict[str, float]] = {}

    def shares(self, shape: Shape, ps: int, host: bool) -> dict[str, float]:
        """Of one iteration by part. ps: what it took where other traffic may have slowed it down, else 0. host: whether the
        host may have made it wait."""
        work = padded(work_of(shape, BUCKET, self._captured))
        found = self._known.get((work, ps))
        if found is None:
            found = dict.fromkeys(PARTS, 0.0)
            for stage in range(len(self._stages)):
                self._add_stage(found, work, stage, host)
            found["network"] += max(0.0, ps - sum(found.values()))
            spent = sum(found.values())
            found = self._known[work, ps] = {part: one / spent for part, one in found.items()} if spent else {}
        return found

    def _add_stage(self, found: dict[str, float], work: Work, stage: int, host: bool) -> None:
        """ps of a stage; what the GPU waits for the host is what distsim.serving.times.model says."""
        spent = sum(found.values())
        rows, launches = work.rows, 0
        pieces = [(1, self._piece(before, self._rank, rows, stage)), (1, self._piece(after, self._rank, work, stage))]
        for (sparse, window), count in self._stages[stage].items():
            everyone = rows * self._rank.deployment.dp
            pieces.append((count, self._piece(mlp_half, self._rank, rows, everyone, sparse)))
            pieces += [(count, one) for one in self._attention(work, window)]
        for count, (parts, launched) in pieces:
            launches += count * launched
            for part, ps in parts.items():
                found[part] += count * ps
        if host:
            software = self._rank.deployment.software
            waits = software.host + software.host_sequence * (work.sequences + len(work.prompts))
            over = 0.0 if work.graph else launches * software.launch * PS_PER_S - (sum(found.values()) - spent)
            found["host"] += max(0.0, over) + waits * PS_PER_S

    def _attention(self, work: Work, window: int) -> Iterator[tuple[dict[str, float], int]]:
        """The half of a layer."""
        yield self._piece(_written, self._rank, attention.project, work.rows)
        if work.prompts:
            yield self._piece(_written, self._rank, attention.expand, work.prompt_rows)
        for chunk in work.prompts:
            yield self._piece(_written, self._rank, attention.prompts, *chunk, window)
        if work.sequences:
            alone = Work(0, (), work.sequences, work.kv, 0, True, work.width)
            yield self._piece(_written, self._rank, attention.generate, alone, window)
        yield self._piece(_written, self._rank, attention.gather, work.rows)

    def _piece(self, write: Callable[..., Iterable[Operation]], *what: Any) -> tuple[dict[str, float], int]:
        """ps by part of what ``write`` gives, and its launches."""
        found = self._pieces.get((write, *what))
        if found is None:
            parts: dict[str, float] = {}
            launches = 0
            for one in write(*what):
                part = _part(one, self._rank.gpu)
                parts[part] = parts.get(part, 0.0) + self._times.operation(one)
                launches += one.launches
            found = self._pieces[(write, *what)] = parts, launches
        return found


def _written(rank: Rank, write: Callable[..., None], *what: Any) -> list[Operation]:
    w = Writer(rank)
    write(w, *what)
    return w.operations


def _part(one: Operation, gpu: Gpu) -> str:
    if one.kernel is None:
        return "network"
    if compute_bound(one.kernel, gpu):
        return "compute"
    return "kv" if one.kind == "attention" else "weights"


def compute_bound(kernel: Kernel, gpu: Gpu) -> bool:
    """Whether a kernel's arithmetic at the peak takes longer than its traffic at the memory bandwidth."""
    peak = gpu.peak.get(kernel.dtype) or gpu.peak.get("bf16") or max(gpu.peak.values())
    return kernel.flops / peak > kernel.bytes / gpu.memory_bandwidth
