"""The datasheet roofline: the longer of arithmetic at peak and traffic at peak bandwidth. A lower bound of every kernel.

Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model" (2009).
"""

from __future__ import annotations

from distsim.cost.kernel import Answer, Kernel
from distsim.hardware.gpu import Gpu
from distsim.registry import register

MODEL = "roofline"
#: mean absolute relative error over the measured bf16 GEMMs of A100, H100, B200 and L40S: nearly always too fast
ERROR = 0.5


@register("kernels", "roofline")
class Roofline:
    """Every kernel; source ``roofline``."""

    def answer(self, kernel: Kernel, gpu: Gpu) -> Answer | None:
        """See KernelProvider.answer; None where there is arithmetic and the GPU has no unit for its data type."""
        arithmetic = 0.0
        if kernel.flops:
            if kernel.dtype not in gpu.peak:
                return None
            arithmetic = kernel.flops / gpu.rate(kernel.dtype)
        return Answer(max(arithmetic, kernel.bytes / gpu.memory_bandwidth), MODEL, ERROR)
