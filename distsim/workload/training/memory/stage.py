"""The memory of every pipeline stage of a plan: states, activations in flight, buffers, and the peak among its moments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from distsim.hardware.gpu import Gpu
from distsim.models.spec import Model
from distsim.workload.training.memory import activations, head, in_flight, states, weights
from distsim.workload.training.plan import Plan
from distsim.workload.training.stack import Stack

#: cuBLAS and Transformer Engine workspaces: 32 MiB each on Hopper and later, less before (cuBLAS documentation)
WORKSPACE = 64 << 20


@dataclass(frozen=True, slots=True)
class Parts:
    """What the peak of a stage is put together from. Bytes.

    static: by term, through the whole step. chunks: kept by one micro-batch of each of its virtual stages, and kinds: by kind.
    moments: transient terms of each moment, and least: static and those, before any activation.
    """

    static: Mapping[str, float]
    chunks: tuple[float, ...]
    kinds: tuple[Mapping[str, float], ...]
    moments: Mapping[str, Mapping[str, float]]
    least: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class StageMemory:
    """Memory of one rank of a pipeline stage, in bytes.

    moments: allocated bytes at each moment that can be the peak (backward, loss, head, optimizer). in_flight: micro-batches
    held of each virtual stage. allocated: tensors at the peak (torch's max_memory_allocated); reserved: with the allocator's
    fragmentation (max_memory_reserved); device: with the CUDA context and NCCL (what nvidia-smi shows).
    """

    stage: int
    parts: Parts
    in_flight: Mapping[int, int]
    moments: Mapping[str, int]
    allocated: int
    reserved: int
    device: int

    @property
    def moment(self) -> str:
        """When the peak is."""
        return max(self.moments, key=lambda name: self.moments[name])

    @property
    def activations(self) -> dict[str, int]:
        """Activations in flight, by kind."""
        kinds: dict[str, float] = {}
        for count, one in zip(self.in_flight.values(), self.parts.kinds, strict=True):
            for kind, size in one.items():
                kinds[kind] = kinds.get(kind, 0.0) + count * size
        return {kind: round(size) for kind, size in kinds.items() if size}

    @property
    def terms(self) -> dict[str, int]:
        """What is alive at the peak, by term: weights, gradients, optimizer, activations, loss, recomputed ..., workspace."""
        moment = self.moment
        terms = dict(self.parts.static)
        if moment != "optimizer":
            terms["activations"] = _live(self.parts, self.in_flight)
        for name, size in self.parts.moments[moment].items():
            terms[name] = terms.get(name, 0.0) + size
        return {name: round(size) for name, size in terms.items() if size}

    @property
    def largest(self) -> str:
        """The largest term at the peak."""
        terms = self.terms
        return max(terms, key=lambda name: terms[name])


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of all stages, and what it was computed for."""

    stages: tuple[StageMemory, ...]
    model: Model
    plan: Plan
    stack: Stack

    @property
    def worst(self) -> StageMemory:
        """The stage with the most."""
        return max(self.stages, key=lambda stage: stage.device)

    @property
    def device(self) -> int:
        """Bytes on the fullest device."""
        return self.worst.device


def memory_of(model: Model, plan: Plan, stack: Stack, gpu: Gpu, only: Iterable[int] | None = None) -> Memory:
    """Memory of every stage (``only``: of these). Raises ConfigError where the plan does not fit the model or its schedule."""
    plan.check(model)
    chunks = weights.chunks(model, plan)
    per = per_parameters(plan, stack, gpu)
    known: dict[tuple[weights.Chunk, ...], Parts] = {}
    stages = []
    for stage in range(plan.pp) if only is None else only:
        numbers = in_flight.chunks_of(plan, stage)
        mine = tuple(chunks[number] for number in numbers)
        if mine not in known:
            known[mine] = parts_of(model, plan, stack, mine, per)
        stages.append(_stage(stage, known[mine], in_flight.held(plan, stage, mine), stack))
    return Memory(tuple(stages), model, plan, stack)


def per_parameters(plan: Plan, stack: Stack, gpu: Gpu) -> tuple[states.PerParameter, states.PerParameter]:
    """Bytes per dense and per expert parameter."""
    dense, expert = states.shards(plan)
    return states.per_parameter(plan, stack, gpu, dense), states.per_parameter(plan, stack, gpu, expert)


def parts_of(
    model: Model, plan: Plan, stack: Stack, mine: tuple[weights.Chunk, ...],
    per: tuple[states.PerParameter, states.PerParameter],
) -> Parts:  # fmt: skip
    """What the memory of a stage with these virtual stages is made of, before any micro-batch is counted."""
    held = weights.held(model, plan, mine)
    shape = activations.shape_of(plan, stack)
    tokens, width = shape.tokens, shape.width
    stream = tokens * model.hidden / (plan.tp if plan.sequence_parallel else 1) * width
    static, step = _static(held, per, plan, stack, width, stream)
    layers = [activations.layer(model, sparse, shape) for sparse in (False, True)]
    kinds = tuple(_kinds(model, chunk, layers, shape, stream) for chunk in mine)
    present = [kind for kind, count in zip(layers, (sum(c.dense for c in mine), sum(c.sparse + c.mtp for c in mine)),
                                           strict=True) if count]  # fmt: skip
    layer_gradients = held.largest * (width + 4) if plan.zero == 3 else 0.0  # a layer's, and the fp32 reduce-scatter's input
    kv = 2 * tokens * model.kv_heads * model.head_dim / plan.tp * width
    ring = 0.0 if plan.cp == 1 else 2 * kv if plan.cp_mode == "ring" else plan.cp * kv
    moments: dict[str, dict[str, float]] = {
        "backward": {
            "recomputed": max((kind.working for kind in present), default=0.0),
            "activation gradients": max((kind.gradients for kind in present), default=0.0) + stream,
            "weight gradients": layer_gradients,
            "context parallel": ring,
        },
        "optimizer": {"optimizer step": step},
    }
    if any(chunk.last for chunk in mine):
        moments["loss"] = {"loss": head.loss_peak(model, plan, stack, tokens, width)}
        # NOTE: fused or not, autograd is handed a 16-bit gradient of the head's shape
        table = weights.vocabulary(model, plan.tp) * model.hidden / plan.tp * width
        moments["head"] = {"loss": head.head_backward(model, plan, tokens, width), "weight gradients": table}
        if not (stack.dummy_gradients or plan.zero == 3):
            moments["head"].pop("weight gradients")
    base = sum(static.values())
    least = {name: base + sum(terms.values()) for name, terms in moments.items()}
    return Parts(static, tuple(sum(one.values()) for one in kinds), kinds, moments, least)


def _static(
    held: weights.Held, per: tuple[states.PerParameter, states.PerParameter], plan: Plan, stack: Stack, width: int,
    stream: float,
) -> tuple[dict[str, float], float]:  # fmt: skip
    """Bytes that stay through the step, by term; and the transient ones of the optimizer."""
    dense, expert = per
    both = ((dense, held.total - held.experts), (expert, held.experts))
    tables = held.embedding + held.head
    quantised = stack.quantised_weights and dense.quantised > 0
    static = {
        "weights": dense.weights * tables if quantised else sum(one.weights * count for one, count in both),
        "gradients": sum(one.gradients * count for one, count in both),
        "optimizer": sum(one.optimizer * count for one, count in both),
        "workspace": float(WORKSPACE),
    }
    if dense.quantised:
        static["quantised weights"] = dense.quantised * held.dense + expert.quantised * held.experts
    if plan.zero == 3:
        # embedding, final norm and head are gathered once; of layers, the one that computes and those prefetched
        layers = held.dense + held.experts
        if plan.reshard:
            layers = min(layers, (1 + plan.prefetch) * held.largest)
        static["gathered weights"] = width * (layers + tables)
    if stack.dummy_gradients:
        static["empty weight gradients"] = width * held.products
    if plan.pp > 1:
        static["pipeline messages"] = 2 * stream
    bucket = plan.bucket_bytes or stack.bucket_bytes
    if stack.gradient_copy and plan.zero in (1, 2):
        static["communication buckets"] = 2.0 * bucket  # one for the reduction, one for the gathering of weights
    return static, sum(one.step * count for one, count in both)


def _kinds(
    model: Model, chunk: weights.Chunk, layers: list[activations.Layer], shape: activations.Shape, stream: float
) -> dict[str, float]:
    """Bytes that one micro-batch leaves in a virtual stage, by kind."""
    kinds: dict[str, float] = {}
    dense, sparse = chunk.dense, chunk.sparse
    dense, sparse = (dense, sparse + chunk.mtp) if model.moe is not None else (dense + chunk.mtp, sparse)
    for count, layer in zip((dense, sparse), layers, strict=True):
        if count:
            for kind, size in layer.kept:
                kinds[kind] = kinds.get(kind, 0.0) + count * size
    if chunk.first and shape.dropout:
        kinds["dropout masks"] = kinds.get("dropout masks", 0.0) + stream / shape.width
    if chunk.last:
        kinds["head"] = head.kept(model, shape.tokens, shape.width, shape.tp, shape.sequence_parallel)
    return kinds


def _live(parts: Parts, flight: Mapping[int, int]) -> float:
    """Bytes of activations in flight."""
    return sum(count * size for count, size in zip(flight.values(), parts.chunks, strict=True))


def _stage(stage: int, parts: Parts, flight: Mapping[int, int], stack: Stack) -> StageMemory:
    live = _live(parts, flight)
    moments = {name: round(least if name == "optimizer" else live + least) for name, least in parts.least.items()}
    allocated = max(moments.values())
    reserved = round(allocated * (1 + stack.fragmentation))
    return StageMemory(stage, parts, flight, moments, allocated, reserved, reserved + stack.context_bytes)
