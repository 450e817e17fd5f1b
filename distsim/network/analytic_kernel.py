"""The forward pass of the ``analytic`` level: rows depend on earlier rows, so one sweep times a whole DAG."""

from __future__ import annotations

import math
from typing import Any

from distsim.kernel.jit import kernel
from distsim.network.model import NEVER
from distsim.network.rounding import serialisation


@kernel
def measure(
    known: int, count: int, first: Any, links: Any, link_latency: Any, link_bandwidth: Any, latency: Any, bandwidth: Any
) -> None:
    """Sum of latencies (ps) and smallest bandwidth (bytes/s; infinite over no link) of routes ``known ... count - 1``."""
    for pair in range(known, count):
        total = 0
        least = math.inf
        for at in range(first[pair], first[pair + 1]):
            total += link_latency[links[at]]
            least = min(least, link_bandwidth[links[at]])
        latency[pair] = total
        bandwidth[pair] = least


@kernel
def sweep(
    stamp: int, src: Any, dst: Any, size: Any, dep_ptr: Any, dep: Any, delay: Any, pair: Any,
    first: Any, path_links: Any, latency: Any, bandwidth: Any, end: Any,
    host_seen: Any, host_end: Any, host_used: Any,
    link_latency: Any, link_bandwidth: Any, seen: Any, used: Any, sent: Any, busy: Any, like: Any, like_ps: Any,
) -> tuple[int, int, int]:  # fmt: skip
    """Time every row: ps from the start to its delivery go to ``end``, the last delivery of every host touched to
    ``host_end``, bytes and busy ps of every link touched to ``sent`` and ``busy``. ``stamp`` (new for every sweep) marks what
    this sweep touched; ``host_used`` and ``used`` list it.

    Rows depend on earlier rows. Returns (last delivery, hosts touched, links touched); the first is NEVER where a time leaves
    the clock's range.
    """
    latest = 0
    hosts = 0
    links = 0
    for row in range(len(src)):
        time = 0
        for at in range(dep_ptr[row], dep_ptr[row + 1]):
            time = max(time, end[dep[at]])
        route = pair[row]
        amount = size[row]
        if first[route] < first[route + 1]:
            time += latency[route] + serialisation(amount, bandwidth[route])
            for at in range(first[route], first[route + 1]):
                link = path_links[at]
                if seen[link] != stamp:
                    seen[link] = stamp
                    used[links] = link
                    links += 1
                    sent[link] = 0
                    busy[link] = 0
                if like[link] != amount:
                    like[link] = amount
                    like_ps[link] = serialisation(amount, link_bandwidth[link])
                sent[link] += amount
                busy[link] += like_ps[link]
        time += delay[row]
        if time >= NEVER:
            return NEVER, hosts, links
        end[row] = time
        latest = max(latest, time)
        for side in range(2):
            host = dst[row] if side else src[row]
            if host_seen[host] != stamp:
                host_seen[host] = stamp
                host_used[hosts] = host
                hosts += 1
                host_end[host] = time
            elif host_end[host] < time:
                host_end[host] = time
    return latest, hosts, links
