"""DAGs by hand, and a plain reference simulator of the levels with FIFO links."""

import heapq
import math

import numpy as np

from distsim.network.model import Transfers


def dag(rows):
    """Transfers of (src, dst, bytes[, deps[, delay]]) rows."""
    rows = [(*row, *((), 0)[len(row) - 3 :]) for row in rows]
    deps = [list(row[3]) for row in rows]
    return Transfers(
        src=np.array([row[0] for row in rows], dtype=np.int32),
        dst=np.array([row[1] for row in rows], dtype=np.int32),
        bytes=np.array([row[2] for row in rows], dtype=np.int64),
        dep_ptr=np.cumsum([0, *map(len, deps)], dtype=np.int64),
        dep=np.array([before for some in deps for before in some], dtype=np.int32),
        delay=np.array([row[4] for row in rows], dtype=np.int64),
    )


def reference(topology, started, cut_through=False):
    """What ``chunk`` (or ``cut_through``) must answer for (Transfers, at) groups: {group: (end, host_end)}.

    One event after the other, in one heap, by (time, group, row); row -1 starts a group. Nothing is shared with the code
    under test.
    """
    free = [0] * topology.links
    tail_in = {}
    waits, below, routes, ends, left = {}, {}, {}, {}, {}
    events = []
    for group, (transfers, at) in enumerate(started):
        offsets, ids = topology.paths(transfers.src, transfers.dst)
        left[group] = len(transfers.src) + 1
        ends[group] = {}
        for row in range(len(transfers.src)):
            routes[group, row] = ids[offsets[row] : offsets[row + 1]].tolist()
            deps = transfers.dep[transfers.dep_ptr[row] : transfers.dep_ptr[row + 1]].tolist() or [-1]
            waits[group, row] = len(deps)
            for before in deps:
                below.setdefault((group, before), []).append(row)
        heapq.heappush(events, (at, group, -1, 0))
    answer = {}

    def go_on(now, group, row, hop):
        transfers = started[group][0]
        route = routes[group, row]
        time = now
        if hop < len(route):
            link = route[hop]
            latency = int(topology.link_latency[link])
            begin = max(now, free[link])
            free[link] = begin + math.ceil(int(transfers.bytes[row]) * 1e12 / topology.link_bandwidth[link])
            end = free[link]
            if cut_through:
                end = max(end, tail_in.get((group, row), 0))
                tail_in[group, row] = end + latency
            hop += 1
            time = latency + (begin if cut_through and hop < len(route) else end)
        if hop == len(route):
            time += int(transfers.delay[row])
        heapq.heappush(events, (time, group, row, hop))

    while events:
        now, group, row, hop = heapq.heappop(events)
        if row >= 0 and hop < len(routes[group, row]):
            go_on(now, group, row, hop)
            continue
        if row >= 0:
            for host in (started[group][0].src[row], started[group][0].dst[row]):
                ends[group][int(host)] = now
        left[group] -= 1
        if not left[group]:
            answer[group] = (now, ends[group])
        for after in below.get((group, row), ()):
            waits[group, after] -= 1
            if not waits[group, after]:
                go_on(now, group, after, 0)
    return answer
