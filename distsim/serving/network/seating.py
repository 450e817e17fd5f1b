"""Where replicas sit on a cluster, and how their iterations get their times: closed forms, memory of a network level, or live.

What is chosen is told: nothing that shares links is simulated as if it were alone without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distsim.errors import ConfigError
from distsim.serving.deployment import Deployment
from distsim.serving.lanes import GroupTimes, LockstepReplica
from distsim.serving.network.footprint import Use, alike, contended, meeting, of_replica, routes
from distsim.serving.network.live import Alone, Engine, LevelTimes, LiveIterations
from distsim.serving.network.program import Programs
from distsim.serving.network.stage_graph import Ranks
from distsim.serving.replica import Replica
from distsim.topology.graph import Topology

#: ServeSpec.network: iterations take the provider's closed forms
CLOSED = "closed"
#: level of what has to be simulated where none is given: keys and values on their way
DEFAULT_LEVEL = "fluid"
MODES = ("auto", "always", "never")


@dataclass(frozen=True, slots=True)
class Seat:
    """A replica on its hosts; its ranks are devices ``first``, ``first + 1`` ... of the engine."""

    replica: Replica
    deployment: Deployment
    times: Any  #: the pool's provider
    first: int
    hosts: tuple[int, ...]


class Seating:
    """Hands out hosts in their order. A replica that fits a box is not spread over two while there is another way."""

    def __init__(self, topology: Topology, hosts: Sequence[int], first: int = 0) -> None:
        """first: device number of the first of the hosts."""
        self._hosts, self._first = tuple(hosts), first
        self._box = topology.levels[0] if topology.levels else 0
        self._next = 0

    def take(self, ranks: int) -> tuple[int, tuple[int, ...]]:
        """(first device, hosts) of the next replica. Raises ConfigError where too few are left."""
        at = self._aligned(ranks)
        found = self._hosts[at : at + ranks]
        if len(found) < ranks:
            raise ConfigError(
                f"a replica takes {ranks} GPU{'s' * (ranks > 1)}, {len(found)} of the service's {len(self._hosts)} are left",
                expected="room for all replicas", fix="Make the cluster larger (gpus=N), or take fewer replicas.",
            )  # fmt: skip
        self._next = at + ranks
        return self._first + at, found

    def _aligned(self, ranks: int) -> int:
        box, hosts = self._box, self._hosts
        for at in range(self._next, len(hosts) - ranks + 1):
            if not box or (hosts[at] % box + ranks <= box if ranks <= box else hosts[at] % box == 0):
                return at
        return self._next


@dataclass(frozen=True, slots=True)
class Connected:
    """How iterations run. live: replicas whose iterations are task graphs -> the communicators that they send over the network,
    by stage."""

    level: str
    live: dict[int, list[list[str]]]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def connect(
    topology: Topology, seats: Sequence[Seat], network: str = CLOSED, live: str = "auto", collectives: str = "direct",
    engine: Engine | None = None, others: Sequence[Use] = (),
) -> Connected:  # fmt: skip
    """Decide for every replica, and give it its times or its runner.

    Args:
        network: CLOSED, or a network level: iterations take what their communications take there.
        live: auto: where links are shared; always, never.
        collectives: algorithm of the replicas' collectives.
        engine: where live iterations run.
        others: what other workloads, and keys and values on their way, use.

    Raises: ConfigError where a provider knows no operations that could be put on the network, or live=always without a level.
    """
    if network == CLOSED and live == "always":
        raise ConfigError(
            f"iterations cannot be live on closed forms (network {CLOSED})", where="--live always", expected="a network level",
            fix="For example, --network fluid.",
        )  # fmt: skip
    uses = [
        use for seat in seats
        if len(seat.hosts) == seat.deployment.ranks  # of other deployments it is not known who talks to whom
        for use in of_replica(topology, seat.hosts, seat.deployment, ("replica", seat.replica.number))
    ]  # fmt: skip
    if network == CLOSED:  # NOTE: what the stages of one replica do to each other is in no closed form, and hardly matters
        uses = [use._replace(owner=use.owner[:2], among=False) for use in uses]
    flags = contended([*uses, *others])[: len(uses)]
    met: dict[tuple[int, int], set[str]] = {}
    for use, flag in zip(uses, flags, strict=True):
        if network != CLOSED and (flag or live == "always"):
            met.setdefault((use.owner[1], use.owner[2]), set()).add(use.group)
    count, first = meeting([*uses, *others])
    shared = f"{count} link{'s' * (count != 1)} ({', '.join(map(topology.link_name, first))}{' ...' * (count > len(first))})"
    who = sorted({"replicas" if use.owner[0] == "replica" else str(use.owner[0]) for use in (*uses, *others)})
    if network == CLOSED or live == "never":
        warnings: tuple[str, ...] = ()
        if any(flags):
            warnings = (
                f"iterations share {shared} with others ({', '.join(who)}), and take what they take alone: "
                + ("--network fluid simulates it" if network == CLOSED else "live=never was asked for"),
            )  # fmt: skip
        if network == CLOSED:
            return Connected(network, {}, ("iterations: closed forms of the provider",), warnings)
        _level(topology, seats, network, collectives, None, {})
        return Connected(network, {}, (f"iterations: alone on {network}",), warnings)
    found = _level(topology, seats, network, collectives, engine, met)
    alone = len(seats) - len(found)
    notes: tuple[str, ...] = (f"iterations of {_replicas(alone)}: alone on {network}",) if alone else ()
    if found:
        why = "asked for" if live == "always" else f"{shared} used by several of {', '.join(who)}"
        groups = sorted({group for stages in found.values() for stage in stages for group in stage})
        notes += (f"iterations of {_replicas(len(found))}: live on {network}, traffic of {', '.join(groups)}: {why}",)
    return Connected(network, found, notes, ())


def _level(
    topology: Topology, seats: Sequence[Seat], network: str, collectives: str, engine: Engine | None,
    met: dict[tuple[int, int], set[str]],
) -> dict[int, list[list[str]]]:  # fmt: skip
    """Times on a level for all, runners for those that meet others."""
    programs: dict[int, Programs] = {}
    alone: dict[Any, Alone] = {}
    found: dict[int, list[list[str]]] = {}
    for seat in seats:
        replica, deployment, times = seat.replica, seat.deployment, seat.times
        if deployment.ranks == 1:
            continue
        if not hasattr(times, "operation"):
            raise ConfigError(
                f"{type(times).__name__} knows no operations that could be put on a network", where=f"--network {network}",
                fix="Take --times model, or --network closed.",
            )  # fmt: skip
        if id(times) not in programs:
            programs[id(times)] = Programs(times)
        own = programs[id(times)]
        key = (id(times), alike(topology, seat.hosts))
        if key not in alone:
            alone[key] = Alone(topology, seat.hosts, network, own, collectives)
        level = LevelTimes(times, own, alone[key])
        # NOTE: what a LockstepReplica asks of its times is no IterationTimes, but the same for lanes
        replica.times = GroupTimes(level) if isinstance(replica, LockstepReplica) else level  # type: ignore[assignment]
        sent = [sorted(met.get((replica.number, stage), ())) for stage in range(deployment.pp)]
        if any(sent):
            assert engine is not None
            name = f"replica {replica.number}"
            replica.runner = LiveIterations(engine, Ranks(deployment, seat.first), own, alone[key], collectives, sent, name)
            found[replica.number] = sent
    return found


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"


def between(topology: Topology, sources: Sequence[Seat], targets: Sequence[Seat]) -> Use:
    """What keys and values on their way from some replicas to others use."""
    pairs = {(a, b) for one in sources for a in one.hosts for other in targets for b in other.hosts}
    return Use(("keys and values",), "kv", routes(topology, pairs))
