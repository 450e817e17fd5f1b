"""Paged KV cache: a number of blocks of a fixed number of tokens (Kwon et al., PagedAttention, 2023)."""

from __future__ import annotations

from distsim.errors import ConfigError
from distsim.serving.request import Request


class Blocks:
    """The blocks of one replica. used + free = total at all times; requests say how many they hold (``Request.blocks``, which
    for members of a cohort follows from their tokens)."""

    __slots__ = ("block", "free", "total")

    #: whether prompts may find their beginning in the cache
    shares = False

    def __init__(self, total: int, block: int) -> None:
        """total blocks of ``block`` tokens. Raises ConfigError without any."""
        if total < 1 or block < 1:
            raise ConfigError(
                f"{total} KV blocks of {block} tokens hold no request", expected="at least one block of one token",
                fix="Use more GPUs per replica (tp, pp), a smaller model or data type, or more memory utilisation.",
            )  # fmt: skip
        self.total = self.free = total
        self.block = block

    @property
    def used(self) -> int:
        """Blocks that requests hold."""
        return self.total - self.free

    def need(self, tokens: int) -> int:
        """Blocks for so many tokens."""
        return -(-tokens // self.block)

    def take(self, count: int) -> None:
        """Hand out blocks; the caller has seen that they are free."""
        self.free -= count
        if self.free < 0:
            raise AssertionError(f"{count} KV blocks taken, {self.free + count} were free")

    def give(self, count: int) -> None:
        """Take back blocks that were handed out and not used."""
        self.free += count

    def match(self, request: Request) -> int:
        """Tokens of the request's prefill whose keys and values are in the cache (never all of them)."""
        return 0

    def free_without(self, request: Request, cached: int) -> int:
        """Blocks that are free once the request holds the ``cached`` tokens that it shares."""
        return self.free

    def admit(self, request: Request, cached: int, blocks: int) -> None:
        """Let a request take ``blocks`` in all, the first ``cached`` tokens of them from the cache."""
        self.take(blocks)
        request.blocks = blocks

    def grow(self, request: Request, blocks: int) -> None:
        """Let a request have ``blocks`` in all, no fewer than it has."""
        self.take(blocks - request.blocks)
        request.blocks = blocks

    def fill(self, request: Request, tokens: int) -> None:
        """The first ``tokens`` of a request will be in its blocks by the end of this iteration: full blocks may be shared."""

    def release(self, request: Request) -> None:
        """Take back all that a request holds."""
        self.free += request.blocks
        request.blocks = 0
