"""Fitted parameters of kernel models in files: shipped ones as YAML, calibrations of your own as JSON, one layout.

::

    version: 1
    source: where the measurements come from
    families: {hopper: h100_sxm, ...}       # generation or GPU -> GPU whose parameters it borrows
    borrowed_error: 0.2                      # usual error with another GPU's parameters
    fits:
      - {gpu: h100_sxm, dtype: bf16, error: 0.06, rows: 9000, parameters: {...}}
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distsim.errors import ConfigError
from distsim.hardware.gpu import Gpu
from distsim.params import worst

DATA = Path(__file__).parent / "data"
VERSION = 1
#: data types whose fit may stand in, nearest first: the same tensor cores at another rate
STAND_INS = {
    "bf16": ("bf16", "fp16"), "fp16": ("fp16", "bf16"), "tf32": ("tf32", "bf16"), "fp32": ("fp32", "bf16"),
    "fp8": ("fp8", "int8", "bf16"), "int8": ("int8", "fp8", "bf16"), "fp6": ("fp6", "fp8", "bf16"),
    "fp4": ("fp4", "fp8", "bf16"),
}  # fmt: skip
#: usual error where the fit is of another data type; not measured: there are no rows to measure it on
STAND_IN_ERROR = 0.3
_ALIKE = {"bf16", "fp16"}  #: one rate, one width: the fit of one is the fit of the other


class Fit(BaseModel):
    """Parameters of one model on one GPU and data type.

    error: mean absolute relative error on left-out weight shapes. rows: measurements fitted to. residual: a learner on top.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpu: str
    dtype: str
    error: float = Field(ge=0)
    rows: int = Field(ge=0)
    parameters: Mapping[str, float]
    residual: Mapping[str, Any] | None = None


class Fits(BaseModel):
    """All fits of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    source: str
    model: str = "tile_wave"
    families: Mapping[str, str] = {}
    borrowed_error: float = Field(default=0.0, ge=0)
    fits: tuple[Fit, ...]

    def own(self, gpu: Gpu, dtype: str) -> tuple[Fit, float] | None:
        """The fit of this very GPU and its usual error; None where there is none that may serve."""
        return self._of(gpu.name, dtype)

    def borrowed(self, gpu: Gpu, dtype: str) -> tuple[Fit, float] | None:
        """The fit of the GPU that stands for its family, and the usual error of a borrowed one."""
        family = self.families.get(gpu.name) or self.families.get(gpu.generation)
        found = self._of(family, dtype) if family else None
        return (found[0], max(found[1], self.borrowed_error)) if found else None

    def _of(self, gpu: str, dtype: str) -> tuple[Fit, float] | None:
        for other in STAND_INS.get(dtype, ()):
            for fit in self.fits:
                if fit.gpu == gpu and fit.dtype == other:
                    alike = other == dtype or {other, dtype} <= _ALIKE
                    return fit, fit.error if alike else max(fit.error, STAND_IN_ERROR)
        return None


@cache
def shipped(model: str) -> Fits:
    """The fits that come with the package."""
    return read_fits(DATA / f"{model}.yaml", model)


def read_fits(path: str | Path, model: str) -> Fits:
    """Fits of a model from a YAML or JSON file. Raises ConfigError where it is no such file."""
    where = str(path)
    try:
        text = Path(path).read_text()
        # NOTE: json first, it is a hundred times faster and residual learners are long
        content = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
        found = Fits(**content)
    except OSError as error:
        raise ConfigError(f"cannot read: {error.strerror or error}", where=where) from None
    except ValidationError as error:
        first = worst(error)
        raise ConfigError(
            f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}", where=where,
            expected="what distsim calibrate compute -o writes",
        ) from None  # fmt: skip
    except (ValueError, yaml.YAMLError, TypeError, UnicodeDecodeError):
        raise ConfigError("is no calibration", where=where, expected="what distsim calibrate compute -o writes") from None
    if found.version != VERSION:
        raise ConfigError(f"version {found.version} of the layout", where=where, expected=f"version {VERSION}")
    if found.model != model:
        raise ConfigError(f"holds fits of {found.model!r}", where=where, expected=model)
    return found


def write_fits(path: str | Path, fits: Fits) -> None:
    """Write as JSON, to a temporary name first. Raises ConfigError where it cannot be written."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(fits.model_dump(exclude_none=True)) + "\n")
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"cannot write: {error.strerror or error}", where=str(path)) from None
