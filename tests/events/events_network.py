"""A small network on which everything can be worked out by hand, and what levels do on it."""

from __future__ import annotations

import numpy as np
import pytest

from distsim.network.spec import build_network
from distsim.topology.reroute import altered

#: levels that can change; fluid where it is there already
LEVELS = ("analytic", "fluid", "cut_through", "chunk")


def make(level, topology):
    """A network that can change."""
    network = build_network(level, topology)
    if not hasattr(network, "change"):
        pytest.skip(f"{level} cannot change yet")
    return network


def link(topology, name):
    """Id of ``leaf0->spine0``."""
    names = [topology.link_name(number) for number in range(topology.links)]
    return names.index(name)


def route(topology, src, dst):
    """Link names from host to host."""
    offsets, ids = topology.paths(np.array([src], np.int32), np.array([dst], np.int32))
    return [topology.link_name(number) for number in ids[offsets[0] : offsets[1]]]


def with_links(topology, rates, avoid=()):
    """The topology with the bandwidths of some links (both directions) set: {"leaf0-spine0": bytes/s}; ``avoid``: routes do."""
    bandwidth, shunned = topology.link_bandwidth.copy(), np.zeros(topology.links, bool)
    for name, rate in rates.items():
        one, other = name.split("-")
        for end in (f"{one}->{other}", f"{other}->{one}"):
            bandwidth[link(topology, end)] = rate
            shunned[link(topology, end)] = name in avoid
    return altered(topology, bandwidth, topology.link_latency, shunned)


def spine_of(topology, src, dst):
    """The cable from leaf to spine on a route, as ``leaf0-spine1``."""
    return route(topology, src, dst)[1].replace("->", "-")
