"""What a compute provider is asked: one kernel, by kind and shape."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from distsim.hardware.gpu import Gpu

#: bytes of one element
WIDTH = {"fp64": 8.0, "fp32": 4.0, "tf32": 4.0, "fp16": 2.0, "bf16": 2.0, "fp8": 1.0, "int8": 1.0, "fp4": 0.5}


class Kernel(NamedTuple):
    """One kernel on one GPU. Equal kernels take equal times: it is the key of every memory of answers.

    kind and shape:
        gemm (m, n, k): y = x W, x m*k, W k*n.
        grouped_gemm (groups, m, n, k): as many GEMMs of m rows each, launched as one.
        attention (batch, q, kv, heads, kv_heads, qk_dim, v_dim, causal, window): forward; causal 0 or 1, window 0 for none.
        attention_backward: the same shape, all of the backward pass.
        decode_attention (batch, 1, kv, heads, kv_heads, qk_dim, v_dim, 0, window): one new token per sequence.
        memory (): moves ``bytes``, its arithmetic does not matter.
    flops: what the kernel has to compute (causal attention: the half that is not masked).
    bytes: traffic with main memory, each operand once.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    flops: float
    bytes: float


def gemm(m: int, n: int, k: int, dtype: str, out: str = "bf16") -> Kernel:
    """y = x W with x (m, k) and W (k, n) of ``dtype``, y of ``out``."""
    width = WIDTH[dtype]
    return Kernel("gemm", (m, n, k), dtype, 2.0 * m * n * k, width * (m * k + k * n) + WIDTH[out] * m * n)


def grouped_gemm(groups: int, m: int, n: int, k: int, dtype: str, out: str = "bf16") -> Kernel:
    """``groups`` GEMMs of m rows each."""
    one = gemm(m, n, k, dtype, out)
    return Kernel("grouped_gemm", (groups, m, n, k), dtype, groups * one.flops, groups * one.bytes)


def attention(
    batch: int, q: int, kv: int, heads: int, kv_heads: int, qk_dim: int, v_dim: int, dtype: str,
    *, causal: bool = True, window: int = 0, backward: bool = False,
) -> Kernel:  # fmt: skip
    """Fused (flash) attention of ``q`` new tokens over ``kv`` in all, the new ones last. Backward: 5 matrix products for the
    forward pass's 2 (Dao, FlashAttention-2, 2023)."""
    pairs = float(q) * kv - (q * (q - 1) / 2.0 if causal else 0.0)
    if window and window < kv:
        pairs = min(pairs, float(q) * window)
    products = 2.0 * pairs * batch * heads
    flops = products * (qk_dim + v_dim) if not backward else products * (3 * qk_dim + 2 * v_dim)
    rows = heads * q * (qk_dim + v_dim) + kv_heads * kv * (qk_dim + v_dim)
    traffic = WIDTH[dtype] * batch * rows * (2 if backward else 1)
    shape = (batch, q, kv, heads, kv_heads, qk_dim, v_dim, int(causal), window)
    return Kernel("attention_backward" if backward else "attention", shape, dtype, flops, traffic)


def memory(moved: float, dtype: str = "bf16") -> Kernel:
    """A kernel that moves ``moved`` bytes: norms, activations, residuals, casts, optimizer steps."""
    return Kernel("memory", (), dtype, 0.0, float(moved))


class Answer(NamedTuple):
    """How long a kernel takes. seconds; source: recorded, table, interpolated, or a model's name; error: its usual relative
    error (mean absolute, on shapes it was not fitted on)."""

    seconds: float
    source: str
    error: float


class KernelProvider(Protocol):
    """The role ``kernels``: durations of kernels on a GPU. A pure function of its arguments."""

    def answer(self, kernel: Kernel, gpu: Gpu) -> Answer | None:
        """The duration, or None where the provider cannot serve this kernel on this GPU (the chain asks the next)."""
        ...
