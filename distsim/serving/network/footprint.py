"""Which links a communicator may use, and whether anybody else uses them: what has to be simulated together.

Static: all routes between all pairs of a communicator, by all lanes of the routing. It errs on the side of sharing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distsim.serving.deployment import Deployment
from distsim.serving.network.stage_graph import Ranks
from distsim.topology.graph import Topology
from distsim.trace.graph import NodeType, TaskGraph

Mask = NDArray[np.bool_]
#: pairs whose routes are asked for at once
_AT_ONCE = 1 << 18


class Use(NamedTuple):
    """Links that somebody uses. owner: uses of one owner never happen at the same time. among: instances of this one do, and
    meet on links."""

    owner: tuple[Any, ...]
    group: str
    links: Mask
    among: bool = False


def routes(topology: Topology, pairs: Iterable[tuple[int, ...]]) -> Mask:
    """Links between pairs of hosts."""
    found = np.zeros(topology.links, dtype=np.bool_)
    listed = np.array(sorted(set(pairs)), dtype=np.int32).reshape(-1, 2)
    for start in range(0, len(listed), _AT_ONCE):
        src, dst = listed[start : start + _AT_ONCE].T
        lanes = topology.lanes(src, dst)
        for lane in range(int(lanes.max(initial=0))):
            open_ = lanes > lane
            column = np.full(int(open_.sum()), lane, dtype=np.int32)
            found[topology.paths(src[open_], dst[open_], column)[1]] = True
    return found


def of_replica(topology: Topology, hosts: Sequence[int], deployment: Deployment, owner: tuple[Any, ...]) -> list[Use]:
    """What the communicators of every stage of a replica use. hosts: of its ranks. owners are (*owner, stage)."""
    ranks, found = Ranks(deployment), []
    for stage in range(deployment.pp):
        for group in ("tp", "pp") if deployment.dp == 1 else ("tp", "dp", "ep", "pp"):
            instances = [tuple(hosts[rank] for rank in one) for one in ranks.groups(stage, group)]
            if group == "pp":
                links, among = routes(topology, instances), False
            else:
                parts = [routes(topology, permutations(one, 2)) for one in instances if len(one) > 1]
                if not parts:
                    continue
                count = np.sum(parts, axis=0)
                links, among = count > 0, bool(np.any(count > 1))
            if links.any():
                found.append(Use((*owner, stage), group, links, among))
    return found


def of_trace(graph: TaskGraph, topology: Topology, hosts: Sequence[int], owner: tuple[Any, ...]) -> Use:
    """What the communication of a trace uses, all of it together."""
    pairs: set[tuple[int, int]] = set()
    seen: set[tuple[int, ...]] = set()
    for rank in range(graph.ranks):
        program = graph.program(rank)
        collective = program.type == NodeType.COMM_COLL
        for group in np.unique(program.group[collective]).tolist():
            members = tuple(graph.members(rank, group))
            if members not in seen:
                seen.add(members)
                pairs.update(permutations((hosts[member] for member in members), 2))
        message = np.flatnonzero(program.type == NodeType.COMM_SEND)
        pairs.update((hosts[rank], hosts[graph.peer(rank, int(row))]) for row in message)
    return Use(owner, "trace", routes(topology, pairs))


def contended(uses: Sequence[Use]) -> list[bool]:
    """Whether each use may meet another on a link."""
    owners: dict[tuple[Any, ...], Mask] = {}
    for use in uses:
        owners[use.owner] = owners[use.owner] | use.links if use.owner in owners else use.links
    if not owners:
        return []
    count = np.zeros(len(uses[0].links), dtype=np.int64)
    for links in owners.values():
        count += links
    return [use.among or bool(np.any(count[use.links] > 1)) for use in uses]


def meeting(uses: Sequence[Use], most: int = 3) -> tuple[int, list[int]]:
    """How many links have several owners, and the first of them."""
    owners: dict[tuple[Any, ...], Mask] = {}
    for use in uses:
        owners[use.owner] = owners[use.owner] | use.links if use.owner in owners else use.links
    if not owners:
        return 0, []
    many = np.flatnonzero(np.sum(list(owners.values()), axis=0) > 1)
    return len(many), many[:most].tolist()


def alike(topology: Topology, hosts: Sequence[int]) -> tuple[Any, ...]:
    """A key: groups of hosts with equal keys have equal routes, up to the names of links. Communications among the one, alone,
    take what they take among the other."""
    pairs = np.array(list(permutations(hosts, 2)), dtype=np.int32).reshape(-1, 2)
    names: dict[int, int] = {}
    parts: list[Any] = [len(hosts)]
    src, dst = pairs[:, 0], pairs[:, 1]
    lanes = topology.lanes(src, dst)
    parts.append(lanes.tobytes())
    for lane in range(int(lanes.max(initial=0))):
        open_ = lanes > lane
        offsets, links = topology.paths(src[open_], dst[open_], np.full(int(open_.sum()), lane, dtype=np.int32))
        parts.append(offsets.tobytes())
        parts.append(tuple(names.setdefault(link, len(names)) for link in links.tolist()))
    order = np.array(list(names), dtype=np.int64)
    parts.append(topology.link_bandwidth[order].tobytes())
    parts.append(topology.link_latency[order].tobytes())
    return tuple(parts)
