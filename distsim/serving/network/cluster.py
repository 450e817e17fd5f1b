"""The hosts of a service: replicas are seated on them, connected to the network, and hand requests over where roles differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distsim.kernel.clock import Clock
from distsim.registry import lookup
from distsim.serving.disaggregation import Disaggregation, Keeper, Station, parts_of
from distsim.serving.fleet import Pool
from distsim.serving.network.footprint import Use
from distsim.serving.network.live import Engine
from distsim.serving.network.seating import CLOSED, DEFAULT_LEVEL, Connected, Seat, Seating, between, connect
from distsim.serving.replica import Replica
from distsim.serving.request import Request
from distsim.serving.router import Router
from distsim.topology.graph import Topology


class Cluster:
    """States: replicas are seated, then all are connected, then the clock may run."""

    def __init__(
        self, topology: Topology, clock: Clock, service: Keeper, pools: Sequence[Pool], router: Callable[[], Router], *,
        network: str = CLOSED, live: str = "auto", collectives: str = "direct", kv_transfer: str = "whole",
        engine: Engine | None = None, hosts: Sequence[int] | None = None, first: int = 0,
    ) -> None:  # fmt: skip
        """
        Args:
            router: makes the one that chooses decode replicas.
            network, live, collectives: see distsim.serving.network.seating.connect.
            kv_transfer: see distsim.serving.disaggregation.parts_of.
            engine: of a run with other workloads; its devices ``first``, ``first + 1`` ... are on ``hosts``, which the service
                may use (default: all of the topology).

        Raises: ConfigError, UnknownNameError.
        """
        self._topology, self._clock, self._service, self._router = topology, clock, service, router
        self._network, self._live, self._collectives = network, live, collectives
        self._hosts = tuple(range(topology.hosts)) if hosts is None else tuple(hosts)
        self._seating = Seating(topology, self._hosts, first)
        self._engine = engine
        self._parts = parts_of(kv_transfer)
        lookup("collective", collectives, where="--collectives")
        self._seats: list[Seat] = []
        self._split = any(pool.role != "both" for pool in pools)
        self.disaggregation: Disaggregation | None = None

    @property
    def ended(self) -> Callable[[Request, Replica], None]:
        """What replicas tell of every request that they are done with."""
        return self._hand_on if self._split else self._service.ended

    def _hand_on(self, request: Request, replica: Replica) -> None:
        assert self.disaggregation is not None
        self.disaggregation.ended(request, replica)

    def seat(self, replicas: Sequence[Replica], pool: Pool, times: Any, gpus: int) -> None:
        """Give replicas of a pool their hosts. Raises ConfigError where there are too few."""
        for replica in replicas:
            self._seats.append(Seat(replica, pool.deployment, times, *self._seating.take(gpus)))

    def connect(self, others: Sequence[Use] = ()) -> Connected:
        """Decide how iterations run, and make what hands requests over. others: what other workloads use.

        Raises: ConfigError (see distsim.serving.network.seating.connect, Disaggregation).
        """
        seats = self._seats
        uses = list(others)
        if self._split:
            roles = {role: [seat for seat in seats if seat.replica.role == role] for role in ("prefill", "decode")}
            uses.append(between(self._topology, roles["prefill"], roles["decode"]))
        if self._engine is None and (self._split or self._network != CLOSED):
            level = DEFAULT_LEVEL if self._network == CLOSED else self._network
            self._engine = Engine(self._topology, self._hosts, level, clock=self._clock)
        found = connect(self._topology, seats, self._network, self._live, self._collectives, self._engine, uses)
        if not self._split:
            return found
        assert self._engine is not None
        stations = [Station(seat.replica, seat.deployment, seat.hosts) for seat in seats]
        self.disaggregation = Disaggregation(
            self._clock, self._engine.communication, self._service, stations, self._router(), self._parts
        )
        way = f"{self._parts} parts of every chunk" if self._parts else "whole"
        note = f"keys and values: {way}, on {self._engine.level}"
        return Connected(found.level, found.live, (*found.notes, note), found.warnings)

    def check_finished(self) -> None:
        """After the run: raises DeadlockError where something on the network never ended."""
        if self._engine is not None:
            self._engine.executor.check_finished()

    @property
    def counts(self) -> dict[str, int]:
        """What was handed over."""
        found = self.disaggregation
        return {} if found is None else {"handed_over": found.handed, "kv_bytes_sent": found.sent}

