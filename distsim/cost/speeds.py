"""Speeds of devices, changed: ``gpu.compute=1.5x,rank.3.compute=2x``. What a what-if study turns, beside links.

==========================  ================================================================================================
gpu.compute                 arithmetic: compute nodes of a trace (their operations, under a roofline); of kernels, the part that
                            a roofline gives to arithmetic
gpu.compute.CLASS           of kernels of one class only: gemm, attention; of a captured trace, by their names, also norm,
                            softmax, elementwise ... (trace/kineto/kernels.py)
gpu.memory_bandwidth        memory nodes of a trace (bytes, under a roofline); of kernels, the part that is traffic
host.speed                  nodes on the host; what a training software spends there
rank.N.compute              all computation of rank N
==========================  ================================================================================================

Factors are of speed: 2x halves the time.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.cost.kernel import Answer, Kernel
from distsim.cost.kernels.pnorm import parameters_of, times
from distsim.errors import ConfigError, UnknownNameError
from distsim.hardware.gpu import Gpu
from distsim.topology.scaled import factor_of
from distsim.trace.graph import NodeType, Program, TaskGraph
from distsim.trace.kineto.kernels import CLASSES as NAMED
from distsim.trace.kineto.kernels import kernel_class

COMPUTE, MEMORY, HOST = "gpu.compute", "gpu.memory_bandwidth", "host.speed"
#: a quarter of what 64 bits hold: ends are sums of durations
_LONGEST = 2.0**61
#: class -> kinds of kernels of a model
CLASSES = {"gemm": ("gemm", "grouped_gemm"), "attention": ("attention", "attention_backward", "decode_attention")}


@dataclass(frozen=True, slots=True)
class Speeds:
    """Factors by knob; a knob that is absent is at 1."""

    factors: Mapping[str, float]

    @classmethod
    def parse(cls, text: str | None, ranks: int | None = None) -> Speeds:
        """From ``knob=2x,knob=0.5x``. ranks: of the job, where known. Raises ConfigError, UnknownNameError."""
        found: dict[str, float] = {}
        for part in filter(None, (one.strip() for one in (text or "").split(","))):
            name, _, value = (piece.strip() for piece in part.partition("="))
            factor = factor_of(value)
            if factor is None or not 0 < factor < math.inf:
                raise ConfigError(
                    f"{part!r} is no change of speed", where="speeds", expected="a factor, such as gpu.compute=1.5x"
                )
            if name in found:
                raise ConfigError(f"{name} is given twice", where="speeds")
            _check(name, ranks)
            found[name] = factor
        return cls(found)

    @property
    def text(self) -> str | None:
        """The inverse of :meth:`parse`; factors of 1 are left out."""
        return ",".join(f"{name}={value:.12g}x" for name, value in sorted(self.factors.items()) if value != 1.0) or None

    def of(self, name: str) -> float:
        return self.factors.get(name, 1.0)

    def of_rank(self, rank: int) -> float:
        return self.factors.get(f"rank.{rank}.compute", 1.0)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks with a speed of their own."""
        return tuple(sorted(int(name.split(".")[1]) for name in self.factors if name.startswith("rank.")))

    # --- nodes of traces ------------------------------------------------------------------------------------------------------

    def on(self, graph: TaskGraph) -> TaskGraph:
        """The trace with durations, operations and bytes divided by the speeds of what they run on. Raises ConfigError where a
        factor has no effect on a trace, or names a rank that is not there."""
        classes = classes_of(graph)
        for name in self.factors:
            _check(name, graph.ranks)
            one = name.removeprefix(f"{COMPUTE}.")
            if one != name and one not in classes:
                told = f"which has no {one} kernels" if graph.captured else "which does not tell classes of kernels"
                raise ConfigError(
                    f"{name} has no effect on a trace, {told}", where="speeds",
                    fix=f"Take {COMPUTE}" + (f", or a class that is there: {', '.join(classes)}." if classes else "."),
                )  # fmt: skip
        by_name = np.ones(len(graph.names) + 1)
        if classes:
            by_name[:-1] = [self.of(f"{COMPUTE}.{kernel_class(name)}") for name in graph.names]
        whole, apart = [self._program(one, 1.0, by_name) for one in graph.programs], graph.rank_program.copy()
        for rank in self.ranks:
            apart[rank] = len(whole)
            whole.append(self._program(graph.program(rank), self.of_rank(rank), by_name))
        return dataclasses.replace(graph, programs=tuple(whole), rank_program=apart)

    def on_ranks(self, graph: TaskGraph) -> TaskGraph:
        """Only what ranks have of their own (the rest is in the durations already). Raises ConfigError."""
        return Speeds({name: value for name, value in self.factors.items() if name.startswith("rank.")}).on(graph)

    def _program(self, program: Program, own: float, by_name: NDArray[np.float64]) -> Program:
        """``by_name``: factor of the kernels of each name; the last is that of no name."""
        compute, host, memory = self.of(COMPUTE) * own, self.of(HOST), self.of(MEMORY)
        if compute == host == memory == 1.0 and (by_name == 1.0).all():
            return program
        kind = program.type
        comp = (kind == NodeType.COMP) & ~program.cpu
        moves = (kind == NodeType.MEM_LOAD) | (kind == NodeType.MEM_STORE)
        on_host = (kind == NodeType.COMP) & program.cpu
        speed = np.where(comp, compute * by_name[program.name], np.where(moves, memory, np.where(on_host, host, 1.0)))
        traffic = np.where(comp, memory * own, np.where(moves, memory, 1.0))
        operations = np.where(comp, speed, 1.0)
        return dataclasses.replace(
            program, duration_ps=_divided(program.duration_ps, speed), num_ops=_divided(program.num_ops, operations),
            tensor_size=_divided(program.tensor_size, traffic),
        )  # fmt: skip

    # --- kernels of a model ---------------------------------------------------------------------------------------------------

    def kernels(self, answer: Callable[[Kernel, Gpu], Answer]) -> Callable[[Kernel, Gpu], Answer]:
        """The provider with its answers scaled as a roofline says: by the p-norm's time with the arithmetic and the traffic
        that the factors leave, over its time with all of both."""
        arithmetic, memory = self.of(COMPUTE), self.of(MEMORY)
        for name in self.factors:
            if name.startswith(f"{COMPUTE}.") and name.removeprefix(f"{COMPUTE}.") not in CLASSES:
                raise ConfigError(
                    f"{name} is of captured traces", where="speeds",
                    expected=" or ".join(f"{COMPUTE}.{one}" for one in CLASSES),
                )  # fmt: skip
        by_kind = {kind: self.of(f"{COMPUTE}.{name}") for name, kinds in CLASSES.items() for kind in kinds}
        if arithmetic == memory == 1.0 and set(by_kind.values()) == {1.0}:
            return answer

        def scaled(kernel: Kernel, gpu: Gpu) -> Answer:
            found = answer(kernel, gpu)
            dtype = kernel.dtype if kernel.dtype in gpu.peak else next(iter(gpu.peak))
            speed = arithmetic * by_kind.get(kernel.kind, 1.0)
            flops, moved = np.array([1.0, 1 / speed]) * kernel.flops, np.array([1.0, 1 / memory]) * kernel.bytes
            before, after = times(flops, moved, gpu, dtype, parameters_of(gpu, dtype)[0])
            return found._replace(seconds=found.seconds * float(after / before))

        return scaled


