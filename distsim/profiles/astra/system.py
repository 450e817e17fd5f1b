"""Between distsim's names and ASTRA-sim's: topologies, network levels, algorithms."""

from __future__ import annotations

from dataclasses import replace

from distsim.errors import ConfigError, UnknownNameError
from distsim.profiles.astra.config import OPERATIONS, AstraConfig, Implementation, NetworkDim
from distsim.topology.graph import Topology
from distsim.units import parse_time

#: distsim's names of the algorithms, besides ASTRA-sim's own
_NAMES = {"halving_doubling": "halvingDoubling", "double_binary_tree": "doubleBinaryTree"}
_BACKENDS = {"analytic": False, "chunk": True, "unaware": False, "aware": True}


def config_of_topology(topology: Topology, network: str) -> AstraConfig:
    """The profile's defaults on a topology. Raises ConfigError for topologies that ASTRA-sim does not have."""
    if not topology.dimensions:
        raise ConfigError(
            f"--profile astra cannot run on {topology.name}", expected="ring, switch, fully_connected or a composition nd:...",
            fix="Leave --profile out to run on any topology.",
        )  # fmt: skip
    dims = tuple(NetworkDim(d.kind, d.size, d.bandwidth / 2**30, d.latency / 1000) for d in topology.dimensions)
    return AstraConfig(dims, backend(network))


def backend(network: str) -> bool:
    """True for the congestion-aware backend. ``chunk`` is the aware one, ``analytic`` the unaware one."""
    if network not in _BACKENDS:
        raise UnknownNameError("network level of the astra profile", network, _BACKENDS)
    return _BACKENDS[network]


def with_algorithms(config: AstraConfig, text: str) -> AstraConfig:
    """``config`` with ``ring``, ``direct4``, ``ring+direct`` (one per dimension) or ``all_reduce=ring,all_to_all=direct``."""
    implementations = dict(config.implementations)
    for part in filter(None, text.split(",")):
        operation, _, names = part.rpartition("=")
        if operation and operation not in OPERATIONS:
            raise UnknownNameError("collective operation of ASTRA-sim", operation, OPERATIONS, where="--algorithm")
        parsed = [Implementation.parse(_NAMES.get(name, name), "--algorithm") for name in names.split("+")]
        if len(parsed) == 1 and not parsed[0].flat:
            parsed *= len(config.dims)
        for known in [operation] if operation else OPERATIONS:
            implementations[known] = tuple(parsed)
    return replace(config, implementations=implementations)


def spec_of(config: AstraConfig) -> str:
    """The distsim topology of a network YAML."""
    dims = "+".join(f"{d.kind}{d.size}" for d in config.dims)
    bandwidth = "+".join(f"{d.bandwidth!r}GiBps" for d in config.dims)
    latency = "+".join(f"{d.latency!r}ns" for d in config.dims)
    return f"nd:dims={dims},bandwidth={bandwidth},latency={latency}"


def whole_ns(text: str) -> int:
    """Nanoseconds of a time. Raises ConfigError for a fraction of one, which ASTRA-sim's clock cannot hold."""
    ps = parse_time(text)
    if ps % 1000:
        raise ConfigError(f"{text} is not a whole number of nanoseconds", expected="whole cycles of ASTRA-sim, 1 ns each")
    return ps // 1000
