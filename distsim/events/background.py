"""Background traffic: flows of others, in bursts, which share the network with the run and never count as part of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError
from distsim.events.model import BackgroundEvent, Events
from distsim.events.select import hosts
from distsim.network.model import Transfers
from distsim.topology.graph import Topology
from distsim.units import parse_size, parse_time


@dataclass(frozen=True, slots=True, eq=False)
class Bursts:
    """The bursts of one event."""

    at: int  #: ps, of the first
    every: int  #: ps from one to the next
    count: int
    transfers: Transfers  #: of one burst


def bursts(topology: Topology, events: Events) -> list[Bursts]:
    """The background traffic of the events. Raises ConfigError on a host that is not there, or that would talk to itself."""
    made = []
    for index, event in enumerate(events.events):
        if isinstance(event, BackgroundEvent):
            asked, where = event.background, events.place(index)
            src, dst = _pairs(hosts(topology, asked.from_, where), hosts(topology, asked.to, where), asked.pairs)
            if not len(src):
                raise ConfigError("background: nobody sends to anybody else", where=where, expected="hosts that differ")
            every = 0 if asked.every is None else parse_time(asked.every)
            made.append(Bursts(parse_time(event.at), every, asked.count, _burst(src, dst, parse_size(asked.bytes))))
    return made


def _pairs(senders: list[int], receivers: list[int], pairs: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Who sends to whom; nobody to itself."""
    if pairs == "all":
        src, dst = np.repeat(senders, len(receivers)), np.tile(receivers, len(senders))
    else:
        count = max(len(senders), len(receivers))
        src, dst = np.resize(senders, count), np.resize(receivers, count)
    apart = src != dst
    return src[apart].astype(np.int32), dst[apart].astype(np.int32)


def _burst(src: NDArray[np.int32], dst: NDArray[np.int32], size: int) -> Transfers:
    rows = len(src)
    return Transfers(
        src=src, dst=dst, bytes=np.full(rows, size, dtype=np.int64), dep_ptr=np.zeros(rows + 1, dtype=np.int64),
        dep=np.zeros(0, dtype=np.int32), delay=np.zeros(rows, dtype=np.int64),
    )  # fmt: skip


class Traffic:
    """What has set out and arrived of it."""

    def __init__(self) -> None:
        self.bursts = 0  #: that set out
        self.bytes = 0  #: of bursts that have arrived

    def send(self, carry: Callable[[Transfers, Callable[[], None]], None], transfers: Transfers) -> None:
        """One burst sets out."""
        self.bursts += 1
        size = int(transfers.bytes.sum())

        def arrived() -> None:
            self.bytes += size

        carry(transfers, arrived)
