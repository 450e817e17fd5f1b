"""Times of everything that a step is made of: units (layers, embedding, head), messages, the optimizer.

A unit is the smallest piece of a block whose boundaries others can see: gradients and gathered weights come and go by unit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

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


class Unit:
    """A layer, or the embedding or the head: its operations each way, and the weights that it holds on a rank."""

    __slots__ = ("backward", "dense", "expert", "forward", "name")

    def __init__(
        self, name: str, forward: tuple[Operation, ...], backward: tuple[Operation, ...], dense: int, expert: int
    ) -> None:
        self.name = name
        self.forward, self.backward = forward, backward
        self.dense, self.expert = dense, expert


class Costs:
    """Times of one plan on one cluster. Everything is worked out when first asked, and kept.

    kernels: (kernel, gpu) -> Answer, such as a provider chain's ``answer``.
    """

    def __init__(
        self, model: Model, plan: Plan, stack: Stack, gpu: Gpu, topology: Topology, kernels: Callable[[Kernel, Gpu], Answer]
    ) -> None:
        self.model, self.plan, self.stack, self.gpu, self.topology = model, plan, stack, gpu, topology
        self.shard = Shard(model, plan, stack)
        self.collectives = Collectives(topology, plan)
        self._answer = kernels
        self._kernel_ps: dict[tuple[str, Kernel], int] = {}
        self._units: dict[tuple[object, ...], BlockTime] = {}
        rates = stack.gemm
        self._gemm_rate = rates.get(gpu.generation, rates.get("*", 1.0))

    # --- kernels and units ------------------------------------------------------------------------------------------------

    def kernel_ps(self, operation: Operation) -> int:
        """Duration of a compute operation, with the stack's efficiency."""
        kernel = operation.kernel
        assert kernel is not None
        key = (operation.kind, kernel)
        found = self._kernel_ps.get(key)
        if found is None:
            if kernel.dtype == "fp16" and "bf16" in self.gpu.peak:
                kernel = kernel._replace(dtype="bf16")  # the same units, and what was measured
            rate = self._rate(operation.kind, kernel)
            found = self._kernel_ps[key] = round(self._answer(kernel, self.gpu).seconds / rate * _PS)
        return found

    def _rate(self, kind: str, kernel: Kernel) -> float:
        if kernel.kind == "memory":
            return self.stack.memory_rate
        if kernel.kind in ("attention", "attention_backward"):
            return self.stack.attention_rate
        return self._gemm_rate

    def message_ps(self, operation: Operation) -> int:
        """Duration of a communication inside a block, on idle links."""
        return self.collectives.time(operation.operation, operation.bytes, operation.group)

    def time(self, operations: tuple[Operation, ...]) -> BlockTime:
        """Of one unit in one direction."""
        key = (id(operations),)
        found = self._units.get(key)
        if found is None:
            graphs = self.shard.cuda_graphs
            found = self._units[key] = timed(
                operations, self.kernel_ps, self.message_ps, launch_ps=0 if graphs else round(self.stack.launch * _PS),
                overhead_ps=0 if graphs else round(self.stack.layer_overhead * _PS), interference=self.stack.interference,
            )  # fmt: skip
            if self.shard.ep_overlap:
                found = self._units[key] = _behind(found, "ep")
        return found

    @cached_property
    def units(self) -> tuple[tuple[Unit, ...], ...]:
        """Units of every virtual stage, in model order."""
        shard, model, plan = self.shard, self.model, self.plan
        found: list[tuple[Unit, ...]] = []
        counts = plan.stage_layers(model)
        like: dict[tuple[bool, bool], tuple[tuple[Operation, ...], tuple[Operation, ...]]] = {}
        layer = 0
        for chunk, count in enumerate(counts):
            units: list[Unit] = []
            if chunk == 0:
                table = -(-model.vocab // plan.tp) * model.hidden
                units.append(
                    Unit("embedding", layers.embedding(shard, "forward"), layers.embedding(shard, "backward"), table, 0)
                )
            for number in range(layer, layer + count):
                kind = layers.layer_kind(shard, number)
                if kind not in like:
                    like[kind] = layers.forward(shard, number), layers.backward(shard, number)
                units.append(Unit("layer", *like[kind], *layer_weights(model, plan, number)))
            layer += count
            if chunk == len(counts) - 1:
                table = 0 if model.tied and len(counts) == 1 else -(-model.vocab // plan.tp) * model.hidden
                units.append(Unit("head", layers.head(shard, "forward"), layers.head(shard, "backward"), table, 0))
            found.append(tuple(units))
        return tuple(found)

    @cached_property
    def weights(self) -> tuple[Weights, ...]:
        """Of every virtual stage on a rank."""
        return weights(self.model, self.plan)

    def block(self, chunk: int, direction: str) -> BlockTime:
        """A virtual stage for one micro-batch, ``forward`` or ``backward``, all its units."""
        key = (chunk, direction)
        found = self._units.get(key)
        if found is None:
            found = self._units[key] = merged(
                [self.time(getattr(unit, direction)) for unit in self.units[chunk]]
                + [BlockTime(0, host=round(self.stack.micro_batch_overhead * _PS / 2))]
            )
        return found

    # --- between blocks ----------------------------------------------------------------------------------------------------

    @property
    def message_bytes(self) -> int:
        """Bytes that a pipeline stage hands on for one micro-batch (each tensor-parallel rank its part, where it is split)."""
        size = self.shard.activations
        return size // self.plan.tp if self.shard.sequence_parallel or self.stack.scatter_gather else size

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
