"""Where nodes go in a drawing, if their builder has not said: a circle without switches, else rows above the hosts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distsim.topology.graph import Topology
from distsim.topology.metrics import kind_of


def place(topology: Topology) -> NDArray[np.float64]:
    """(nodes, 2) coordinates, y upwards, in units of about the distance between hosts."""
    if topology.positions is not None:
        return topology.positions
    if topology.nodes == topology.hosts:
        angle = 2 * np.pi * np.arange(topology.hosts) / topology.hosts
        return np.stack([np.sin(angle), np.cos(angle)], axis=1) * max(1.0, topology.hosts / 6)
    return _rows(topology)


def _rows(topology: Topology) -> NDArray[np.float64]:
    """Hosts below; switches in a row per kind, nearer ones lower, each row in the order of what its switches hang on."""
    level = levels_of(topology)
    rows = sorted({(int(level[node]), kind_of(topology.node_names[node])) for node in range(topology.hosts, topology.nodes)})
    width = float(max(topology.hosts, 4))
    height = max(1.0, width / (2.5 * len(rows)))
    places = np.zeros((topology.nodes, 2))
    places[: topology.hosts, 0] = (np.arange(topology.hosts) + 0.5) * width / topology.hosts
    for number, (at, kind) in enumerate(rows, start=1):
        members = [
            node
            for node in range(topology.hosts, topology.nodes)
            if level[node] == at and kind_of(topology.node_names[node]) == kind
        ]
        below: dict[int, list[float]] = {node: [] for node in members}
        for src, dst in zip(topology.link_src.tolist(), topology.link_dst.tolist(), strict=True):
            if src in below and level[dst] < at:
                below[src].append(float(places[dst, 0]))
        members.sort(key=lambda node: (float(np.mean(below[node])) if below[node] else 0.0, node))
        for place_in_row, node in enumerate(members):
            places[node] = ((place_in_row + 0.5) * width / len(members), height * number)
    return places


def levels_of(topology: Topology) -> NDArray[np.int64]:
    """Hops from the nearest host."""
    level = np.where(np.arange(topology.nodes) < topology.hosts, 0, topology.nodes)
    while True:
        nearer = level.copy()
        np.minimum.at(nearer, topology.link_dst, level[topology.link_src] + 1)
        if np.array_equal(nearer, level):
            return level
        level = nearer


def cube_of(topology: Topology) -> int:
    """Side of the cubes that optical links (domain ``ocs``) join into a torus; 0 if it is not made of such cubes."""
    if "ocs" not in topology.domains or not topology.dimensions:
        return 0
    # NOTE: host 0 begins a cube, whose side ends at the first optical cable along dimension 0, or where the dimension does
    optical = topology.link_domain == topology.domains.index("ocs")
    along = np.flatnonzero(optical & (topology.link_dst == topology.link_src + 1))
    first = int(topology.link_src[along].min()) + 1 if len(along) else topology.dimensions[0].size
    return first if all(dimension.size % first == 0 for dimension in topology.dimensions) else 0
