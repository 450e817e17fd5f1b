"""Least KV use: the replica with the smallest share of its KV blocks in use.

Rules: blocks that requests hold, of all there are, at the instant of the arrival (contents that only wait to be found again do
not count); among equals the fewest requests, then the first. It weighs requests by their length, where least_outstanding
counts heads (the KV-cache utilisation scorer of the Kubernetes Gateway API Inference Extension does the same).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distsim.params import Parameters
from distsim.registry import register
from distsim.serving.replica import Replica
from distsim.serving.request import Request


@register("router", "kv_aware")
class KvAware:
    """The smallest share of KV blocks in use."""

    class Params(Parameters):
        """None."""

    def __init__(self, params: Params, rng: np.random.Generator) -> None:
        pass

    def route(self, request: Request, replicas: Sequence[Replica]) -> Replica:
        """See distsim.serving.router.Router."""
        return min(replicas, key=_load)


def _load(replica: Replica) -> tuple[float, int]:
    return replica.used / replica.scheduler.kv.total, replica.outstanding
