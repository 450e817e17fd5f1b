"""Classes of computation: what the time of a compute span counts as.

Kernels of captured traces go by :mod:`distsim.trace.kineto.kernels`. A block of a generated training step (``forward 3``) is
divided as its operations were costed, exposed communication inside it included. Other names go by their last part without
numbers: ``bwd12/gate_up`` is ``gate_up``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.source import Source
from distsim.trace.kineto.kernels import kernel_class
from distsim.training import Job
from distsim.workload.training.graph import HOST

#: a name of one of these forms is a kernel's, not a task's
_KERNEL = re.compile(r"[<(]|::|_kernel|kernel_|^(nccl|ampere|sm\d\d|volta|cutlass|triton|void |nvjet|Memcpy|Memset)", re.I)
_NUMBER = re.compile(r"[\s._-]*\d+")
#: communicators inside a block of a training step whose part of it has the name of another
_INSIDE = {"edp": "dp", "etp": "ep"}

Fractions = Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Left:
    """Per name, and at last for rows without one: the fraction of a computation's time that is left if one thing takes none.

    Of a block that is one task: its communication, or its host, may then be what it takes longest for.
    """

    network: NDArray[np.float64]
    compute: NDArray[np.float64]
    host: NDArray[np.float64]


def shares_of(names: tuple[str, ...], source: Source) -> tuple[Fractions, ...]:
    """Per name: class -> fraction of such a span's time. They sum to 1."""
    blocks = {} if source.job is None else _blocks(source.job)
    captured = source.graph is not None and source.graph.captured
    return tuple(blocks.get(name) or {class_of(name, captured): 1.0} for name in names)


def class_of(name: str, captured: bool = False) -> str:
    """The class of one name.

    >>> class_of("bwd12/gate_up"), class_of("b0_4"), class_of("adam3"), class_of("ampere_sgemm_128x64_tn")
    ('gate_up', 'b', 'adam', 'gemm')
    """
    if captured or _KERNEL.search(name):
        return kernel_class(name)
    return _NUMBER.sub("", name.rpartition("/")[2]).strip(" ._-") or name or "unnamed"


def _blocks(job: Job) -> dict[str, Fractions]:
    """What the blocks and operations of a generated step are made of."""
    found: dict[str, Fractions] = {HOST: {"launch": 1.0}}
    for chunk, units in enumerate(job.costs.units):
        for direction in ("forward", "backward"):
            block = job.costs.block(chunk, direction)
            parts = dict(block.computing) | {"launch": block.launch}
            for group, waited in block.exposed.items():
                name = f"exposed {_INSIDE.get(group, group)}"
                parts[name] = parts.get(name, 0) + waited
            total = sum(parts.values())
            if total:
                found[f"{direction} {chunk}"] = {part: value / total for part, value in parts.items() if value}
        for unit in units:
            for operation in (*unit.forward, *unit.backward):
                if operation.kernel is not None:
                    found.setdefault(operation.name, {operation.kind: 1.0})
    return found


def left_of(names: tuple[str, ...], source: Source) -> Left:
    """What is left of computations of these names without the network, without computation, without the host."""
    network, compute, host = np.ones(len(names) + 1), np.zeros(len(names) + 1), np.ones(len(names) + 1)
    number = {name: at for at, name in enumerate(names)}
    if source.job is not None:
        if HOST in number:
            compute[number[HOST]], host[number[HOST]] = 1.0, 0.0
        for chunk in range(len(source.job.costs.units)):
            for direction in ("forward", "backward"):
                at, block = number.get(f"{direction} {chunk}"), source.job.costs.block(chunk, direction)
                if at is None or not block.span:
                    continue
                moves = sum(block.exposed.values()) + sum(block.hidden.values())
                network[at] = min(1.0, max(sum(block.computing.values()), block.host) / block.span)
                compute[at] = min(1.0, max(moves, block.host) / block.span)
                host[at] = 1 - block.launch / block.span
    return Left(network, compute, host)


def divided(took: Mapping[int, int], shares: tuple[Fractions, ...]) -> dict[str, int]:
    """Class -> ps, from name -> ps; whole, and in sum what was given. Names of -1 are unnamed."""
    total: dict[str, int] = {}
    for name, time in took.items():
        parts = shares[name] if name >= 0 else {"unnamed": 1.0}
        left = time
        for part, fraction in list(parts.items())[1:]:
            own = min(left, round(time * fraction))
            total[part] = total.get(part, 0) + own
            left -= own
        first = next(iter(parts))
        total[first] = total.get(first, 0) + left
    return dict(sorted(((part, time) for part, time in total.items() if time), key=lambda item: (-item[1], item[0])))
