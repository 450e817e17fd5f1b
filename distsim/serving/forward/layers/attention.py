"""The attention half of a layer: norm, projections, attention of prompts and of generating sequences, output projection.

Attention kernels of serving embed positions and write the cache themselves (see distsim.cost.kernels.attention). MLA computes
prompts with keys and values expanded from the latent (192 and 128 wide), and generates from the latent itself, the expansion
moved into queries and outputs (DeepSeek-V2, 2024, section 2.1).
"""

from __future__ import annotations

from distsim.cost.kernel import Kernel, attention, grouped_gemm
from distsim.serving.forward.layers.writer import ACTIVATION, Writer
from distsim.serving.forward.work import Work


def forward(w: Writer, work: Work, window: int) -> None:
    """Norm to the reduced output. window: of this layer, 0 for none."""
    project(w, work.rows)
    if work.prompts:
        expand(w, work.prompt_rows)
    for new, cached, count in work.prompts:
        prompts(w, new, cached, count, window)
    if work.sequences:
        generate(w, work, window)
    gather(w, work.rows)


def project(w: Writer, rows: int) -> None:
    """Norm; queries, keys and values, or the latents that they come from."""
    rank = w.rank
    model, tp, h, mla = rank.model, rank.tp, rank.model.hidden, rank.model.mla
    w.memory("norm", 4 * ACTIVATION * rows * h)
    if mla is not None:
        w.gemm("down", rows, mla.q_lora + mla.kv_lora + mla.rope, h, rank.linear)
        w.memory("latent norms", 2 * ACTIVATION * rows * (mla.q_lora + mla.kv_lora), 2)
        w.gemm("query up", rows, model.heads // tp * (mla.nope + mla.rope), mla.q_lora or h, rank.linear)
        return
    key_heads = max(1, model.kv_heads // tp)
    w.gemm("qkv", rows, (model.heads // tp + 2 * key_heads) * model.head_dim, h, rank.linear)
    if model.qk_norm:
        w.memory("qk norm", 2 * ACTIVATION * rows * (model.heads // tp + key_heads) * model.head_dim)


def expand(w: Writer, rows: int) -> None:
    """Keys and values of all prompts' new tokens from their latents; nothing but with MLA."""
    mla, heads = w.rank.model.mla, w.rank.model.heads // w.rank.tp
    if mla is not None:
        w.gemm("key-value up", rows, heads * (mla.nope + mla.v), mla.kv_lora, w.rank.linear)


def prompts(w: Writer, new: int, cached: int, count: int, window: int) -> None:
    """Attention of ``count`` chunks of prompts, which are alike and so a batch."""
    model, tp = w.rank.model, w.rank.tp
    heads, key_heads, qk, v = model.heads // tp, max(1, model.kv_heads // tp), model.head_dim, model.head_dim
    if model.mla is not None:
        key_heads, qk, v, window = heads, model.mla.nope + model.mla.rope, model.mla.v, 0
    kernel = attention(count, new, new + cached, heads, key_heads, qk, v, _dtype(w), window=window)
    w.kernel("attention of prompts", "attention", kernel)


def generate(w: Writer, work: Work, window: int) -> None:
    """Attention of those that generate."""
    model, tp, mla = w.rank.model, w.rank.tp, w.rank.model.mla
    heads = model.heads // tp
    if mla is None:
        _generate(w, work, heads, max(1, model.kv_heads // tp), model.head_dim, model.head_dim, window)
        return
    n = work.sequences * work.width
    w.kernel("absorb keys", "gemm", grouped_gemm(heads, n, mla.kv_lora, mla.nope, "bf16"))
    _generate(w, work, heads, 1, mla.kv_lora + mla.rope, mla.kv_lora, 0)
    w.kernel("absorb values", "gemm", grouped_gemm(heads, n, mla.v, mla.kv_lora, "bf16"))


def gather(w: Writer, rows: int) -> None:
    """The output projection, and the sum over tensor parallel ranks."""
    rank = w.rank
    model, tp, h = rank.model, rank.tp, rank.model.hidden
    width = model.head_dim if model.mla is None else model.mla.v
    w.gemm("output", rows, h, model.heads // tp * width, rank.linear)
    if tp > 1:
        w.exchange("reduce attention", "tp", "all_reduce", ACTIVATION * rows * h)


def _generate(w: Writer, work: Work, heads: int, key_heads: int, qk: int, v: int, window: int) -> None:
    # NOTE: drafted tokens read the cache together with their sequence's; only their arithmetic is more
    n, kv = work.sequences, work.kv
    seen = min(kv, window) if window else kv
    width = 1.0 if w.rank.deployment.kv_dtype == "fp8" else 2.0
    cache = width * n * seen * key_heads * (qk if key_heads == 1 and qk > v else qk + v)
    shape = (n, 1, kv, heads, key_heads, qk, v, 0, window)
    kernel = Kernel("decode_attention", shape, _dtype(w), 2.0 * n * work.width * heads * seen * (qk + v), cache)
    w.kernel("attention", "attention", kernel)


def _dtype(w: Writer) -> str:
    """Data type of attention: fp8 with an fp8 cache where the GPU has units for it."""
    return "fp8" if w.rank.deployment.kv_dtype == "fp8" and "fp8" in w.rank.gpu.peak else "bf16"
