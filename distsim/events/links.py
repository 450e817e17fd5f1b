"""The topology of every stretch of time between link and switch events.

Events may overlap: a link has the lowest of the rates, and the highest of the latencies, that those under way give it, and is
down while any of them says so. A failure acts at once; routes avoid it from its detection on (``at + detect``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError
from distsim.events.model import Events, LinkEvent, SwitchEvent
from distsim.events.select import links, switches
from distsim.kernel.clock import END_OF_TIME
from distsim.topology.graph import Topology
from distsim.topology.reroute import altered
from distsim.units import format_time, parse_bandwidth, parse_time


@dataclass(frozen=True, slots=True, eq=False)
class _Fault:
    """What one event does to links, in ps."""

    at: int
    until: int
    noticed: int  #: routes avoid dead links from here on
    links: NDArray[np.int64]
    down: bool
    bandwidth: NDArray[np.float64] | None  #: of these links
    latency: NDArray[np.int64] | None
    said: str  #: ``leaf0-spine1 down``


def stretches(
    topology: Topology, events: Events, who: Callable[[list[int]], str] | None = None
) -> list[tuple[int, Topology]]:
    """(instant, topology from there on), ascending; empty where nothing happens to links.

    Args:
        who: hosts in words, for the PartitionError of a router.

    Raises:
        ConfigError: a name that means nothing, or a rate or latency that would mend a link.
    """
    faults = [fault for index in range(len(events.events)) if (fault := _fault(topology, events, index)) is not None]
    moments = sorted({time for f in faults for time in (f.at, f.noticed, f.until) if time < END_OF_TIME and time <= f.until})
    return [(moment, _at(topology, faults, moment, who)) for moment in moments]


def _fault(topology: Topology, events: Events, index: int) -> _Fault | None:
    event, where = events.events[index], events.place(index)
    if isinstance(event, SwitchEvent):
        nodes = switches(topology, event.switch, where)
        hit = np.flatnonzero(np.isin(topology.link_src, nodes) | np.isin(topology.link_dst, nodes))
        said, down = f"{_said(event.switch)} down", True
    elif isinstance(event, LinkEvent):
        # NOTE: names are checked for jitter, too, which is no matter of the topology
        hit = links(topology, event.link, where)
        if event.jitter is not None:
            return None
        said, down = f"{_said(event.link)} {'down' if event.down else 'degraded'}", bool(event.down)
    else:
        return None
    at = parse_time(event.at)
    until = END_OF_TIME if event.until is None else parse_time(event.until)
    bandwidth = latency = None
    if isinstance(event, LinkEvent) and event.bandwidth is not None:
        bandwidth = _rates(event.bandwidth, topology.link_bandwidth[hit])
        _refuse_better(bandwidth > topology.link_bandwidth[hit], "bandwidth", event.bandwidth, topology, hit, where)
    if isinstance(event, LinkEvent) and event.latency is not None:
        latency = np.full(len(hit), parse_time(event.latency), dtype=np.int64)
        _refuse_better(latency < topology.link_latency[hit], "latency", event.latency, topology, hit, where)
    return _Fault(at, until, at + parse_time(event.detect or 0), hit, down, bandwidth, latency, said)


def _rates(text: str, usual: NDArray[np.float64]) -> NDArray[np.float64]:
    if text.strip().endswith("%"):
        return usual * float(text.strip()[:-1]) / 100
    return np.full(len(usual), parse_bandwidth(text))


def _refuse_better(
    wrong: NDArray[np.bool_], name: str, text: str, topology: Topology, hit: NDArray[np.int64], where: str
) -> None:
    if wrong.any():
        link = int(hit[int(np.flatnonzero(wrong)[0])])
        raise ConfigError(
            f"{name} {text} is better than what {topology.link_name(link)} has", where=where,
            expected="a fault; a better network is another --topo",
        )  # fmt: skip


def _at(topology: Topology, faults: list[_Fault], now: int, who: Callable[[list[int]], str] | None) -> Topology:
    """The topology as of an instant."""
    under_way = [fault for fault in faults if fault.at <= now < fault.until]
    if not under_way:
        return topology
    bandwidth, latency = topology.link_bandwidth.copy(), topology.link_latency.copy()
    avoid = np.zeros(topology.links, dtype=np.bool_)
    for fault in under_way:
        if fault.bandwidth is not None:
            bandwidth[fault.links] = np.minimum(bandwidth[fault.links], fault.bandwidth)
        if fault.latency is not None:
            latency[fault.links] = np.maximum(latency[fault.links], fault.latency)
        if fault.down:
            bandwidth[fault.links] = 0
            if fault.noticed <= now:
                avoid[fault.links] = True
    said = [fault.said for fault in under_way if fault.down]
    return altered(topology, bandwidth, latency, avoid, who, f"at {format_time(now)} ({', '.join(said)})")


def _said(names: str | list[str]) -> str:
    return names if isinstance(names, str) else ", ".join(names)
