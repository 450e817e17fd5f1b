"""Speeds of devices, changed: ``gpu.compute=1.5x,rank.3.compute=2x``. What a what-if study turns, beside links.

==========================  ================================================================================================
gpu.compute                 arithmetic: compute nodes of a trace (their operations, under a roofline); of kernels, the part that
                            a roofline gives to arithmetic
gpu.compute.CLASS           of kernels of one class only: gemm, attention; of a captured trace, by their names, also norm,
                            softmax, elementwise ... (trace/kineto/kernels.py)
gpu.memory_bandwidth        memory nodes of a trace (bytes, under a roofline); of kernels, the part that is traffic
host.speed                  nodes on the host; what a training software spends there
rank.N.compute              all computation of rank N on its GPU
rank.N.host                 nodes of rank N on its host
rank.N.start                no speed but a time, such as 0ms: of several captured ranks, how long after the first rank N begins
==========================  ================================================================================================

Factors are of speed: 2x halves the time.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from distsim.cost.kernel import Answer, Kernel
from distsim.cost.kernels.pnorm import parameters_of, times
from distsim.errors import ConfigError, UnknownNameError
from distsim.hardware.gpu import Gpu
from distsim.topology.scaled import factor_of
from distsim.trace.graph import BEFORE_CAPTURE, NodeType, Program, TaskGraph
from distsim.trace.kineto.kernels import CLASSES as NAMED
from distsim.trace.kineto.kernels import kernel_class
from distsim.units import parse_time

COMPUTE, MEMORY, HOST = "gpu.compute", "gpu.memory_bandwidth", "host.speed"
#: a quarter of what 64 bits hold: ends are sums of durations
_LONGEST = 2.0**61
#: what one rank has of its own
_OF_RANK = re.compile(r"rank\.(\d+)\.(compute|host|start)")
#: class -> kinds of kernels of a model
CLASSES = {"gemm": ("gemm", "grouped_gemm"), "attention": ("attention", "attention_backward", "decode_attention")}


@dataclass(frozen=True, slots=True)
class Speeds:
    """Factors by knob; a knob that is absent is at 1. ``starts``: ps after the first rank, of ranks that are told another."""

    factors: Mapping[str, float]
    starts: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None, ranks: int | None = None) -> Speeds:
        """From ``knob=2x,rank.3.start=0ms``. ranks: of the job, where known. Raises ConfigError, UnknownNameError."""
        found: dict[str, float] = {}
        starts: dict[int, int] = {}
        for part in filter(None, (one.strip() for one in (text or "").split(","))):
            name, _, value = (piece.strip() for piece in part.partition("="))
            own = _OF_RANK.fullmatch(name)
            if own and own[2] == "start":
                _check(name, ranks)
                if int(own[1]) in starts:
                    raise ConfigError(f"{name} is given twice", where="speeds")
                starts[int(own[1])] = parse_time(value)
                continue
            factor = factor_of(value)
            if factor is None or not 0 < factor < math.inf:
                raise ConfigError(
                    f"{part!r} is no change of speed", where="speeds", expected="a factor, such as gpu.compute=1.5x"
                )
            if name in found:
                raise ConfigError(f"{name} is given twice", where="speeds")
            _check(name, ranks)
            found[name] = factor
        return cls(found, starts)

    @property
    def text(self) -> str | None:
        """The inverse of :meth:`parse`; factors of 1 are left out."""
        said = [f"{name}={value:.12g}x" for name, value in sorted(self.factors.items()) if value != 1.0]
        return ",".join([*said, *(f"rank.{rank}.start={ps}ps" for rank, ps in sorted(self.starts.items()))]) or None

    def of(self, name: str) -> float:
        return self.factors.get(name, 1.0)

    def of_rank(self, rank: int) -> float:
        return self.factors.get(f"rank.{rank}.compute", 1.0)

    def own(self, rank: int) -> tuple[float, float, int | None]:
        """(compute, host, start) of a rank alone."""
        return self.of_rank(rank), self.of(f"rank.{rank}.host"), self.starts.get(rank)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks with something of their own, ascending."""
        told = {int(own[1]) for own in map(_OF_RANK.fullmatch, self.factors) if own}
        return tuple(sorted(told | set(self.starts)))

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
        whole, apart = [self._program(one, 1.0, 1.0, by_name) for one in graph.programs], graph.rank_program.copy()
        held = starts_of(graph) if self.starts else {}
        for rank in self.ranks:
            (compute, host, start), apart[rank] = self.own(rank), len(whole)
            if host != 1.0 and not has_host(graph.program(rank)):
                raise ConfigError(f"rank.{rank}.host has no effect: the rank has no host nodes", where="speeds")
            made = self._program(graph.program(rank), compute, host, by_name)
            if start is not None:
                made = _begun(made, rank, start, held, graph)
            whole.append(made)
        return dataclasses.replace(graph, programs=tuple(whole), rank_program=apart)

    def on_ranks(self, graph: TaskGraph) -> TaskGraph:
        """Only what ranks have of their own (the rest is in the durations already). Raises ConfigError."""
        factors = {name: value for name, value in self.factors.items() if name.startswith("rank.")}
        return Speeds(factors, self.starts).on(graph)

    def _program(self, program: Program, own: float, threads: float, by_name: NDArray[np.float64]) -> Program:
        """own, threads: factors of the rank's GPU and host. by_name: of the kernels of each name; the last of no name."""
        compute, host, memory = self.of(COMPUTE) * own, self.of(HOST) * threads, self.of(MEMORY)
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


