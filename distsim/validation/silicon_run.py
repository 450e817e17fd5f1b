"""One measured serving point, simulated: clients that each send the next request when they have their answer.

An aggregated point is a closed loop on one replica, from its start (all clients at once) through ten requests per client, as
it was measured. Of many clients fewer requests are simulated: the start, what comes after it, and the end, with the weights
that they have among ten (``_weights``). Prompts pass a front end, which makes tokens of one after the other. Where prompts come
again, a warm-up of two requests per client has gone before, and has been waited for. A disaggregated one is simpler: prompts
wait for the first free prefill worker, then generate on decode workers whose batches are full; moving the cache is not timed.
"""

from __future__ import annotations

from functools import lru_cache
from heapq import heappop, heappush, heapreplace
from typing import NamedTuple

import numpy as np

from distsim.cost.chain import Chain, default_chain
from distsim.errors import ConfigError
from distsim.hardware.gpu import gpu as gpu_named
from distsim.kernel.clock import LATE, Clock
from distsim.registry import lookup
from distsim.serving.deployment import Deployment
from distsim.serving.fleet import make_scheduler
from distsim.serving.iteration import Shape
from distsim.serving.kv.sizes import kv_blocks
from distsim.serving.log import IterationLog
from distsim.serving.replica import Replica
from distsim.serving.requests.table import Requests, requests_of
from distsim.serving.service import Service
from distsim.serving.times.model import ModelTimes
from distsim.units import PS_PER_MS
from distsim.validation.silicon_rows import Case, Stage

#: requests per client (aiconfigurator's and InferenceX's benchmarks)
PER_CLIENT = 10
#: all of them are simulated up to so many requests; else five per client, up to so many, and three at least. Against all ten
#: that moves a point's time to the first token by 1.4 % in the mean (0.1 % in bias), its time per token by 0.1 %
_ALL, _FIVE = 160, 1280
#: ps from a client's sending to the server's queue: HTTP, tokeniser; assumed. What matters is that the request that follows an
#: answer misses the iteration that begins meanwhile
FRONT = 5 * PS_PER_MS
#: ps per token of a prompt in the tokeniser, one prompt after the other: 1.1 s for a million tokens (C. Xu, "3.3x faster
#: HuggingFace tokenizers for single sequence", 2025, before; 2.7 to 4 MiB/s elsewhere, which is the same at 4 bytes a token)
TOKENISE = 1_100_000
#: requests per client in the warm-up
_WARM = 2
_SEED = 0


class Point(NamedTuple):
    """Means over all requests, ms."""

    ttft: float
    tpot: float


@lru_cache(maxsize=64)
def times_of(deployment: Deployment) -> ModelTimes:
    """Iteration times, shared by points of one deployment."""
    return ModelTimes(deployment, chain=_chain(deployment.gpu))


@lru_cache(maxsize=2)
def _chain(gpu: str) -> Chain:
    """Durations of kernels, shared by deployments on one GPU: many differ in what no kernel sees."""
    return default_chain(gpu_named(gpu), kernels="serving")


class _Clients(Service):
    """Clients whose prompts wait for the tokeniser. sent: ps at which each request left its client, by row."""

    def __init__(self, case: Case, clock: Clock, table: Requests) -> None:
        router = lookup("router", "round_robin")
        super().__init__(clock, table, router(router.Params(), np.random.default_rng(_SEED)), case.clients, FRONT)
        self.sent: list[int] = [0] * len(table)
        # NOTE: one data parallel rank is simulated, the tokeniser serves them all
        self._each: list[int] = (table.prompt * (TOKENISE * case.deployment.dp)).tolist()
        self._free = 0

    def _follow(self, _: object) -> None:
        """See Service._follow: the request enters when its tokens are made."""
        if self._next < len(self._order):
            row, now = self._order[self._next], self.clock.now
            self._next += 1
            self.sent[row] = now
            self._free = max(self._free, now) + self._each[row]
            self.clock.call_at(self._free, lambda _: self._enter(row), priority=LATE)


