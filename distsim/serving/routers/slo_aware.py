"""SLO-aware: where the time to the first token is predicted to be short enough.

Rules: for each replica the time to the first token is predicted as

    tokens = prompt tokens that wait or are being computed there, and this prompt, less what the prefix cache spares it
    iterations = ceil(tokens / chunk), chunk = min(tokens, ``chunk``)
    TTFT = iterations * duration of an iteration with one chunk beside all that are admitted now, at their KV use

Of the replicas that promise at most ``ttft``, the one with the fewest requests is taken; if none does, the one that promises
the shortest. It is the idea of Mooncake's conductor (Qin et al., "Mooncake: a
KVCache-centric disaggregated architecture", 2024, algorithm 1) without its transfers. The prediction knows no future: it takes
nobody to leave meanwhile, and everybody to be admitted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from distsim.params import Count, Parameters
from distsim.registry import register
from distsim.serving.durations import Duration, ps
from distsim.serving.iteration import Shape
from distsim.serving.replica import Replica
from distsim.serving.request import Request
from distsim.serving.routers.least_outstanding import least_outstanding


@register("router", "slo_aware")
class SloAware:
    """Where the first token is promised in time; else where it is promised first."""

    class Params(Parameters):
        """The promise."""

        ttft: Duration = Field("1s", description="time to the first token that is good enough")
        chunk: Count = Field(2048, description="prompt tokens of an iteration, for the prediction")

    def __init__(self, params: Params, rng: np.random.Generator) -> None:
        self._ttft = ps(params.ttft)
        self._chunk = params.chunk

    def route(self, request: Request, replicas: Sequence[Replica]) -> Replica:
        """See distsim.serving.router.Router."""
        promised = [self.predicted(request, replica) for replica in replicas]
        good = [replica for replica, ttft in zip(replicas, promised, strict=True) if ttft <= self._ttft]
        return least_outstanding(good) if good else replicas[promised.index(min(promised))]

    def predicted(self, request: Request, replica: Replica) -> int:
        """ps until the first token, on an idle network."""
        tokens = replica.unread + request.prefill - replica.match(request)
        chunk = min(tokens, self._chunk)
        running = replica.scheduler.seated
        kv = replica.used * replica.scheduler.kv.block
        shape = Shape(((chunk, 0),), running, kv if running else 0, kv // running if running else 0, running + 1)
        iteration = sum(replica.times.times(shape)) * replica.speed
        return round(-(-tokens // chunk) * iteration)
