"""From the text that a person writes to a network: ``fluid``, ``chunk:size=1MiB,credits=8``.

A level is a class under role ``network``. What can be set on it is declared in a nested ``Params`` model, whose fields are
given to the constructor by keyword, after the topology.
"""

from __future__ import annotations

from distsim import registry
from distsim.errors import ConfigError
from distsim.network.model import NetworkModel
from distsim.params import Parameters, parse, validated
from distsim.topology.graph import Topology


def build_network(spec: str, topology: Topology, *, where: str = "--network") -> NetworkModel:
    """The network that ``spec`` describes over a topology.

    Raises:
        UnknownNameError: no such level.
        ConfigError: a wrong key or value, or a level that cannot work on this topology.
    """
    name, options = parse(spec)
    level = registry.lookup("network", name, where=where)
    params = validated(getattr(level, "Params", Parameters), f"{where} {name}", options, ConfigError)
    return level(topology, **dict(params))  # type: ignore[no-any-return]
