"""Routing policies: which of the possible routes traffic takes, chosen by name: ``ecmp``, ``spray:paths=8``.

A policy is a class under role ``routing`` with a ``Params`` model and ``apply(topology, params) -> Topology``: the same nodes
and links under another router, which may offer lanes (see topology/lanes.py). The default, ``static``, leaves the routes of
the topology's builder.
"""

from __future__ import annotations

from typing import Any, Protocol

from distsim import registry
from distsim.errors import ConfigError
from distsim.params import parse, validated
from distsim.topology.graph import Topology


class Policy(Protocol):
    """What is registered under role ``routing``: stateless, made without arguments."""

    Params: type[Any]  #: a ``Parameters`` model; its fields, defaults and descriptions are the help

    def apply(self, topology: Topology, params: Any) -> Topology:
        """The topology under this policy."""
        ...


def routed(spec: str, topology: Topology, *, where: str = "--routing") -> Topology:
    """The topology under the routing that ``spec`` describes.

    Raises:
        UnknownNameError: no such policy.
        ConfigError: a wrong key or value, or a policy that cannot work on this topology.
    """
    name, options = parse(spec)
    policy: Policy = registry.lookup("routing", name, where=where)()
    return policy.apply(topology, validated(policy.Params, f"{where} {name}", options, ConfigError))
