"""Kernels that only move bytes: a launch, then a share of the memory bandwidth.

``t = LAUNCH + bytes / (EFFICIENCY * bandwidth)``: half of the reachable rate at the size that streams for as long as a launch
takes, 8 MB on an H100; small kernels are all launch.
"""

from __future__ import annotations

from distsim.cost.kernel import Answer, Kernel
from distsim.hardware.gpu import Gpu
from distsim.registry import register

MODEL = "stream"
#: reached share of the data sheet's bandwidth, and seconds of a kernel that does nothing; source: aiconfigurator-core 0.12.0,
#: system files of A100, H100, H200, B200 and L40S (``mem_bw_empirical_scaling_factor``, ``mem_empirical_constant_latency``)
EFFICIENCY = 0.8
LAUNCH = 3e-6
#: usual error; an estimate: no measured table of such kernels ships
ERROR = 0.2


@register("kernels", "stream")
class Stream:
    """Kernels of kind ``memory``; source ``stream``."""

    def answer(self, kernel: Kernel, gpu: Gpu) -> Answer | None:
        """See KernelProvider.answer; None for other kinds."""
        if kernel.kind != "memory":
            return None
        return Answer(LAUNCH + kernel.bytes / (EFFICIENCY * gpu.memory_bandwidth), MODEL, ERROR)
