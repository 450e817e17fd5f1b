"""Tensor-parallel linear layers (Shoeybi et al. 2019; sequence parallelism: Korthikanti et al. 2022).

A column-parallel layer splits its outputs: its input is the same on all ranks (gathered, under sequence parallelism). A
row-parallel layer splits its inputs and sums its outputs. Asynchronous tensor parallelism (Wang et al. 2023; Transformer
Engine's user buffers) moves the message in tp pieces beside the GEMM: only the first piece is exposed.
"""

from __future__ import annotations

from distsim.workload.training.layers.writer import Writer


def column_forward(w: Writer, name: str, m: int, n: int, k: int) -> None:
    """y (m, n) = x (m, k) W with W's columns of this rank; m are all tokens of the group."""
    shard = w.shard
    if shard.sequence_parallel:
        _gather_beside(w, f"gather {name} input", m * k * shard.width)
    w.quantise(m * k)
    w.gemm(name, m, n, k)
    w.wait(_rest(w))


def row_forward(w: Writer, name: str, m: int, n: int, k: int) -> None:
    """y (m, n) = sum over ranks of x (m, k) W."""
    shard = w.shard
    size = m * n * shard.width
    if shard.plan.tp == 1:
        w.gemm(name, m, n, k)
        return
    if shard.tp_overlap:
        _scatter_beside(w, name, m, n, k, size)
        return
    w.gemm(name, m, n, k)
    _reduce(w, f"reduce {name} output", size)


def column_backward(w: Writer, name: str, m: int, n: int, k: int) -> None:
    """Gradients of x, reduced over ranks, and of W, behind which the reduction may hide."""
    shard = w.shard
    regathered = -1
    w.quantise(m * n)
    if shard.sequence_parallel:  # the input was kept split: gathered again for the weights' gradient, beside the other GEMM
        regathered = w.begin(f"gather {name} input again", "tp", "all_gather", m * k * shard.width // shard.plan.tp)
    w.part = "dgrad"
    w.gemm(f"{name} dgrad", m, k, n)
    reducing = -1
    if shard.plan.tp > 1:
        operation = "reduce_scatter" if shard.sequence_parallel else "all_reduce"
        reducing = w.begin(f"reduce {name} gradient", "tp", operation, m * k * shard.width)
        if not (shard.stack.wgrad_overlap or shard.tp_overlap):
            w.wait(reducing)
    w.wait(regathered)
    w.part = "wgrad"
    w.gemm(f"{name} wgrad", k, n, m)
    _bias_gradient(w, name, m * n)
    w.part = "dgrad"
    w.wait(reducing)


def row_backward(w: Writer, name: str, m: int, n: int, k: int) -> None:
    """The gradient of y is gathered where it is split; both GEMMs need it."""
    shard = w.shard
    if shard.sequence_parallel:
        _gather_beside(w, f"gather {name} gradient", m * n * shard.width)
    w.quantise(m * n)
    w.part = "dgrad"
    w.gemm(f"{name} dgrad", m, k, n)
    w.wait(_rest(w))
    w.part = "wgrad"
    w.gemm(f"{name} wgrad", k, n, m)
    _bias_gradient(w, name, m * n)
    w.part = "dgrad"


def _bias_gradient(w: Writer, name: str, elements: int) -> None:
    """The gradient of the output summed over tokens, where the layer has a bias."""
    if w.shard.model.bias and w.scaled:
        w.memory(f"{name} bias gradient", elements * w.shard.width)


def _gather_beside(w: Writer, name: str, size: int) -> None:
    """All-gather of ``size`` bytes in all: before the GEMM, or, asynchronously, all but the first piece beside it."""
    t = w.shard.plan.tp
    each = size // t
    if not w.shard.tp_overlap:
        w.exchange(name, "tp", "all_gather", each)
        w.resting = -1
        return
    w.exchange(f"{name}, first piece", "tp", "all_gather", each // t)
    w.resting = w.begin(f"{name}, rest", "tp", "all_gather", each - each // t)


def _rest(w: Writer) -> int:
    """The piece of a gathering that is still under way, -1 for none."""
    resting, w.resting = w.resting, -1
    return resting


def _scatter_beside(w: Writer, name: str, m: int, n: int, k: int, size: int) -> None:
    """GEMM whose pieces are scattered while the next are computed: the last piece is exposed."""
    t = w.shard.plan.tp
    begun = w.begin(f"reduce {name} output, first pieces", "tp", "reduce_scatter", size - size // t)
    w.gemm(name, m, n, k)
    w.wait(begun)
    w.exchange(f"reduce {name} output, last piece", "tp", "reduce_scatter", size // t)


def _reduce(w: Writer, name: str, size: int) -> None:
    w.exchange(name, "tp", "reduce_scatter" if w.shard.sequence_parallel else "all_reduce", size)
