"""N-dimensional composition of rings, switches and full meshes, as ASTRA-sim describes its networks.

``nd:dims=ring4+switch8,bandwidth=300GBps+50GBps,latency=100ns+500ns`` is 32 hosts: eight rings of four, and four switches
that each join the eight hosts at the same place of their rings. Host number = place in dimension 0 + 4 * place in
dimension 1. A switch dimension has one up and one down link per host; a ring is bidirectional.
"""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import AfterValidator, Field

from distsim.errors import UnknownNameError
from distsim.params import SEPARATOR, Bandwidths, Latencies, per_dimension
from distsim.registry import register
from distsim.topology.composition import compose
from distsim.topology.graph import Dimension, Topology
from distsim.topology.hosts import HostParameters
from distsim.topology.sizing import DEFAULT_HOSTS, because, known
from distsim.units import parse_bandwidth, parse_time

KINDS = ("ring", "switch", "fully_connected")
_DIMENSION = re.compile(r"([a-z_]*[a-z])_?(\d+)?")


def split(dims: str) -> list[tuple[str, int | None]]:
    """Kind and size of every dimension.

    >>> split("ring4+switch")
    [('ring', 4), ('switch', None)]
    """
    found = []
    for part in dims.split(SEPARATOR):
        match = _DIMENSION.fullmatch(part.strip().lower())
        if match is None:
            raise ValueError(f"{part!r} is not a dimension such as ring4, switch8 or fully_connected2")
        kind, size = match.group(1), match.group(2)
        if kind not in KINDS:
            raise ValueError(str(UnknownNameError("kind of dimension", kind, KINDS)))
        if size is not None and int(size) == 0:
            raise ValueError(f"{part!r} has no hosts")
        found.append((kind, int(size) if size else None))
    if sum(size is None for _, size in found) > 1:
        raise ValueError(f"{dims!r} leaves more than one size open; one at most can be inferred")
    return found


def _join(dimensions: list[tuple[str, int | None]]) -> str:
    return SEPARATOR.join(f"{kind}{size or ''}" for kind, size in dimensions)


@register("topology", "nd")
class Composition:
    """``nd:dims=ring4+switch8,bandwidth=300GBps+50GBps,latency=100ns+500ns``."""

    class Params(HostParameters):
        """Of one composition. The defaults of bandwidth and latency are those of ``ring`` and ``switch``."""

        dims: Annotated[str, AfterValidator(lambda text: _join(split(text)))] = Field(
            "switch", description="ring, switch or fully_connected with its size, joined by +; one size may be left to the job"
        )
        bandwidth: Bandwidths = Field(
            "400Gbps", description="of each direction of a cable; one for all, or one each joined by +"
        )
        latency: Latencies = Field("500ns", description="of one hop; one for all, or one each joined by +")

    sizes = ("dims",)

    def complete(self, params: Params, hosts: int | None) -> tuple[Params, tuple[str, ...]]:
        """The size that is left open, if any: ranks / product of the others."""
        dimensions = split(params.dims)
        if all(size for _, size in dimensions):
            return params, ()
        others = math.prod(size for _, size in dimensions if size)
        size = -(-(hosts or DEFAULT_HOSTS) // others)
        dims = _join([(kind, given or size) for kind, given in dimensions])
        return params.model_copy(update={"dims": dims}), (f"dims={dims} {because(hosts)}: {others * size} hosts",)

    def build(self, params: Params) -> Topology:
        """The network; every size is set."""
        dimensions = split(params.dims)
        rates, delays = per_dimension(params.bandwidth, len(dimensions)), per_dimension(params.latency, len(dimensions))
        return compose(
            "nd",
            [
                Dimension(kind, known(size), parse_bandwidth(rate), parse_time(delay))
                for (kind, size), rate, delay in zip(dimensions, rates, delays, strict=True)
            ],
        )