def classes_of(graph: TaskGraph) -> tuple[str, ...]:
    """Classes of the kernels of a captured trace, by their names; none of any other."""
    if not graph.captured:
        return ()
    there: set[str] = set()
    for one in graph.programs:
        rows = (one.type == NodeType.COMP) & ~one.cpu & (one.name >= 0)
        there |= {kernel_class(graph.names[name]) for name in np.unique(one.name[rows]).tolist()}
    return tuple(one for one in NAMED if one in there)


def _check(name: str, ranks: int | None) -> None:
    """Raise UnknownNameError unless a knob is there."""
    known = [COMPUTE, MEMORY, HOST, *(f"{COMPUTE}.{one}" for one in NAMED)]
    kind, _, rest = name.partition(".")
    number, _, what = rest.partition(".")
    if kind == "rank" and what == "compute" and number.isdigit():
        if ranks is not None and int(number) >= ranks:
            raise ConfigError(f"there is no rank {number}", where="speeds", expected=f"0 to {ranks - 1}")
        return
    if name not in known:
        raise UnknownNameError("speed", name, [*known, "rank.0.compute"], where="speeds")


def _divided(column: NDArray[np.int64], by: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rounded; what is positive stays at least 1, what is missing (-1) missing."""
    changed = (column > 0) & (by != 1.0)
    made, slowed = column.copy(), np.maximum(1, np.rint(column[changed] / by[changed]))
    if slowed.max(initial=0) >= _LONGEST:
        raise ConfigError(f"{by[changed].min():.3g}x makes tasks of {column.max():,} last too long", where="speeds")
    made[changed] = slowed.astype(np.int64)
    return made
