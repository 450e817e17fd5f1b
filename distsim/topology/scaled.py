"""Links changed by domain, behind any topology's spec: ``fat_tree:k=8;fabric.bandwidth=2x;*.latency=300ns``.

A change multiplies (``2x``) or sets (``400Gbps``, ``300ns``) the bandwidth or the latency of all links of a domain; ``*`` is
every domain. Routes stay those of the topology as it was built. Changes are made in order, and belong to the spec: building
from it again gives the same network.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError, TopologyError, UnknownNameError
from distsim.topology.graph import Dimension, Topology
from distsim.units import parse_bandwidth, parse_time

MARK = ";"  #: between a topology's spec and its changes
ATTRIBUTES = ("bandwidth", "latency")
EVERY = "*"
_FACTOR = re.compile(r"^(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)x$")


def factor_of(text: str) -> float | None:
    """2.0 of ``2x``; None where it is no factor.

    >>> factor_of("1.5x"), factor_of("400Gbps")
    (1.5, None)
    """
    found = _FACTOR.match(text.strip())
    return float(found[1]) if found else None


def scaled(topology: Topology, changes: Sequence[str]) -> Topology:
    """The topology with ``domain.attribute=value`` changes. Raises TopologyError, UnknownNameError."""
    bandwidth, latency = topology.link_bandwidth.copy(), topology.link_latency.copy()
    said = []
    for change in changes:
        target, equals, value = (part.strip() for part in change.partition("="))
        domain, _, attribute = target.rpartition(".")
        if not equals or not domain or not value:
            raise TopologyError(
                f"{change.strip()!r} is no change of links", where=topology.spec,
                expected="domain.bandwidth=2x or domain.latency=300ns",
            )  # fmt: skip
        if attribute not in ATTRIBUTES:
            raise UnknownNameError("attribute of links", attribute, ATTRIBUTES, where=topology.spec)
        if domain != EVERY and domain not in topology.domains:
            raise UnknownNameError("link domain", domain, [*topology.domains, EVERY], where=topology.spec)
        every = np.ones(topology.links, np.bool_)
        mine = every if domain == EVERY else topology.link_domain == topology.domains.index(domain)
        if attribute == "bandwidth":
            bandwidth[mine] = _bandwidths(bandwidth[mine], value, topology.spec)
        else:
            latency[mine] = _latencies(latency[mine], value, topology.spec)
        said.append(f"{target}={value}")
    ratio = bandwidth / topology.link_bandwidth if topology.links else np.ones(1)
    even = topology.bisection is not None and bool(np.all(ratio == ratio[0]))
    return dataclasses.replace(
        topology, link_bandwidth=bandwidth, link_latency=latency, spec=MARK.join([topology.spec, *said]),
        bisection=topology.bisection * float(ratio[0]) if even and topology.bisection is not None else None,
        dimensions=_dimensions(topology, bandwidth, latency),
    )  # fmt: skip


def _bandwidths(present: NDArray[np.float64], value: str, where: str) -> NDArray[np.float64]:
    factor = factor_of(value)
    if factor is None:
        try:
            return np.full(len(present), parse_bandwidth(value))
        except ConfigError as error:
            raise TopologyError(error.what, where=where, expected="400Gbps, or a factor such as 2x") from None
    if not factor > 0 or (present * factor < 1).any():  # less than a byte a second
        raise TopologyError(f"bandwidth times {factor:g} is none", where=where, expected="a positive factor")
    return present * factor


def _latencies(present: NDArray[np.int64], value: str, where: str) -> NDArray[np.int64]:
    factor = factor_of(value)
    if factor is None:
        try:
            return np.full(len(present), parse_time(value), np.int64)
        except ConfigError as error:
            raise TopologyError(error.what, where=where, expected="300ns, or a factor such as 0.5x") from None
    if len(present) and float(present.max()) * factor >= 2.0**60:
        raise TopologyError(f"latency times {factor:g} is beyond the clock", where=where)
    return np.asarray(np.rint(present * factor).astype(np.int64))


def _dimensions(
    topology: Topology, bandwidth: NDArray[np.float64], latency: NDArray[np.int64]
) -> tuple[Dimension, ...]:  # fmt: skip
    """The dimensions with the figures of their links. Where they are no domains of their own (a torus with optical links
    between its blocks), each takes the change of the first domain."""
    apart = len(topology.dimensions) == len(topology.domains)
    found = []
    for number, one in enumerate(topology.dimensions):
        mine = np.flatnonzero(topology.link_domain == (number if apart else 0))[:1]
        faster = bandwidth[mine] / topology.link_bandwidth[mine]
        longer = latency[mine] - topology.link_latency[mine]
        found.append(
            dataclasses.replace(
                one, bandwidth=one.bandwidth * float(faster.prod()), latency=max(0, one.latency + int(longer.sum()))
            )
        )
    return tuple(found)
