"""What the iterations of a service were made of: a sample of them, taken apart into the kernels and messages of one rank.

Each kernel is bound by what would take longer on an ideal GPU, its arithmetic or its traffic with main memory (Williams et al.,
Roofline, 2009), and counts with the time that the compute providers give it. What an iteration took beyond its kernels and
messages was the host's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from distsim.cost.kernel import Kernel
from distsim.errors import ConfigError
from distsim.hardware.gpu import Gpu
from distsim.serving.deployment import Deployment
from distsim.serving.iteration import Shape
from distsim.serving.layers.writer import Rank
from distsim.serving.operations import BUCKET, after, attention_half, before, captured, kind_of, mlp_half, padded
from distsim.serving.result import ServingResult
from distsim.serving.times.model import ModelTimes
from distsim.serving.work import work_of
from distsim.workload.training.operations import Operation

#: what an iteration is bound by -> what it is
PARTS = {
    "compute": "arithmetic", "weights": "reading weights and activations", "kv": "reading the KV cache",
    "network": "messages between GPUs", "host": "waiting for the host",
}  # fmt: skip
#: iterations of a pool that are taken apart
_SAMPLE = 48


def parts(result: ServingResult) -> dict[str, float] | None:
    """Share of the iteration time by part, over all pools by their busy time; None where the run does not say its deployments,
    or no provider can time their kernels."""
    total = dict.fromkeys(PARTS, 0.0)
    for name, deployment in deployments(result).items():
        numbers = [row.number for row in result.replicas if row.pool == name]
        try:
            found = _of_pool(result, deployment, numbers)
        except ConfigError:
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
        found[pool["name"] or f"pool {number}"] = Deployment.of(**fields)
    return found


def _of_pool(result: ServingResult, deployment: Deployment, numbers: list[int]) -> dict[str, float]:
    """ps of the busy time of some replicas by part."""
    log = result.iterations
    rows = np.flatnonzero(np.isin(log["replica"], numbers))
    took = (log["ps"] * log["count"])[rows]
    busy = float(took.sum())
    if not busy:
        return {}
    # NOTE: every k-th ps of the busy time picks its iteration: a sample in proportion to time that needs no random numbers
    marks = (np.arange(_SAMPLE) + 0.5) * (busy / _SAMPLE)
    chosen = rows[np.minimum(np.searchsorted(np.cumsum(took), marks), len(rows) - 1)]
    times, rank = ModelTimes(deployment), Rank.of(deployment)
    total = dict.fromkeys(PARTS, 0.0)
    known: dict[tuple[Shape, int], dict[str, float]] = {}
    for row in chosen.tolist():
        shape = _shape(log, row)
        made = known.get((shape, int(log["ps"][row])))
        if made is None:
            made = known[shape, int(log["ps"][row])] = _of_iteration(deployment, rank, times, shape, int(log["ps"][row]))
        for part, share in made.items():
            total[part] += share * busy / _SAMPLE
    return total


def _shape(log: Mapping[str, Any], row: int) -> Shape:
    """The shape of an iteration as far as its row tells: its prompts of equal length, none cached."""
    prefills, tokens, sequences = (int(log[name][row]) for name in ("prefills", "tokens", "sequences"))
    kv = int(log["kv"][row])
    each, more = divmod(tokens, prefills) if prefills else (0, 0)
    pairs = tuple((each + (at < more), 0) for at in range(prefills) if each + (at < more))
    return Shape(pairs, sequences, kv, -(-kv // sequences) if sequences else 0, sequences + prefills)


def _of_iteration(deployment: Deployment, rank: Rank, times: ModelTimes, shape: Shape, ps: int) -> dict[str, float]:
    """Share of one iteration by part."""
    found = dict.fromkeys(PARTS, 0.0)
    for stage in range(deployment.pp):
        for one, count in _operations(rank, shape, stage):
            found[_part(one, rank.gpu)] += count * times.operation(one)
    spent = sum(found.values())
    # NOTE: with several stages the row's time holds waiting for stages that other batches use
    if deployment.pp == 1 and ps > spent:
        found["host"] = ps - spent
        spent = ps
    return {part: one / spent for part, one in found.items()} if spent else {}


def _operations(rank: Rank, shape: Shape, stage: int) -> Iterator[tuple[Operation, int]]:
    """Operations of a stage, and how many layers have them."""
    deployment = rank.deployment
    work = padded(work_of(shape, BUCKET, captured(deployment)))
    kinds = Counter(kind_of(rank, layer) for layer in deployment.layers_of(stage))
    for (sparse, window), count in kinds.items():
        halves = (*attention_half(rank, work, window), *mlp_half(rank, work.rows, work.rows * deployment.dp, sparse))
        yield from ((one, count) for one in halves)
    yield from ((one, 1) for one in (*before(rank, work.rows, stage), *after(rank, work, stage)))


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
