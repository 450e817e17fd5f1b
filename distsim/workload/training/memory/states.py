"""Bytes per parameter of weights, gradients and optimizer, as ZeRO shards them.

Mixed precision with Adam (Rajbhandari et al., "ZeRO", 2020, section 3.1): 2 (weights) + 2 or 4 (gradients) + 12 (fp32 master
copy and two moments) bytes per parameter; stage 1 shards the 12, stage 2 the gradients too, stage 3 all.
"""

from __future__ import annotations

from typing import NamedTuple

from distsim.hardware.gpu import Gpu
from distsim.workload.training.plan import Plan
from distsim.workload.training.stack import Stack

MASTER, MOMENTS = 4, 8  #: bytes of fp32 Adam
#: bytes of one quantised copy of a weight: values and block scales (MXFP8: one byte per 32; NVFP4: one per 16)
QUANTISED = {"fp8": 1.0, "mxfp8": 1 + 1 / 32, "nvfp4": 0.5 + 1 / 16}


class PerParameter(NamedTuple):
    """Bytes for each parameter that a rank would hold unsharded. step: transient, while the optimizer runs."""

    weights: float
    quantised: float
    gradients: float
    optimizer: float
    step: float


def width_of(plan: Plan) -> int:
    """Bytes of an activation element and of a weight in computation."""
    return 4 if plan.dtypes[1] == "fp32" else 2


def shards(plan: Plan) -> tuple[int, int]:
    """Ranks that share the states of one dense parameter, and of one expert parameter (1 at ZeRO stage 0)."""
    if not plan.zero:
        return 1, 1
    replicas = plan.dp * plan.cp
    group = plan.shard_group or replicas
    return group, max(1, plan.expert_dp * group // replicas)


def quantised_copies(plan: Plan, stack: Stack, gpu: Gpu) -> int:
    """Low-precision copies of a weight that live through the step: Transformer Engine keeps one for each GEMM operand layout.

    Blackwell's per-tensor FP8 GEMMs take any layout, so that one copy serves; block-scaled formats quantise along each axis.
    FSDP that holds fp32 weights quantises what it gathers, and keeps nothing.
    """
    if plan.precision not in QUANTISED or stack.master == "weights":
        return 0
    return 1 if plan.precision == "fp8" and gpu.generation == "blackwell" else 2


def per_parameter(plan: Plan, stack: Stack, gpu: Gpu, group: int) -> PerParameter:
    """The states of one parameter whose shards are spread over ``group`` ranks."""
    width = width_of(plan)
    zero = plan.zero
    quantised = quantised_copies(plan, stack, gpu) * QUANTISED.get(plan.precision, 0.0) / (group if zero == 3 else 1)
    gradient = 4 if width == 4 or stack.master == "weights" or (plan.grad_dtype or stack.grad_dtype) == "fp32" else 2
    if stack.gradient_copy and gradient == 4 and width == 2:
        gradient += 2  # DeepSpeed's BF16 optimizer adds 16-bit gradients to an fp32 copy, and keeps both
    gradients = gradient / (group if zero >= 2 else 1)
    share = group if zero else 1
    if stack.master == "weights":
        # NOTE: FSDP shards fp32 weights; SHARD_GRAD_OP (stage 2) keeps the gathered copy from forward to backward
        weights = MASTER / (group if zero >= 2 else 1) + (width if zero == 2 else 0)
        return PerParameter(weights, quantised, gradients, MOMENTS / share, MASTER / share)
    weights = width / (group if zero == 3 else 1)
    optimizer = (MOMENTS + (MASTER if width == 2 else 0)) / share
    copy = 4 / share if stack.gradient_copy and gradient == 2 else 0.0
    return PerParameter(weights, quantised, gradients, optimizer + copy, 0.0)
