"""Static batching, as FasterTransformer: a batch is formed once and runs until its last request is done.

Rules (NVIDIA FasterTransformer; the replica scheduler ``faster_transformer`` of Vidur):
- While no batch waits for its next iteration, one is formed from the head of the queue: at most ``max_num_seqs`` requests, each
  with KV blocks reserved for ``max_len`` tokens.
- Its first iteration computes the prompts, every further one a token of all that are not done. Nobody joins. Requests that come
  with their prompt computed elsewhere make batches of their own.
- The batch gives its blocks back when its last request is done.
"""

from __future__ import annotations

from pydantic import Field

from distsim.registry import register
from distsim.serving.batch import Batch
from distsim.serving.cohort import Cohort
from distsim.serving.kv.blocks import Blocks
from distsim.serving.request import Request
from distsim.serving.schedulers.orca import Reserving, ReservingParams


class _Group(Batch):
    """A batch for all of its iterations. ended: requests that are done and hold their blocks until the others are."""

    __slots__ = ("ended",)

    def __init__(self, prefills: list[tuple[Request, int]], decodes: Cohort | None = None) -> None:
        super().__init__(prefills, decodes)
        self.ended: list[Request] = []


@register("scheduler", "static")
class Static(Reserving):
    """Batches that nobody joins, and that hold their memory until the last of them is done."""

    class Params(ReservingParams):
        """Defaults are Vidur's."""

        leaks: bool = Field(
            False, description="as Vidur: what is done before the last iteration of its batch never gives its blocks back"
        )

    params: Params

    def __init__(self, params: Params, kv: Blocks, stages: int = 1) -> None:
        super().__init__(params, kv, stages)
        self._groups: list[_Group] = []  #: between two iterations

    def next_batch(self) -> Batch | None:
        """See the module."""
        if self._groups:
            return self._groups.pop(0)
        if self.landed:
            self.seat_landed(self.seated + self.params.max_num_seqs)
        if self.pool.members:
            return _Group([], self.take_pool())
        prefills = self.admitted(self.params.max_num_seqs)
        return _Group(prefills) if prefills else None

    def heeds(self, request: Request) -> bool:
        """Not before the only batch that runs is done."""
        return super().heeds(request) and not (self.stages == 1 and self.seated)

    def finish(self, batch: Batch, count: int, now: int) -> list[Request]:
        """See Scheduler.finish."""
        assert isinstance(batch, _Group)
        if batch.decodes is not None:
            done = batch.decodes.advance(count)
        else:
            done = []
            batch.decodes = self.cohort()
            for request, new in batch.prefills:
                request.computed += new
                request.left -= 1
                if request.first < 0:
                    request.first = now
                if request.left and not request.handoff:
                    batch.decodes.add(request)
                else:
                    done.append(request)
            batch.prefills = []
        ended = [request for request in done if not request.left]  # the others are handed on, with their blocks
        for request in ended:
            request.completed = now
        self.seated -= len(done)
        if batch.decodes.members:
            batch.ended.extend(ended)
            self._groups.append(batch)
        else:
            for request in ended if self.params.leaks else [*batch.ended, *ended]:
                self.kv.release(request)
        return done
