"""Copies of keys and values between a GPU and the memories below it, and how long an iteration is for them."""

from __future__ import annotations

from distsim.serving.batch import Batch


class Transfers:
    """What has been copied since the last iteration began. One per scheduler; it is charged to the next batch.

    Copies that block come before the iteration, one after the other. Copies in the background run beside it, layer by layer:
    the next layer's keys and values come while a layer computes, so that the iteration takes at least as long as they do.
    """

    __slots__ = ("_background", "_blocking", "copied")

    def __init__(self) -> None:
        self._blocking = self._background = 0
        self.copied = 0  #: ps of all copies so far

    def add(self, ps: int, *, background: bool = False) -> None:
        """A copy that takes ``ps`` alone."""
        self.copied += ps
        if background:
            self._background += ps
        else:
            self._blocking += ps

    def charge(self, batch: Batch) -> None:
        """The batch that is about to run is the one that needs what has been copied."""
        batch.wait, batch.behind = self._blocking, self._background
        self._blocking = self._background = 0
