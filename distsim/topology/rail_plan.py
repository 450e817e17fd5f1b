"""How many switches a rail-optimised network needs, and which of them are joined: NVIDIA's SuperPOD rules as arithmetic.

A unit is some nodes and their rail switches, one per rail. A rail switch has as many up-links as ``oversubscription`` asks
for. Units that share their spines form a pod. While a spine has ports for all rail switches of the pod, every rail switch is
joined to every spine; beyond, each rail of a pod has spines of its own. The fewest spines are taken whose ports suffice, so
that a rail switch may have several cables to one. Cores join the groups of spines: spine number s of every group is joined
once to every core of core group s mod (core groups).

With 64 ports, 8 rails and 32 nodes per unit this gives the switch counts of NVIDIA's DGX B200 SuperPOD reference architecture
(docs.nvidia.com/dgx-superpod/reference-architecture-scalable-infrastructure-b200, table of component counts) for 2 to 64 units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.errors import TopologyError


@dataclass(frozen=True, slots=True)
class Plan:
    """The switches of one network, and of each of its planes."""

    nodes: int
    rails: int  #: rail switches of a unit
    planes: int
    nodes_per_unit: int
    units: int
    uplinks: int  #: cables from a rail switch to its spines
    spines: int  #: of a group; every rail switch is joined to all spines of its group
    units_per_pod: int
    group_rails: int  #: rails that share a group of spines: all of them, or one
    core_groups: int
    cores: int  #: of a core group; as many cables go up from a spine; 0: there are none
    non_blocking: bool  #: whether the switches carry whatever the hosts can send, if it is spread well

    @property
    def leaves(self) -> int:
        """Rail switches of a plane."""
        return self.units * self.rails

    @property
    def groups(self) -> int:
        """Groups of spines of a plane."""
        return -(-self.units // self.units_per_pod) * (self.rails // self.group_rails)

    @property
    def spine_switches(self) -> int:
        """Spines of a plane."""
        return self.groups * self.spines

    @property
    def core_switches(self) -> int:
        """Cores of a plane."""
        return self.core_groups * self.cores

    def group_of(self, leaf: NDArray[np.int64]) -> NDArray[np.int64]:
        """The group of spines over each rail switch (numbered unit * rails + rail)."""
        pod, rail = leaf // self.rails // self.units_per_pod, leaf % self.rails
        return np.asarray(pod * (self.rails // self.group_rails) + rail // self.group_rails, np.int64)

    def names(self) -> list[str]:
        """Of all switches: NVSwitches, then tier by tier, in each tier plane by plane."""
        names = [f"nvswitch{node}" for node in range(self.nodes)]
        planes = [f"plane{plane}." if self.planes > 1 else "" for plane in range(self.planes)]
        one_unit, one_group = self.units == 1, self.groups == 1
        for plane in planes:
            for leaf in range(self.leaves):
                names.append(f"{plane}rail{leaf}" if one_unit else f"{plane}rail{leaf // self.rails}.{leaf % self.rails}")
        for plane in planes:
            for spine in range(self.spine_switches):
                place = f"{spine}" if one_group else f"{spine // self.spines}.{spine % self.spines}"
                names.append(f"{plane}spine{place}")
        for plane in planes:
            for core in range(self.core_switches):
                place = f"{core}" if self.core_groups == 1 else f"{core // self.cores}.{core % self.cores}"
                names.append(f"{plane}core{place}")
        return names


def plan(
    *,
    nodes: int,
    rails: int,
    planes: int,
    ports_per_node: int,
    nodes_per_unit: int | None,
    units_per_pod: int | None,
    spines: int | None,
    uplink: float,
    oversubscription: float | None,
    core_oversubscription: float,
    radix: int | None,
) -> Plan:
    """The switches that these sizes need.

    Args:
        nodes_per_unit: None for one set of rail switches over all nodes, whatever their ports.
        ports_per_node: of one node at one rail switch.
        uplink: bandwidth of a cable between switches over that of a host's.
        radix: ports of a switch; slower cables share them at a rail switch.

    Raises: TopologyError where a number of cables is not whole, or no arrangement keeps to the radix.
    """
    if nodes_per_unit is None:
        if units_per_pod is not None:
            raise TopologyError("units_per_pod counts units, of which there are none", fix="Set nodes_per_unit as well.")
        down = nodes * ports_per_node
        asked = None if oversubscription is None else _whole(down / uplink, oversubscription)
        if spines is not None and asked is not None and spines != asked:
            raise TopologyError(
                f"oversubscription={oversubscription:g} needs {asked} spines over {down} hosts, not {spines}",
                fix="Leave one of them out.",
            )
        spines = asked if asked is not None else nodes * ports_per_node if spines is None else spines
        _refuse_ports(down, uplink, spines, radix)
        enough = spines * uplink >= down
        return Plan(nodes, rails, planes, nodes, 1, spines, spines, 1, rails, 1, 0, enough)
    assert radix is not None
    down, units = nodes_per_unit * ports_per_node, -(-nodes // nodes_per_unit)
    uplinks = _whole(down / uplink, oversubscription or 1.0)
    _refuse_ports(down, uplink, uplinks, radix)
    if spines is not None and (spines == 0 or uplinks % spines):
        raise TopologyError(
            f"{uplinks} up-links of a rail switch cannot be spread evenly over {spines} spines",
            fix=f"Let spines divide {uplinks}, or leave it out.",
        )
    choices = [spines] if spines else [count for count in range(1, uplinks + 1) if uplinks % count == 0]
    # NOTE: many numbers of pods come to pods of the same size
    sizes = [units_per_pod] if units_per_pod else dict.fromkeys(-(-units // pods) for pods in range(1, units + 1))
    for per_pod in sizes:
        for group_rails in dict.fromkeys((rails, 1)):
            groups = -(-units // per_pod) * (rails // group_rails)
            # NOTE: all that the hosts of a group can send up, in cables between switches
            load = per_pod * group_rails * min(uplinks, down / uplink)
            for count in choices:
                up = max(1, round(load / (core_oversubscription * count))) if groups > 1 else 0
                core_groups = _core_groups(groups, count, radix) if up else 1
                if per_pod * group_rails * uplinks // count + up > radix or not core_groups:
                    continue
                enough = uplinks * uplink >= down and (not up or up * count >= load)
                return Plan(
                    nodes, rails, planes, nodes_per_unit, units, uplinks, count, per_pod, group_rails, core_groups, up, enough
                )
    raise TopologyError(
        f"{units} units of {rails} rail switches with {uplinks} up-links each cannot be joined by switches of {radix} ports",
        fix="Raise radix, or lower units_per_pod or spines (or leave them out)." if units_per_pod or spines else "Raise radix.",
    )


def _refuse_ports(down: int, uplink: float, uplinks: int, radix: int | None) -> None:
    """Raises TopologyError when a rail switch has too few ports (of the faster cables; slower ones share them)."""
    needed = down * min(1.0, 1 / uplink) + uplinks * min(1.0, uplink)
    if radix is not None and needed > radix:
        raise TopologyError(
            f"a rail switch needs {needed:g} ports ({down} hosts, {uplinks} up-links), but has {radix}",
            fix="Lower nodes_per_unit, or raise radix or oversubscription.",
        )


def _core_groups(groups: int, spines: int, radix: int) -> int:
    """The fewest core groups whose cores have ports for their spines; 0 if there are too many groups."""
    return next((count for count in range(1, spines + 1) if spines % count == 0 and groups * spines // count <= radix), 0)


def _whole(cables: float, ratio: float) -> int:
    """cables / ratio, which must be a whole number."""
    exact = cables / ratio
    if round(exact) < 1 or not math.isclose(exact, round(exact), rel_tol=1e-9):
        raise TopologyError(
            f"oversubscription={ratio:g} would leave a rail switch {exact:g} up-links, not a whole number",
            fix="Choose another ratio, nodes_per_unit or spine_bandwidth.",
        )
    return round(exact)
