"""The role ``router``: which replica a request goes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from distsim.serving.replica import Replica
from distsim.serving.request import Request


class Router(Protocol):
    """Made with its Params and a generator for what it draws: ``Name(params, rng)``."""

    def route(self, request: Request, replicas: Sequence[Replica]) -> Replica:
        """One of ``replicas``, which are those that take requests now, in order of their numbers; at least one."""
        ...
