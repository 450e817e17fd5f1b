"""The data type in which a kernel computes, by its name: libraries write it there, each in its own way."""

from __future__ import annotations

import re
from functools import lru_cache

# NOTE: the order decides: bf16 holds "f16", a cuBLAS name with fp8 operands also names its bf16 result, and tensor-core
# kernels of 4-byte operands (s1688) compute in tf32 unless they say fp16.
# Sources: names as profilers print them; CUTLASS's instruction shapes (s884 Volta fp16, s1688 tf32 or Turing fp16, s16816
# 16 bit); the letters of cuBLASLt's nvjet_ABC (q fp8, t bf16, h fp16, s tf32) and of Tensile's Cijk_..._ABC (H, B, S, D)
_WORDS = tuple(
    (dtype, re.compile(words))
    for dtype, words in (
        ("fp4", r"nvf?p4|e2m1|mxf4|fp4"),
        ("fp8", r"e4m3|e5m2|fp8|float8|qmma|nvjet_q|cijk_a\w+_b\w+?_[bf]8"),
        ("int8", r"imma|s8s8|int8_gemm|i8816|i8i|s8_s8|cijk_a\w+_b\w+?_i8"),
        ("bf16", r"bf16|bfloat|nvjet_t|cijk_a[a-z]+_b[a-z]+_b(?:bs|ss|b)?_"),
        ("fp16", r"fp16|[^bt]f16|half|hgemm|[hs]884|h1688|h16816|nvjet_h|cijk_a[a-z]+_b[a-z]+_h(?:hs|ss|b|h)?_"),
        ("tf32", r"tf32|tfloat32|s1688|nvjet_s"),
        ("fp64", r"dgemm|f64|d884|double|cijk_a[a-z]+_b[a-z]+_db?_"),
        ("fp32", r"sgemm|f32|float|fp32|ffma|cijk_a[a-z]+_b[a-z]+_sb?_"),
    )
)


@lru_cache(maxsize=65536)
def dtype_of(name: str) -> str | None:
    """fp64, fp32, tf32, fp16, bf16, fp8, fp4 or int8; None where the name does not tell.

    >>> dtype_of("volta_sgemm_128x64_nn"), dtype_of("cutlass_80_tensorop_s1688gemm_256x64_16x4_nn_align4")
    ('fp32', 'tf32')
    >>> dtype_of("sm80_xmma_gemm_bf16bf16_bf16f32_f32_tn_n"), dtype_of("volta_fp16_s884gemm_fp16_128x128_ldg8_f2f_nn")
    ('bf16', 'fp16')
    """
    lowered = name.lower()
    return next((dtype for dtype, words in _WORDS if words.search(lowered)), None)
