"""The seam between the engine and the networks: start a schedule, run until an instant, hear who is done.

Every level (``analytic``, ``chunk`` ...) is one module that registers a class here under role ``network``. Time is integer
picoseconds. A network knows hosts, links and transfers; it does not know ranks or why it is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from distsim.topology.graph import Topology

if TYPE_CHECKING:
    from distsim.network.pattern import Pattern

NEVER = 1 << 62  #: no further event; every time is below
NO_LANE = -1  #: lane of a row that crosses no link, such as the one that joins the parts of a transfer
LONGEST = 1 << 60  #: ps: no single delay, latency or serialisation reaches this (13 days)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Transfers:
    """A DAG of transfers between hosts: what a network moves. The columns of a Schedule with members placed on hosts.

    Never changed once made: a level may remember what it found out about an object it is given again. What many DAGs on other
    hosts have in common may be said by ``pattern`` and ``members`` (see Pattern.on, which makes both): the same rows, for a
    level that cares. A level may ignore it.
    """

    src: NDArray[np.int32]  #: host
    dst: NDArray[np.int32]  #: host
    bytes: NDArray[np.int64]
    dep_ptr: NDArray[np.int64]
    dep: NDArray[np.int32]  #: earlier rows whose delivery releases this one
    delay: NDArray[np.int64]  #: ps between arrival of the last byte and delivery (reduction, endpoint overhead)
    pattern: Pattern | None = None  #: the rows, between members
    members: NDArray[np.int32] | None = None  #: with a pattern: host of each member
    #: which of the routes between its hosts each row takes, where the topology's routing offers several (default: route 0);
    #: NO_LANE: the row crosses no link
    lane: NDArray[np.int32] | None = None
    #: weight of each row where flows share links, 1 by default: the parts of a transfer over several lanes weigh as one
    share: NDArray[np.float64] | None = None
    #: ps that the whole DAG takes on idle links, where a closed form knows better than its rows; level ``analytic`` believes it
    alone: int | None = None

    def columns(self) -> list[Any]:
        """src, dst, bytes, dep_ptr, dep, delay: what kernels are given."""
        return [self.src, self.dst, self.bytes, self.dep_ptr, self.dep, self.delay]


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A group of transfers whose last delivery has happened."""

    group: int
    at: int  #: ps
    host_end: dict[int, int]  #: host -> ps of the last delivery from or to it


@dataclass(frozen=True, slots=True, eq=False)
class LinkUsage:
    """Totals per directed link since the start."""

    bytes: NDArray[np.int64]
    busy: NDArray[np.int64]  #: ps spent sending


class NetworkModel(Protocol):
    """A level. States of a group: started -> running -> finished (reported exactly once).

    Groups are numbered 0, 1, 2 ... in the order of their starts. The network's own clock stands where the last ``run_until``
    stopped: at the instant of the groups that it returned, else at its limit. ``distsim.network.check`` holds the contract.
    """

    def __init__(self, topology: Topology) -> None: ...

    def start(self, transfers: Transfers, at: int) -> int:
        """Admit a DAG of transfers whose roots may start at ``at`` (>= every time run so far); returns the group number."""
        ...

    def next_event(self) -> int:
        """A lower bound on the time of the next thing that happens inside, NEVER if idle."""
        ...

    def run_until(self, limit: int) -> list[Finished]:
        """Advance to the first instant <= limit at which groups finish and return them (ordered by group), or to limit
        and return []. A group that finishes exactly at ``limit`` is returned."""
        ...

    def usage(self) -> LinkUsage:
        """Bytes and busy time of every link so far."""
        ...

    # A level may offer, for timed events of links (docs/events.md):
    #
    #   def change(self, topology: Topology) -> None
    #       From where the clock stands, links have the bandwidths and latencies of ``topology``, and routes are those of its
    #       router; nodes and link ids are the same. Bandwidth 0 is a link that is down: what is on it, or has to cross it,
    #       is stuck (and may have to be sent again) until a change that routes around it or brings it back. Every group
    #       under way still delivers every row once. Raises PartitionError where something under way has no route left.
    #   retransmitted: int
    #       Bytes that were lost on dead links and set out a second time.
    #
    # A level that does not forward with the first byte says so:
    #
    #   stores: float
    #       Bytes that a link keeps at most before the next one sends them on: inf where it stores whole transfers.
