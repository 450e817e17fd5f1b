"""Nodes of several types in one cluster: what a YAML file says of each type once, laid out as often as it is used.

    node_types:
      h100:
        gpus: 8
        device: h100
        nvlink: {bandwidth: 450GBps, latency: 500ns}
        nics: {count: 8, bandwidth: 400Gbps, latency: 500ns, to: "leaf[*]", pairs: cyclic}
      storage:                          # no gpus: one host, called storage0, storage1 ...
        nics: {count: 2, bandwidth: 100Gbps, latency: 500ns, to: "leaf[0-1]", pairs: cyclic}
    nodes: {h100: 4, storage: 2}

GPUs are called h100.gpu0, h100.gpu1 ... over all nodes of the type, their NVSwitches h100.nvswitch0 ...; ``nics`` hang them on
switches of the file, with the pairings of its ``links``. NICs that GPUs share (fewer than GPUs) are nodes of their own,
h100.nic0 ..., behind ``pcie`` cables. ``nics`` may be a list: two ports per GPU on two planes are two entries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from distsim.errors import TopologyError
from distsim.params import Bandwidth, Count, Latency, Parameters
from distsim.topology.hosts import Device

Pairs = Literal["all", "each", "blocks", "cyclic"]


class Link(Parameters):
    """What the cables of one kind can do."""

    bandwidth: Bandwidth  #: of each direction
    latency: Latency  #: of one hop


class Nics(Link):
    """The ports of a node, and where they are plugged in."""

    count: Count  #: per node
    to: str | list[str]
    pairs: Pairs | None = "cyclic"
    domain: str = "nic"  #: name of the links


class NodeType(Parameters):
    """One type of node."""

    gpus: Annotated[int, Field(ge=0)] = 0  #: 0: the node itself is one host
    device: Device | None = None
    nvlink: Link | None = None  #: between each GPU and the node's NVSwitch
    pcie: Link | None = None  #: between each GPU and its NIC; without it a port is the GPU's own
    nics: Nics | list[Nics] = Field(default_factory=list)

    @property
    def parts(self) -> int:
        """GPUs and ports of a node."""
        groups = [self.nics] if isinstance(self.nics, Nics) else self.nics
        return max(1, self.gpus) + sum(nics.count for nics in groups)


@dataclass(slots=True)
class Laid:
    """The nodes and cables of all types, by name."""

    hosts: list[str] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)  #: per host, "" where it is not said
    switches: list[str] = field(default_factory=list)
    #: (domain, ends, other ends, link)
    cables: list[tuple[str, list[str], list[str], Link]] = field(default_factory=list)
    #: (place in the file, ends, ports): to be paired with nodes of the file
    ports: list[tuple[str, list[str], Nics]] = field(default_factory=list)


def lay(types: dict[str, NodeType], nodes: dict[str, int], refuse: Callable[[str, str], TopologyError]) -> Laid:
    """Nodes and cables of so many nodes of each type, in the order of ``nodes``.

    Args:
        refuse: makes the refusal of a key (its place in the file) and a reason.

    Raises: what ``refuse`` makes, for a type that is not described or makes no sense.
    """
    laid = Laid()
    for name, count in nodes.items():
        if name not in types:
            raise refuse(f"nodes.{name}", f"no such node type; there are {', '.join(types) or 'none'}")
        _lay_type(laid, name, types[name], count, refuse)
    idle = [name for name in types if name not in nodes]
    if idle:
        raise refuse(f"node_types.{idle[0]}", "of this type there are no nodes")
    return laid


def _lay_type(laid: Laid, name: str, kind: NodeType, count: int, refuse: Callable[[str, str], TopologyError]) -> None:
    place = f"node_types.{name}"
    if not kind.gpus and (kind.nvlink or kind.pcie):
        raise refuse(place, "nvlink and pcie join GPUs, of which this type has none")
    per_node = kind.gpus or 1
    hosts = [f"{name}.gpu{gpu}" for gpu in range(count * kind.gpus)] or [f"{name}{node}" for node in range(count)]
    laid.hosts += hosts
    laid.devices += [kind.device or ""] * len(hosts)
    if kind.nvlink:
        switches = [f"{name}.nvswitch{node}" for node in range(count)]
        laid.switches += switches
        laid.cables.append(("nvlink", hosts, _each(switches, per_node), kind.nvlink))
    groups = [kind.nics] if isinstance(kind.nics, Nics) else kind.nics
    if kind.pcie and not groups:
        raise refuse(f"{place}.pcie", "leads to no NIC")
    for number, nics in enumerate(groups):
        at = f"{place}.nics" + (f"[{number}]" if len(groups) > 1 else "")
        if nics.count % per_node and per_node % nics.count:
            raise refuse(f"{at}.count", f"{nics.count} NICs and {per_node} GPUs cannot be shared out evenly")
        if nics.count < per_node and not kind.pcie:
            raise refuse(
                f"{at}.count", f"{per_node} GPUs share {nics.count} NICs; say over what `pcie: {{bandwidth, latency}}`"
            )
        if kind.pcie:
            prefix = f"{name}.nic{number}." if len(groups) > 1 else f"{name}.nic"
            cards = [f"{prefix}{card}" for card in range(count * nics.count)]
            laid.switches += cards
            more = max(1, nics.count // per_node)
            laid.cables.append(("pcie", _each(hosts, more), _each(cards, max(1, per_node // nics.count)), kind.pcie))
            laid.ports.append((at, cards, nics))
        else:
            laid.ports.append((at, _each(hosts, nics.count // per_node), nics))


def _each(names: Sequence[str], times: int) -> list[str]:
    """a, a, b, b of a, b."""
    return [name for name in names for _ in range(times)]
