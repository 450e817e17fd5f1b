"""Prefill/decode disaggregation: some replicas compute prompts, others generate; keys and values go over the network.

A request, step by step:

- It goes to a prefill replica, which computes its prompt and emits its first token: time to first token ends there.
- A router of its own chooses the decode replica: when the prompt is done (``whole``), or when its computation begins
  (``layerwise``). There it queues as one that brings its keys and values, and takes a seat and KV blocks by that replica's
  own rules. Until then nothing is sent, and the prefill replica keeps its blocks: that is the back-pressure.
- Then the keys and values set out, each receiving rank's from those that hold them (distsim.serving.kv.shards), as transfers on
  the simulated network. ``layerwise`` sends layers as they are computed, in ``parts``, so that only the last part of the last
  chunk is sure to be exposed; where the end of an iteration is not known beforehand (pipelines, iterations on shared links) it
  sends chunk by chunk.
- When all has come, the prefill replica's blocks are free, and the request generates.

Preempted at the decode replica it computes everything anew there; preempted at the prefill replica it starts anew there, and
what had been sent is sent again. The decode side's prefix cache saves no transfer.

Sources: Zhong et al., "DistServe" (OSDI 2024); Patel et al., "Splitwise" (ISCA 2024: layer-wise transfer beside the prompt's
computation); vLLM's NIXL connector and Mooncake (pull: blocks are allocated at the receiver first).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from pydantic import Field

from distsim.engine.communication import Communication
from distsim.errors import ConfigError, UnknownNameError
from distsim.kernel.clock import Clock
from distsim.network.model import Transfers
from distsim.params import Count, Parameters, parse, validated
from distsim.serving.batch import Batch
from distsim.serving.deployment import Deployment
from distsim.serving.kv.shards import Piece, pieces
from distsim.serving.replica import Replica
from distsim.serving.request import Request
from distsim.serving.router import Router
from distsim.serving.scheduler import Scheduler


class WholeParams(Parameters):
    """Keys and values are sent when the prompt is done."""


class LayerwiseParams(Parameters):
    """Keys and values are sent layer by layer."""

    parts: Count = Field(8, description="messages that the layers of a chunk are sent in")


MODES: Mapping[str, type[Parameters]] = {"whole": WholeParams, "layerwise": LayerwiseParams}


def parts_of(text: str) -> int:
    """Messages per chunk of ``whole`` (0) or ``layerwise:parts=8``. Raises UnknownNameError, ConfigError."""
    name, options = parse(text)
    if name not in MODES:
        raise UnknownNameError("way of sending keys and values", name, MODES, where="--kv-transfer")
    return int(getattr(validated(MODES[name], name, options), "parts", 0))


class Keeper(Protocol):
    """What a service is told (distsim.serving.service.Service)."""

    def ended(self, request: Request, replica: Replica) -> None:
        """A request is finished."""
        ...

    def drop(self, request: Request, reason: str) -> None:
        """A request ends unserved."""
        ...


class Station:
    """A replica that takes part: where its ranks are."""

    def __init__(self, replica: Replica, deployment: Deployment, hosts: Sequence[int]) -> None:
        self.replica, self.deployment, self.hosts = replica, deployment, tuple(hosts)

    def host(self, lane: int, rank: int) -> int:
        """Of a rank of a lane (see Piece)."""
        one = self.deployment
        stage, of_group = divmod(rank, one.tp)
        return self.hosts[(stage * one.dp + lane) * one.tp + of_group]


class Handoff:
    """A request between two replicas. States: open (its prompt is being computed), done (all is computed), landed.

    twin: the request at the decode side. sent: bytes of each piece so far. flying: transfers under way.
    """

    __slots__ = ("chunk", "computed", "done", "flying", "pieces", "request", "seated", "sent", "source", "target", "twin")

    def __init__(self, request: Request, source: Station, target: Station, twin: Request, found: tuple[Piece, ...]) -> None:
        self.request, self.source, self.target, self.twin, self.pieces = request, source, target, twin, found
        self.sent = [0] * len(found)
        self.computed = 0  #: tokens whose keys and values may be sent, in all layers
        self.chunk = (0, 0)  #: tokens whose first so many layers are computed, too
        self.seated = self.done = False
        self.flying = 0


class Disaggregation:
    """Takes requests from prefill replicas to decode replicas.

    sent: bytes that were sent. waits: ps from the end of a prompt to the landing of its keys and values, by row.
    """

    def __init__(
        self, clock: Clock, communication: Communication, service: Keeper, stations: Sequence[Station], router: Router,
        parts: int = 0,
    ) -> None:  # fmt: skip
        """stations: of all replicas, those of role ``both`` included. parts: 0 sends whole, see parts_of.

        Raises: ConfigError where one of the two roles has no replica, or the two do not fit each other.
        """
        self._clock, self._communication, self._service = clock, communication, service
        self._stations = {station.replica.number: station for station in stations}
        self._targets = [station.replica for station in stations if station.replica.role == "decode"]
        sources = [station for station in stations if station.replica.role == "prefill"]
        if not sources or not self._targets:
            raise ConfigError(
                f"{len(sources)} prefill and {len(self._targets)} decode replicas", expected="at least one of each",
                fix="Give pools of both roles, or --disaggregate prefill=N,decode=N.",
            )  # fmt: skip
        self._router, self._parts = router, parts
        self._open: dict[int, Handoff] = {}  #: by row
        self._pieces: dict[tuple[int, int], tuple[Piece, ...]] = {}
        self.sent = 0
        self.handed = 0
        self.waits: dict[int, int] = {}
        for station in stations:
            self.take_part(station)
        for source in sources:
            for target in self._targets:
                self._pieces_of(source, self._stations[target.number])

    def take_part(self, station: Station) -> None:
        """Let a replica take part."""
        replica = station.replica
        if replica.role == "prefill" and self._parts:
            replica.began = self._began
        if replica.role == "decode":
            for scheduler in _lanes(replica):
                scheduler.fetch = self._seated

    # --- what replicas tell ---------------------------------------------------------------------------------------------------

    def ended(self, request: Request, replica: Replica) -> None:
        """A replica is done with a request: what is told of every one (see Replica)."""
        if request.left and request.handoff:
            _lanes(replica)[request.lane].handed += request.blocks
            handoff = self._open.get(request.row) or self._begin(request, replica)
            if handoff is not None:
                handoff.done, handoff.computed, handoff.chunk = True, request.prefill, (0, 0)
                self._send(handoff)
            return
        opened = self._open.pop(request.row, None)
        if opened is not None:
            whole = opened.request
            whole.completed, whole.replica, whole.left = request.completed, request.replica, 0
            whole.restarts += request.restarts
            request = whole
        self._service.ended(request, replica)

    def _began(self, replica: Replica, batch: Batch) -> None:
        """An iteration with prompts begins, and its layers' keys and values will be there one after the other."""
        known = replica.stages == 1 and replica.runner is None
        ps = round(replica.times.times(batch.shape())[0] * replica.speed) if known else 0
        now = self._clock.now
        for request, new in batch.prefills:
            if not request.handoff or request.left == 1:
                continue
            handoff = self._open.get(request.row)
            if handoff is None:
                handoff = self._begin(request, replica)
                if handoff is None:
                    continue
            elif request.computed < handoff.computed:  # it starts anew
                handoff.sent = [0] * len(handoff.pieces)
            handoff.computed, handoff.chunk = request.computed, (0, 0)
            self._send(handoff)
            if known:
                layers = handoff.source.deployment.spec.layers
                for part in range(1, self._parts):
                    self._clock.call_at(now + ps * part // self._parts, self._computed, (
                        handoff, request.restarts, request.computed, new, layers * part // self._parts,
                    ))  # fmt: skip

    def _computed(self, call: Any) -> None:
        """Some layers of a chunk are computed."""
        handoff, restarts, before, new, layers = call.subject
        if handoff.done or handoff.request.restarts != restarts or handoff.computed != before:
            return
        handoff.chunk = (new, layers)
        self._send(handoff)

    def _seated(self, twin: Request) -> None:
        """The decode side has a seat and blocks for a request."""
        handoff = self._open[twin.row]
        if handoff.twin is twin:
            handoff.seated = True
            self._send(handoff)

    # --- sending --------------------------------------------------------------------------------------------------------------

    def _begin(self, request: Request, replica: Replica) -> Handoff | None:
        """Choose the decode side and queue there; None where it can never hold the request, which is dropped once its prompt
        is computed."""
        twin = Request(
            request.row, request.arrival, request.prompt, request.output, request.tenant, request.session, request.priority,
            request.hashes, request.deadline,
        )  # fmt: skip
        twin.computed = twin.prefill = request.prefill
        twin.left = request.output - 1
        twin.scheduled = twin.first = self._clock.now
        target = self._router.route(twin, self._targets)
        reason = target.scheduler.refusal(twin)
        if reason:
            if request.computed >= request.prefill:
                self._free(replica, request)
                self._service.drop(request, f"decode: {reason}")
            return None
        source, station = self._stations[replica.number], self._stations[target.number]
        handoff = self._open[request.row] = Handoff(request, source, station, twin, self._pieces_of(source, station))
        target.arrive(twin)
        return handoff

    def _send(self, handoff: Handoff) -> None:
        """Send what is computed and has not been sent, if there is room for it; land if that was all."""
        if not handoff.seated:
            return
        tokens, (chunk, layers) = handoff.computed, handoff.chunk
        source, target, request = handoff.source, handoff.target, handoff.request
        src, dst, sizes = [], [], []
        for at, piece in enumerate(handoff.pieces):
            done = tokens * (piece.last - piece.first) + chunk * max(0, min(piece.last, layers) - piece.first)
            size = int(done * piece.each) - handoff.sent[at]
            if size > 0:
                handoff.sent[at] += size
                src.append(source.host(request.lane, piece.src))
                dst.append(target.host(handoff.twin.lane, piece.dst))
                sizes.append(size)
        if sizes:
            handoff.flying += 1
            self.sent += sum(sizes)
            self._communication.carry(_together(src, dst, sizes), partial(self._came, handoff))
        elif handoff.done and not handoff.flying:
            self._land(handoff)

    def _came(self, handoff: Handoff) -> None:
        """A transfer has been delivered."""
        handoff.flying -= 1
        if handoff.done and not handoff.flying:
            self._land(handoff)

    def _land(self, handoff: Handoff) -> None:
        """All is there: the source's blocks are free, the request generates."""
        request, target, twin = handoff.request, handoff.target.replica, handoff.twin
        self.handed += 1
        self.waits[request.row] = self._clock.now - request.first
        self._free(handoff.source.replica, request)
        _lanes(target)[twin.lane].fetched(twin)
        target.poke()

    def _free(self, replica: Replica, request: Request) -> None:
        """The source's blocks are free."""
        _lanes(replica)[request.lane].handed -= request.blocks
        replica.scheduler.kv.release(request)
        replica.poke()

    def _pieces_of(self, source: Station, target: Station) -> tuple[Piece, ...]:
        key = (id(source.deployment), id(target.deployment))  # of pools, which outlive this
        found = self._pieces.get(key)
        if found is None:
            found = self._pieces[key] = pieces(source.deployment, target.deployment)
        return found

    @property
    def unfinished(self) -> int:
        """Handoffs that have not been finished by the decode side."""
        return len(self._open)


def _lanes(replica: Replica) -> list[Scheduler]:
    """The schedulers of a replica: one, or one for each lane."""
    found: list[Scheduler] = getattr(replica.scheduler, "lanes", None) or [replica.scheduler]
    return found


def _together(src: Sequence[int], dst: Sequence[int], sizes: Sequence[int]) -> Transfers:
    """Messages that set out together."""
    rows = len(sizes)
    return Transfers(
        np.array(src, np.int32), np.array(dst, np.int32), np.array(sizes, np.int64), np.zeros(rows + 1, np.int64),
        np.zeros(0, np.int32), np.zeros(rows, np.int64),
    )  # fmt: skip
