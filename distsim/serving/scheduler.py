"""What all batching policies have in common: the queue, who computes a prompt, who generates, what an iteration does to them.

A policy is one file in ``schedulers/``: a subclass with ``next_batch``, and ``steady`` where its own rules end a stretch
earlier than those here do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from pydantic import Field

from distsim.params import Parameters
from distsim.serving.batch import Batch
from distsim.serving.cohort import Cohort
from distsim.serving.kv.blocks import Blocks
from distsim.serving.kv.prefix import PrefixBlocks
from distsim.serving.kv.swap import Swap
from distsim.serving.kv.transfers import Transfers
from distsim.serving.request import Request
from distsim.serving.speculation import Acceptance, SpeculativeCohort


class SchedulerParams(Parameters):
    """What every policy can be told."""

    block: int = Field(16, ge=1, description="tokens of a KV block")


class Scheduler:
    """Decides, whenever a replica may start an iteration, what it computes. It knows no time.

    waiting: not admitted, first come first. prefilling: admitted, with part of the prefill to compute, in order.
    pool: those that generate. What is in a batch that runs is in none of them until ``finish``.
    """

    Params: type[SchedulerParams] = SchedulerParams
    #: the kind of cache that finds prefixes
    Cache: type[PrefixBlocks] = PrefixBlocks
    #: requests reserve the blocks they will need at admission, and do not take blocks as they grow
    reserves = False
    #: whether it can be told that sequences advance by several tokens at once
    speculates = True
    #: copies of keys and values that iterations wait for, None where there never are any
    transfers: Transfers | None = None
    #: where to keys and values of preempted requests are copied; None: they are computed anew
    swap: Swap | None = None
    #: how many tokens come out of an iteration; None: one of each request
    acceptance: Acceptance | None = None

    def __init__(self, params: Any, kv: Blocks, stages: int = 1) -> None:
        """stages: pipeline stages, that is, batches that may run at once."""
        self.params = params
        self.kv = kv
        self.stages = stages
        self.waiting: deque[Request] = deque()
        self.landed: deque[Request] = deque()  #: came with keys and values and their first token, from another replica
        self.fetching: list[Request] = []  #: seated, their keys and values are on their way
        self.handed = 0  #: KV blocks of requests that have been handed on, and whose keys and values are not sent yet
        self.fetch: Callable[[Request], None] | None = None  #: lets keys and values come; None: they come with the request
        self.prefilling: list[Request] = []
        self.swapped: deque[Request] = deque()  #: preempted, with keys and values in the host's memory
        self.pool = self.cohort()
        self._spare: Cohort | None = None  #: an empty cohort for the next take_pool
        self.seated = 0  #: requests admitted and not finished, those in running batches included
        self.preemptions = 0
        self._preempted = 0  #: preemptions that steady() has seen

    def cohort(self) -> Cohort:
        """An empty cohort of this policy's kind."""
        block = 0 if self.reserves else self.kv.block
        return Cohort(block) if self.acceptance is None else SpeculativeCohort(block, self.acceptance)

    def speculate(self, acceptance: Acceptance) -> None:
        """Before anything has come: let sequences advance by as many tokens as ``acceptance`` draws."""
        self.acceptance = acceptance
        self.pool, self._spare = self.cohort(), None

    # --- what a policy decides ------------------------------------------------------------------------------------------------

    def next_batch(self) -> Batch | None:
        """The batch of the next iteration, with its KV blocks taken; None if there is nothing to compute, or nothing fits."""
        raise NotImplementedError

    def steady(self, batch: Batch) -> int:
        """next_batch() has just returned ``batch``, which only generates: for how many iterations in all (at least 1) would it
        return the same if nobody arrived? A short answer is never wrong, only slower.

        Here: until the first of them is done, and while there are blocks for all of them. What waits stays blocked meanwhile:
        free blocks only become fewer, and nobody leaves.
        """
        return self._steady(batch, 0)

    def _steady(self, batch: Batch, spare: int) -> int:
        """The same, with ``spare`` blocks that have to stay free."""
        decodes = batch.decodes
        assert decodes is not None
        # NOTE: whoever has just been preempted has not been considered for admission yet
        if self.preemptions != self._preempted or self.pool.members or self.prefilling:
            self._preempted = self.preemptions
            return 1
        return 1 + decodes.headroom(self.kv.free - spare, decodes.until_end() - 1)

    def heeds(self, request: Request) -> bool:
        """Whether ``request``, which has just joined the queue, may change what next_batch returns next: not if others wait
        before it, which are blocked until somebody leaves."""
        queue = self.landed or self.waiting
        return queue[0] is request

    def refusal(self, request: Request) -> str:
        """Why a request can never be served, empty if it can."""
        need = self.kv.need(request.prompt + request.output - 1)
        return "longer than the KV cache" if need > self.kv.total else ""

    # --- what happens to requests ------------------------------------------------------------------------------------------

    def enqueue(self, request: Request) -> None:
        """A request has come to this replica."""
        (self.landed if request.computed >= request.prefill else self.waiting).append(request)

    @property
    def idle(self) -> bool:
        """Nobody waits and nobody is served."""
        return not self.waiting and not self.seated and not self.landed and not self.swapped

    @property
    def in_flight(self) -> int:
        """Requests in batches that run."""
        return self.seated - len(self.pool.members) - len(self.prefilling) - len(self.fetching)

    @property
    def outstanding(self) -> int:
        """Requests here, waiting or admitted."""
        return len(self.waiting) + len(self.landed) + len(self.swapped) + self.seated

    @property
    def unread(self) -> int:
        """Tokens of prompts that nobody has begun to compute, or that wait for their next part."""
        total = sum(request.prefill - request.computed for request in self.waiting)
        return total + sum(request.prefill - request.computed for request in self.prefilling)

    def take_pool(self) -> Cohort:
        """All that generate, for a batch."""
        taken = self.pool
        self.pool = self.cohort() if self._spare is None else self._spare
        self._spare = None
        return taken

    def extend(self, batch: Batch, count: int) -> None:
        """A batch that only generates runs ``count`` further iterations, as ``steady`` allowed: blocks for them."""
        decodes = batch.decodes
        assert decodes is not None
        blocks = decodes.grown(count)
        if blocks:
            self.kv.take(blocks)

    def seat_landed(self, most: int) -> None:
        """Requests that have come with their keys and values generate from now on, while fewer than ``most`` are admitted and
        there are blocks for what they bring and the next token. A policy calls this before it looks at its pool."""
        while self.landed and self.seated < most:
            request = self.landed[0]
            blocks = self.kv.need(request.computed)
            if blocks + (request.computed % self.kv.block == 0) > self.kv.free:
                return
            self.landed.popleft()
            self.kv.admit(request, 0, blocks)
            self.join(request)

    def join(self, request: Request) -> None:
        """A request that has landed has blocks. It takes a seat and generates, at once or when its keys and values are here."""
        self.seated += 1
        if self.fetch is None:
            self.pool.add(request)
        else:
            self.fetching.append(request)
            self.fetch(request)

    def fetched(self, request: Request) -> None:
        """The keys and values of a request have come."""
        self.fetching.remove(request)
        self.pool.add(request)

    def preempt(self, request: Request) -> None:
        """One of the pool or of those prefilling gives up its blocks: to be recomputed it goes to the head of the queue, or its
        keys and values go to the host (``swap``)."""
        self.seated -= 1
        self.preemptions += 1
        if request.cohort is None:
            self.prefilling.remove(request)
        else:
            request.cohort.remove(request)
            if self.swap is not None and self.swap.put(request, self.kv.need(request.computed)):
                self.kv.release(request)
                self.swapped.appendleft(request)
                return
        self.kv.release(request)
        request.restart()
        self.waiting.appendleft(request)

    def seat_swapped(self, most: int, watermark: int = 0) -> int:
        """Requests whose keys and values are on the host come back and generate, in order, while fewer than ``most`` are
        admitted and there are blocks for what they bring and the next token, ``watermark`` more than those. A policy calls this
        when those that run have their blocks. Returns how many came: they are the last of the pool, with blocks for the next
        iteration.
        """
        came, kv, pool = 0, self.kv, self.pool
        assert self.swap is not None
        while self.swapped and self.seated < most:
            request = self.swapped[0]
            blocks = kv.need(request.computed)
            if kv.need(request.computed + min(pool.width, request.left)) + watermark > kv.free:
                break
            self.swapped.popleft()
            self.swap.take(request)
            kv.admit(request, 0, blocks)
            self.seated += 1
            pool.add(request)
            kv.take(pool.begins(request))
            came += 1
        return came

    def finish(self, batch: Batch, count: int, now: int) -> list[Request]:
        """``count`` iterations of a batch have ended now (more than one only of a batch that only generates): tokens come out.
        Returns the requests that are done here; blocks of those that are handed on are still taken."""
        done: list[Request] = []
        decodes = batch.decodes
        if decodes is not None:
            done = decodes.advance(count)
            if not self.pool.members:
                self._spare, self.pool = self.pool, decodes
            else:
                self.pool.absorb(decodes)
        for request, new in batch.prefills:
            request.computed += new
            if request.computed < request.prefill:
                self.prefilling.append(request)
                continue
            request.left -= 1
            if request.first < 0:
                request.first = now
            if request.left and not request.handoff:
                self.pool.add(request)
            else:
                done.append(request)
        for request in done:
            if request.left:
                self.seated -= 1
                continue  # handed on: its blocks are released when they have been sent
            request.completed = now
            self.vacate(request)
        return done

    def vacate(self, request: Request) -> None:
        """A request is done: its seat and its blocks are free."""
        self.seated -= 1
        self.kv.release(request)

    def progress(self, batch: Batch, count: int) -> None:
        """``count`` iterations of a batch that only generates have ended, of those that ``steady`` allowed and before anybody
        is done; the next one is under way."""
        self.extend(batch, count)
        assert batch.decodes is not None
        batch.decodes.advance(count)

    def abort(self, request: Request) -> bool:
        """Give up a request that is in no batch: it leaves, its blocks come free. False if it is in one, or nowhere here."""
        if self.withdraw(request):
            return True
        if request in self.landed:
            self.landed.remove(request)
            return True
        if request in self.swapped:
            assert self.swap is not None
            self.swapped.remove(request)
            self.swap.drop(request)
            return True
        if request.cohort is self.pool:
            self.pool.remove(request)
        elif request in self.prefilling:
            self.prefilling.remove(request)
        else:
            return False
        self.kv.release(request)
        self.seated -= 1
        return True

    def withdraw(self, request: Request) -> bool:
        """Take a request out of the queue (its client has given up). False if it is not waiting."""
        try:
            self.waiting.remove(request)
        except ValueError:
            return False
        return True
