"""Least *queued* requests, as Vidur has it under the name of least outstanding requests.

Rules (Vidur, ``scheduler/global_scheduler/lor_global_scheduler.py``): the replica with the fewest requests that wait for
admission; those that are being served do not count; the first among equals. Under light load all queues are empty, and the
first replica gets nearly everything: ``least_outstanding`` is what the name promises.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distsim.params import Parameters
from distsim.registry import register
from distsim.serving.replica import Replica
from distsim.serving.request import Request


@register("router", "lor")
class Lor:
    """The fewest requests that wait for admission; the first among equals."""

    class Params(Parameters):
        """None."""

    def __init__(self, params: Params, rng: np.random.Generator) -> None:
        pass

    def route(self, request: Request, replicas: Sequence[Replica]) -> Replica:
        """See distsim.serving.router.Router."""
        return min(replicas, key=_queued)


def _queued(replica: Replica) -> int:
    return replica.queued
