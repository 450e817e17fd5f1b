"""Sticky sessions: a conversation stays where its beginning was computed.

Rules (session affinity of vLLM's production stack, ``--routing-logic session``, and of any load balancer): the first request of
a session goes to the replica with the fewest requests, the later ones follow it there. If that replica does not take requests
now (failed, drained, full), the session moves, to the replica with the fewest requests, and stays there. Requests without a
session go to the replica with the fewest requests.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distsim.params import Parameters
from distsim.registry import register
from distsim.serving.replica import Replica
from distsim.serving.request import Request
from distsim.serving.routers.least_outstanding import least_outstanding


@register("router", "sticky")
class Sticky:
    """Where the session was served before; else the fewest requests."""

    class Params(Parameters):
        """None."""

    def __init__(self, params: Params, rng: np.random.Generator) -> None:
        self._home: dict[int, Replica] = {}  #: session -> where it lives

    def route(self, request: Request, replicas: Sequence[Replica]) -> Replica:
        """See distsim.serving.router.Router."""
        session = request.session
        if session < 0:
            return least_outstanding(replicas)
        home = self._home.get(session)
        if home is None or home not in replicas:
            home = self._home[session] = least_outstanding(replicas)
        return home
