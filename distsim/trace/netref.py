"""Flow scenarios (schema ``netref/1``): nodes, directed links and flows with their routes, starts and dependencies.

One JSON document, gzip or plain::

    {"schema": "netref/1", "name": "...", "hosts": ["h0", ...], "switches": ["s0", ...],
     "links": [[id, src, dst, bandwidth_Bps, latency_s], ...],
     "flows": [[id, src, dst, start_s, bytes, [flow ids it waits for], [link ids of its route]], ...]}

``link_fields`` and ``flow_fields``, where given, name the columns in another order; further keys and fields are notes. Ids are
integers of any order. docs/networks.md has the format.
"""

from __future__ import annotations

import difflib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.errors import TraceError
from distsim.trace.files import read_bytes

SCHEMA = "netref/1"
LINK_FIELDS = ("id", "src", "dst", "bandwidth_Bps", "latency_s")
FLOW_FIELDS = ("id", "src", "dst", "start_s", "bytes", "deps", "route")
LONGEST_S = 1e6  #: seconds: no start or latency is longer (12 days)
MOST_BYTES = float(1 << 53)  #: float64 counts whole bytes up to here


@dataclass(frozen=True, slots=True, eq=False)
class FlowScenario:
    """F flows over L directed links between nodes; the first ``hosts`` nodes are the hosts. Flows only wait for earlier ones
    in these columns; ``flow_id`` says what the file calls them."""

    name: str
    node_names: tuple[str, ...]
    hosts: int
    link_id: NDArray[np.int64]
    link_src: NDArray[np.int32]
    link_dst: NDArray[np.int32]
    bandwidth: NDArray[np.float64]  #: bytes/s
    latency: NDArray[np.float64]  #: seconds
    flow_id: NDArray[np.int64]
    src: NDArray[np.int32]
    dst: NDArray[np.int32]
    start: NDArray[np.float64]  #: seconds
    bytes: NDArray[np.float64]
    dep_ptr: NDArray[np.int64]
    dep: NDArray[np.int32]  #: indices of earlier flows
    route_ptr: NDArray[np.int64]
    route: NDArray[np.int32]  #: indices of links, in travel order

    def __len__(self) -> int:
        return len(self.src)


def read_netref(path: str | Path) -> FlowScenario:
    """The scenario of a file. Raises TraceError: unreadable, not netref/1, unknown or repeated names and ids, a route that is
    not a way from source to destination, numbers out of range, or flows that wait for one another in a circle."""
    where = str(path)
    try:
        content = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise TraceError(f"is not JSON: {error}", where=where) from None
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise TraceError(
            f"is not a flow scenario (schema {schema!r})", where=where, expected=f'an object with "schema": "{SCHEMA}"'
        )
    hosts, switches = (_names(content, key, where) for key in ("hosts", "switches"))
    names = (*hosts, *switches)
    nodes = {name: number for number, name in enumerate(names)}
    if len(nodes) < len(names):
        twice = next(name for number, name in enumerate(names) if nodes[name] != number)
        raise TraceError(f"two nodes are called {twice!r}", where=where)
    links = _rows(content, "links", "link_fields", LINK_FIELDS, where)
    link_of: dict[int, int] = {}
    ends: list[tuple[int, int]] = []
    for number, (link, src, dst, bandwidth, latency) in enumerate(links):
        at = f"{where}: link {link}"
        _number(bandwidth, "bandwidth_Bps", at, math.inf, above=True)
        _number(latency, "latency_s", at, LONGEST_S)
        if _id(link, at) in link_of:
            raise TraceError("has the id of another link", where=at)
        link_of[link] = number
        ends.append((_node(src, nodes, at), _node(dst, nodes, at)))
    flows = _rows(content, "flows", "flow_fields", FLOW_FIELDS, where)
    flow_of: dict[int, int] = {}
    for number, (flow, *_) in enumerate(flows):
        at = f"{where}: flow {flow}"
        if _id(flow, at) in flow_of:
            raise TraceError("has the id of another flow", where=at)
        flow_of[flow] = number
    columns, deps, routes = [], [], []
    for flow, src, dst, start, size, before, route in flows:
        at = f"{where}: flow {flow}"
        sides = _node(src, nodes, at, len(hosts)), _node(dst, nodes, at, len(hosts))
        columns.append((*sides, _number(start, "start_s", at, LONGEST_S), _number(size, "bytes", at, MOST_BYTES)))
        deps.append(_known(before, flow_of, "flow", at))
        routes.append(_known(route, link_of, "link", at))
        _check_route(routes[-1], sides, ends, names, at)
    order = _order(deps, [flow[0] for flow in flows], where)
    place = {number: index for index, number in enumerate(order)}
    deps, routes = [[place[d] for d in deps[n]] for n in order], [routes[n] for n in order]
    src, dst, start, size = zip(*(columns[n] for n in order), strict=True) if order else ((), (), (), ())
    return FlowScenario(
        name=str(content.get("name", Path(path).name)), node_names=names, hosts=len(hosts),
        link_id=np.array([link[0] for link in links], dtype=np.int64),
        link_src=np.array([src for src, _ in ends], dtype=np.int32),
        link_dst=np.array([dst for _, dst in ends], dtype=np.int32),
        bandwidth=np.array([link[3] for link in links], dtype=np.float64),
        latency=np.array([link[4] for link in links], dtype=np.float64),
        flow_id=np.array([flows[n][0] for n in order], dtype=np.int64),
        src=np.array(src, dtype=np.int32), dst=np.array(dst, dtype=np.int32), start=np.array(start, dtype=np.float64),
        bytes=np.array(size, dtype=np.float64),
        dep_ptr=np.cumsum([0, *map(len, deps)], dtype=np.int64),
        dep=np.array([before for some in deps for before in some], dtype=np.int32),
        route_ptr=np.cumsum([0, *map(len, routes)], dtype=np.int64),
        route=np.array([link for route in routes for link in route], dtype=np.int32),
    )  # fmt: skip


