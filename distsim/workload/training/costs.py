"""Times of everything that a step is made of: units (layers, embedding, head), messages, the optimizer.

A unit is the smallest piece of a block whose boundaries others can see: gradients and gathered weights come and go by unit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

from distsim.cost.kernel import Answer, Kernel, memory
from distsim.hardware.gpu import Gpu
from distsim.models.spec import Model
from distsim.topology.graph import Topology
from distsim.workload.training.blocks import BlockTime, merged, timed
from distsim.workload.training.communicators import Collectives
from distsim.workload.training.layers import layer as layers
from distsim.workload.training.layers.shard import Shard
from distsim.workload.training.operations import Operation
from distsim.workload.training.plan import Plan
from distsim.workload.training.stack import Stack
from distsim.workload.training.weights import Weights, layer_weights, weights

_PS = 1_000_000_000_000


class Unit(NamedTuple):
    """A layer, or the embedding or the head: its operations each way, and the weights that it holds on a rank."""

    name: str
    kind: tuple[object, ...]  #: units of one kind have the same operations
    forward: tuple[Operation, ...]
    backward: tuple[Operation, ...]
    dense: int
    expert: int


class Chunk(NamedTuple):
    """What a virtual stage is made of: chunks that are equal do the same."""

    kinds: tuple[tuple[bool, bool], ...]  #: of its layers
    first: bool
    last: bool


class Remembered:
    """What plans have in common: operations and times of units, by what decides them. For one model, stack, GPU and cluster."""

    def __init__(self) -> None:
        self.placed: dict[tuple[object, ...], tuple[int, ...]] = {}
        self.operations: dict[tuple[object, ...], tuple[Operation, ...]] = {}
        self.times: dict[tuple[object, ...], BlockTime] = {}
        self.collectives: dict[tuple[object, ...], int] = {}
        self.kernels: dict[tuple[str, Kernel], int] = {}
        self.weights: dict[tuple[object, ...], tuple[Weights, ...]] = {}
        self.chunks: dict[tuple[int, ...], tuple[Chunk, ...]] = {}
        self.blocks: dict[tuple[object, ...], BlockTime] = {}
        self.bounds: dict[tuple[object, ...], Any] = {}


class Costs:
    """Times of one plan on one cluster. Everything is worked out when first asked, and kept.

    kernels: (kernel, gpu) -> Answer, such as a provider chain's ``answer``. remembered: shared by the plans of a sweep.
    """

    def __init__(
        self, model: Model, plan: Plan, stack: Stack, gpu: Gpu, topology: Topology, kernels: Callable[[Kernel, Gpu], Answer],
        remembered: Remembered | None = None,
    ) -> None:  # fmt: skip
        self.model, self.plan, self.stack, self.gpu, self.topology = model, plan, stack, gpu, topology
        self.remembered = remembered or Remembered()
        self.collectives = Collectives(topology, plan, self.remembered.collectives, self.remembered.placed)
        self.shard = Shard(model, plan, stack, self.collectives.domains("ep") if plan.ep > 1 else 1)
        self._answer = kernels
        self._blocks: dict[tuple[int, str], BlockTime] = {}
        self._layers: dict[tuple[bool, bool], Unit] = {}
        self._shape = (*_shape(plan), self.collectives.representatives("tp"))
        rate = stack.attention_rate
        # NOTE: providers tell the usual fused kernel of the GPU's generation, whatever the stack's was
        self._attention_rate = gpu.clock * (stack.context_rate if plan.cp > 1 else 1.0) * (
            rate if isinstance(rate, float) else rate.get(gpu.generation, rate.get("*", 1.0))
        )

    # --- kernels and units ------------------------------------------------------------------------------------------------

    def kernel_ps(self, operation: Operation) -> int:
        """Duration of a compute operation, with the stack's efficiency."""
        kernel = operation.kernel
        assert kernel is not None
        key = ("wgrad" if operation.part == "wgrad" else operation.kind, kernel)
        found = self.remembered.kernels.get(key)
        if found is None:
            rate = self._rate(kernel, operation.part)
            found = self.remembered.kernels[key] = round(self.answer(kernel).seconds / rate * _PS)
        return found

    def answer(self, kernel: Kernel) -> Answer:
        """What the providers say of a kernel, without the stack's efficiency."""
        if kernel.dtype == "fp16" and "bf16" in self.gpu.peak:
            kernel = kernel._replace(dtype="bf16")  # the same units, and what was measured
        return self._answer(kernel, self.gpu)

    def _rate(self, kernel: Kernel, part: str) -> float:
        if kernel.kind == "memory":
            return self.stack.memory_rate
        if kernel.kind in ("attention", "attention_backward"):
            return self._attention_rate
        rates = self.stack.experts if kernel.kind == "grouped_gemm" and self.stack.experts else self.stack.gemm
        name, generation, dtype = self.gpu.name, self.gpu.generation, kernel.dtype
        found = (rates[key] for key in (f"{name} {dtype}", name, f"{generation} {dtype}", generation, "*") if key in rates)
        return next(found, 1.0) * self.gpu.clock * (self.stack.wgrad_rate if part == "wgrad" else 1.0)

    def message_ps(self, operation: Operation) -> int:
        """Duration of a communication inside a block, on idle links."""
        return self.collectives.slowest(operation.operation, operation.bytes, operation.group)

    def time(self, unit: Unit, direction: str) -> BlockTime:
        """Of one unit, ``forward`` or ``backward``."""
        key = (self._shape, unit.kind, direction)
        found = self.remembered.times.get(key)
        if found is None:
            graphs = self.shard.cuda_graphs
            # NOTE: with a capacity shapes are static: the host waits for no counts of tokens
            counted = unit.kind[:2] == ("layer", True) and not self.plan.capacity
            waits = self.stack.layer_overhead + (self.stack.moe_overhead if counted else 0.0)
            found = timed(
                getattr(unit, direction), self.kernel_ps, self.message_ps,
                launch_ps=0 if graphs else round(self.stack.launch * _PS),
                overhead_ps=0 if graphs else round(waits * _PS), interference=self.stack.interference,
            )  # fmt: skip
            if self.shard.ep_overlap:
                found = _behind(found, "ep")
            self.remembered.times[key] = found
        return found

    @cached_property
    def chunks(self) -> tuple[Chunk, ...]:
        """Every virtual stage, in model order."""
        counts = self.plan.stage_layers(self.model)
        found = self.remembered.chunks.get(counts)
        if found is None:
            kinds = tuple(layers.layer_kind(self.shard, number) for number in range(self.model.layers))
            ends = list(accumulate(counts))
            made = [Chunk(kinds[end - count : end], False, False) for count, end in zip(counts, ends, strict=True)]
            made[0], made[-1] = made[0]._replace(first=True), made[-1]._replace(last=True)
            made[-1] = made[-1]._replace(first=len(made) == 1)
            alike = {one: one for one in made}
            found = self.remembered.chunks[counts] = tuple(alike[one] for one in made)
        return found

    @cached_property
    def units(self) -> tuple[tuple[Unit, ...], ...]:
        """Units of every virtual stage, in model order."""
        made = {chunk: self._units_of(chunk) for chunk in set(self.chunks)}
        return tuple(made[chunk] for chunk in self.chunks)

    def _units_of(self, chunk: Chunk) -> tuple[Unit, ...]:
        model, plan = self.model, self.plan
        table = -(-model.vocab // plan.tp) * model.hidden
        units = [self._unit("embedding", 0, table, 0)] if chunk.first else []
        for kind in chunk.kinds:
            made = self._layers.get(kind)
            if made is None:
                number = next(n for n in range(model.layers) if layers.layer_kind(self.shard, n) == kind)
                made = self._layers[kind] = self._unit("layer", number, *layer_weights(model, plan, number))
            units.append(made)
        if chunk.last:
            for _ in range(model.mtp):  # its head shares the main one's weights
                units.append(self._unit("layer", model.layers, *layer_weights(model, plan, model.layers)))
                units.append(self._unit("prediction", 0, 2 * model.hidden * model.hidden // plan.tp, 0))
            units.append(self._unit("head", 0, 0 if model.tied and chunk.first else table, 0))
        return tuple(units)

    def _unit(self, name: str, layer: int, dense: int, expert: int) -> Unit:
        kind = (name, *layers.layer_kind(self.shard, layer)) if name == "layer" else (name,)
        both = []
        for direction in ("forward", "backward"):
            key = (self._shape, kind, direction)
            if key not in self.remembered.operations:
                if name == "layer":
                    made = (layers.forward if direction == "forward" else layers.backward)(self.shard, layer)
                else:
                    ends = {"embedding": layers.embedding, "head": layers.head, "prediction": layers.prediction}
                    made = ends[name](self.shard, direction)
                self.remembered.operations[key] = made
            both.append(self.remembered.operations[key])
        return Unit(name, kind, both[0], both[1], dense, expert)

    @cached_property
    def weights(self) -> tuple[Weights, ...]:
        """Of every virtual stage on a rank."""
        plan = self.plan
        key = (plan.stage_layers(self.model), plan.tp, plan.ep, plan.etp)
        if key not in self.remembered.weights:
            self.remembered.weights[key] = weights(self.model, plan)
        return self.remembered.weights[key]

    def block(self, chunk: int, direction: str) -> BlockTime:
        """A virtual stage for one micro-batch, ``forward`` or ``backward``, all its units."""
        found = self._blocks.get((chunk, direction))
        if found is None:
            key = (self._shape, self.chunks[chunk], direction)
            found = self.remembered.blocks.get(key)
            if found is None:
                kinds: dict[tuple[object, ...], tuple[Unit, int]] = {}
                for unit in self.units[chunk]:
                    kinds[unit.kind] = (unit, kinds.get(unit.kind, (unit, 0))[1] + 1)
                found = merged([(self.time(unit, direction), times) for unit, times in kinds.values()])
                waits = self.waits_ps
                found = self.remembered.blocks[key] = replace(found, span=found.span + waits, launch=found.launch + waits)
            self._blocks[chunk, direction] = found
        return found

    @property
    def waits_ps(self) -> int:
        """The host synchronises in every block: nothing hides it."""
        return round(self.stack.micro_batch_overhead * _PS / 2)

    # --- between blocks ----------------------------------------------------------------------------------------------------

    @property
    def message_bytes(self) -> int:
        """Bytes that a pipeline stage hands on for one micro-batch (each tensor-parallel rank its part, where it is split)."""
        size = self.shard.activations
        return size // self.plan.tp if self.shard.sequence_parallel or self.stack.scatter_gather else size

    def gathered_ps(self, parameters: int) -> int:
        """Copies of gathered weights, on the device. FSDP2: from the buffer of the all-gather into each parameter."""
        return self._memory_ps(4 * parameters) if self.stack.sharding == "fsdp2" else 0

    def scattered_ps(self, parameters: int) -> int:
        """Copies of the gradients of one micro-batch before they are scattered. FSDP2: into the buffer of the reduce-scatter,
        with the cast. FSDP: into the flat parameter's gradient, the cast, and the division by part of the number of ranks."""
        size = self.grad_bytes
        if self.stack.sharding == "fsdp1":
            return self._memory_ps((4 + (6 if size == 4 else 0) + 2 * size) * parameters)
        return self._memory_ps((2 + size) * parameters) if self.stack.sharding == "fsdp2" else 0

    def optimizer_ps(self, stage_weights: int) -> int:
        """Adam over this rank's share of ``stage_weights`` parameters: gradient, master weight and two moments are read,
        the last three and the weight written, all fp32 but the weight."""
        return self._memory_ps(stage_weights * (26 + self.grad_bytes))

    def clip_ps(self, stage_weights: int) -> int:
        """The norm of the gradients: read once, and scaled: read and written."""
        return self._memory_ps(stage_weights * 3 * self.grad_bytes) if self.plan.clip else 0

    @property
    def grad_bytes(self) -> int:
        """Of one gradient, kept and reduced."""
        return 4 if (self.plan.grad_dtype or self.stack.grad_dtype) == "fp32" else 2

    def _memory_ps(self, moved: float) -> int:
        if moved <= 0:
            return 0
        return round(self._answer(memory(moved), self.gpu).seconds / self.stack.memory_rate * _PS)


def _shape(plan: Plan) -> tuple[object, ...]:
    """The part of a plan that decides what a unit does, and how long it takes."""
    around = (plan.dp, plan.pp) if plan.cp > 1 or plan.ep * plan.etp > 1 else ()
    return (
        plan.tp, plan.cp, plan.ep, plan.etp, plan.micro_batch, plan.seq, plan.precision, plan.recompute, plan.sequence_parallel,
        plan.tp_overlap, plan.cp_mode, plan.ep_overlap, plan.ep_imbalance, plan.capacity, plan.cuda_graphs, *around,
    )  # fmt: skip


def _behind(block: BlockTime, group: str) -> BlockTime:
    """The block with a communicator's exposed time behind computation as far as that reaches (batches that overlap)."""
    exposed = block.exposed.get(group, 0)
    hidden = min(exposed, sum(block.computing.values()) - block.hidden.get(group, 0))
    if hidden <= 0:
        return block
    left = {**block.exposed, group: exposed - hidden}
    behind = {**block.hidden, group: block.hidden.get(group, 0) + hidden}
    return BlockTime(
        block.span - hidden, block.computing, left, behind, block.launch, block.weight, block.host, block.recomputed
    )
