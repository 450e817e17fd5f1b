"""The attention half of a layer: norm, projections, attention proper, output projection, residual."""

from __future__ import annotations

from distsim.cost.kernel import attention as attention_kernel
from distsim.cost.kernel import grouped_gemm
from distsim.workload.training.layers.passes import PASSES
from distsim.workload.training.layers.shard import Shard
from distsim.workload.training.layers.tensor import column_backward, column_forward, row_backward, row_forward
from distsim.workload.training.layers.writer import Writer


def _head_dims(shard: Shard) -> tuple[int, int]:
    """(size of a query and key, of a value) per head."""
    model = shard.model
    if model.mla is not None:
        return model.mla.nope + model.mla.rope, model.mla.v
    return model.head_dim, model.head_dim


def _kv_heads(shard: Shard) -> int:
    """Key-value heads of a rank: they are copied where there are fewer than tensor-parallel ranks."""
    if shard.model.mla is not None:
        return shard.model.heads // shard.plan.tp
    return max(1, shard.model.kv_heads // shard.plan.tp)


def forward(w: Writer, layer: int) -> None:
    """Norm to residual."""
    shard = w.shard
    model, passes = shard.model, PASSES[shard.stack.fusion]
    hidden = shard.rows * model.hidden * shard.width
    w.memory("norm", hidden * passes.norm[0], passes.norm_launches[0])
    _projections(w)
    _rope(w, 0)
    core_forward(w, layer)
    width = model.heads * _head_dims(shard)[1] // shard.plan.tp
    w.quantise(shard.tokens * width)
    row_forward(w, "attention output", shard.tokens, model.hidden, width)
    w.memory("residual", hidden * passes.residual[0], passes.residual_launches[0])


def backward(w: Writer, layer: int) -> None:
    """Residual back to norm."""
    shard = w.shard
    model, passes = shard.model, PASSES[shard.stack.fusion]
    hidden = shard.rows * model.hidden * shard.width
    w.memory("residual backward", hidden * passes.residual[1], passes.residual_launches[1])
    width = model.heads * _head_dims(shard)[1] // shard.plan.tp
    row_backward(w, "attention output", shard.tokens, model.hidden, width)
    core_backward(w, layer)
    _rope(w, 1)
    _projections_backward(w)
    w.memory("norm backward", hidden * passes.norm[1], passes.norm_launches[1])


def recompute_operations(w: Writer) -> None:
    """All but the attention core and every second matrix product, in their order: queries and values are kept, keys and the
    output projection are computed again (torchtitan's selective recomputation of operations)."""
    shard = w.shard
    model, passes, t = shard.model, PASSES[shard.stack.fusion], shard.plan.tp
    hidden = shard.rows * model.hidden * shard.width
    w.memory("norm", hidden * passes.norm[0], passes.norm_launches[0])
    if model.mla is not None:
        _projections(w)
    else:
        w.quantise(shard.tokens * model.hidden)
        w.gemm("keys", shard.tokens, _kv_heads(shard) * model.head_dim, model.hidden)
    _rope(w, 0)
    width = model.heads * _head_dims(shard)[1] // t
    w.quantise(shard.tokens * width)
    w.gemm("attention output", shard.tokens, model.hidden, width)
    w.memory("residual", hidden * passes.residual[0], passes.residual_launches[0])


def _projections(w: Writer) -> None:
    shard = w.shard
    model, t = shard.model, shard.plan.tp
    if model.mla is None:
        n = (model.heads // t + 2 * _kv_heads(shard)) * model.head_dim
        column_forward(w, "qkv", shard.tokens, n, model.hidden)
        if model.qk_norm:
            w.memory("qk norm", 2 * shard.tokens * n * shard.width)
        return
    # down-projections are not split: every tensor-parallel rank computes them for its own tokens
    mla, rows = model.mla, shard.rows
    if mla.q_lora:
        w.quantise(rows * model.hidden)
        w.gemm("q down", rows, mla.q_lora, model.hidden)
        w.memory("q norm", 2 * rows * mla.q_lora * shard.width)
        column_forward(w, "q up", shard.tokens, model.heads // t * (mla.nope + mla.rope), mla.q_lora)
    else:
        column_forward(w, "q", shard.tokens, model.heads // t * (mla.nope + mla.rope), model.hidden)
    w.gemm("kv down", rows, mla.kv_lora + mla.rope, model.hidden)
    w.memory("kv norm", 2 * rows * mla.kv_lora * shard.width)
    column_forward(w, "kv up", shard.tokens, model.heads // t * (mla.nope + mla.v), mla.kv_lora)
    w.memory("assemble heads", 2 * shard.tokens * model.heads // t * (2 * mla.nope + 2 * mla.rope + mla.v) * shard.width, 4)


def _projections_backward(w: Writer) -> None:
    shard = w.shard
    model, t = shard.model, shard.plan.tp
    if model.mla is None:
        n = (model.heads // t + 2 * _kv_heads(shard)) * model.head_dim
        if model.qk_norm:
            w.memory("qk norm backward", 4 * shard.tokens * n * shard.width)
        column_backward(w, "qkv", shard.tokens, n, model.hidden)
        return
    mla, rows = model.mla, shard.rows
    w.memory("split heads", 2 * shard.tokens * model.heads // t * (2 * mla.nope + 2 * mla.rope + mla.v) * shard.width, 4)
    column_backward(w, "kv up", shard.tokens, model.heads // t * (mla.nope + mla.v), mla.kv_lora)
    w.memory("kv norm backward", 4 * rows * mla.kv_lora * shard.width)
    _plain_backward(w, "kv down", rows, mla.kv_lora + mla.rope, model.hidden)
    if mla.q_lora:
        column_backward(w, "q up", shard.tokens, model.heads // t * (mla.nope + mla.rope), mla.q_lora)
        w.memory("q norm backward", 4 * rows * mla.q_lora * shard.width)
        _plain_backward(w, "q down", rows, mla.q_lora, model.hidden)
    else:
        column_backward(w, "q", shard.tokens, model.heads // t * (mla.nope + mla.rope), model.hidden)


def _plain_backward(w: Writer, name: str, m: int, n: int, k: int) -> None:
    w.part = "dgrad"
    w.gemm(f"{name} dgrad", m, k, n)
    w.part = "wgrad"
    w.gemm(f"{name} wgrad", k, n, m)
    w.part = "dgrad"


def _rope(w: Writer, direction: int) -> None:
    shard = w.shard
    model, passes = shard.model, PASSES[shard.stack.fusion]
    if model.positions != "rope":
        return
    if model.mla is not None:
        elements = shard.tokens * (model.heads // shard.plan.tp + 1) * model.mla.rope
    else:
        elements = shard.tokens * (model.heads // shard.plan.tp + _kv_heads(shard)) * model.head_dim
    w.memory("rope", elements * shard.width * passes.rope[direction], passes.rope_launches[direction])


def core_forward(w: Writer, layer: int) -> None:
    """Attention proper: scores, softmax, weighted values."""
    _core(w, layer, backward=False)


def core_backward(w: Writer, layer: int) -> None:
    """Its backward pass; where scores were written to memory and not kept, they are computed again first."""
    if w.shard.stack.attention == "unfused" and w.shard.plan.recompute == "selective":
        part, w.part = w.part, "recompute"
        _core(w, layer, backward=False)
        w.part = part
    _core(w, layer, backward=True)


def _core(w: Writer, layer: int, *, backward: bool) -> None:
    shard = w.shard
    model, plan = shard.model, shard.plan
    heads = model.heads // plan.tp
    qk, v = _head_dims(shard)
    batch, local = plan.micro_batch, plan.seq // plan.cp
    suffix = " backward" if backward else ""
    if shard.stack.attention == "unfused":
        _unfused(w, batch * heads, local, plan.seq, qk, v, backward=backward)
        return
    window = model.window if model.windowed(layer) else 0
    if plan.cp == 1:
        kernel = attention_kernel(
            batch, local, plan.seq, heads, _kv_heads(shard), qk, v, shard.plain, window=window, backward=backward
        )
        w.kernel(f"attention{suffix}", "attention", kernel)
        return
    # keys and values of the other context ranks: gathered at once, or passed round the ring behind the attention of the
    # piece before. Ranks hold two pieces each, one from either end, so that causal work is the same for all.
    pieces = _kv_heads(shard) * (qk + v) * batch * local * shard.width
    if plan.cp_mode == "all_gather":
        w.exchange("gather keys and values", "cp", "all_gather", pieces)
        step = attention_kernel(
            batch, local, plan.seq // 2, heads, _kv_heads(shard), qk, v, shard.plain, causal=False, backward=backward
        )
        w.kernel(f"attention{suffix}", "attention", step)
        if backward:
            w.exchange("scatter gradients of keys and values", "cp", "reduce_scatter", pieces * plan.cp)
        return
    step = attention_kernel(
        batch, local, local // 2, heads, _kv_heads(shard), qk, v, shard.plain, causal=False, backward=backward
    )
    sent = pieces * (2 if backward else 1)
    passing = -1
    for turn in range(plan.cp):
        w.wait(passing)
        passing = w.begin("pass keys and values", "cp", "send", sent) if turn + 1 < plan.cp else -1
        w.kernel(f"attention{suffix}", "attention", step)
        w.memory("merge partial attention", 3 * shard.tokens * heads * v * shard.width)


def _unfused(w: Writer, batch: int, rows: int, columns: int, qk: int, v: int, *, backward: bool) -> None:
    """Scores as tensors (Megatron-LM before flash attention): two batched GEMMs, fused softmax, dropout."""
    shard = w.shard
    scores = float(batch) * rows * columns * shard.width

    def multiply(name: str, m: int, n: int, k: int) -> None:
        w.kernel(name, "attention", grouped_gemm(batch, m, n, k, shard.plain, shard.plain))

    if not backward:
        multiply("scores", rows, columns, qk)
        w.memory("softmax", 2 * scores)
        w.memory("attention dropout", 2.5 * scores)
        multiply("weighted values", rows, v, columns)
        return
    multiply("values dgrad", rows, columns, v)
    multiply("values wgrad", columns, v, rows)
    w.memory("attention dropout backward", 2.5 * scores)
    w.memory("softmax backward", 3 * scores)
    multiply("queries dgrad", rows, qk, columns)
    multiply("keys dgrad", columns, qk, rows)
