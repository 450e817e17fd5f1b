"""A paged KV cache whose full blocks are found again by their content (vLLM's automatic prefix caching).

Blocks are named by hash chains: a block's number stands for its tokens and all before them. A block that nobody holds any more
stays where it is until it is needed: the least recently freed goes first, and of one request the last block first, so that
beginnings, which are shared, live longest. Blocks without a known number (part-filled ones, and what was generated unless
``Requests.hashes`` names it) take their turn in the same queue. What is computed a second time is kept a second time, and found
when the first copy is gone; so it is with the last block of prompts that end with a block, since one token is always computed.

Source: vLLM V1, ``KVCacheManager``, ``BlockPool`` and ``FreeKVCacheBlockQueue``, documentation "Automatic Prefix Caching".
One difference: vLLM can find a generated block from the iteration on that fills it, here it is found when its request has
released it.
"""

from __future__ import annotations

from collections import OrderedDict

from distsim.errors import ConfigError
from distsim.serving.kv.blocks import Blocks
from distsim.serving.kv.tiers import Tiers
from distsim.serving.request import Request


class Copy:
    """The blocks of one number, computed once. holders: requests that hold it; without any it may go."""

    __slots__ = ("holders", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.holders = 1


class PrefixBlocks(Blocks):
    """Blocks with shared prefixes. used + free = total, where a block that several requests hold counts once, and free blocks
    may still hold contents that can be found again.

    tiers: memory below the GPU's, where contents go that are thrown out; None: they are lost.

    NOTE: runs of free blocks without a number are one entry of the queue, with their count: freeing a request costs one entry
    beside those of its numbered blocks.
    """

    __slots__ = ("_found", "_idle", "_more", "_serial", "evicted", "hash_block", "hits", "lookups", "tiers", "weight")

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
        self.tiers: Tiers | None = None
        self._found: dict[int, Copy] = {}  #: number -> the copy that is found
        self._more: dict[int, list[Copy]] = {}  #: number -> copies that are found after that one, in order
        self._idle: OrderedDict[Copy | int, int] = OrderedDict()  #: free entries, the first to go first -> blocks
        self._serial = 0
        if total:
            self._idle[0] = total
        self.lookups = self.hits = self.evicted = 0  #: tokens asked for, tokens found, copies that were thrown out

    def match(self, request: Request) -> int:
        """See Blocks.match: at least the last token is computed, so that there is something to sample from."""
        hashes = request.hashes
        if not hashes:
            return 0
        known, tiers = self._found, self.tiers
        most = min((request.prefill - 1) // self.hash_block, len(hashes))
        found = 0
        while found < most and (hashes[found] in known or (tiers is not None and hashes[found] in tiers)):
            found += 1
        return found * self.hash_block

    def free_without(self, request: Request, cached: int) -> int:
        """See Blocks.free_without: idle blocks that are found again are not free any more, and what comes from a lower tier
        takes blocks."""
        free, known = self.free, self._found
        for number in request.hashes[: cached // self.hash_block]:
            copy = known.get(number)
            if copy is None or not copy.holders:
                free -= self.weight
        return free

    def admit(self, request: Request, cached: int, blocks: int) -> None:
        """See Blocks.admit."""
        known, weight = self._found, self.weight
        self.lookups += request.prefill
        self.hits += cached
        held: list[Copy] = []
        below: list[int] = []
        for number in request.hashes[: cached // self.hash_block]:
            copy = known.get(number)
            if copy is None:
                copy = Copy(number)
                below.append(number)
            else:
                if not copy.holders:
                    del self._idle[copy]
                    self.free -= weight
                copy.holders += 1
            held.append(copy)
        request.held = held
        request.blocks = (len(held) - len(below)) * weight
        if below:
            assert self.tiers is not None
            self.tiers.load(below)  # before blocks are taken for them, which throws others out into the tiers
        self.grow(request, blocks)
        if below:
            for copy in held:
                known.setdefault(copy.number, copy)

    def take(self, count: int) -> None:
        """See Blocks.take: the contents of the blocks that go are forgotten."""
        super().take(count)
        idle = self._idle
        while count > 0:
            entry, blocks = idle.popitem(last=False)
            if not isinstance(entry, int):
                self._forget(entry)
            if blocks > count:  # the rest stays at the head
                self._serial += 1
                idle[self._serial] = blocks - count
                idle.move_to_end(self._serial, last=False)
            count -= blocks

    def _forget(self, copy: Copy) -> None:
        """A copy is thrown out; the next of its number is found from now on."""
        self.evicted += 1
        number = copy.number
        more = self._more.get(number)
        if more is None:
            del self._found[number]
            if self.tiers is not None:
                self.tiers.put(number)
            return
        if self._found[number] is copy:
            self._found[number] = more.pop(0)
        else:
            more.remove(copy)
        if not more:
            del self._more[number]

    def fill(self, request: Request, tokens: int) -> None:
        """See Blocks.fill."""
        hashes, held = request.hashes, request.held
        if not hashes or held is None:
            return
        for number in hashes[len(held) : tokens // self.hash_block]:
            copy = Copy(number)
            held.append(copy)
            if self._found.setdefault(number, copy) is not copy:
                self._more.setdefault(number, []).append(copy)

    def release(self, request: Request) -> None:
        """See Blocks.release: the last block is the first to go."""
        if request.hashes:
            self.fill(request, request.computed)
        held: list[Copy] = request.held or []
        request.held = None
        unnamed = request.blocks - len(held) * self.weight
        request.blocks = 0
        if unnamed > 0:
            self.give(unnamed)
        for copy in reversed(held):
            copy.holders -= 1
            if not copy.holders:
                self._idle[copy] = self.weight
                self.free += self.weight

    def give(self, count: int) -> None:
        """See Blocks.give: to the end of the queue."""
        if count > 0:
            self._serial += 1
            self._idle[self._serial] = count
            self.free += count

    def shared(self) -> int:
        """Blocks with contents that can be found, held or idle, copies included."""
        return (len(self._found) + sum(map(len, self._more.values()))) * self.weight