def predict(case: Case) -> Point:
    """Raises ConfigError where the point cannot be simulated: the model or a request does not fit."""
    if case.prefill is not None:
        return _apart(case)
    blocks, block = kv_blocks(case.deployment), case.deployment.block
    model = times_of(case.deployment)
    # NOTE: equal prompts are equal to the end, so that one number stands for all their full blocks but that of the last token
    whole = (case.isl - 1) // block * block if case.prompts else 0
    scheduler = make_scheduler(f"{case.scheduler},block={block}", blocks, model.stages, whole)
    clock, log = Clock(), IterationLog()
    for table in _requests(case, whole):  # the last one counts
        service = _Clients(case, clock, table)
        service.start([Replica(0, clock, scheduler, model, log, service.ended)])
        clock.run()
        if service.dropped or service.unfinished:
            raise ConfigError("requests are longer than the KV cache")
    served = [request for request in service.requests if request is not None]
    first = np.array([request.first - service.sent[request.row] for request in served]) + FRONT
    each = np.array([(request.completed - request.first) / max(1, request.output - 1) for request in served])
    waves = len(served) // case.clients
    of_first, of_each = (
        float(np.dot(weights, times.reshape(waves, -1).mean(axis=1))) / PS_PER_MS
        for times, weights in zip((first, each), _weights(waves), strict=True)
    )
    return Point(of_first, of_each)


def _waves(clients: int) -> int:
    """Requests per client to be simulated."""
    return PER_CLIENT if PER_CLIENT * clients <= _ALL else min(5, max(3, _FIVE // clients))


def _weights(waves: int) -> tuple[list[float], list[float]]:
    """Shares of the first, second, ... request per client in the means over PER_CLIENT: times to the first token, per token.

    Those not simulated are like the last two, or, as the last ones have the replica more and more to themselves, per token
    like those in between.
    """
    more = PER_CLIENT - waves
    first = [1.0] * (waves - 2) + [1 + more / 2] * 2
    each = [1.0] + [1 + more / (waves - 2)] * (waves - 2) + [1.0]
    return [one / PER_CLIENT for one in first], [one / PER_CLIENT for one in each]


def _requests(case: Case, whole: int) -> list[Requests]:
    """Those of the warm-up, if any, and those that are measured. whole: tokens that a repeated prompt is found by."""
    counts = [_WARM * case.clients] if whole else []
    counts.append(_waves(case.clients) * case.clients)
    rng = np.random.default_rng(_SEED)
    drawn = _shuffled(rng, case.prompts, sum(counts)) if whole else []
    tables = []
    for n in counts:
        prompt, output = (
            rng.integers(int(nominal * case.shortest), nominal + 1, n) if case.shortest < 1 else np.full(n, nominal)
            for nominal in (case.isl, case.osl)
        )
        hashes = {row: (number,) for row, number in enumerate(drawn[:n])}
        drawn = drawn[n:]
        start = np.zeros(n, np.int64)
        tables.append(requests_of(
            start, prompt.astype(np.int64), output.astype(np.int64), hashes=hashes, hash_block=whole or case.deployment.block
        ))  # fmt: skip
    return tables


def _shuffled(rng: np.random.Generator, prompts: int, n: int) -> list[int]:
    """n of ``prompts`` numbers from 1 on: all of them in random order, again and again."""
    return [1 + int(number) for _ in range(-(-n // prompts)) for number in rng.permutation(prompts)][:n]


def _apart(case: Case) -> Point:
    """Prefill workers as a queue with batches, decode workers at their full batch."""
    prefill, decode = case.prefill, case.decode
    assert prefill is not None
    assert decode is not None
    for stage in (prefill, decode):
        kv_blocks(stage.deployment)
    generating = _generating(decode, case)
    times, ranks = times_of(prefill.deployment), prefill.deployment.dp
    free = [0] * prefill.workers
    arrivals = [0] * case.clients  # NOTE: equal numbers are a heap
    waits: list[int] = []
    while len(waits) < _waves(case.clients) * case.clients:
        start = max(arrivals[0], free[0])
        came: list[int] = []
        while arrivals and arrivals[0] <= start and len(came) < prefill.batch * ranks:
            came.append(heappop(arrivals))
        each = -(-len(came) // ranks)
        ended = start + sum(times.times(Shape(((case.isl, 0),) * each, 0, 0, 0, each)))
        heapreplace(free, ended)
        for arrival in came:
            waits.append(ended - arrival + FRONT)
            heappush(arrivals, ended + generating + FRONT)
    return Point(float(np.mean(waits)) / PS_PER_MS, generating / max(1, case.osl - 1) / PS_PER_MS)


def _generating(decode: Stage, case: Case) -> int:
    """ps of all tokens after the first, in a full batch whose requests are all of the mean length."""
    times = times_of(decode.deployment)
    length = case.isl + case.osl // 2
    shape = Shape((), decode.batch, decode.batch * length, case.isl + case.osl, decode.batch)
    return sum(times.times(shape)) * (case.osl - 1)
