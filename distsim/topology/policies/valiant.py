"""Routing ``valiant``: every pair goes over a random third host's switch, by the topology's own routes to there and on.

Valiant's trick (Valiant and Brebner, STOC 1981): any traffic pattern becomes two random ones, at twice the length. It rescues
the worst patterns of dragonflies and tori, where minimal routes pile up on one link; trees gain nothing from it, as their
shortest routes are spread already. Only the part of a route in the fabric is replaced (topology/fabric.py). The turn is taken
at the third host's switch, or in the host where hosts are joined directly (tori).
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distsim.params import Count, Parameters
from distsim.registry import register
from distsim.topology.equal_cost import key_of, mix
from distsim.topology.fabric import Crossings, Fabric
from distsim.topology.graph import Paths, Topology
from distsim.topology.routing import ragged

PACKET = 4096  #: bytes: where there are several routes, parts are no smaller than an InfiniBand MTU
ATTEMPTS = 8  #: third hosts that are tried; where traffic may turn at none of them, the pair keeps its own route


@register("routing", "valiant")
class Valiant:
    """Over random third switches: ``valiant``, ``valiant:seed=3,paths=4``."""

    class Params(Parameters):
        """Over which."""

        seed: Annotated[int, Field(ge=0)] = Field(0, description="of the third hosts")
        paths: Count = Field(1, description="third hosts of a pair, over which its traffic is divided")

    def apply(self, topology: Topology, params: Params) -> Topology:
        """See Policy."""
        return dataclasses.replace(topology, router=Detours(topology, params.seed, params.paths))


class Detours:
    """Its router; every lane has a third host of its own. See LaneRouter."""

    part = PACKET
    chooses = False

    def __init__(self, topology: Topology, seed: int, ways: int = 1) -> None:
        self._topology, self._seed, self.ways = topology, seed, ways
        self._fabric = Fabric(topology)

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32], lane: NDArray[np.int32] | None = None) -> Paths:
        """See :attr:`Topology.router`. Raises TopologyError when a destination cannot be reached."""
        own = self._fabric.crossings(src, dst)
        entry, exit, hosts = own.entry, own.exit, self._topology.hosts
        lanes = np.zeros(len(own.rows), np.int32) if lane is None else lane[own.rows]
        key = key_of(self._seed, src[own.rows], dst[own.rows], lanes)
        left = np.flatnonzero((entry < hosts) & (exit < hosts))
        turned, found = [], []
        for _ in range(ATTEMPTS):
            third = (key[left] % np.uint64(hosts)).astype(np.int32)
            good, detours = self._over(entry[left], third, exit[left])
            turned.append(left[good])
            found.append(detours)
            left = left[~good]
            if not len(left):
                break
            key[left] = mix(key[left] + np.uint64(0x9E3779B97F4A7C15))
        return _spliced(own, np.concatenate(turned), found)

    def _over(
        self, entry: NDArray[np.int32], third: NDArray[np.int32], exit: NDArray[np.int32]
    ) -> tuple[NDArray[np.bool_], Paths]:
        """Which pairs may turn at these hosts, and the routes of those: over the fabric alone, and through no host that
        forwards nothing."""
        topology = self._topology
        there, there_links = topology.paths(entry, third)
        on, on_links = topology.paths(third, exit)
        counts, more = np.diff(there), np.diff(on)
        turns = np.flatnonzero((counts > 0) & (more > 0))
        # NOTE: into the third host and back over the same cable is cut off: the turn is at its switch
        back = turns[there_links[there[turns + 1] - 1] == on_links[on[turns]] ^ 1]
        skip = np.zeros(len(entry), np.int64)
        skip[back] = 1
        good = _clear(there, self._fabric.outside[there_links]) & _clear(on, self._fabric.outside[on_links])
        if not self._fabric.host_forwarding:
            turned = np.zeros(len(entry), np.bool_)
            turned[turns] = True
            good &= ~turned | (skip > 0)
        row, step = ragged(np.where(good, counts + more - 2 * skip, 0))
        first = step < (counts - skip)[row]
        links = np.empty(len(row), np.int32)
        links[first] = there_links[(there[row] + step)[first]]
        links[~first] = on_links[(on[row] + step - (counts - 2 * skip)[row])[~first]]
        return good, (np.concatenate(([0], np.cumsum((counts + more - 2 * skip)[good]))), links)

    def lanes(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int64]:
        """See LaneRouter."""
        return np.where(self._fabric.crosses(src, dst), self.ways, 1).astype(np.int64)


def _spliced(own: Crossings, which: NDArray[np.int64], found: list[Paths]) -> Paths:
    """The topology's own routes; the pieces in the fabric of some of them replaced by what was found, in turn."""
    offsets, links = own.paths
    rows, first, steps = own.rows[which], own.first[which], own.steps[which]
    more = np.concatenate([np.diff(some) for some, _ in found])
    counts = np.diff(offsets)
    counts[rows] += more - steps
    whole = np.concatenate(([0], np.cumsum(counts)))
    made = np.empty(whole[-1], np.int32)
    row, place = np.repeat(np.arange(len(counts)), np.diff(offsets)), np.arange(len(links))
    begin, end, shift = np.full(len(counts), len(links)), np.full(len(counts), len(links)), np.zeros(len(counts), np.int64)
    begin[rows], end[rows], shift[rows] = first, first + steps, more - steps
    kept = (place < begin[row]) | (place >= end[row])
    moved = place - offsets[row] + whole[row] + np.where(place >= end[row], shift[row], 0)
    made[moved[kept]] = links[kept]
    piece, step = ragged(more)
    made[(whole[rows] + first - offsets[rows])[piece] + step] = np.concatenate([some for _, some in found])
    return whole, made


def _clear(offsets: NDArray[np.int64], good: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether all links of each route are good."""
    wrong = np.concatenate(([0], np.cumsum(~good)))
    return np.asarray(wrong[offsets[1:]] == wrong[offsets[:-1]], np.bool_)