def has_host(program: Program) -> bool:
    """Whether anything on the host takes time."""
    return bool(((program.type == NodeType.COMP) & program.cpu & (program.duration_ps > 0)).any())


def starts_of(graph: TaskGraph) -> dict[int, int]:
    """rank -> ps after the first rank that its capture began; of ranks that began later."""
    if BEFORE_CAPTURE not in graph.names:
        return {}
    found = {}
    for rank in range(graph.ranks):
        rows = _held(graph, graph.program(rank))
        if len(rows):
            found[rank] = int(graph.program(rank).duration_ps[rows[0]])
    return found


def _held(graph: TaskGraph, program: Program) -> NDArray[np.intp]:
    return np.flatnonzero((program.type == NodeType.DELAY) & (program.name == graph.names.index(BEFORE_CAPTURE)))


def _begun(program: Program, rank: int, start: int, held: Mapping[int, int], graph: TaskGraph) -> Program:
    """Begins ``start`` ps after the first rank. Raises ConfigError where nothing holds the rank."""
    if rank not in held:
        some = ", ".join(map(str, list(held)[:8]))
        raise ConfigError(
            f"rank.{rank}.start has no effect: nothing holds the rank when the run begins", where="speeds",
            expected=f"a rank whose capture began after the first's: {some}" if held else "a trace of several captured ranks",
        )  # fmt: skip
    duration = program.duration_ps.copy()
    duration[_held(graph, program)] = start
    return dataclasses.replace(program, duration_ps=duration)


def _check(name: str, ranks: int | None) -> None:
    """Raise UnknownNameError unless a knob is there."""
    known = [COMPUTE, MEMORY, HOST, *(f"{COMPUTE}.{one}" for one in NAMED)]
    own = _OF_RANK.fullmatch(name)
    if own:
        if ranks is not None and int(own[1]) >= ranks:
            raise ConfigError(f"there is no rank {own[1]}", where="speeds", expected=f"0 to {ranks - 1}")
        return
    if name not in known:
        raise UnknownNameError("speed", name, [*known, "rank.0.compute", "rank.0.host", "rank.0.start"], where="speeds")


def _divided(column: NDArray[np.int64], by: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rounded; what is positive stays at least 1, what is missing (-1) missing."""
    changed = (column > 0) & (by != 1.0)
    made, slowed = column.copy(), np.maximum(1, np.rint(column[changed] / by[changed]))
    if slowed.max(initial=0) >= _LONGEST:
        raise ConfigError(f"{by[changed].min():.3g}x makes tasks of {column.max():,} last too long", where="speeds")
    made[changed] = slowed.astype(np.int64)
    return made
