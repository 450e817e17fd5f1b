"""The MLP half of a layer, as a mixture of experts: router, dispatch, grouped GEMMs, combine, shared experts.

Every tensor-parallel rank dispatches its own share of the tokens (sequence parallelism is what such runs use); experts are
whole unless ``etp`` splits them. Tokens are spread evenly but for the plan's ``ep_imbalance``: all wait for the fullest rank.
"""

from __future__ import annotations

from distsim.cost.kernel import grouped_gemm
from distsim.models.spec import Moe
from distsim.workload.training.layers import mlp
from distsim.workload.training.layers.passes import PASSES
from distsim.workload.training.layers.writer import Writer

#: bytes per element, and operators per expert, of an eager bias in fp32 behind 16-bit experts (Megatron-Core's
#: TEGroupedMLP._apply_bias: split twice, product, sum, then concatenation and cast; backwards casts, products, sums over rows,
#: and the views' gradients)
_EAGER_BIAS = ((28.0, 4), (38.0, 12))


def _moe(w: Writer) -> Moe:
    moe = w.shard.model.moe
    assert moe is not None
    return moe


def _dispatched(w: Writer) -> tuple[int, int]:
    """(token copies that this rank sends out, rows that each of its experts computes)."""
    moe, plan = _moe(w), w.shard.plan
    copies = -(-w.shard.tokens // plan.tp) * moe.topk
    if plan.capacity:
        rows = copies * plan.capacity
    else:
        rows = copies * plan.ep_imbalance
    local = moe.experts // plan.ep
    return copies, max(1, round(rows * plan.etp / local))


def _met(w: Writer, parts: int) -> float:
    """Copies of a token that leave for so many ranks (or nodes), over its experts: one each; where its experts are neighbours,
    one for every part that holds some of them."""
    moe = _moe(w)
    if w.shard.stack.gate == "even":
        return 1.0
    return min(1.0, max(1.0, moe.topk * parts / moe.experts) / moe.topk)


def forward(w: Writer) -> None:
    """Norm to residual."""
    shard, moe = w.shard, _moe(w)
    passes, h = PASSES[shard.stack.fusion], shard.model.hidden
    hidden = shard.rows * h * shard.width
    copies, rows = _dispatched(w)
    local = moe.experts // shard.plan.ep
    w.memory("norm", hidden * passes.norm[0], passes.norm_launches[0])
    own = -(-shard.tokens // shard.plan.tp)
    w.gemm("router", own, moe.experts, h, plain=True)
    w.memory("route", 8.0 * own * moe.experts * 4, 8)
    sent = copies * _met(w, shard.plan.ep) * h * shard.width
    w.memory("permute", 2 * sent, 2)
    _all_to_all(w, "dispatch", sent)
    if shard.plan.ep > 1:
        w.memory("sort by expert", 2 * local * rows * h * shard.width)
    _experts(w, "expert up", local, rows, moe.ffn_hidden * (2 if shard.model.gated else 1) // shard.plan.etp, h)
    mlp.activation(w, local * rows * moe.ffn_hidden / shard.plan.etp, 0)
    _experts(w, "expert down", local, rows, h, moe.ffn_hidden // shard.plan.etp)
    _bias(w, local, rows, 0)
    if shard.plan.ep > 1:
        w.memory("sort by rank", 2 * local * rows * h * shard.width)
    _all_to_all(w, "combine", sent)
    w.memory("unpermute", sent + own * h * shard.width, 2)
    if moe.shared_ffn_hidden:
        mlp.network_forward(w, "shared", shard.tokens, moe.shared_ffn_hidden // shard.plan.tp)
    w.memory("residual", hidden * passes.residual[0], passes.residual_launches[0])


def backward(w: Writer) -> None:
    """Residual back to norm."""
    shard, moe = w.shard, _moe(w)
    passes, h = PASSES[shard.stack.fusion], shard.model.hidden
    hidden = shard.rows * h * shard.width
    copies, rows = _dispatched(w)
    local, f = moe.experts // shard.plan.ep, moe.ffn_hidden // shard.plan.etp
    up = f * (2 if shard.model.gated else 1)
    own = -(-shard.tokens // shard.plan.tp)
    sent = copies * _met(w, shard.plan.ep) * h * shard.width
    w.memory("residual backward", hidden * passes.residual[1], passes.residual_launches[1])
    if moe.shared_ffn_hidden:
        mlp.network_backward(w, "shared", shard.tokens, moe.shared_ffn_hidden // shard.plan.tp)
    w.memory("unpermute backward", 2 * sent + own * h * shard.width, 2)
    _all_to_all(w, "combine backward", sent)
    if shard.plan.ep > 1:
        w.memory("sort by expert", 2 * local * rows * h * shard.width)
    _bias(w, local, rows, 1)
    _experts(w, "expert down dgrad", local, rows, f, h)
    w.part = "wgrad"
    _experts(w, "expert down wgrad", local, f, h, rows)
    w.part = "dgrad"
    mlp.activation(w, local * rows * f, 1)
    _experts(w, "expert up dgrad", local, rows, h, up)
    w.part = "wgrad"
    _experts(w, "expert up wgrad", local, h, up, rows)
    w.part = "dgrad"
    if shard.plan.ep > 1:
        w.memory("sort by rank", 2 * local * rows * h * shard.width)
    _all_to_all(w, "dispatch backward", sent)
    w.memory("permute backward", sent + own * h * shard.width, 2)
    w.gemm("router dgrad", own, h, moe.experts, plain=True)
    w.part = "wgrad"
    w.gemm("router wgrad", h, moe.experts, own, plain=True)
    w.part = "dgrad"
    w.memory("route backward", 8.0 * own * moe.experts * 4, 8)
    w.memory("norm backward", hidden * passes.norm[1], passes.norm_launches[1])


def _experts(w: Writer, name: str, groups: int, m: int, n: int, k: int) -> None:
    if "wgrad" not in name:
        w.quantise(groups * m * k)
    launches = 1
    if w.shard.stack.grouped == "per_expert":  # narrow formats: its input's cast, and the layout of its scales
        launches = groups * (1 if w.shard.dtype == w.shard.plain else 3)
    w.kernel(name, "experts", grouped_gemm(groups, m, n, k, w.shard.dtype, w.shard.plain), launches)


def _bias(w: Writer, groups: int, rows: int, direction: int) -> None:
    """The bias behind the experts, by probability, where it is an operator of its own: products and sums in fp32."""
    shard = w.shard
    if shard.model.bias and shard.stack.expert_bias == "eager":
        moved, kernels = _EAGER_BIAS[direction]
        w.memory("expert bias", moved * groups * rows * shard.model.hidden, kernels * groups)


def _all_to_all(w: Writer, name: str, size: float) -> None:
    plan = w.shard.plan
    if plan.ep > 1:
        domains = w.shard.ep_domains
        if w.shard.stack.gate == "neighbours" and domains > 1:
            size *= _met(w, domains) / _met(w, plan.ep)
        elif w.shard.stack.dispatch == "per_node" and domains > 1:  # evenly spread: k copies meet so many of the n domains
            k = _moe(w).topk
            size *= domains * (1 - (1 - 1 / domains) ** k) / k
        w.exchange(name, "ep", "all_to_all", size)
    if plan.etp > 1:
        operation = "reduce_scatter" if "combine" in name else "all_gather"
        w.exchange(f"{name} within experts", "etp", operation, size)
