"""Formats of weights: bytes that they take and move, and what the matrix units compute in."""

from __future__ import annotations

from dataclasses import dataclass

from distsim.errors import UnknownNameError
from distsim.hardware.gpu import Gpu


@dataclass(frozen=True, slots=True)
class Format:
    """One way to store the weights of linear layers.

    Attributes:
        bytes: of one weight, scales included.
        dtype: of the products, where the GPU has units for it and activations are quantised as well.
    """

    name: str
    bytes: float
    dtype: str

    def computes(self, gpu: Gpu) -> str:
        """Data type of the products on a GPU: bf16 where weights are widened first (weight-only, or no unit for the type)."""
        return self.dtype if self.dtype in gpu.peak else "bf16"


#: scales: fp8_block one fp32 per 128 x 128 weights (DeepSeek-V3, 2024); nvfp4 one fp8 per 16 (NVIDIA, "Introducing NVFP4",
#: 2025); mxfp4 one byte per 32 (OCP Microscaling Formats 1.0); int4 one bf16 per 32 (moonshotai/Kimi-K2-Thinking config.json)
FORMATS = {
    one.name: one
    for one in (
        Format("bf16", 2.0, "bf16"),
        Format("fp8", 1.0, "fp8"),
        Format("fp8_block", 1.0 + 4.0 / 16384, "fp8"),
        Format("nvfp4", 0.5 + 1.0 / 16, "fp4"),
        Format("mxfp4", 0.5 + 1.0 / 32, "fp4"),
        Format("int4", 0.5 + 2.0 / 32, "bf16"),
    )
}
#: other names: 16 bits are 16 bits, GPUs multiply both kinds at one rate
ALIASES = {"fp16": "bf16", "float16": "bf16", "half": "bf16", "bfloat16": "bf16"}


def format_named(name: str, *, where: str = "") -> Format:
    """The format of that name, in capitals or not, or its alias. Raises UnknownNameError."""
    folded = name.strip().lower()
    found = FORMATS.get(ALIASES.get(folded, folded))
    if found is None:
        raise UnknownNameError("weight format", folded, [*FORMATS, *ALIASES], where=where)
    return found
