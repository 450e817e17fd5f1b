"""N-dimensional networks as ASTRA-sim has them: hosts in a grid, and in every dimension a ring, a switch or a full mesh
over each group of hosts that differ in that dimension only. Dimension 0 varies fastest in host numbers.

Rings, stars, full meshes and tori of any number of dimensions are special cases, so their builders only set sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.topology.graph import Dimension, Paths, Topology
from distsim.topology.routing import ragged
from distsim.topology.wiring import Wiring, refuse_huge


@dataclass(frozen=True, slots=True)
class Axis:
    """A dimension in place: host number = sum of coordinate * stride."""

    kind: str  #: ring | switch | fully_connected
    size: int
    stride: int
    first_cable: int

    def coordinate(self, host: NDArray[np.int64]) -> NDArray[np.int64]:
        """Place of each host along this dimension."""
        return host // self.stride % self.size

    def group(self, host: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of each host's group: the hosts that differ from it in this dimension only."""
        return host // (self.stride * self.size) * self.stride + host % self.stride


@dataclass(frozen=True, slots=True)
class DimensionOrder:
    """Router: corrects dimension 0 first, then 1, and so on; on a ring the shorter way, on ties the positive one."""

    axes: tuple[Axis, ...]

    def hops(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int64]:
        """Links of every route."""
        total = np.zeros(len(src), np.int64)
        for axis in self.axes:
            total += self._hops(axis, axis.coordinate(src.astype(np.int64)), axis.coordinate(dst.astype(np.int64)))
        return total

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> Paths:
        """See :attr:`Topology.router`."""
        here, there = src.astype(np.int64), dst.astype(np.int64)
        offsets = np.zeros(len(src) + 1, np.int64)
        np.cumsum(self.hops(src, dst), out=offsets[1:])
        links = np.empty(offsets[-1], np.int32)
        write = offsets[:-1].copy()
        for axis in self.axes:
            start, end = axis.coordinate(here), axis.coordinate(there)
            counts = self._hops(axis, start, end)
            row, step = ragged(counts)
            links[write[row] + step] = self._links(axis, here[row], start[row], end[row], step)
            write += counts
            here += (end - start) * axis.stride
        return offsets, links

    @staticmethod
    def _hops(axis: Axis, start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
        ahead = (end - start) % axis.size
        if axis.kind == "ring":
            return np.asarray(np.minimum(ahead, axis.size - ahead), np.int64)
        return np.asarray((ahead != 0) * (2 if axis.kind == "switch" else 1), np.int64)

    @staticmethod
    def _links(
        axis: Axis, host: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64], step: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The link of hop number ``step`` of a way from coordinate ``start`` to ``end``; ``host`` is where it sets out."""
        size = axis.size
        if axis.kind == "switch":
            cable = host + step * (end - start) * axis.stride
            return np.asarray(2 * (axis.first_cable + cable) + step, np.int64)
        if axis.kind == "fully_connected":
            low, high = np.minimum(start, end), np.maximum(start, end)
            cable = axis.group(host) * (size * (size - 1) // 2) + low * size - low * (low + 1) // 2 + high - low - 1
            return np.asarray(2 * (axis.first_cable + cable) + (start > end), np.int64)
        if size == 2:
            return np.asarray(2 * (axis.first_cable + axis.group(host)) + start, np.int64)
        forward = 2 * ((end - start) % size) <= size
        tail = np.where(forward, start + step, start - step - 1) % size
        return np.asarray(2 * (axis.first_cable + host + (tail - start) * axis.stride) + np.where(forward, 0, 1), np.int64)


def compose(name: str, dimensions: Sequence[Dimension], domains: Sequence[str] | None = None) -> Topology:
    """The network with these dimensions; dimensions of size 1 have no links.

    Args:
        name: for :attr:`Topology.name`.
        dimensions: dimension 0 first; kinds ring, switch and fully_connected.
        domains: name of the links of every dimension; dim0, dim1 ... by default.
    """
    hosts = math.prod(dimension.size for dimension in dimensions)
    refuse_huge(sum(hosts * ((d.size - 1) / 2 if d.kind == "fully_connected" else 1) for d in dimensions))
    wiring, axes, stride = Wiring(), [], 1
    switch_names: list[str] = []
    host = np.arange(hosts, dtype=np.int64)
    switch_axes: list[Axis] = []
    for number, dimension in enumerate(dimensions):
        size = dimension.size
        axis = Axis(dimension.kind, size, stride, wiring.cables)
        stride *= size
        axes.append(axis)
        if size == 1:
            continue
        coordinate = axis.coordinate(host)
        if dimension.kind == "switch":
            ends, others = host, hosts + len(switch_names) + axis.group(host)
            label = "switch" if len(dimensions) == 1 else f"dim{number}.switch"
            switch_names += [f"{label}{group}" for group in range(hosts // size)]
            switch_axes.append(axis)
        elif dimension.kind == "ring" and size > 2:
            ends, others = host, host + ((coordinate + 1) % size - coordinate) * axis.stride
        else:
            base = host[coordinate == 0][:, None]
            low, high = np.triu_indices(size, 1)
            ends, others = base + low * axis.stride, base + high * axis.stride
        domain = domains[number] if domains else f"dim{number}"
        wiring.add(domain, ends, others, dimension.bandwidth, dimension.latency)
    low_bound, high_bound = bisection_bounds(dimensions)
    return wiring.topology(
        name,
        hosts,
        switch_names,
        DimensionOrder(tuple(axes)),
        dimensions=tuple(dimensions),
        positions=_positions(axes, host, switch_axes),
        bisection=high_bound if math.isclose(low_bound, high_bound, rel_tol=1e-12) else None,
    )


def bisection_bounds(dimensions: Sequence[Dimension]) -> tuple[float, float]:
    """Bytes/s, one way, that any even split of the hosts leaves at least, and that the best even split leaves.

    The upper bound cuts the cheapest even dimension in its middle. The lower bound is the all-to-all traffic that the network
    can carry over its shortest routes: every even split is crossed by its share. For even rings and full meshes both are
    equal, whatever the number of dimensions; a single dimension is known outright; else the truth lies between.
    """
    real = [dimension for dimension in dimensions if dimension.size > 1]
    hosts = math.prod(dimension.size for dimension in real)
    pairs = (hosts // 2) * (hosts - hosts // 2)
    if not real:
        return 0.0, 0.0
    if len(real) == 1:
        (only,) = real
        cut = {"ring": min(2, only.size - 1), "switch": hosts // 2, "fully_connected": pairs}[only.kind] * only.bandwidth
        return cut, cut
    low, high = math.inf, math.inf
    for dimension in real:
        size, rate, groups = dimension.size, dimension.bandwidth, hosts // dimension.size
        if dimension.kind == "ring":
            # ordered pairs cross a link of this dimension: sum of shortest distances / links
            load, cut = groups * (size * size // 4) / 2, 2.0 if size > 2 else 1.0
            if size == 2:
                load = float(groups)
        elif dimension.kind == "switch":
            load, cut = float(groups * (size - 1)), size / 2
        else:
            load, cut = float(groups), size * size / 4
        low = min(low, rate * pairs / load)
        if size % 2 == 0:
            high = min(high, cut * groups * rate)
    return low, high


def _positions(axes: Sequence[Axis], host: NDArray[np.int64], switch_axes: Sequence[Axis]) -> NDArray[np.float64]:
    """One dimension: a circle (a star with its switch in the middle). More: a grid, dimension 2 drawn aslant, 3 beside."""
    real = [axis for axis in axes if axis.size > 1]
    if len(real) < 2:
        angle = 2 * np.pi * host / max(1, len(host))
        circle = np.stack([np.sin(angle), np.cos(angle)], axis=1) * max(1.0, len(host) / 6)
        return np.concatenate([circle, np.zeros((len(switch_axes), 2))])
    steps = np.zeros((len(real), 2))
    width = np.array([real[0].size, real[1].size], float)
    for number in range(len(real)):
        if number == 2:
            # NOTE: an oblique projection; the slant keeps the layers of a cube apart in both directions
            steps[number] = (0.37, 0.29)
            width += steps[number] * (real[number].size - 1)
        else:
            across = number % 2
            steps[number, across] = 1.0 if number < 2 else width[across] + 1
            if number > 2:
                width[across] += steps[number, across] * (real[number].size - 1)
    grid = np.stack([axis.coordinate(host) for axis in real], axis=1) @ steps
    places = [grid]
    for axis, step in zip(real, steps, strict=True):
        if axis in switch_axes:
            # NOTE: beside its hosts, so that their cables fan out; at another height for every dimension, so that none meet
            along, aside = ((axis.size - 1) / 2, 0.45) if axis is real[0] else ((axis.size - 1) // 2 + 0.72, 0.3)
            across = np.array([step[1], step[0]]) / np.hypot(*step)
            places.append(grid[axis.coordinate(host) == 0] + along * step + aside * across)
    return np.concatenate(places)