def _names(content: dict[str, Any], key: str, where: str) -> list[str]:
    names = content.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TraceError(f"{key} is no list of names", where=where)
    return names


def _rows(content: dict[str, Any], key: str, naming: str, usual: tuple[str, ...], where: str) -> list[list[Any]]:
    """The rows of a table, with their fields in the usual order."""
    rows, fields = content.get(key), content.get(naming, list(usual))
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise TraceError(f"{key} is no list of lists", where=where, expected=f"[[{', '.join(usual)}], ...]")
    if not isinstance(fields, list) or not set(usual) <= {name for name in fields if isinstance(name, str)}:
        raise TraceError(f"{naming} does not name every field", where=where, expected=", ".join(usual))
    short = next((number for number, row in enumerate(rows) if len(row) < len(fields)), None)
    if short is not None:
        raise TraceError(
            f"row {short} of {key} has {len(rows[short])} fields", where=where, expected=f"{len(fields)}: {fields}"
        )
    if fields[: len(usual)] == list(usual):
        return [row[: len(usual)] for row in rows]
    places = [fields.index(name) for name in usual]
    return [[row[place] for place in places] for row in rows]


def _id(value: Any, where: str) -> int:
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        raise TraceError(f"id {value!r} is no integer", where=where)
    return value


def _number(value: Any, name: str, where: str, limit: float, *, above: bool = False) -> float:
    """A finite number from 0 (excluded where ``above``) to ``limit``."""
    if type(value) not in (int, float) or not (value > 0 if above else value >= 0) or not value <= limit or value == math.inf:
        bounds = f"a number {'above 0' if above else 'from 0'}" + ("" if limit == math.inf else f" to {limit:g}")
        raise TraceError(f"{name} is {value!r}", where=where, expected=bounds)
    return float(value)


def _node(name: Any, nodes: dict[str, int], where: str, limit: int | None = None) -> int:
    """Number of a node; of a host where ``limit`` says how many these are."""
    number = nodes.get(name) if isinstance(name, str) else None
    if number is None:
        raise TraceError(f"there is no node {name!r}", where=where, near=difflib.get_close_matches(str(name), nodes, n=3))
    if limit is not None and number >= limit:
        raise TraceError(f"{name!r} is a switch", where=where, expected="flows between hosts")
    return number


def _known(ids: Any, known: dict[int, int], kind: str, where: str) -> list[int]:
    """Indices of the ids in a list."""
    if not isinstance(ids, list):
        raise TraceError(f"{ids!r} is no list of {kind} ids", where=where)
    for one in ids:
        if type(one) is not int or one not in known:
            near = [str(other) for other in sorted(known, key=lambda other: abs(other - one))[:3]] if type(one) is int else []
            raise TraceError(f"there is no {kind} {one!r}", where=where, near=near)
    return [known[one] for one in ids]


def _check_route(
    route: list[int], sides: tuple[int, int], ends: list[tuple[int, int]], names: tuple[str, ...], where: str
) -> None:
    """Raise TraceError unless the links lead from one host to the other."""
    here, there = sides
    for link in route:
        if ends[link][0] != here:
            raise TraceError(
                f"the route is broken: a link from {names[ends[link][0]]} to {names[ends[link][1]]} follows where the flow has "
                f"come to {names[here]}", where=where,
            )  # fmt: skip
        here = ends[link][1]
    if here != there:
        raise TraceError(f"the route leads to {names[here]}, not to {names[there]}", where=where)
    if len(set(route)) < len(route):
        raise TraceError("the route takes one link twice", where=where)


def _order(deps: list[list[int]], ids: list[int], where: str) -> list[int]:
    """Indices of flows with those that each waits for before it, else in the order of the file."""
    if all(before < number for number, some in enumerate(deps) for before in some):
        return list(range(len(deps)))
    import heapq

    waits = [len(some) for some in deps]
    after: list[list[int]] = [[] for _ in deps]
    for number, some in enumerate(deps):
        for before in some:
            after[before].append(number)
    ready = [number for number, count in enumerate(waits) if not count]
    order = []
    while ready:
        order.append(heapq.heappop(ready))
        for number in after[order[-1]]:
            waits[number] -= 1
            if not waits[number]:
                heapq.heappush(ready, number)
    if len(order) < len(deps):
        stuck = [ids[number] for number, count in enumerate(waits) if count]
        raise TraceError(
            f"{len(stuck)} flows wait for one another in a circle, or for such flows: {', '.join(map(str, stuck[:5]))}",
            where=where,
        )
    return order
