"""A paged KV cache whose full blocks are found again by their content (vLLM's automatic prefix caching).

Blocks are named by hash chains: a block's number stands for its tokens and all before them. A block that nobody holds any more
stays where it is until it is needed: the least recently freed goes first, and of one request the last block first, so that
beginnings, which are shared, live longest. Blocks without a known number (part-filled ones, and what was generated unless
``Requests.hashes`` names it) take their turn in the same queue.

Source: vLLM V1, ``KVCacheManager`` and ``FreeKVCacheBlockQueue``, documentation "Automatic Prefix Caching" (design).
"""

from __future__ import annotations

from collections import OrderedDict

from distsim.errors import ConfigError
from distsim.serving.kv.blocks import Blocks
from distsim.serving.request import Request


class PrefixBlocks(Blocks):
    """Blocks with shared prefixes. used + free = total, where a block that several requests hold counts once, and free blocks
    may still hold contents that can be found again.

    NOTE: runs of free blocks without a number are one entry of the queue, with their count: freeing a request costs one entry
    beside those of its numbered blocks.
    """

    __slots__ = ("_holders", "_idle", "_serial", "evicted", "hash_block", "hits", "lookups", "weight")

    shares = True

    def __init__(self, total: int, block: int, hash_block: int = 0) -> None:
        """hash_block: tokens that one number stands for, a multiple of ``block`` (whole ones are shared and evicted at once).

        Raises ConfigError where it is none.
        """
        super().__init__(total, block)
        self.hash_block = hash_block or block
        if self.hash_block % block:
            raise ConfigError(
                f"prefixes are numbered by {hash_block} tokens, which KV blocks of {block} do not divide",
                expected=f"a block size that divides {hash_block}",
            )
        self.weight = self.hash_block // block  #: blocks per number
        self._holders: dict[int, int] = {}  #: number -> requests that hold it, of all contents that can be found
        self._idle: OrderedDict[tuple[str, int], int] = OrderedDict()  #: free entries, the first to go first -> blocks
        self._serial = 0
        if total:
            self._idle["", 0] = total
        self.lookups = self.hits = self.evicted = 0  #: tokens asked for, tokens found, numbers that were thrown out

    def match(self, request: Request) -> int:
        """See Blocks.match: at least the last token is computed, so that there is something to sample from."""
        hashes = request.hashes
        if not hashes:
            return 0
        holders = self._holders
        most = min((request.prefill - 1) // self.hash_block, len(hashes))
        found = 0
        while found < most and hashes[found] in holders:
            found += 1
        return found * self.hash_block

    def free_without(self, request: Request, cached: int) -> int:
        """See Blocks.free_without: idle blocks that are found again are not free any more."""
        free = self.free
        for number in request.hashes[: cached // self.hash_block]:
            if not self._holders[number]:
                free -= self.weight
        return free

    def admit(self, request: Request, cached: int, blocks: int) -> None:
        """See Blocks.admit."""
        shared = cached // self.hash_block
        request.held = held = list(request.hashes[:shared])
        self.lookups += request.prefill
        self.hits += cached
        for number in held:
            if not self._holders[number]:
                del self._idle["#", number]
                self.free -= self.weight
            self._holders[number] += 1
        request.blocks = shared * self.weight
        self.grow(request, blocks)

    def take(self, count: int) -> None:
        """See Blocks.take: the contents of the blocks that go are forgotten."""
        super().take(count)
        idle = self._idle
        while count > 0:
            entry, blocks = idle.popitem(last=False)
            if entry[0]:
                del self._holders[entry[1]]
                self.evicted += 1
            if blocks > count:  # the rest stays at the head
                self._serial += 1
                rest = ("", self._serial)
                idle[rest] = blocks - count
                idle.move_to_end(rest, last=False)
            count -= blocks

    def fill(self, request: Request, tokens: int) -> None:
        """See Blocks.fill."""
        hashes, held = request.hashes, request.held
        if not hashes or held is None:
            return
        for number in hashes[len(held) : tokens // self.hash_block]:
            if number in self._holders:  # computed twice: this copy stays unnamed
                held.append(None)
            else:
                self._holders[number] = 1
                held.append(number)

    def release(self, request: Request) -> None:
        """See Blocks.release: the last block is the first to go."""
        if request.hashes:
            self.fill(request, request.computed)
        held = request.held or []
        request.held = None
        unnamed = request.blocks - len(held) * self.weight
        request.blocks = 0
        for number in reversed(held):
            if number is None:
                unnamed += self.weight
                continue
            self._put(unnamed)
            unnamed = 0
            self._holders[number] -= 1
            if not self._holders[number]:
                self._idle["#", number] = self.weight
                self.free += self.weight
        self._put(unnamed)

    def _put(self, blocks: int) -> None:
        """Free blocks without a number, to the end of the queue."""
        if blocks > 0:
            self._serial += 1
            self._idle["", self._serial] = blocks
            self.free += blocks

    def shared(self) -> int:
        """Blocks with contents that can be found, held or idle."""
        return len(self._holders) * self.weight
