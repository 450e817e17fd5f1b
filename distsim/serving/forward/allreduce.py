"""All-reduces that serving systems bring along for messages that NCCL is slow on: one shot, or two, over NVLink.

One shot: every rank reads the whole of every other's buffer, (n-1) S over its links. Two shots: each sums its n-th part and
collects the others', 2 (n-1)/n S, with one more synchronisation. The faster is taken, as these systems do by thresholds.

Source: vLLM ``csrc/custom_all_reduce.cuh`` (SGLang's has the same origin), TensorRT-LLM ``allReduceKernels.cu``. Constants:
least absolute logarithmic error over the measured all-reduces in CUDA graphs of 1 KiB to 8 MiB in ``reference/nccl`` (2, 4 and
8 GPUs; medians of versions): off by 3 to 12 %.
"""

from __future__ import annotations

from typing import NamedTuple

from distsim.nccl.gpus import GPUS

#: larger messages are left to NCCL (vLLM custom_all_reduce.py, max_size)
LARGEST = 8 << 20


class Shots(NamedTuple):
    """us of either way with two ranks, us per further rank, and GB/s."""

    one: float
    one_rank: float
    one_rate: float
    two: float
    two_rank: float
    two_rate: float


#: by implementation and GPU of distsim.nccl.gpus; others take those of their generation
CONSTANTS = {
    ("custom", "a100"): Shots(5.24, 0.123, 182.8, 11.1, 0.480, 224.8),
    ("custom", "h100"): Shots(4.34, 0.064, 263.6, 6.54, 0.586, 287.0),
    ("custom", "b200"): Shots(6.94, 0.013, 169.8, 16.3, 0.083, 467.2),
    ("custom", "gb200"): Shots(5.40, 0.000, 208.2, 8.66, 0.003, 299.8),
    ("trtllm", "a100"): Shots(4.29, 0.257, 144.8, 29.0, 1.450, 161.2),
    ("trtllm", "h100"): Shots(3.12, 0.070, 300.2, 7.60, 1.379, 231.2),
    ("trtllm", "b200"): Shots(4.89, 0.109, 621.8, 14.0, 1.234, 433.0),
    ("trtllm", "gb200"): Shots(4.27, 0.315, 569.0, 26.5, 0.226, 559.0),
}
_GENERATION = {"ampere": "a100", "hopper": "h100", "blackwell": "b200"}


def constants(implementation: str, gpu: str) -> Shots | None:
    """Constants for a GPU of distsim.nccl.gpus, None where nothing like it was measured (no NVLink)."""
    kind = GPUS[gpu]
    if kind.link != "nvlink":
        return None
    like = "gb200" if gpu == "gb300" else _GENERATION.get(kind.generation, "")
    return CONSTANTS.get((implementation, gpu)) or CONSTANTS.get((implementation, like))


def seconds(size: int, ranks: int, shots: Shots) -> float:
    """Of an all-reduce of ``size`` bytes in one NVLink domain."""
    one = shots.one + shots.one_rank * (ranks - 2) + (ranks - 1) * size / (shots.one_rate * 1e3)
    two = shots.two + shots.two_rank * (ranks - 2) + 2 * (ranks - 1) / ranks * size / (shots.two_rate * 1e3)
    return min(one, two) * 1e-6
