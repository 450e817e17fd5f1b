"""A torus: hosts in a grid of any number of dimensions, each line of it a ring.

What TPU pods are (v4 and v5p: three dimensions, v5e: 16x16). Few cables, no switches, full speed between neighbours; the
bisection grows more slowly than the host count. Routing is dimension-ordered: dimension 0 first, the shorter way round,
ties in the positive direction.

``cube=4`` builds TPU v4 and v5p slices: blocks of 4x4x4 chips, wired inside (domain ``ici``) and joined, wrap-around
included, through optical circuit switches (domain ``ocs``), which delay no more than the fibre does.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from distsim.errors import TopologyError
from distsim.params import Bandwidths, Latencies, per_dimension
from distsim.registry import register
from distsim.topology.composition import compose
from distsim.topology.graph import Dimension, Topology
from distsim.topology.hosts import HostParameters
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

    class Params(HostParameters):
        """Of one torus. The default bandwidth is a TPU v4 ICI link: 400 Gb/s each way; neighbours are less than 1 us apart."""

        dims: Annotated[str, AfterValidator(_sizes)] | None = Field(
            None, description="sizes joined by x, dimension 0 (fastest in host numbers) first; default: a near-cube"
        )
        bandwidth: Bandwidths = Field(
            "400Gbps", description="of each direction of a cable; one for all, or one each joined by +"
        )
        latency: Latencies = Field("500ns", description="of one hop; one for all, or one each joined by +")
        cube: Annotated[int, Field(ge=2)] | None = Field(
            None, description="side of the blocks that optical switches join; dims are multiples of it"
        )

    sizes = ("dims",)

    def complete(self, params: Params, hosts: int | None) -> tuple[Params, tuple[str, ...]]:
        """Without dims: the smallest three-dimensional box that holds the job and is at most four times as long as thin."""
        if params.dims is not None:
            return params, ()
        cube = params.cube or 1
        sides = [cube * side for side in near_cube(-(-(hosts or DEFAULT_HOSTS) // cube**3))]
        dims = "x".join(map(str, sides))
        return params.model_copy(update={"dims": dims}), (f"dims={dims} {because(hosts)}: {math.prod(sides)} hosts",)

    def build(self, params: Params) -> Topology:
        """The network; every size is set."""
        sizes = [int(part) for part in known(params.dims).split("x")]
        rates, delays = per_dimension(params.bandwidth, len(sizes)), per_dimension(params.latency, len(sizes))
        whole = compose(
            "torus",
            [
                Dimension("ring", size, parse_bandwidth(rate), parse_time(delay))
                for size, rate, delay in zip(sizes, rates, delays, strict=True)
            ],
        )
        return _in_cubes(whole, params.cube) if params.cube else whole


def _in_cubes(torus: Topology, cube: int) -> Topology:
    """The torus, its cables told apart by whether they stay in a block. Raises TopologyError where blocks do not fill it."""
    sizes = [dimension.size for dimension in torus.dimensions]
    if any(size % cube for size in sizes):
        raise TopologyError(f"dims={'x'.join(map(str, sizes))} are not multiples of cube={cube}", expected="whole cubes")
    ends = np.stack([torus.link_src, torus.link_dst]).astype(np.int64)
    stays, stride = np.ones(torus.links, bool), 1
    for size in sizes:
        here, there = ends // stride % size
        # NOTE: in a torus of one block the wrap-around ends in the block that it leaves, and is optical all the same
        stays &= (here // cube == there // cube) & (abs(here - there) < 2)
        stride *= size
    if stays.all():
        return dataclasses.replace(torus, domains=("ici",), link_domain=np.zeros(torus.links, np.int16))
    return dataclasses.replace(torus, domains=("ici", "ocs"), link_domain=np.where(stays, 0, 1).astype(np.int16))


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
