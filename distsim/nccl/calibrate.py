"""Calibration: from measured collectives to a file of factors, with its error on points left out of the fit."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim import __version__
from distsim.errors import ConfigError
from distsim.nccl.fit import FOLDS, Sample, fit, left_out_errors, relative_errors
from distsim.nccl.gpus import GPUS
from distsim.nccl.measured import Measured
from distsim.nccl.model import Calibration, Factors
from distsim.nccl.selection import OPERATIONS
from distsim.nccl.system import system_of

SCHEMA, VERSION = "distsim-nccl-calibration", 1
#: sizes are grouped at these bounds: up to 16 KiB latency, then the protocols' switches, then bandwidth
SIZE_CLASSES = (
    (0, "<= 16 KiB"),
    (16 << 10, "<= 256 KiB"),
    (256 << 10, "<= 4 MiB"),
    (4 << 20, "<= 64 MiB"),
    (64 << 20, "> 64 MiB"),
)
#: smaller messages are all latency and timer: not fitted
LEAST_BYTES = 1 << 10
#: data types that NVLink SHARP does not reduce
_NOT_IN_SWITCH = ("int8", "uint8", "fp8", "float8")


@dataclass(frozen=True, slots=True)
class Network:
    """What the measurements do not say about the network between nodes: NICs of one node, bytes/s of each, kind."""

    nics: int | None = None
    nic_rate: float | None = None
    fabric: str = "ib"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A calibration and what it is worth.

    Attributes:
        points: rows that were fitted.
        left_out: relative error of every row under a fit that has not seen its point.
        inside: the same under the fit of all; before: under the defaults.
    """

    calibration: Calibration
    samples: tuple[Sample, ...]
    left_out: NDArray[np.float64]
    inside: NDArray[np.float64]
    before: NDArray[np.float64]

    @property
    def error(self) -> dict[str, Any]:
        """JSON-ready: measures of the left-out error, in all and by size class, beside those of the defaults and of the fit."""
        by_size = {}
        classes = [size_class(one.size) for one in self.samples]
        for _, name in SIZE_CLASSES:
            rows = np.flatnonzero([each == name for each in classes])
            if len(rows):
                by_size[name] = measures(self.left_out[rows]) | {"default_mape": measures(self.before[rows])["mape"]}
        return {
            "folds": FOLDS, **measures(self.left_out), "fitted_mape": measures(self.inside)["mape"],
            "default_mape": measures(self.before)["mape"], "by_size": by_size,
        }  # fmt: skip


def measures(errors: NDArray[np.float64]) -> dict[str, float]:
    """rows, mape (mean of the absolute), median, p90 and bias (mean), as shares."""
    size = np.abs(errors)
    return {
        "rows": len(errors), "mape": float(size.mean()), "median": float(np.median(size)),
        "p90": float(np.quantile(size, 0.9)), "bias": float(errors.mean()),
    }  # fmt: skip


def size_class(size: int) -> str:
    """The class of a buffer.

    >>> size_class(16384), size_class(16385)
    ('<= 16 KiB', '<= 256 KiB')
    """
    return next(name for bound, name in reversed(SIZE_CLASSES) if size > bound or bound == 0)


def sample_of(
    row: Measured, *, gpu: str = "", nodes: int | None = None, network: Network | None = None, where: str = ""
) -> Sample:
    """A measured row as a sample of a system.

    Args:
        gpu, nodes: in place of the row's. network: see Network. where: the file, for messages.

    Raises: ConfigError, UnknownNameError, CollectiveError where the row does not say enough, or says what NCCL does not know.
    """
    network = network or Network()
    place = f"{where}:{row.line}" if where else f"line {row.line}"
    if row.operation not in OPERATIONS:
        raise ConfigError(
            f"operation {row.operation!r}", where=place, expected=f"one of {', '.join(OPERATIONS)}",
            fix="Name it with --operation where the data do not.",
        )  # fmt: skip
    if not (gpu or row.gpu):
        raise ConfigError("the data do not say on which GPU", where=place, fix="Name it with --gpu.")
    if not row.ranks:
        raise ConfigError("the data do not say on how many ranks", where=place, fix="Name them with --gpus.")
    switch = not row.dtype.lower().startswith(_NOT_IN_SWITCH)
    system = system_of(
        gpu or row.gpu, row.ranks, nodes or row.nodes, network.nics, network.nic_rate, fabric=network.fabric, nvls=switch
    )
    return Sample(row.operation, row.size, system, row.time_us)


def calibrate(samples: Sequence[Sample], seed: int = 0) -> Fitted:
    """Fit a system, and measure the fit on points that it has not seen.

    Raises: ConfigError on too few points or several systems.
    """
    kept = tuple(one for one in samples if one.size >= LEAST_BYTES)
    left_out = left_out_errors(kept, np.random.default_rng(seed))
    calibration = fit(kept)
    return Fitted(calibration, kept, left_out, relative_errors(kept, calibration), relative_errors(kept))


def document(fitted: Fitted, sources: Iterable[str]) -> dict[str, Any]:
    """The calibration file's content."""
    one = fitted.calibration
    system = fitted.samples[0].system
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "distsim": __version__,
        "sources": [
            {"file": Path(path).name, "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()} for path in sources
        ],
        "system": {
            "gpu": one.gpu, "several_nodes": one.several_nodes, "ranks": sorted({s.system.ranks for s in fitted.samples}),
            "nodes": sorted({s.system.nodes for s in fitted.samples}), "fabric": system.fabric, "nics": system.nics,
            "nic_rate_GBps": system.nic_rate,
        },
        "factors": {f"{name}/{wire}": factors._asdict() for name, wire, factors in one.factors},
        "error": fitted.error,
    }  # fmt: skip


def save(path: str, content: dict[str, Any]) -> None:
    """Write a calibration file: to a temporary name, then renamed. Raises ConfigError where it cannot be written."""
    part = f"{path}.part"
    try:
        with open(part, "w") as file:
            json.dump(content, file, indent=1)
            file.write("\n")
        os.replace(part, path)
    except OSError as error:
        raise ConfigError(f"cannot be written ({error.strerror})", where=path) from None


def load_calibration(path: str) -> Calibration:
    """The calibration of a file. Raises ConfigError where it is none, or of another version."""
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read: {error.strerror}", where=path) from None
    except ValueError as error:
        raise ConfigError(f"is not JSON: {error}", where=path) from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ConfigError(
            "is not a calibration of NCCL", where=path, expected=f"schema {SCHEMA!r}", fix="Make one: distsim calibrate nccl."
        )
    if content.get("version") != VERSION:
        raise ConfigError(f"has version {content.get('version')!r}", where=path, expected=f"version {VERSION}")
    try:
        gpu, many = content["system"]["gpu"], content["system"]["several_nodes"]
        if gpu not in GPUS or not isinstance(many, bool):
            raise ValueError(f"system {content['system']}")
        factors = []
        for key, values in content["factors"].items():
            name, _, wire = key.partition("/")
            numbers = Factors(**{part: float(value) for part, value in values.items()})
            if not all(0 <= number < 1e6 for number in numbers):
                raise ValueError(f"factors of {key} out of range")
            factors.append((name, wire, numbers))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"is damaged: {error}", where=path) from None
    return Calibration(gpu, many, tuple(factors))
