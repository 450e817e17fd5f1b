"""One measured serving point, simulated: clients that each send the next request when they have their answer.

An aggregated point is a closed loop on one replica, from its start (all clients at once) through ten requests per client, as
it was measured. A disaggregated one is simpler: prompts wait for the first free prefill worker, then generate on decode workers
whose batches are full; moving the cache is not timed.
"""

from __future__ import annotations

from functools import lru_cache
from heapq import heappop, heappush, heapreplace
from typing import NamedTuple

import numpy as np

from distsim.errors import ConfigError
from distsim.kernel.clock import Clock
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

#: requests per client (aiconfigurator's and InferenceX's benchmarks), and so many at most, two per client at least: a thousand
#: clients would take hours
PER_CLIENT, MOST = 10, 1280
#: ps from a client's sending to the server's queue: HTTP, tokeniser; assumed. What matters is that the request that follows an
#: answer misses the iteration that begins meanwhile
FRONT = 5 * PS_PER_MS
_SEED = 0


class Point(NamedTuple):
    """Means over all requests, ms."""

    ttft: float
    tpot: float


@lru_cache(maxsize=64)
def times_of(deployment: Deployment) -> ModelTimes:
    """Iteration times, shared by points of one deployment."""
    return ModelTimes(deployment)


def predict(case: Case) -> Point:
    """Raises ConfigError where the point cannot be simulated: the model or a request does not fit."""
    if case.prefill is not None:
        return _apart(case)
    blocks = kv_blocks(case.deployment)
    times = times_of(case.deployment)
    table = _requests(case)
    clock, log = Clock(), IterationLog()
    router = lookup("router", "round_robin")
    service = Service(clock, table, router(router.Params(), np.random.default_rng(_SEED)), case.clients, FRONT)
    scheduler = make_scheduler(f"{case.scheduler},block={case.deployment.block}", blocks, times.stages)
    service.start([Replica(0, clock, scheduler, times, log, service.ended)])
    clock.run()
    if service.dropped or service.unfinished:
        raise ConfigError("requests are longer than the KV cache")
    served = [request for request in service.requests if request is not None]
    first = np.array([request.first - request.arrival for request in served]) + FRONT
    each = np.array([(request.completed - request.first) / max(1, request.output - 1) for request in served])
    return Point(float(first.mean()) / PS_PER_MS, float(each.mean()) / PS_PER_MS)


def _requests(case: Case) -> Requests:
    n = max(2 * case.clients, min(PER_CLIENT * case.clients, MOST))
    rng = np.random.default_rng(_SEED)
    prompt, output = (
        rng.integers(int(nominal * case.shortest), nominal + 1, n) if case.shortest < 1 else np.full(n, nominal)
        for nominal in (case.isl, case.osl)
    )
    return requests_of(np.zeros(n, np.int64), prompt.astype(np.int64), output.astype(np.int64))


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
    while len(waits) < max(2 * case.clients, min(PER_CLIENT * case.clients, MOST)):
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
