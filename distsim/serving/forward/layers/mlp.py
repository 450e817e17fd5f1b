"""The MLP half of a layer: dense, or a mixture of experts.

Experts: every token meets its ``topk``. With uniform choice an expert of E is met by N tokens with probability 1 - (1 - k/E)^N:
so many experts have their weights read, each with its share of the rows. Without data parallel attention all ranks of a stage
hold all tokens, and partial sums are reduced; with it tokens go to their experts and back (all-to-all), or, where experts are
only split over ranks, are gathered and their sums scattered.
"""

from __future__ import annotations

from distsim.cost.kernel import WIDTH
from distsim.serving.forward.layers.writer import ACTIVATION, Writer


def forward(w: Writer, rows: int, everyone: int, sparse: bool) -> None:
    """Norm to the reduced output. rows: tokens of this rank; everyone: of all ranks of the stage that hold different ones."""
    rank = w.rank
    h = rank.model.hidden
    w.memory("norm", 4 * ACTIVATION * rows * h)
    if sparse:
        _experts(w, rows, everyone)
        return
    _network(w, "mlp", rows, rank.model.ffn_hidden // rank.tp)
    if rank.tp > 1:
        w.exchange("reduce mlp", "tp", "all_reduce", ACTIVATION * rows * h)


def _network(w: Writer, name: str, rows: int, f: int) -> None:
    """Up, activation, down."""
    rank = w.rank
    h, gates = rank.model.hidden, 2 if rank.model.gated else 1
    w.gemm(f"{name} up", rows, f * gates, h, rank.linear)
    w.memory("activation", ACTIVATION * rows * f * (gates + 1))
    w.gemm(f"{name} down", rows, h, f, rank.linear)


def _experts(w: Writer, rows: int, everyone: int) -> None:
    rank, deployment = w.rank, w.rank.deployment
    moe, h = rank.model.moe, rank.model.hidden
    assert moe is not None
    apart = deployment.dp > 1
    gates = 2 if rank.model.gated else 1
    w.gemm("router", rows, moe.experts, h)
    w.memory("choose experts", 8.0 * rows * moe.experts)
    tokens = everyone if apart else rows
    if apart:
        _send(w, "dispatch", rows)
    local = moe.experts // deployment.ep
    met = max(1, round(local * (1.0 - (1.0 - moe.topk / moe.experts) ** tokens)))
    copies = tokens * moe.topk / deployment.ep * deployment.ep_imbalance
    each = max(1, round(copies / met))
    f = moe.ffn_hidden // deployment.expert_tp
    w.memory("sort by expert", 16.0 * tokens * moe.topk, 2)
    w.experts("expert up", met, each, f * gates, h, rank.expert)
    w.memory("activation", ACTIVATION * met * each * f * (gates + 1))
    w.experts("expert down", met, each, h, f, rank.expert)
    w.memory("sum over experts", ACTIVATION * h * (met * each + (tokens if not apart else rows)))
    if moe.shared_ffn_hidden:
        _network(w, "shared", rows, moe.shared_ffn_hidden // rank.tp)
    if apart:
        _send(w, "combine", rows)
    elif rank.tp > 1:
        w.exchange("reduce experts", "tp", "all_reduce", ACTIVATION * rows * h)


def _send(w: Writer, name: str, rows: int) -> None:
    """Tokens to the ranks of their experts, or back."""
    rank, deployment = w.rank, w.rank.deployment
    moe, h = rank.model.moe, rank.model.hidden
    assert moe is not None
    ranks = deployment.ep
    if ranks > 1:
        # each token goes once to every rank that holds some of its experts; sent in the experts' data type, summed in bf16
        places = ranks * (1.0 - (1.0 - 1.0 / ranks) ** moe.topk)
        width = WIDTH[rank.expert.computes(rank.gpu)] if name == "dispatch" else ACTIVATION
        own = rows / deployment.tp  # ranks of one tensor parallel group hold the same tokens, and share the sending
        w.exchange(name, "ep", "all_to_all", own * places * h * width)
        if deployment.tp > 1 and name == "combine":
            w.exchange("gather experts", "tp", "all_gather", own * h * ACTIVATION)
        return
    operation = "all_gather" if name == "dispatch" else "reduce_scatter"
    size = rows * h * ACTIVATION
    w.exchange(name, "dp", operation, size if name == "dispatch" else size * deployment.dp)
    if name == "combine" and deployment.tp > 1:
        w.exchange("reduce experts", "tp", "all_reduce", size)
