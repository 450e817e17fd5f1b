"""The tile/wave model of a GEMM: output tiles fill the SMs in waves, the fastest tile shape and split of k wins.

A candidate is a tile (rows, columns) and a split of k. Its time is a p-norm of three: arithmetic of the waves, traffic with
main memory, traffic with L2; plus the reduction of a split k, plus a launch. Groups are equal GEMMs whose tiles fill waves
together (mixture-of-experts).

Source: tile and wave quantisation as in NVIDIA, "Matrix Multiplication Background User's Guide"; the form of the terms from
fits to kernel measurements of A100, H100, B200 and L40S.
"""

from __future__ import annotations

import math
from typing import Any

from distsim.kernel.jit import kernel

#: rows and columns of an output tile that libraries ship kernels for, and splits of k
TILES = ((64, 64), (64, 128), (128, 64), (128, 128), (128, 256), (256, 128), (256, 256), (64, 256), (16, 64), (16, 128),
         (32, 128), (32, 64))  # fmt: skip
SPLITS = (1, 2, 4, 8, 16)
#: elementary steps per shape: what the choice between interpreter and compiler goes by
STEPS = len(TILES) * len(SPLITS)

#: places in the vector of constants; see tile_wave.constants()
SMS, RATE, BANDWIDTH, L2, WIDTH_IN, WIDTH_OUT = 0, 1, 2, 3, 4, 5
MEMORY, OVERHEAD, PROLOGUE, ACTIVE, L2_RATIO, SPLIT, POWER, QUANTISED, REUSE, QUANTISE = 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
CONSTANTS = 16
#: what an answer is made of: see :func:`tile_wave`
TIME, ARITHMETIC, DRAM, CACHE, WAVES, TILE_ROWS, TILE_COLUMNS, SPLIT_K = 0, 1, 2, 3, 4, 5, 6, 7
FIELDS = 8


@kernel
def tile_wave(
    m: Any, n: Any, k: Any, groups: Any, rows: int, tiles: Any, splits: Any, c: Any, first: int, fields: int, out: Any
) -> None:
    """Times of ``rows`` GEMMs: ``out[first + row * fields]`` is seconds; with FIELDS ``fields`` the terms of the winner follow:
    arithmetic, main memory, L2 (seconds), waves (a fraction), tile rows, tile columns, split of k.

    tiles: rows, columns and efficiency of every tile, one after the other.
    """
    sms = c[SMS]
    bandwidth = c[BANDWIDTH]
    power = c[POWER]
    quantised = c[QUANTISED]
    proportional = 1.0 - quantised
    prologue = c[PROLOGUE]
    for row in range(rows):
        mm = m[row]
        nn = n[row]
        kk = k[row]
        gg = groups[row]
        written = 1.0 * gg * mm * nn
        read = 1.0 * gg * (mm * kk + kk * nn)
        moved = c[WIDTH_IN] * read + c[WIDTH_OUT] * written
        # NOTE: share of the traffic that stays in L2, a steep step where all operands fit
        fill = (moved * c[REUSE] / c[L2]) ** 2
        from_memory = moved * (1.0 - 1.0 / (1.0 + fill * fill)) / (bandwidth * c[MEMORY])
        # NOTE: x comes in bf16 and is quantised first, by a kernel of its own
        before = c[OVERHEAD] + c[QUANTISE] * gg * mm * kk
        best = 1e300
        at = first + row * fields
        for tile in range(0, len(tiles), 3):
            tm = tiles[tile]
            tn = tiles[tile + 1]
            area = tm * tn
            rate = c[RATE] * tiles[tile + 2]
            whole = 1.0 * gg * math.ceil(mm / tm) * math.ceil(nn / tn)
            for split in splits:
                depth = kk / split
                count = whole * split
                waves = count / sms
                last = waves if waves > 1.0 else 1.0
                # NOTE: a bound first: most candidates are not worth their powers
                steps = quantised * math.ceil(waves) + proportional * last
                arithmetic = steps * 2.0 * area * (depth + prologue) / rate
                reduction = 0.0
                if split > 1:
                    reduction = c[SPLIT] + 8.0 * written * split / (3.0 * bandwidth)
                if arithmetic + reduction >= best:
                    continue
                active = waves if waves < 1.0 else 1.0
                share = active / (active + c[ACTIVE] * (1.0 - active))
                dram = from_memory / share
                cache = (c[WIDTH_IN] * count * (tm + tn) * depth + c[WIDTH_OUT] * written) / (
                    c[L2_RATIO] * bandwidth * max(share, 1e-3)
                )
                most = max(arithmetic, dram, cache)
                if most + reduction >= best:
                    continue
                total = (
                    most
                    * ((arithmetic / most) ** power + (dram / most) ** power + (cache / most) ** power) ** (1.0 / power)
                    + reduction
                )
                if total < best:
                    best = total
                    out[at] = total + before
                    if fields > 1:
                        out[at + 1] = arithmetic
                        out[at + 2] = dram
                        out[at + 3] = cache
                        out[at + 4] = waves
                        out[at + 5] = 1.0 * tm
                        out[at + 6] = 1.0 * tn
                        out[at + 7] = 1.0 * split
