"""SimAI (AICB) workloads as a TaskGraph: the layers in the order in which the file's policy runs them, for every rank.

All ranks run the same program (one per kind of pipeline stage). Order and overlap are SimAI's: forward compute, then its
collective, which the next layer waits for; in the backward pass the same for the input gradient, then the weight gradient,
whose collective overlaps with what follows and is waited for at the end only. ``process_ns`` passes after every collective
before it counts as finished. The lines hold all micro-batches (AICB writes them out), so ``ga`` multiplies nothing.

Ranks are laid out tensor-parallel fastest, then experts within data-parallel, pipeline stages outermost (Megatron's order).
Bytes are whole sizes in NCCL's sense; an all_gather's become the shard.

Pipelines: SimAI's text has no messages between stages; its analytical mode adds (pp - 1) / (ga vpp) of the step as a bubble.
Here stages are real: rank groups that hand pp_comm bytes on per micro-batch, all forward passes before all backward ones (the
order of the file), so that the bubble comes about by waiting. Chunks of a stage (vpp) are not interleaved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.errors import TraceError
from distsim.trace import groups as grouping
from distsim.trace.build import COLUMNS, NODE_COLUMNS
from distsim.trace.defect import Defect
from distsim.trace.graph import CollectiveType, Group, NodeType, PeerKind, Program, TaskGraph
from distsim.trace.simai_text import Layer, Pass, Workload, micro_batches

_TRANSFORMERS = ("HYBRID_TRANSFORMER", "HYBRID_TRANSFORMER_FWD_IN_BCKWD")
MOST_RANKS = 1 << 20  #: more are a slip of the pen, and minutes and GBs of work
_ALL = "all"  #: the name, here, of the communicator of all ranks
_ACTIVATION, _GRADIENT = 0, 1  #: tags of messages between stages


def lower(workload: Workload, ranks: int | None = None, room: int | None = None) -> tuple[TaskGraph, list[Defect]]:
    """The graph of a workload, and what is odd about it.

    Args:
        ranks: number of ranks; goes before the header's all_gpus.
        room: hosts of the topology, the number of ranks where neither says one.

    Raises:
        TraceError: an unknown number of ranks, or one that the groups do not divide.
    """
    header, source = workload.header, workload.source
    odd: list[str] = []
    total = ranks or header.all_gpus or room
    if total is None:
        raise TraceError(
            "the header says no number of ranks", where=f"{source}: line 1", expected="all_gpus: N",
            fix="Give --ranks N, or the topology as --topo simai:FILE.",
        )  # fmt: skip
    if total > MOST_RANKS:
        raise TraceError(f"names {total:,} ranks", where=f"{source}: line 1", expected=f"at most {MOST_RANKS:,}")
    if header.all_gpus is None:
        odd.append(f"the header says no all_gpus: {total} ranks, as {'given' if ranks else 'the topology has hosts'}")
    elif ranks and ranks != header.all_gpus:
        odd.append(f"{ranks} ranks, as given, not the header's all_gpus: {header.all_gpus}")
    layout = _Layout(workload, total, odd)
    if workload.dependencies:
        odd.append(f"{workload.dependencies} lines name a dependency: not used (nor does SimAI use it)")
    names: dict[str, int] = {}
    stages = sorted({0, 1, layout.pp - 1} if layout.pp > 2 else range(layout.pp))
    split = _split(workload, layout, odd)
    tapes = [_Tape(layout, names, stage) for stage in stages]
    for tape in tapes:
        _POLICIES[header.policy](tape, workload, split)
    unused = sum(
        bool(pass_.kinds) and layout.size(tapes[0].group(pass_, at)) > 1 and (index, at) not in tapes[0].talked
        for index, layer in enumerate(workload.layers)
        for at, pass_ in enumerate(layer.passes)
    )
    if unused:
        odd.append(f"{unused} collectives are in passes that policy {header.policy} does not communicate in: not run")
    per_stage = total // layout.pp
    kinds = [0 if stage == 0 else len(stages) - 1 if stage == layout.pp - 1 else 1 for stage in range(layout.pp)]
    graph = TaskGraph(
        tuple(tape.program() for tape in tapes), np.repeat(np.array(kinds, np.int32), per_stage), layout.groups, tuple(names),
        source=source, metadata={"format": "SimAI workload", "policy": header.policy, "parallelism": layout.text()},
    )  # fmt: skip
    return graph, [Defect("simai", what, source, "warning") for what in odd]


class _Layout:
    """Sizes of the parallel dimensions, and the communicators that follow from them."""

    def __init__(self, workload: Workload, ranks: int, odd: list[str]) -> None:
        header, where = workload.header, f"{workload.source}: line 1"
        self.hybrid = header.policy in _TRANSFORMERS or (header.policy == "MICRO" and header.tp is not None)
        self.ranks, self.pp, self.ep = ranks, header.pp or 1, header.ep or 1
        if self.hybrid and header.tp is None:
            odd.append("the header says no model_parallel_NPU_group: all ranks of a stage are one (as in SimAI)")
        self._divides(ranks, self.pp, "pp", where)
        # NOTE: without groups of their own, collectives without a suffix span all ranks, and experts split all of them
        self.tp = (header.tp or ranks // self.pp) if self.hybrid else 1
        self._divides(ranks, self.pp * self.tp, "model_parallel_NPU_group x pp", where)
        self.dp = ranks // (self.pp * self.tp)
        self._divides(self.dp, self.ep, "ep", where, f"{self.dp} data-parallel ranks")
        sizes = {"tp": (self.tp, 1), "dp": (self.dp, self.tp), "ep": (self.ep, self.tp),
                 "dp_ep": (self.dp // self.ep, self.tp * self.ep)}  # fmt: skip
        self._sizes = {name: size for name, (size, _) in sizes.items()} | {_ALL: ranks}
        kept = {name: shape for name, shape in sizes.items() if shape[0] > 1 and (name != "dp_ep" or self.ep > 1)}
        self.groups: tuple[Group, ...] = tuple(
            grouping.relative(name, size, stride, ranks, where) for name, (size, stride) in kept.items()
        )
        self.index = {name: k for k, name in enumerate(kept)} | {_ALL: -1}
        if self.ep == 1 and self.dp > 1:
            self.index["dp_ep"] = self.index["dp"]  # experts are replicated like everything else

    @staticmethod
    def _divides(whole: int, part: int, name: str, where: str, of: str = "") -> None:
        if whole % part:
            raise TraceError(
                f"{name} {part} does not divide {of or f'{whole} ranks'}", where=where, expected=f"a multiple of {part}",
                fix="Correct all_gpus, or give another --ranks.",
            )  # fmt: skip

    def size(self, group: str) -> int:
        """Ranks of one instance of a group."""
        return self._sizes[group]

    def text(self) -> str:
        """``tp 8, ep 1, dp 16, pp 1``."""
        return f"tp {self.tp}, ep {self.ep}, dp {self.dp}, pp {self.pp}" if self.hybrid else f"{self.ranks} ranks"


class _Tape:
    """The program of one kind of stage under construction; ``ready`` is what the next computation waits for."""

    def __init__(self, layout: _Layout, names: dict[str, int], stage: int) -> None:
        self.layout, self.stage, self._names = layout, stage, names
        self.ready: list[int] = []
        self.talked: set[tuple[int, int]] = set()  #: (layer, pass) whose collectives were run
        self._columns: dict[str, dict[int, int]] = {name: {} for name in NODE_COLUMNS}
        self._dep: list[int] = []
        self._dep_ptr = [0]

    def _add(self, after: Iterable[int], name: str, **values: int) -> int:
        row = len(self._dep_ptr) - 1
        self._columns["name"][row] = self._names.setdefault(name, len(self._names))
        for column, value in values.items():
            self._columns[column][row] = value
        self._dep += after
        self._dep_ptr.append(len(self._dep))
        return row

    def compute(self, name: str, ns: int) -> None:
        """A computation that what follows waits for."""
        if ns:
            self.ready = [self._add(self.ready, name, type=NodeType.COMP, duration_ps=ns * 1000)]

    def group(self, pass_: Pass, at: int) -> str:
        """The communicator of a pass: ``at`` 0 forward, 1 input gradient, 2 weight gradient."""
        if pass_.group:
            return pass_.group
        return ("tp", "tp", "dp")[at] if self.layout.hybrid else _ALL

    def talk(self, index: int, layer: Layer, at: int, *, blocking: bool) -> int | None:
        """The collectives of a pass; what follows waits for them if they are blocking. Returns the last row, if any."""
        pass_ = layer.passes[at]
        group = self.group(pass_, at)
        size = self.layout.size(group)
        self.talked.add((index, at))
        if not pass_.kinds or size == 1:
            return None
        last = self.ready
        name = f"{layer.name} {('forward', 'input gradient', 'weight gradient')[at]}"
        for kind in pass_.kinds:
            amount = -(-pass_.bytes // size) if kind == CollectiveType.ALL_GATHER else pass_.bytes
            last = [self._add(
                last, name, type=NodeType.COMM_COLL, collective=kind, bytes=amount, group=self.layout.index[group]
            )]  # fmt: skip
        if layer.process_ns:
            # a delay, not work of the GPU: it must not hold up computations
            last = [self._add(last, f"{name} process", type=NodeType.COMP, duration_ps=layer.process_ns * 1000, cpu=1)]
        if blocking:
            self.ready = last
        return last[0]

    def wait(self, row: int | None) -> None:
        """What follows also waits for a row."""
        if row is not None:
            self.ready = [*self.ready, row]

    def hand_on(self, step: int, size: int, tag: int) -> None:
        """Send ``size`` bytes to the stage ``step`` further on, if there is one."""
        if 0 <= self.stage + step < self.layout.pp:
            self._add(self.ready, ("send activation", "send gradient")[tag], type=NodeType.COMM_SEND, bytes=size, tag=tag,
                      peer=step * self.layout.ranks // self.layout.pp, peer_kind=PeerKind.OFFSET)  # fmt: skip

    def await_from(self, step: int, size: int, tag: int) -> None:
        """What follows waits for the message from the stage ``step`` further on, if there is one."""
        if 0 <= self.stage + step < self.layout.pp:
            name = ("receive activation", "receive gradient")[tag]
            self.wait(self._add((), name, type=NodeType.COMM_RECV, bytes=size, tag=tag,
                                peer=step * self.layout.ranks // self.layout.pp, peer_kind=PeerKind.OFFSET))  # fmt: skip

    def program(self) -> Program:
        """The columns."""
        n = len(self._dep_ptr) - 1
        columns: dict[str, NDArray[Any]] = {}
        for name, said in self._columns.items():
            kind, missing = COLUMNS[name]
            columns[name] = np.full(n, missing, kind)
            if said:
                columns[name][np.fromiter(said, np.int64, len(said))] = np.fromiter(said.values(), np.int64, len(said))
        columns["id"] = np.arange(n, dtype=np.int64)
        return Program(dep_ptr=np.array(self._dep_ptr, np.int64), dep=np.array(self._dep, np.int32), **columns)


# --- policies -----------------------------------------------------------------------------------------------------------------

_Split = tuple[int, int, int]  #: first layer of the micro-batches, layers of one, micro-batches


def _split(workload: Workload, layout: _Layout, odd: list[str]) -> _Split:
    """The micro-batches, which matter to a pipeline only."""
    header, whole = workload.header, len(workload.layers)
    if layout.pp == 1:
        return 0, whole, 1
    if header.policy not in _TRANSFORMERS:
        raise TraceError(f"policy {header.policy} has no pipeline", where=f"{workload.source}: line 1", expected="pp: 1")
    if not header.pp_comm:
        odd.append("the header says no pp_comm: pipeline stages hand on one byte a micro-batch")
    if (header.vpp or 1) > 1:
        odd.append(f"vpp {header.vpp}: the chunks of a stage are not interleaved, the bubble is that of vpp 1")
    count = header.ga or 1
    found = micro_batches(workload.layers, count) if count > 1 else (0, whole)
    if found is None:
        odd.append(f"the layers are not {count} equal micro-batches (ga): stages hand on the whole step at once")
        return 0, whole, 1
    return (*found, count)


def _forward(tape: _Tape, layers: Sequence[Layer], span: range) -> None:
    for index in span:
        tape.compute(f"{layers[index].name} forward", layers[index].forward.ns)
        tape.talk(index, layers[index], 0, blocking=True)


def _transformer(tape: _Tape, workload: Workload, split: _Split) -> None:
    """Forward through all layers, then back; tensor-parallel collectives block, those of weight gradients overlap."""
    layers, header = workload.layers, workload.header
    again = _recomputations(workload)
    first, length, count = split
    size = header.pp_comm or 1

    def backward(span: range) -> None:
        for index in reversed(span):
            layer = layers[index]
            if index in again:
                _forward(tape, layers, again[index])
            tape.compute(f"{layer.name} input gradient", layer.input_grad.ns)
            tape.talk(index, layer, 1, blocking=True)
            tape.compute(f"{layer.name} weight gradient", layer.weight_grad.ns)
            tape.talk(index, layer, 2, blocking=False)

    batches = [range(first + k * length, first + (k + 1) * length) for k in range(count)]
    _forward(tape, layers, range(first))
    for batch in batches:
        tape.await_from(-1, size, _ACTIVATION)
        _forward(tape, layers, batch)
        tape.hand_on(1, size, _ACTIVATION)
    _forward(tape, layers, range(first + count * length, len(layers)))
    backward(range(first + count * length, len(layers)))
    for batch in reversed(batches):
        tape.await_from(1, size, _GRADIENT)
        backward(batch)
        tape.hand_on(-1, size, _GRADIENT)
    backward(range(first))


def _recomputations(workload: Workload) -> dict[int, range]:
    """Layer whose backward pass begins with a recomputation -> layers run forward again, from the nearest checkpoint."""
    header, found = workload.header, {}
    if header.policy != "HYBRID_TRANSFORMER_FWD_IN_BCKWD":
        return {}
    for index in header.initiates:
        before = [checkpoint for checkpoint in header.checkpoints if checkpoint < index]
        if not before:
            raise TraceError(
                f"layer {index} is in checkpoint_initiates, but no layer before it is in checkpoints",
                where=f"{workload.source}: line 1", fix="List the layer from which the forward pass is run again.",
            )  # fmt: skip
        found[index] = range(max(before), index)
    return found


def _model(tape: _Tape, workload: Workload, split: _Split) -> None:
    """Collectives of activations block, those of input gradients overlap with the weight gradient of their layer."""
    layers = workload.layers
    _forward(tape, layers, range(len(layers)))
    for index in reversed(range(len(layers))):
        layer = layers[index]
        tape.compute(f"{layer.name} input gradient", layer.input_grad.ns)
        row = tape.talk(index, layer, 1, blocking=False) if index else None
        tape.compute(f"{layer.name} weight gradient", layer.weight_grad.ns)
        tape.wait(row)


def _data(tape: _Tape, workload: Workload, split: _Split) -> None:
    """Weight gradients overlap with the rest of the backward pass; the first layer has no input gradient."""
    layers = workload.layers
    for layer in layers:
        tape.compute(f"{layer.name} forward", layer.forward.ns)
    for index in reversed(range(len(layers))):
        layer = layers[index]
        tape.compute(f"{layer.name} weight gradient", layer.weight_grad.ns)
        tape.talk(index, layer, 2, blocking=False)
        if index:
            tape.compute(f"{layer.name} input gradient", layer.input_grad.ns)


def _dlrm(tape: _Tape, workload: Workload, split: _Split) -> None:
    """Data-parallel but for the embedding (layer 0), whose all-to-all overlaps with the bottom layers, and back again."""
    layers, last = workload.layers, workload.header.last_bottom
    if last is None:
        raise TraceError(
            f"policy {workload.header.policy} needs the last layer of the bottom part", where=f"{workload.source}: line 1",
            expected="DLRM_LAST_BOTTOM_LAYER: N",
        )  # fmt: skip
    embedding: int | None = None
    for index, layer in enumerate(layers):
        tape.compute(f"{layer.name} forward", layer.forward.ns)
        if layer.forward.kinds == (CollectiveType.ALL_TO_ALL,):
            row = tape.talk(index, layer, 0, blocking=False)
            embedding = row if index == 0 else embedding
        if index == last:
            tape.wait(embedding)
    for index in reversed(range(len(layers))):
        layer = layers[index]
        tape.compute(f"{layer.name} weight gradient", layer.weight_grad.ns)
        tape.talk(index, layer, 2, blocking=False)
        if index:
            tape.compute(f"{layer.name} input gradient", layer.input_grad.ns)
        if index == last + 1:
            tape.talk(0, layers[0], 1, blocking=False)


def _inference(tape: _Tape, workload: Workload, split: _Split) -> None:
    """Forward only."""
    _forward(tape, workload.layers, range(len(workload.layers)))


def _micro(tape: _Tape, workload: Workload, split: _Split) -> None:
    """Everything in the order of the file, one after the other."""
    for index, layer in enumerate(workload.layers):
        for at, what in enumerate(("forward", "input gradient", "weight gradient")):
            tape.compute(f"{layer.name} {what}", layer.passes[at].ns)
            tape.talk(index, layer, at, blocking=True)


_POLICIES: dict[str, Callable[[_Tape, Workload, _Split], None]] = {
    "HYBRID_TRANSFORMER_FWD_IN_BCKWD": _transformer,
    "HYBRID_TRANSFORMER": _transformer,
    "MICRO": _micro,
    "DATA": _data,
    "MODEL": _model,
    "HYBRID_DLRM": _dlrm,
    "HYBRID_DLRM_ENHANCED": _dlrm,
    "DISTRIBUTED_INFERENCE": _inference,
}
