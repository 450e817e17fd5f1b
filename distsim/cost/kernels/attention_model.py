"""Fused attention as tiles on SMs: prefill and training passes, and decoding with the keys split over SMs.

Prefill: tiles of 128 queries by 128 keys, each pair of products on one SM; causal masks, windows and earlier tokens only say
how many tiles of keys a tile of queries meets. Three times in a p-norm: all tiles over all SMs, the longest row of tiles on one
SM, main memory. Decoding: one new token reads the whole cache; its keys are split until the SMs are busy, but not below a
minimum; a walk over the keys on one SM against memory bandwidth.

Every formula stands once: the operations are passed in, for numbers (:data:`SCALAR`) or for columns (:data:`COLUMNS`).
Source: Dao, "FlashAttention-2" (2023); Dao et al., "Flash-Decoding for long-context inference" (2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from distsim.cost.kernels.attention_parameters import Decode, Prefill

#: queries, and keys, of a tile
TILE = 128.0
#: share of its bandwidth that main memory yields to a streaming kernel
STREAM = 0.9
#: share of peak in decoding from a latent: 660 of 989 TFLOP/s on H800 (DeepSeek, FlashMLA README, 2025)
LATENT = 0.66


class Ops(NamedTuple):
    """The operations that numbers and columns spell differently."""

    most: Callable[[Any, Any], Any]
    least: Callable[[Any, Any], Any]
    ceil: Callable[[Any], Any]
    floor: Callable[[Any], Any]
    where: Callable[[Any, Any, Any], Any]


SCALAR = Ops(max, min, math.ceil, math.floor, lambda condition, yes, no: yes if condition else no)


def columns() -> Ops:
    """For numpy columns (numpy is loaded by who asks)."""
    import numpy as np

    return Ops(np.maximum, np.minimum, np.ceil, np.floor, np.where)


class Machine(NamedTuple):
    """What a model needs of a GPU: FLOP/s of the data type, bytes/s, SMs, bytes of L2; bytes of an element."""

    peak: float
    bandwidth: float
    sms: int
    l2: float
    width: float


class Shape(NamedTuple):
    """Numbers, or columns of float64; causal 0 or 1, window 0 for none. As in :class:`distsim.cost.kernel.Kernel`."""

    batch: Any
    q: Any
    kv: Any
    heads: Any
    kv_heads: Any
    qk_dim: Any
    v_dim: Any
    causal: Any
    window: Any


def prefill(shape: Shape, gpu: Machine, c: Prefill, ops: Ops, *, rate: float = 1.0, products: Any = None) -> Any:
    """Seconds of a forward pass.

    rate: arithmetic rate over the fitted one. products: multiply-adds per pair of query and key, where they are not
    ``qk_dim + v_dim``: the backward pass has others.
    """
    s = shape
    rows = ops.ceil(s.q / TILE)
    all_keys = ops.ceil(s.kv / TILE)
    high = ops.most(ops.least(s.q, TILE), c.floor) / TILE
    broad = ops.most(ops.least(s.kv, TILE), c.floor) / TILE
    # tiles of keys that a row of tiles meets: earlier + i + 1, up to all keys and to the window (masked at both of its ends)
    reach = ops.where(s.window > 0, ops.least(all_keys, s.window / TILE + 2.0), all_keys)
    earlier = ops.where(s.causal > 0, (s.kv - s.q) / TILE, all_keys)
    growing = ops.most(ops.least(ops.floor(reach - earlier), rows), 0.0)
    tiles = growing * earlier + growing * (growing + 1.0) / 2.0 + (rows - growing) * reach
    longest = ops.least(earlier + rows, reach)

    work = s.qk_dim + s.v_dim if products is None else products
    mean = (s.qk_dim + s.v_dim) / 2.0
    extra = (c.softmax + c.wide * mean * mean / 256.0) * work / mean
    pair = 2.0 * TILE * TILE * (work + extra) * gpu.sms / (gpu.peak * c.efficiency * rate)
    units = s.batch * s.heads
    every = units * (tiles * high * broad + rows * c.ramp * high) * pair / gpu.sms
    one = (longest * broad + c.ramp) * high * pair * c.alone
    blocks = units * rows
    waves = ops.ceil(blocks / gpu.sms)

    moved = s.batch * (s.qk_dim + s.v_dim) * (s.heads * s.q + s.kv_heads * s.kv) * gpu.width
    if products is not None:
        moved = 2.0 * moved
    memory = moved / (gpu.bandwidth * STREAM)
    most = ops.most(ops.most(every, one), memory)
    norm = most * ((every / most) ** c.norm + (one / most) ** c.norm + (memory / most) ** c.norm) ** (1.0 / c.norm)
    whole = waves * every * gpu.sms / blocks
    busy = norm * (1.0 - c.quantised) + c.quantised * ops.most(norm, whole)

    # activations come and go in 16 bits, whatever the kernel computes in
    new = 2.0 * s.batch * s.q * (s.qk_dim + s.v_dim) * (s.heads + s.kv_heads)
    fill = new * c.reuse / gpu.l2
    fill = fill * fill
    before = c.passes * new / gpu.bandwidth * fill / (1.0 + fill)
    return busy + before + c.overhead


def backward(shape: Shape, gpu: Machine, c: Prefill, ops: Ops, *, rate: float) -> Any:
    """Seconds of a backward pass: scores again, and the gradients of values, weights, queries and keys."""
    return prefill(shape, gpu, c, ops, rate=rate, products=3.0 * shape.qk_dim + 2.0 * shape.v_dim)


def decode(shape: Shape, gpu: Machine, c: Decode, ops: Ops) -> Any:
    """Seconds of one new token for every sequence of the batch.

    A single key head with qk_dim > v_dim is the latent of MLA: values are part of the keys, so a row of the cache is qk_dim.
    """
    s = shape
    keys = ops.where(s.window > 0, ops.least(s.kv, ops.most(s.window, 1)), s.kv)
    latent = ops.where(s.kv_heads == 1, ops.where(s.qk_dim > s.v_dim, 1, 0), 0) > 0
    dims = ops.where(latent, s.qk_dim, s.qk_dim + s.v_dim)
    group = s.heads / s.kv_heads
    # a latent has kernels of its own, that never fall back
    shared = ops.where(latent, 2.0, ops.where(group >= (c.wide_from or math.inf), 0.0, group))
    single = shared <= 1.0
    heads = ops.where(shared < 1.0, s.heads, s.kv_heads)
    cache = s.batch * keys * s.kv_heads * dims * gpu.width
    again = s.batch * keys * (heads - s.kv_heads) * dims * gpu.width
    units = s.batch * heads

    wanted = ops.most(keys / ops.where(single, c.least, c.least_grouped), 1.0)
    parts = ops.least(wanted, ops.most(gpu.sms * c.fan_out / units, 1.0))
    rounds = units * parts / gpu.sms
    active = ops.least(rounds, 1.0)
    share = active / (active + c.saturation * (1.0 - active))
    fill = cache * c.reuse / gpu.l2
    kept = c.resident / (1.0 + fill * fill)
    memory = (cache * (1.0 - kept) + again * c.reread) / (gpu.bandwidth * c.memory * share)
    rounds = ops.most(rounds, 1.0)
    walk = rounds * keys / parts * (dims / 256.0) * ops.where(single, c.token, c.token_grouped)
    # the query heads of a latent fill the matrix units
    arithmetic = 2.0 * s.batch * s.heads * keys * (s.qk_dim + s.v_dim) / (gpu.peak * LATENT)
    walk = ops.most(walk, ops.where(latent, arithmetic, 0.0))
    most = ops.most(memory, walk)
    norm = most * ((memory / most) ** c.norm + (walk / most) ** c.norm) ** (1.0 / c.norm)
    blocks = rounds * ops.where(single, c.wave, c.wave_grouped * (1.0 + c.per_query * ops.least(group, 64.0) / 8.0))
    return norm + blocks + c.overhead
