"""The attention half of a layer: norm, projections, attention of prompts and of generating sequences, output projection.

Attention kernels of serving embed positions and write the cache themselves (see distsim.cost.kernels.attention). MLA computes
prompts with keys and values expanded from the latent (192 and 128 wide), and generates from the latent itself, the expansion
moved into queries and outputs (DeepSeek-V2, 2024, section 2.1).
"""

from __future__ import annotations

from distsim.cost.kernel import Kernel, attention, grouped_gemm
from distsim.serving.layers.writer import ACTIVATION, Writer
from distsim.serving.work import Work


def forward(w: Writer, work: Work, window: int) -> None:
    """Norm to the reduced output. window: of this layer, 0 for none."""
    rank, m = w.rank, work.rows
    model, tp, h = rank.model, rank.tp, rank.model.hidden
    w.memory("norm", 4 * ACTIVATION * m * h)
    if model.mla is not None:
        _latent(w, work)
        heads = model.heads // tp * model.mla.v
    else:
        key_heads = max(1, model.kv_heads // tp)
        width = (model.heads // tp + 2 * key_heads) * model.head_dim
        w.gemm("qkv", m, width, h, rank.linear)
        if model.qk_norm:
            w.memory("qk norm", 2 * ACTIVATION * m * (model.heads // tp + key_heads) * model.head_dim)
        _prompts(w, work, model.heads // tp, key_heads, model.head_dim, model.head_dim, window)
        if work.sequences:
            _generate(w, work, model.heads // tp, key_heads, model.head_dim, model.head_dim, window)
        heads = model.heads // tp * model.head_dim
    w.gemm("output", m, h, heads, rank.linear)
    if tp > 1:
        w.exchange("reduce attention", "tp", "all_reduce", ACTIVATION * m * h)


def _latent(w: Writer, work: Work) -> None:
    rank, m = w.rank, work.rows
    model, h = rank.model, rank.model.hidden
    mla, heads = model.mla, rank.model.heads // rank.tp
    assert mla is not None
    key = mla.nope + mla.rope
    w.gemm("down", m, mla.q_lora + mla.kv_lora + mla.rope, h, rank.linear)
    w.memory("latent norms", 2 * ACTIVATION * m * (mla.q_lora + mla.kv_lora), 2)
    w.gemm("query up", m, heads * key, mla.q_lora or h, rank.linear)
    if work.prompts:
        w.gemm("key-value up", work.prompt_rows, heads * (mla.nope + mla.v), mla.kv_lora, rank.linear)
        _prompts(w, work, heads, heads, key, mla.v, 0)
    if work.sequences:
        n = work.sequences * work.width
        w.kernel("absorb keys", "gemm", grouped_gemm(heads, n, mla.kv_lora, mla.nope, "bf16"))
        _generate(w, work, heads, 1, mla.kv_lora + mla.rope, mla.kv_lora, 0)
        w.kernel("absorb values", "gemm", grouped_gemm(heads, n, mla.v, mla.kv_lora, "bf16"))


def _prompts(w: Writer, work: Work, heads: int, key_heads: int, qk: int, v: int, window: int) -> None:
    """One kernel for each kind of chunk: chunks alike are a batch."""
    dtype = _dtype(w)
    for new, cached, count in work.prompts:
        kernel = attention(count, new, new + cached, heads, key_heads, qk, v, dtype, window=window)
        w.kernel("attention of prompts", "attention", kernel)


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
