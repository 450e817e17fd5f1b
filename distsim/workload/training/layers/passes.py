"""Memory traffic between the GEMMs: how many times element-wise code reads and writes its tensors.

Counts are of whole tensors, from what the kernels of each kind of software do. *fused*: one kernel for each of norm, bias +
dropout + residual, bias + activation, rotary embedding (Megatron-LM's and Apex' kernels). *compiled*: the same, and residual
adds merge with the norm that follows (torch.compile). *eager*: one kernel per PyTorch operator; norms in fp32.
"""

from __future__ import annotations

from typing import NamedTuple


class Passes(NamedTuple):
    """Tensor reads and writes (in elements of the tensor, times its width) and kernels, forward and backward."""

    norm: tuple[float, float]
    norm_launches: tuple[int, int]
    residual: tuple[float, float]  #: bias, dropout, add
    residual_launches: tuple[int, int]
    activation: tuple[float, float]  #: of the MLP, in its outputs' elements; a gated one reads two
    gated: tuple[float, float]
    activation_launches: tuple[int, int]
    rope: tuple[float, float]  #: of queries and keys
    rope_launches: tuple[int, int]


PASSES = {
    "fused": Passes((2, 4), (1, 2), (3.5, 2.5), (1, 1), (2, 3), (3, 5), (1, 1), (2, 2), (2, 2)),
    "compiled": Passes((2, 3.5), (1, 2), (2, 1), (0, 0), (2, 3), (3, 5), (1, 1), (2, 2), (1, 1)),
    "eager": Passes((7, 12), (6, 10), (3, 1), (1, 1), (2, 3), (5, 8), (2, 4), (8, 8), (8, 8)),
}
