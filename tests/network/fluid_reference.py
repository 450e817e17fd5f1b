"""An oracle of the level ``fluid``: progressive filling over all links at every event, in fractions; no code is shared."""

from fractions import Fraction

import numpy as np

from distsim.trace.netref import FlowScenario


def max_min(flows, capacity):
    """Rate of every flow {flow: (links, weight, limit or None)}: raise all together until a link or a limit stops some."""
    rates, rising = {}, dict(flows)
    left = dict(enumerate(capacity))
    while rising:
        load = {}
        for links, weight, _ in rising.values():
            for link in links:
                load[link] = load.get(link, 0) + weight
        levels = [left[link] / weight for link, weight in load.items()]
        levels += [limit / weight for _, weight, limit in rising.values() if limit is not None]
        level = min(levels)
        full = {link for link, weight in load.items() if left[link] == level * weight}
        stopped = [flow for flow, (links, weight, limit) in rising.items() if full & set(links) or limit == level * weight]
        for flow in stopped:
            links, weight, _ = rising.pop(flow)
            rates[flow] = level * weight
            for link in links:
                left[link] -= level * weight
    return rates


def simulate(scenario, weighted=False, cap=None, connection=None):
    """Finish of every flow, in exact seconds. Of flows that name the same ``connection`` one moves at a time, by (time at
    which its latencies are over, number)."""
    capacity = [Fraction(value) for value in scenario.bandwidth.tolist()]
    latency = [Fraction(value) for value in scenario.latency.tolist()]
    routes = [scenario.route[a:b].tolist() for a, b in zip(scenario.route_ptr, scenario.route_ptr[1:], strict=False)]
    deps = [set(scenario.dep[a:b].tolist()) for a, b in zip(scenario.dep_ptr, scenario.dep_ptr[1:], strict=False)]
    wait = [sum((latency[link] for link in route), Fraction(0)) for route in routes]
    weight = [1 / each if weighted and each else Fraction(1) for each in wait]
    limit = None if cap is None else Fraction(cap)
    finish, moving, sets_out = {}, {}, {}
    now = Fraction(0)
    while len(finish) < len(routes):
        for flow, before in enumerate(deps):
            if flow not in sets_out and before <= finish.keys():
                ready = max([Fraction(float(scenario.start[flow])), *(finish[b] for b in before)])
                sets_out[flow] = ready + wait[flow]
        for flow, at in sets_out.items():
            if at <= now and flow not in moving and flow not in finish:
                moving[flow] = Fraction(float(scenario.bytes[flow]))
        over = [flow for flow, left in moving.items() if left == 0 or not routes[flow]]
        if over:
            for flow in over:
                finish[flow] = now
                del moving[flow]
            continue
        heads = {}
        for flow in sorted(moving, key=lambda flow: (sets_out[flow], flow)):
            heads.setdefault(flow if connection is None else connection[flow], flow)
        rates = max_min({flow: (routes[flow], weight[flow], limit) for flow in heads.values()}, capacity)
        times = [now + moving[flow] / rate for flow, rate in rates.items()]
        now, then = min([*times, *(at for at in sets_out.values() if at > now)]), now
        for flow, rate in rates.items():
            moving[flow] -= rate * (now - then)
    return [finish[flow] for flow in range(len(routes))]


def scenario_of(links, flows):
    """A FlowScenario of (bandwidth, latency) links and (start, bytes, deps, route) flows, each between hosts of its own."""
    count = len(flows)
    return FlowScenario(
        name="test", node_names=tuple(f"h{n}" for n in range(2 * count)), hosts=2 * count,
        link_id=np.arange(len(links)), link_src=np.zeros(len(links), np.int32), link_dst=np.ones(len(links), np.int32),
        bandwidth=np.array([bandwidth for bandwidth, _ in links], dtype=float),
        latency=np.array([latency for _, latency in links], dtype=float), flow_id=np.arange(count),
        src=np.arange(count, dtype=np.int32), dst=np.arange(count, 2 * count, dtype=np.int32),
        start=np.array([flow[0] for flow in flows], dtype=float), bytes=np.array([flow[1] for flow in flows], dtype=float),
        dep_ptr=np.cumsum([0, *(len(flow[2]) for flow in flows)]),
        dep=np.array([before for flow in flows for before in flow[2]], dtype=np.int32),
        route_ptr=np.cumsum([0, *(len(flow[3]) for flow in flows)]),
        route=np.array([link for flow in flows for link in flow[3]], dtype=np.int32),
    )  # fmt: skip
