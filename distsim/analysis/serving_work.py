"""What the iterations of a service were made of: a sample of them, taken apart into the kernels and messages of one rank.

Each kernel is bound by what would take longer on an ideal GPU, its arithmetic or its traffic with main memory (Williams et al.,
Roofline, 2009), and counts with the time that the compute providers give it. What an iteration took beyond its kernels and
messages was the host's, or, on a network level, that of other traffic; it is left out where measured tables tell the time of an
iteration, or a draft takes part of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from distsim.cost.kernel import Kernel
from distsim.errors import DistsimError
from distsim.hardware.gpu import Gpu
from distsim.serving.deployment import Deployment
from distsim.serving.iteration import Shape
from distsim.serving.layers.writer import Rank
from distsim.serving.operations import BUCKET, after, attention_half, before, captured, kind_of, mlp_half, padded
from distsim.serving.result import ServingResult
from distsim.serving.times.model import ModelTimes
from distsim.serving.work import work_of
from distsim.topology.graph import Topology
from distsim.topology.spec import build
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
    cluster = result.spec.get("cluster")
    topology = build(str(cluster)) if cluster else None
    pools = {_name(pool, number): pool for number, pool in enumerate(result.spec.get("pools", ()))}
    for name, deployment in deployments(result).items():
        numbers = [row.number for row in result.replicas if row.pool == name]
        try:
            found = _of_pool(result, deployment, topology, numbers, _beyond(result, pools[name]))
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


def _beyond(result: ServingResult, pool: Mapping[str, Any]) -> str:
    """Whose time it is that an iteration took beyond its kernels and messages; empty where nothing follows from it."""
    if pool.get("times", "model") != "model" or pool.get("speculation") or pool["deployment"].get("pp", 1) > 1:
        return ""
    return "host" if result.spec.get("network", "closed") == "closed" else "network"


def _of_pool(
    result: ServingResult, deployment: Deployment, topology: Topology | None, numbers: list[int], beyond: str
) -> dict[str, float]:
    """ps of the busy time of some replicas by part; beyond: see _beyond."""
    log = result.iterations
    rows = np.flatnonzero(np.isin(log["replica"], numbers))
    took = (log["ps"] * log["count"])[rows]
    busy = float(took.sum())
    if not busy:
        return {}
    # NOTE: every k-th ps of the busy time picks its iteration: a sample in proportion to time that needs no random numbers
    marks = (np.arange(_SAMPLE) + 0.5) * (busy / _SAMPLE)
    chosen = rows[np.minimum(np.searchsorted(np.cumsum(took), marks), len(rows) - 1)]
    times, rank = ModelTimes(deployment, topology), Rank.of(deployment)
    total = dict.fromkeys(PARTS, 0.0)
    known: dict[tuple[Shape, int], dict[str, float]] = {}
    for row in chosen.tolist():
        shape = _shape(log, row, deployment.dp)
        ps = int(log["ps"][row])
        made = known.get((shape, ps))
        if made is None:
            made = known[shape, ps] = _of_iteration(rank, times, shape, ps if beyond else 0, beyond)
        for part, share in made.items():
            total[part] += share * busy / _SAMPLE
    return total


def _shape(log: Mapping[str, Any], row: int, lanes: int) -> Shape:
    """The shape of an iteration as far as its row tells: its prompts of equal length, none cached, evenly over the lanes."""
    names = ("prefills", "tokens", "sequences", "kv")
    prefills, tokens, sequences, kv = (-(-int(log[name][row]) // lanes) for name in names)
    each, more = divmod(tokens, prefills) if prefills else (0, 0)
    pairs = tuple((each + (at < more), 0) for at in range(prefills) if each + (at < more))
    return Shape(pairs, sequences, kv, -(-kv // sequences) if sequences else 0, sequences + prefills)


def _of_iteration(rank: Rank, times: ModelTimes, shape: Shape, ps: int, beyond: str) -> dict[str, float]:
    """Share of one iteration by part; what of its ``ps`` no kernel or message takes is part ``beyond``'s."""
    found = dict.fromkeys(PARTS, 0.0)
    for stage in range(rank.deployment.pp):
        for one, count in _operations(rank, shape, stage):
            found[_part(one, rank.gpu)] += count * times.operation(one)
    spent = sum(found.values())
    if ps > spent:
        found[beyond] += ps - spent
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
