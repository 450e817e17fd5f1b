"""Routing ``table``: routes listed in a file, as an operator's forwarding tables or a traffic-engineering solver give them.

CSV with a head, ``src,dst,via``, the nodes between separated by spaces::

    src,dst,via
    gpu0,gpu9,leaf0 spine3 leaf1

or YAML, a list of ``{src: gpu0, dst: gpu9, via: [leaf0, spine3, leaf1]}``. A pair listed several times has its traffic divided
evenly over these routes. Pairs that are not listed take the topology's own routes, or are refused (``others=refuse``). Between
nodes joined by several cables the first one is taken.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distsim.errors import ConfigError, TopologyError
from distsim.params import Parameters, Size
from distsim.registry import register
from distsim.topology.graph import Paths, Topology
from distsim.topology.policies.adaptive import interleaved
from distsim.units import parse_size

_Row = tuple[str, str, list[str]]


@register("routing", "table")
class Table:
    """Routes from a file: ``table:file=routes.csv``."""

    class Params(Parameters):
        """Which."""

        file: str = Field(description="CSV (src,dst,via) or YAML (a list of {src, dst, via})")
        others: Literal["static", "refuse"] = Field("static", description="pairs that are not listed: the topology's routes")
        packet: Size = Field("4KiB", description="what is not divided over several routes of a pair")

    def apply(self, topology: Topology, params: Params) -> Topology:
        """See Policy. Raises ConfigError on a file that cannot be read, TopologyError on a route that does not exist."""
        routes = _routes(topology, params.file)
        return dataclasses.replace(
            topology, router=ListedRoutes(topology, routes, parse_size(params.packet), refuse=params.others == "refuse")
        )


class ListedRoutes:
    """Its router. See LaneRouter."""

    chooses = False

    def __init__(
        self, topology: Topology, routes: dict[tuple[int, int], list[list[int]]], packet: int, *, refuse: bool
    ) -> None:
        self._topology, self._refuse, self.part = topology, refuse, packet
        self.ways = max((len(some) for some in routes.values()), default=1)
        self._keys = np.array(sorted(src * topology.hosts + dst for src, dst in routes), np.int64)
        listed = [routes[divmod(key, topology.hosts)] for key in self._keys.tolist()]
        self._lanes = np.array([len(some) for some in listed], np.int64)
        self._first = np.cumsum(self._lanes) - self._lanes
        flat = [route for some in listed for route in some]
        self._offsets = np.cumsum([0, *map(len, flat)])
        self._links = np.array([link for route in flat for link in route], np.int32)

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32], lane: NDArray[np.int32] | None = None) -> Paths:
        """See :attr:`Topology.router`. Raises TopologyError on a pair that is not listed, if these are refused."""
        at = self._find(src, dst)
        known, other = np.flatnonzero(at >= 0), np.flatnonzero(at < 0)
        missing = other[src[other] != dst[other]]
        if self._refuse and len(missing):
            names = self._topology.node_names
            raise TopologyError(
                f"the routing table has no route for {len(missing)} of {len(src)} pairs: "
                f"{names[src[missing[0]]]} -> {names[dst[missing[0]]]}", fix="List them, or write others=static.",
            )  # fmt: skip
        place = at[known]
        turn = np.zeros(len(known), np.int64) if lane is None else lane[known] % self._lanes[place]
        route = self._first[place] + turn
        counts = self._offsets[route + 1] - self._offsets[route]
        offsets = np.concatenate(([0], np.cumsum(counts)))
        ids = self._links[np.arange(offsets[-1]) + np.repeat(self._offsets[route] - offsets[:-1], counts)]
        rest = self._topology.paths(src[other], dst[other])
        return interleaved(len(src), [known, other], [(offsets, ids), rest])

    def lanes(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int64]:
        """See LaneRouter."""
        at = self._find(src, dst)
        return np.where(at >= 0, np.append(self._lanes, 1)[at], 1)

    def _find(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int64]:
        """Where the pairs are listed, -1 if they are not."""
        key = src.astype(np.int64) * self._topology.hosts + dst
        at = np.searchsorted(self._keys, key)
        return np.where(np.append(self._keys, -1)[at] == key, at, -1)


def _routes(topology: Topology, file: str) -> dict[tuple[int, int], list[list[int]]]:
    """Link ids of every listed route, by pair of hosts."""
    nodes = {name: number for number, name in enumerate(topology.node_names)}
    links: dict[tuple[int, int], int] = {}
    for link, ends in enumerate(zip(topology.link_src.tolist(), topology.link_dst.tolist(), strict=True)):
        links.setdefault(ends, link)
    routes: dict[tuple[int, int], list[list[int]]] = {}
    for number, (src, dst, via) in enumerate(_read(file), start=1):
        where = f"{file}, route {number}"
        stops = [_node(nodes, name, where) for name in (src, *via, dst)]
        for end in (stops[0], stops[-1]):
            if end >= topology.hosts:
                raise TopologyError(f"{topology.node_names[end]} is no host", where=where, expected="routes from host to host")
        if stops[0] == stops[-1] or len(set(stops)) != len(stops):
            raise TopologyError("the route meets a node twice", where=where)
        for one, other in pairwise(stops):
            if (one, other) not in links:
                names = topology.node_names
                raise TopologyError(f"no link leads from {names[one]} to {names[other]}", where=where)
        hops = [links[one, other] for one, other in pairwise(stops)]
        routes.setdefault((stops[0], stops[-1]), []).append(hops)
    return routes


def _node(nodes: dict[str, int], name: str, where: str) -> int:
    if name not in nodes:
        raise TopologyError(f"unknown node {name!r}", where=where, near=difflib.get_close_matches(name, nodes, n=3))
    return nodes[name]


def _read(file: str) -> list[_Row]:
    """The rows of the file. Raises ConfigError."""
    try:
        with open(file, encoding="utf-8", newline="") as stream:
            return _yaml(stream.read(), file) if file.endswith((".yaml", ".yml")) else _csv(list(csv.DictReader(stream)), file)
    except OSError as error:
        raise ConfigError(f"cannot read the routing table: {error.strerror}", where=file) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"is no text that could be read: {error}", where=file) from None


def _csv(rows: list[dict[str, Any]], file: str) -> list[_Row]:
    if rows and {"src", "dst", "via"} - set(rows[0]):
        raise ConfigError(f"the columns are {', '.join(map(str, rows[0]))}", where=file, expected="src,dst,via")
    return [(str(row["src"]).strip(), str(row["dst"]).strip(), str(row["via"] or "").split()) for row in rows]


def _yaml(text: str, file: str) -> list[_Row]:
    import yaml

    expected = "a list of {src: host, dst: host, via: [nodes]}"
    try:
        rows = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"is not YAML: {error}", where=file, expected=expected) from None
    if not isinstance(rows, list):
        raise ConfigError("holds no list", where=file, expected=expected)
    for number, row in enumerate(rows, start=1):
        good = isinstance(row, dict) and set(row) == {"src", "dst", "via"} and isinstance(row["via"], list)
        if not good:
            raise ConfigError(f"{row!r} is no route", where=f"{file}, route {number}", expected=expected)
    return [(str(row["src"]), str(row["dst"]), [str(node) for node in row["via"]]) for row in rows]
