"""What a replica computes in one iteration."""

from __future__ import annotations

from distsim.serving.cohort import Cohort
from distsim.serving.iteration import Shape
from distsim.serving.request import Request


class Batch:
    """prefills: (request, new tokens of its prefill), in order. decodes: those that generate; all advance by one token (with
    speculation by one at least).

    wait: ps that it waits for copies of keys and values. behind: ps that copies take beside it: it takes at least as long.
    """

    __slots__ = ("behind", "decodes", "prefills", "wait")

    def __init__(self, prefills: list[tuple[Request, int]], decodes: Cohort | None) -> None:
        self.prefills = prefills
        self.decodes = decodes
        self.wait = self.behind = 0

    def shape(self) -> Shape:
        """Before the iteration."""
        decodes = self.decodes
        pairs = []
        samples = 0
        for request, new in self.prefills:
            pairs.append((new, request.computed))
            if request.computed + new >= request.prefill:
                samples += 1
        if decodes is None:
            return Shape(tuple(pairs), 0, 0, 0, samples)
        n, width = len(decodes.members), decodes.width
        return Shape(tuple(pairs), n, decodes.kv, decodes.longest, samples + n * width, width)

    @property
    def requests(self) -> list[Request]:
        """All of them."""
        return [r for r, _ in self.prefills] + (list(self.decodes.members) if self.decodes is not None else [])
