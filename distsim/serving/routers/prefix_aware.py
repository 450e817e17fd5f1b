"""Prefix-aware: where most of the prompt is in the cache already, unless that replica has far too much to do.

Rules (``cache_aware`` of SGLang's and vLLM's routers, with their defaults): while the busiest replica has more than
``absolute`` requests over the idlest *and* more than ``relative`` times as many, the replica with the fewest requests is taken.
Otherwise the one whose cache holds most of the prompt, if that is more than ``threshold`` of it; else the one with the fewest
requests. Among equals the fewest requests, then the first.

Those routers guess what is cached from what they have sent; this one looks, at the instant of the arrival, as routers do that
follow the replicas' KV events (llm-d, "precise prefix cache"). A prefix that is still being computed is found only when its
blocks are given out.

Source: SGLang documentation, "SGLang Model Gateway", ``--cache-threshold``, ``--balance-abs-threshold``,
``--balance-rel-threshold``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from distsim.params import Parameters
from distsim.registry import register
from distsim.serving.replica import Replica
from distsim.serving.request import Request
from distsim.serving.routers.least_outstanding import least_outstanding


@register("router", "prefix_aware")
class PrefixAware:
    """The longest cached beginning, balanced against load."""

    class Params(Parameters):
        """Defaults are SGLang's and vLLM's."""

        threshold: float = Field(0.3, ge=0, le=1, description="share of the prompt that must be in the cache, or load decides")
        absolute: int = Field(64, ge=0, description="requests that the busiest may have over the idlest")
        relative: float = Field(1.5, ge=1, description="times as many requests as the idlest that the busiest may have")

    def __init__(self, params: Params, rng: np.random.Generator) -> None:
        self._params = params

    def route(self, request: Request, replicas: Sequence[Replica]) -> Replica:
        """See distsim.serving.router.Router."""
        params = self._params
        idlest = least_outstanding(replicas)
        if not request.hashes:
            return idlest
        loads = [replica.outstanding for replica in replicas]
        least, most = idlest.outstanding, max(loads)
        if most - least > params.absolute and most > params.relative * least:
            return idlest
        found, _, at = max((replica.match(request), -loads[at], -at) for at, replica in enumerate(replicas))
        return replicas[-at] if found > params.threshold * request.prefill else idlest
