"""GPUs by name, read from the YAML files beside this module. There is no default GPU: an unknown name is an error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from distsim.errors import ConfigError, UnknownNameError
from distsim.params import worst

FOLDER = Path(__file__).parent / "gpus"
#: data types that a peak may be given for
DTYPES = ("fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "fp6", "fp4", "int8")
_VENDORS = {"nvidia", "amd", "google", "instinct", "tesla", "cloud", "gpu"}


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
    l2: int = Field(gt=0, description="last cache before memory")
    nvlink: float = Field(0.0, ge=0, description="scale-up bandwidth of one device, one way; 0: PCIe only")
    nic: float = Field(0.0, ge=0, description="usual NIC bandwidth per device, one way")
    power: float = Field(0.0, ge=0, description="W")
    clock: float = Field(1.0, gt=0, description="sustained clock under matrix products over that of the family's usual board")
    sources: Mapping[str, str]

    @field_validator("peak")
    @classmethod
    def _known_peaks(cls, peak: Mapping[str, float]) -> Mapping[str, float]:
        """Peaks are positive, and of data types that kernels ask for."""
        for dtype, rate in peak.items():
            if dtype not in DTYPES or not 0 < rate < float("inf"):
                raise ValueError(f"{dtype}: {rate}; a peak is a positive rate of one of {', '.join(DTYPES)}")
        return peak

    def unsourced(self) -> tuple[str, ...]:
        """Figures that no source is given for: field names, or ``peak.dtype``."""
        figures = ("memory", "memory_bandwidth", "sms", "l2", "nvlink", "nic", "power")
        missing = [name for name in figures if getattr(self, name) and not self.sources.get(name)]
        if self.clock != 1.0 and not self.sources.get("clock"):
            missing.append("clock")
        if not self.sources.get("peak"):
            missing += [f"peak.{dtype}" for dtype in self.peak if not self.sources.get(f"peak.{dtype}")]
        return tuple(missing)

    def __hash__(self) -> int:
        return hash(self.name)

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


@cache
def _by_spelling() -> dict[str, str]:
    """Folded spelling of every name and alias -> name."""
    return {folded(spelling): name for name, one in gpus().items() for spelling in (name, *one.aliases)}


def folded(text: str) -> str:
    """A spelling without what people vary: case, separators, brackets, the maker, GB or G.

    >>> folded("NVIDIA A100-SXM4-80GB"), folded("A100(Ampere)-80G"), folded("H100-96G HBM2e 2.4TB/s 500W")
    ('a100_sxm4_80g', 'a100_ampere_80g', 'h100_96g_hbm2e_2_4tb_s_500w')
    """
    words = [re.sub(r"^(\d+)g(i?b)$", r"\1g", word) for word in re.findall(r"[a-z0-9]+", text.lower())]
    return "_".join(word for word in words if word not in _VENDORS)


def read_gpu(file: Path) -> Gpu:
    """A GPU from a YAML file. Raises ConfigError."""
    try:
        entry = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot be read: {' '.join(str(error).split())}", where=str(file)) from None
    if not isinstance(entry, dict):
        raise ConfigError("no GPU description", where=str(file), expected=f"keys {', '.join(Gpu.model_fields)}")
    try:
        return Gpu(**{str(key): value for key, value in entry.items()})
    except ValidationError as error:
        first = worst(error)
        key = ".".join(str(part) for part in first["loc"])
        near = difflib.get_close_matches(key, Gpu.model_fields, n=2, cutoff=0.5) if first["type"] == "extra_forbidden" else ()
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"not a GPU description: {key}: {reason}", where=str(file), near=near) from None


def gpu(name: str, *, where: str = "") -> Gpu:
    """The GPU of that name or alias, however spelt, or of a YAML file. Raises UnknownNameError with near names, ConfigError."""
    if name.endswith((".yaml", ".yml")):
        return read_gpu(Path(name))
    known = gpus()
    found = _by_spelling().get(folded(name))
    if found is None:
        raise UnknownNameError("GPU", name, known, where=where)
    return known[found]
