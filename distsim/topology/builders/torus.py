"""A torus: hosts in a grid of any number of dimensions, each line of it a ring.

What TPU pods are (v4 and v5p: three dimensions, v5e: 16x16). Few cables, no switches, full speed between neighbours; the
bisection grows more slowly than the host count. Routing is dimension-ordered: dimension 0 first, the shorter way round,
ties in the positive direction.
"""

from __future__ import annotations

import itertools
import math
from typing import Annotated

from pydantic import AfterValidator, Field

from distsim.params import Bandwidths, Latencies, Parameters, per_dimension
from distsim.registry import register
from distsim.topology.composition import compose
from distsim.topology.graph import Dimension, Topology
from distsim.topology.sizing import DEFAULT_HOSTS, because, known
from distsim.units import parse_bandwidth, parse_time

FLATTEST = 4  #: longest side / shortest side of an inferred torus, at most


def _sizes(text: str) -> str:
    parts = text.lower().split("x")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ValueError("dims are positive sizes joined by x, such as 16x8x8")
    return "x".join(str(int(part)) for part in parts)


@register("topology", "torus")
class Torus:
    """``torus:dims=16x8x8``; host number = x + 16 * (y + 8 * z)."""

    class Params(Parameters):
        """Of one torus. The default bandwidth is a TPU v4 ICI link: 400 Gb/s each way; neighbours are less than 1 us apart."""

        dims: Annotated[str, AfterValidator(_sizes)] | None = Field(
            None, description="sizes joined by x, dimension 0 (fastest in host numbers) first; default: a near-cube"
        )
        bandwidth: Bandwidths = Field(
            "400Gbps", description="of each direction of a cable; one for all, or one each joined by +"
        )
        latency: Latencies = Field("500ns", description="of one hop; one for all, or one each joined by +")

    sizes = ("dims",)

    def complete(self, params: Params, hosts: int | None) -> tuple[Params, tuple[str, ...]]:
        """Without dims: the smallest three-dimensional box that holds the job and is at most four times as long as thin."""
        if params.dims is not None:
            return params, ()
        sides = near_cube(hosts or DEFAULT_HOSTS)
        dims = "x".join(map(str, sides))
        return params.model_copy(update={"dims": dims}), (f"dims={dims} {because(hosts)}: {math.prod(sides)} hosts",)

    def build(self, params: Params) -> Topology:
        """The network; every size is set."""
        sizes = [int(part) for part in known(params.dims).split("x")]
        rates, delays = per_dimension(params.bandwidth, len(sizes)), per_dimension(params.latency, len(sizes))
        return compose(
            "torus",
            [
                Dimension("ring", size, parse_bandwidth(rate), parse_time(delay))
                for size, rate, delay in zip(sizes, rates, delays, strict=True)
            ],
        )


def near_cube(hosts: int) -> tuple[int, int, int]:
    """Sides, longest first, of the smallest box for so many hosts; of equal boxes the one nearest to a cube.

    >>> near_cube(64), near_cube(1024), near_cube(13)
    ((4, 4, 4), (16, 8, 8), (4, 2, 2))
    """
    thinnest = range(1, round(hosts ** (1 / 3)) + 2)
    boxes = []
    for thin, ratio in itertools.product(thinnest, range(FLATTEST * thinnest[-1])):
        middle = thin + ratio
        longest = max(middle, math.ceil(hosts / (thin * middle)))
        if longest <= FLATTEST * thin:
            boxes.append((thin * middle * longest, longest - thin, longest, middle, thin))
    return min(boxes)[2:]
