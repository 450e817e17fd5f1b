"""From the text that a person writes to a network: ``fluid``, ``chunk:size=1MiB,credits=8``, ``nvlink=analytic+*=fluid``.

A level is a class under role ``network``. What can be set on it is declared in a nested ``Params`` model, whose fields are
given to the constructor by keyword, after the topology.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distsim import registry
from distsim.errors import ConfigError, UnknownNameError
from distsim.network.model import NetworkModel
from distsim.params import Parameters, parse, validated
from distsim.topology.graph import Topology

#: models that take a whole run, not transfers over a topology's links: known to ``distsim run`` alone
WHOLE_RUN = ("loggops", "coflow")


@dataclass(frozen=True, slots=True)
class Level:
    """A level with its options: called with a topology, it makes a network."""

    name: str
    make: Callable[..., NetworkModel]  #: the class
    options: dict[str, Any]

    def __call__(self, topology: Topology, **more: Any) -> NetworkModel:
        """A fresh network. Raises ConfigError where the level cannot work on this topology."""
        return self.make(topology, **self.options, **more)


def level_of(spec: str, *, where: str = "--network") -> Level:
    """The level that ``name:key=value,...`` describes. Raises UnknownNameError; ConfigError on a wrong key or value."""
    name, options = parse(spec)
    if name == "coflow":
        raise ConfigError(
            "coflow is no level: it moves whole collectives and messages, not their transfers", where=where,
            fix="It runs whole traces: distsim run TRACE --network coflow.",
        )  # fmt: skip
    if name in WHOLE_RUN:
        raise ConfigError(
            f"{name} is no level: it has no topology, its ranks share nothing but their own NICs", where=where,
            fix=f"It runs whole traces: distsim run TRACE --network {name}, without --topo.",
        )  # fmt: skip
    try:
        make = registry.lookup("network", name, where=where)
    except UnknownNameError:
        raise UnknownNameError("network", name, [*registry.names("network"), *WHOLE_RUN], where=where) from None
    params = validated(getattr(make, "Params", Parameters), f"{where} {name}", options)
    return Level(name, make, dict(params))


def build_network(spec: str, topology: Topology, *, where: str = "--network") -> NetworkModel:
    """The network that ``spec`` describes over a topology: one level, or ``domain=level+domain=level``.

    Raises:
        UnknownNameError: no such level, or no such link domain.
        ConfigError: a wrong key or value, or a level that cannot work on this topology.
    """
    if "=" in spec.partition(":")[0]:
        from distsim.network.mixed import mixed

        return mixed(spec, topology, where=where)
    return level_of(spec, where=where)(topology)
