"""Events become callbacks of the clock: links change, ranks are lost, others send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distsim.engine.communication import Communication
from distsim.engine.executor import Executor
from distsim.engine.speed import Speed
from distsim.errors import ConfigError, FaultError, RankLostError
from distsim.events.background import Bursts, Traffic, bursts
from distsim.events.jitter import jittered
from distsim.events.links import stretches
from distsim.events.model import Events
from distsim.events.ranks import Loss, speeds
from distsim.events.select import listed
from distsim.kernel.clock import Clock
from distsim.network.model import NetworkModel
from distsim.topology.graph import Topology
from distsim.units import format_time, parse_time


class Conductor:
    """The events of one run: checked against its topology and ranks when made, then set off by its clock.

    Raises ConfigError where an event names what is not there, or the network level cannot change.
    """

    def __init__(self, events: Events, clock: Clock, topology: Topology, network: NetworkModel, hosts: Sequence[int]) -> None:
        """hosts: of every rank."""
        self._events, self._clock = events, clock
        rank_of = {int(host): rank for rank, host in enumerate(hosts)}

        def who(nodes: list[int]) -> str:
            placed = [rank_of[node] for node in nodes if node in rank_of]
            rest = [topology.node_names[node] for node in nodes if node not in rank_of]
            others = f"{len(rest)} hosts without a rank" if len(rest) > 3 else ", ".join(rest)
            return " and ".join(filter(None, (listed(placed) if placed else "", others)))

        self.speeds: dict[int, Speed]
        self.speeds, self._losses = speeds(events, len(hosts))
        self._stretches = stretches(topology, events, who)
        self._bursts = bursts(topology, events)
        self.traffic = Traffic()
        if self._stretches and not hasattr(network, "change"):
            raise ConfigError(
                f"network level {type(network).__name__} cannot change links during a run", where=events.source,
                fix="Take --network analytic, fluid, cut_through or chunk, or leave link and switch events out.",
            )  # fmt: skip
        #: the network to run on
        self.network = jittered(network, topology, events)
        self._executor: Executor | None = None

    def begin(self, executor: Executor, communication: Communication) -> None:
        """Put everything on the clock; before the workload starts, so that an event goes before what starts at its instant."""
        self._executor = executor
        for moment, topology in self._stretches:
            self._clock.call_at(moment, self._change, topology)
        for loss in self._losses:
            self._clock.call_at(loss.at, self._lose, loss)
        for burst in self._bursts:
            self._clock.call_at(burst.at, self._send, (burst, 1, communication.carry))

    def told(self, makespan: int, done: int, total: int, broken: FaultError | None) -> dict[str, Any]:
        """What is to be said of the events of a run that has ended: JSON-ready, with ``warnings``.

        Args:
            done: tasks, of ``total``. broken: what ended the run, if it did not end by itself.
        """
        found: dict[str, Any] = {"seed": self._events.seed}
        warnings = []
        if broken is not None:
            found["partial"] = {"because": broken.what, "at_ps": makespan, "tasks_done": done, "tasks": total}
            when = format_time(self._clock.now)
            warnings.append(f"partial results: the run ended at {when}, {done:,} of {total:,} tasks done: {broken.what}")
        else:
            late = [
                number for event, number in zip(self._events.events, self._events.numbers, strict=True)
                if parse_time(event.at) >= makespan
            ]  # fmt: skip
            if late:
                warnings.append(f"the run was over before {listed(late, 'event')} happened")
        if self._stretches:
            found["retransmitted_bytes"] = int(getattr(self.network, "retransmitted", 0))
        if self._bursts:
            found["background"] = {"bursts": self.traffic.bursts, "bytes": self.traffic.bytes}
        return found | {"warnings": warnings}

    def _over(self) -> bool:
        """Whether the workload is done: what comes later does not happen to it."""
        return self._executor is not None and self._executor.unfinished == 0

    def _change(self, call: Any) -> None:
        if self._over():
            return
        # NOTE: the clock has heard all deliveries up to now, but a network with nothing due stands where it last stopped.
        left = self.network.run_until(self._clock.now)
        assert not left, "deliveries of an instant come before its changes"
        self.network.change(call.subject)  # type: ignore[attr-defined]

    def _lose(self, call: Any) -> None:
        if self._over():
            return
        loss: Loss = call.subject
        raise RankLostError(
            f"rank {loss.rank} is lost and nobody replaces it", where=f"at {format_time(loss.at)}",
            fix="Add replace_after: TIME to the event if another takes over.",
        )  # fmt: skip

    def _send(self, call: Any) -> None:
        if self._over():
            return
        found: tuple[Bursts, int, Callable[..., None]] = call.subject
        burst, number, carry = found
        self.traffic.send(carry, burst.transfers)
        if number < burst.count:
            self._clock.call_at(self._clock.now + burst.every, self._send, (burst, number + 1, carry))
