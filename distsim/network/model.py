"""The seam between the engine and the networks: start a schedule, run until an instant, hear who is done.

Every level (``analytic``, ``chunk`` ...) is one module that registers a class here under role ``network``. Time is integer
picoseconds. A network knows hosts, links and transfers; it does not know ranks or why it is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from distsim.topology.graph import Topology

NEVER = 1 << 62  #: no further event


@dataclass(frozen=True, slots=True, eq=False)
class Transfers:
    """A DAG of transfers between hosts: what a network moves. The columns of a Schedule with members placed on hosts."""

    src: NDArray[np.int32]  #: host
    dst: NDArray[np.int32]  #: host
    bytes: NDArray[np.int64]
    dep_ptr: NDArray[np.int64]
    dep: NDArray[np.int32]  #: earlier rows whose delivery releases this one
    delay: NDArray[np.int64]  #: ps between arrival of the last byte and delivery (reduction, endpoint overhead)


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
    """A level. States of a group: started -> running -> finished (reported exactly once)."""

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
