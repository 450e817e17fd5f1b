"""Constants of the attention models: per GPU and data type, from ``data/attention.json``, each set with its source.

A GPU without a set of its own takes that of a relative (``families``: by GPU, else by generation), with a larger error.
Training kernels have figures of their own (``training``): what was measured are inference kernels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from distsim.errors import ConfigError
from distsim.hardware.gpu import Gpu

FILE = Path(__file__).parent / "data" / "attention.json"
#: what the arithmetic of a data type is measured as
MEASURED_AS = {"bf16": "bf16", "fp16": "bf16", "fp8": "fp8"}


@dataclass(frozen=True, slots=True)
class Prefill:
    """Constants of :func:`attention_model.prefill`, fitted to measurements.

    Attributes:
        efficiency: share of peak that the matrix units reach inside the main loop.
        softmax: cost of one exponential and its rescaling, in multiply-adds per product (added to the head dimension).
        wide: growth of that cost with the head dimension (registers spill): head dimension^2 / 256 times this is added.
        ramp: tiles of keys that starting and ending one tile of queries costs.
        alone: time of a row of tiles that has its SM for itself, over its share of a full SM.
        quantised: 0: SMs share the tiles evenly; 1: whole waves.
        norm: of arithmetic over all SMs, the longest tile row on one SM, and main memory.
        floor: rows and columns that a tile is padded to at least.
        passes: times that queries, keys, values and output of the new tokens move before the kernel proper (position embedding,
            quantisation, cache writes).
        reuse: working set over L2 at which half of those passes stay in L2, inverted.
        overhead: s, launches.
    """

    efficiency: float
    softmax: float
    wide: float
    ramp: float
    alone: float
    quantised: float
    norm: float
    floor: float
    passes: float
    reuse: float
    overhead: float


@dataclass(frozen=True, slots=True)
class Decode:
    """Constants of :func:`attention_model.decode`, fitted to measurements.

    "single": kernels that serve one query head at a time (multi-head attention); "grouped": the query heads of a key head
    together.

    Attributes:
        memory: share of the bandwidth reached with all SMs busy.
        saturation: 1: bandwidth grows with the busy SMs; towards 0: few SMs draw all of it.
        reuse, resident: cache over L2 at which half of it stays in L2, inverted; share of the traffic that this saves.
        least, least_grouped: keys that a sequence is split at, at least.
        fan_out: splits that are aimed at, per SM.
        token, token_grouped: s, one key of 128 dimensions on one SM.
        wave, wave_grouped: s, one round of blocks on all SMs.
        per_query: growth of a grouped wave for 8 query heads more.
        reread: cost of reading the cache again for every query head, over reading it from memory.
        wide_from: query heads per key head from which kernels fall back to one query head at a time (0: never).
        norm: of memory and of the longest walk on one SM.
        overhead: s, launches.
    """

    memory: float
    saturation: float
    reuse: float
    resident: float
    least: float
    least_grouped: float
    fan_out: float
    token: float
    token_grouped: float
    wave: float
    wave_grouped: float
    per_query: float
    reread: float
    wide_from: float
    norm: float
    overhead: float


@dataclass(frozen=True, slots=True)
class Training:
    """A training kernel, as it differs from the fitted serving kernel of the same generation.

    Attributes:
        forward, backward: arithmetic rates over its rate (the backward pass does 2.5 times the work).
        overhead: s per kernel launched.
        error: usual relative error.
        changes: constants of :class:`Prefill` that it has of its own.
    """

    forward: float
    backward: float
    overhead: float
    error: float
    changes: Mapping[str, float]

    def applied(self, serving: Prefill, launches: int) -> Prefill:
        """Constants of a pass of ``launches`` kernels; what serving does before the kernel proper is left out."""
        return replace(serving, **{"passes": 0.0, **self.changes, "overhead": launches * self.overhead})


@dataclass(frozen=True, slots=True)
class Fitted:
    """One set: what it was fitted to, and the mean absolute relative error on heads left out of the fit."""

    system: str
    own: bool  #: fitted to this GPU, not to another of its generation
    prefill: Prefill
    decode: Decode
    prefill_error: float
    decode_error: float


@cache
def document() -> Mapping[str, Any]:
    """The shipped file."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


@cache
def _set(system: str, dtype: str) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = document()["systems"].get(system, {}).get(dtype)
    return found


def fitted(gpu: Gpu, dtype: str) -> Fitted | None:
    """Constants of a GPU and data type; None where the GPU has no units for it, or attention kernels do not exist in it."""
    kind = MEASURED_AS.get(dtype)
    if kind is None or dtype not in gpu.peak:
        return None
    found, system, own = _set(gpu.name, kind), gpu.name, True
    family: Mapping[str, Any] = {}
    if found is None:
        families = document()["families"]
        family = families.get(gpu.name) or families.get(gpu.generation, {})
        system, own = str(family.get("like", "")), False
        found = _set(system, kind)
    if found is None:
        return None
    prefill = dict(found["prefill"])
    if not own:
        prefill["efficiency"] *= family.get("rate", 1.0)
    return Fitted(
        system, own, Prefill(**prefill), Decode(**found["decode"]),
        found["prefill_error"] if own else family["prefill_error"],
        found["decode_error"] if own else family["decode_error"],
    )  # fmt: skip


def training(gpu: Gpu, implementation: str = "") -> Training:
    """Speed of a training kernel on a GPU's generation; without a name, of the usual one there.

    Raises: ConfigError on an implementation that does not exist.
    """
    known = document()["training"]
    if implementation and implementation not in known["implementations"]:
        raise ConfigError(f"no attention implementation {implementation!r}", expected=", ".join(known["implementations"]))
    name = implementation or known["usual"].get(gpu.generation, known["usual"]["*"])
    by_generation = known["implementations"][name]
    found = by_generation.get(gpu.generation) or by_generation["*"]
    forward, backward, overhead, error = (float(found[key]) for key in ("forward", "backward", "overhead", "error"))
    return Training(forward, backward, overhead, error, found.get("changes", {}))
