"""GPUs by name, read from the YAML files beside this module. There is no default GPU: an unknown name is an error."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distsim.errors import ConfigError, UnknownNameError

FOLDER = Path(__file__).parent / "gpus"


class Gpu(BaseModel):
    """One accelerator. Bandwidths are bytes/s, one way; memory and caches bytes; peaks dense FLOP/s.

    peak: by dtype: fp32, tf32, fp16, bf16, fp8, fp4, int8; what the chip has no unit for is absent.
    sources: field name (``peak.bf16`` for one dtype) -> where the figure comes from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    about: str
    aliases: tuple[str, ...] = ()
    generation: str = Field(description="volta, ampere, ada, hopper, blackwell, cdna3, tpu")
    peak: Mapping[str, float]
    memory: int = Field(gt=0)
    memory_bandwidth: float = Field(gt=0)
    sms: int = Field(gt=0, description="streaming multiprocessors, compute units or cores")
    l2: int = Field(gt=0)
    nvlink: float = Field(0.0, ge=0, description="scale-up bandwidth of one device, one way; 0: PCIe only")
    nic: float = Field(0.0, ge=0, description="usual NIC bandwidth per device, one way")
    power: float = Field(0.0, ge=0, description="W")
    sources: Mapping[str, str]

    def rate(self, dtype: str) -> float:
        """Dense FLOP/s of a dtype. Raises ConfigError where the GPU has no unit for it."""
        found = self.peak.get(dtype)
        if found is None:
            raise ConfigError(f"{self.name} has no {dtype} peak", expected=f"one of {', '.join(self.peak)}")
        return found


@cache
def gpus() -> dict[str, Gpu]:
    """All shipped GPUs by name."""
    found = {}
    for file in sorted(FOLDER.glob("*.yaml")):
        gpu = read_gpu(file)
        found[gpu.name] = gpu
    return found


def read_gpu(file: Path) -> Gpu:
    """A GPU from a YAML file. Raises ConfigError."""
    try:
        return Gpu(**yaml.safe_load(file.read_text()))
    except (ValidationError, yaml.YAMLError, TypeError, OSError) as error:
        raise ConfigError(f"not a GPU description: {error}", where=str(file)) from None


def gpu(name: str, *, where: str = "") -> Gpu:
    """The GPU of that name or alias, or of a YAML file. Raises UnknownNameError with near names."""
    if name.endswith((".yaml", ".yml")):
        return read_gpu(Path(name))
    wanted = name.strip().lower().replace("-", "_").replace(" ", "_")
    known = gpus()
    if wanted in known:
        return known[wanted]
    for one in known.values():
        if wanted in one.aliases:
            return one
    raise UnknownNameError("GPU", name, known, where=where)
