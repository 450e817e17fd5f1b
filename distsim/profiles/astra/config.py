"""ASTRA-sim's own input files: network YAML, system JSON, communicator groups.

Units are ASTRA-sim's: bandwidth in GB/s of 2^30 bytes, latency in ns, ``local-mem-bw`` in GB/s of 1e9 bytes, ``peak-perf``
in TFLOP/s. ASTRA-sim skips keys that it does not know, and so its files hold all sorts of them; here they are skipped too,
but told, with the nearest key that would have been known.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distsim.errors import CollectiveError, ConfigError, UnknownNameError

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
NETWORKS = {"Ring": "ring", "Switch": "switch", "FullyConnected": "fully_connected"}

#: what each key of a system JSON sets
_KEYS = {
    "scheduling-policy": "policy",
    "endpoint-delay": "endpoint_ns",
    "active-chunks-per-dimension": "active_chunks",
    "preferred-dataset-splits": "splits",
    "collective-optimization": "optimization",
    "local-mem-bw": "local_memory_gbps",
    "peak-perf": "peak_tflops",
    "roofline-enabled": "roofline",
    "num-queues-per-dim": "queues_per_dim",
}
#: keys that ASTRA-sim reads and that change nothing on its analytical backends as this profile models them
_IGNORED = {
    "boost-mode",
    "trace-enabled",
    "replay-only",
    "L",
    "o",
    "g",
    "G",
    "local-reduction-delay",
    "track-local-mem",
    "local-mem-trace-filename",
    "intra-dimension-scheduling",
    "inter-dimension-scheduling",
    "model-shared-bus",
}
#: values at which such a key is indeed without effect; any other value is refused
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "replay-only": (0,), "model-shared-bus": (0,), "intra-dimension-scheduling": ("FIFO",),
    "inter-dimension-scheduling": ("baseline", "ascending"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class NetworkDim:
    """One dimension of the network."""

    kind: str  #: ring | switch | fully_connected
    size: int
    bandwidth: float  #: GB/s, GB = 2^30 bytes
    latency: float  #: ns


@dataclass(frozen=True, slots=True)
class Implementation:
    """Algorithm of one dimension: ring | direct | halvingDoubling | doubleBinaryTree, as in the system JSON."""

    algorithm: str
    window: int = 0  #: direct: peers in flight, 0 = all
    flat: bool = False  #: the "one..." forms: a single phase over all ranks

    @classmethod
    def parse(cls, text: str, where: str = "") -> Implementation:
        """``direct4`` -> direct with a window of 4; ``oneRing`` -> a flat ring."""
        name, flat = text, False
        for long in ("oneRing", "oneDirect", "oneHalvingDoubling"):
            if text.startswith(long):
                name, flat = long[3].lower() + text[4:], True
        if name.startswith("direct"):
            window = name[len("direct") :]
            if window and (not window.isdigit() or int(window) == 0):
                raise ConfigError(
                    f"{text!r} is not a direct algorithm", where=where, expected="direct or direct<window>, as direct4"
                )
            return cls("direct", int(window or 0), flat)
        if name not in ("ring", "halvingDoubling", "doubleBinaryTree"):
            known = (
                "ring",
                "direct",
                "direct4",
                "halvingDoubling",
                "doubleBinaryTree",
                "oneRing",
                "oneDirect",
                "oneHalvingDoubling",
            )
            raise UnknownNameError("ASTRA-sim collective implementation", text, known, where=where)
        return cls(name, 0, flat)


@dataclass(frozen=True, slots=True)
class AstraConfig:
    """Network and system of one run. Defaults are those of ``--profile astra`` without files."""

    dims: tuple[NetworkDim, ...]
    aware: bool = False  #: congestion-aware backend
    implementations: dict[str, tuple[Implementation, ...]] = field(default_factory=dict)
    splits: int = 1
    active_chunks: int = 1
    queues_per_dim: int = 1
    endpoint_ns: int = 10
    local_memory_gbps: float = 1600.0
    peak_tflops: float = 989.0
    roofline: bool = False
    policy: str = "LIFO"
    optimization: str = "localBWAware"
    ignored: tuple[str, ...] = ()  #: one sentence on every key that was skipped

    @property
    def ranks(self) -> int:
        """Ranks of the whole network."""
        total = 1
        for dim in self.dims:
            total *= dim.size
        return total

    def implementation(self, operation: str) -> tuple[Implementation, ...]:
        """Algorithm per dimension of an operation (ring where nothing is said)."""
        given = self.implementations.get(operation) or tuple(Implementation("ring") for _ in self.dims)
        if len(given) > len(self.dims) or (len(given) < len(self.dims) and not given[-1].flat):
            raise ConfigError(
                f"{operation} has {len(given)} implementations for a network of {len(self.dims)} dimensions",
                expected="one per dimension, or one flat form such as oneRing",
            )
        return given

    def checked(self) -> AstraConfig:
        """Self, once every value has been found usable. Raises ConfigError."""
        if not self.dims:
            raise ConfigError("the network has no dimension")
        for dim in self.dims:
            if dim.size < 2:
                raise ConfigError(f"a network dimension has {dim.size} ranks", expected="at least 2 in every dimension")
            if not dim.bandwidth > 0:
                raise ConfigError(f"bandwidth {dim.bandwidth} GB/s must be positive")
            if not 0 <= dim.latency < 1e15:
                raise ConfigError(f"latency {dim.latency} ns", expected="0 or more, and less than 1e15 ns")
            if not 1e-9 < dim.bandwidth < 1e9:
                raise ConfigError(f"bandwidth {dim.bandwidth} GB/s", expected="between 1e-9 and 1e9 GB/s")
        for name, least in (("splits", 1), ("active_chunks", 1), ("queues_per_dim", 1), ("endpoint_ns", 1)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}", expected=f"at least {least}",
                    fix="ASTRA-sim itself crashes on an endpoint delay of 0." if name == "endpoint_ns" else "",
                )  # fmt: skip
        limits = (("splits", 1 << 20), ("active_chunks", 1 << 20), ("queues_per_dim", 1 << 10), ("endpoint_ns", 1 << 50))
        for name, most in limits:
            if getattr(self, name) > most:
                raise ConfigError(f"{name} is {getattr(self, name)}", expected=f"at most {most}")
        if not self.local_memory_gbps > 0:
            raise ConfigError("local-mem-bw must be positive")
        if self.roofline and not self.peak_tflops > 0:
            raise ConfigError("peak-perf must be positive when roofline-enabled is set")
        if self.policy not in ("LIFO", "FIFO", "EXPLICIT"):
            raise UnknownNameError("scheduling policy", self.policy, ("LIFO", "FIFO", "EXPLICIT"))
        if self.optimization not in ("localBWAware", "baseline"):
            raise UnknownNameError("collective optimization", self.optimization, ("localBWAware", "baseline"))
        return self


def check_size(implementation: Implementation, operation: str, size: int) -> None:
    """CollectiveError where an algorithm cannot serve a ring of ``size`` ranks (ASTRA-sim hangs or crashes there)."""
    power = size & (size - 1) == 0
    if implementation.algorithm in ("halvingDoubling", "doubleBinaryTree") and not power:
        raise CollectiveError(
            f"{implementation.algorithm} needs a power of two, but the {operation} has {size} ranks in a dimension",
            fix="Take ring or direct, or 2^n ranks.",
        )
    if implementation.algorithm == "halvingDoubling" and operation == "all_to_all":
        raise CollectiveError("halvingDoubling has no all_to_all", fix="Take ring or direct.")
    if implementation.algorithm == "doubleBinaryTree" and operation != "all_reduce":
        raise CollectiveError(f"doubleBinaryTree has no {operation}, only all_reduce", fix="Take ring or direct.")


def _value(value: Any, kind: type, where: str) -> Any:
    """A value of a system file as what it sets: nothing is rounded, and text is no number. Raises ConfigError."""
    numeric = isinstance(value, int | float) and math.isfinite(value)
    if kind is bool and numeric and value in (0, 1):
        return bool(value)
    if kind is str and isinstance(value, str):
        return value
    if kind is int and numeric and not isinstance(value, bool) and value == int(value):
        return int(value)
    if kind is float and numeric and not isinstance(value, bool):
        return float(value)
    expected = {bool: "0 or 1", int: "a whole number", float: "a number", str: "text"}[kind]
    raise ConfigError(f"{value!r} will not do", where=where, expected=expected)


def _skipped(where: str, key: str, known: Iterable[str]) -> str:
    """The warning about a key that ASTRA-sim does not know."""
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.6)
    return f"{where}: {key} is no key of ASTRA-sim's and was skipped" + (f" (did you mean {near[0]}?)" if near else "")


def read_network(path: Path) -> tuple[tuple[NetworkDim, ...], tuple[str, ...]]:
    """(dimensions, warnings) of a network YAML: topology, npus_count, bandwidth, latency, one list entry per dimension."""
    import yaml

    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read the network file: {error.strerror}", where=str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"is not YAML: {str(error).splitlines()[0]}", where=str(path)) from None
    if not isinstance(document, dict):
        raise ConfigError(
            "is not an ASTRA-sim network file", where=str(path), expected="keys topology, npus_count, bandwidth, latency"
        )
    columns = {}
    for key in ("topology", "npus_count", "bandwidth", "latency"):
        value = document.pop(key, None)
        if not isinstance(value, list) or not value:
            raise ConfigError(
                f"key {key!r} is missing or not a list", where=str(path), expected=f"{key}: [ ... ], one entry per dimension"
            )
        columns[key] = value
    ignored = tuple(_skipped(str(path), str(key), columns) for key in document)
    if len({len(value) for value in columns.values()}) != 1:
        lengths = ", ".join(f"{key} {len(value)}" for key, value in columns.items())
        raise ConfigError(f"the lists differ in length: {lengths}", where=str(path), expected="one entry per dimension in each")
    dims: list[NetworkDim] = []
    for kind, size, bandwidth, latency in zip(*columns.values(), strict=True):
        if kind not in NETWORKS:
            raise UnknownNameError("ASTRA-sim topology", str(kind), NETWORKS, where=str(path))
        where = f"{path}: dimension {len(dims)}"
        numbers = _value(size, int, where), _value(bandwidth, float, where), _value(latency, float, where)
        dims.append(NetworkDim(NETWORKS[kind], *numbers))
    return tuple(dims), ignored


def read_system(path: Path, base: AstraConfig) -> AstraConfig:
    """``base`` with what an ASTRA-sim system JSON sets."""
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read the system file: {error.strerror}", where=str(path)) from None
    except ValueError as error:
        raise ConfigError(f"is not JSON: {error}", where=str(path)) from None
    if not isinstance(document, dict):
        raise ConfigError("is not an ASTRA-sim system file", where=str(path), expected="a JSON object")
    values: dict[str, Any] = {}
    implementations = dict(base.implementations)
    ignored = []
    names = {f"{name.replace('_', '-')}-implementation": name for name in OPERATIONS}
    for key, value in document.items():
        if key in names:
            entries = value if isinstance(value, list) else [value]
            implementations[names[key]] = tuple(Implementation.parse(str(entry), f"{path}: {key}") for entry in entries)
        elif key in _KEYS:
            values[_KEYS[key]] = _value(value, type(getattr(base, _KEYS[key])), f"{path}: {key}")
        elif key not in _IGNORED:
            ignored.append(_skipped(str(path), key, (*_KEYS, *names)))
        else:
            if key in _HARMLESS and value not in _HARMLESS[key]:
                raise ConfigError(
                    f"{value!r} is not modelled", where=f"{path}: {key}", expected=" or ".join(str(v) for v in _HARMLESS[key])
                )
            ignored.append(f"{path}: {key} changes nothing on the analytical backends")
    return replace(base, **values, implementations=implementations, ignored=base.ignored + tuple(ignored))
