"""Least outstanding: the replica with the fewest requests, waiting or being served.

Rules: the first among equals. It is the policy of load balancers that see requests go and answers come (Envoy's
``LEAST_REQUEST`` over all hosts, NGINX's ``least_conn``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distsim.params import Parameters
from distsim.registry import register
from distsim.serving.replica import Replica
from distsim.serving.request import Request


@register("router", "least_outstanding")
class LeastOutstanding:
    """The fewest requests, waiting or being served; the first among equals."""

    class Params(Parameters):
        """None."""

    def __init__(self, params: Params, rng: np.random.Generator) -> None:
        pass

    def route(self, request: Request, replicas: Sequence[Replica]) -> Replica:
        """See distsim.serving.router.Router."""
        return least_outstanding(replicas)


def least_outstanding(replicas: Sequence[Replica]) -> Replica:
    """The first of those with the fewest requests."""
    return min(replicas, key=_outstanding)


def _outstanding(replica: Replica) -> int:
    return replica.scheduler.outstanding
