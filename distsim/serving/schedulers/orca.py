"""Orca: iteration-level scheduling. Requests join and leave between iterations; room for the longest there can be is reserved.

Rules (Yu et al., "Orca: a distributed serving system for transformer-based generative models", OSDI 2022; the replica scheduler
``orca`` of Vidur):
- An iteration takes all that generate, one token each, then the queue in order, whole prompts, up to ``max_num_seqs`` requests.
- Admission reserves KV blocks for ``max_len`` tokens, whatever the request turns out to need; so nobody is ever preempted.
"""

from __future__ import annotations

from pydantic import Field

from distsim.params import Count
from distsim.registry import register
from distsim.serving.batch import Batch
from distsim.serving.request import Request
from distsim.serving.scheduler import Scheduler, SchedulerParams


class ReservingParams(SchedulerParams):
    """Of policies that reserve the longest possible request. Defaults are Vidur's."""

    max_num_seqs: Count = Field(128, description="requests in a batch")
    max_len: Count = Field(4096, description="tokens that are reserved for every request")


class Reserving(Scheduler):
    """What ``orca`` and ``static`` have in common: admission in order while there is room for ``max_len`` tokens."""

    Params: type[ReservingParams] = ReservingParams
    params: ReservingParams
    reserves = True

    @property
    def _room(self) -> int:
        """Blocks of a request. NOTE: whole blocks only, as in Vidur."""
        return self.params.max_len // self.kv.block

    def refusal(self, request: Request) -> str:
        """See Scheduler.refusal."""
        if request.prompt + request.output - 1 > self.params.max_len:
            return "longer than max_len"
        return "longer than the KV cache" if self._room > self.kv.total else ""

    def seat_landed(self, most: int) -> None:
        """See Scheduler.seat_landed: with room for the longest, as everybody."""
        while self.landed and self.seated < most and self.kv.free >= self._room:
            request = self.landed.popleft()
            self.kv.admit(request, 0, self._room)
            self.join(request)

    def admitted(self, most: int) -> list[tuple[Request, int]]:
        """At most so many from the queue, with their whole prompts."""
        kv, waiting, room = self.kv, self.waiting, self._room
        chosen: list[tuple[Request, int]] = []
        while waiting and len(chosen) < most and kv.free >= room:
            request = waiting.popleft()
            kv.admit(request, 0, room)
            self.seated += 1
            chosen.append((request, request.prefill))
        return chosen


@register("scheduler", "orca")
class Orca(Reserving):
    """Whole prompts beside generation; room for the longest request is reserved."""

    def next_batch(self) -> Batch | None:
        """See the module."""
        if self.landed:
            self.seat_landed(self.params.max_num_seqs)
        count = min(len(self.pool.members), self.params.max_num_seqs)
        prefills = self.admitted(self.params.max_num_seqs - count) if self.waiting else []
        if not count:
            return Batch(prefills, None) if prefills else None
        return Batch(prefills, self.take_pool() if count == len(self.pool.members) else self.pool.split(count))
