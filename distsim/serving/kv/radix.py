"""SGLang's radix cache: prefixes in a tree, each kept once, the least recently used leaf thrown out when the free room is gone.

It differs from vLLM's blocks in three ways. Free room is used before anything is thrown out. What is computed twice at the same
time is kept once: whoever ends its chunk second gives its blocks back and shares the first's. And looking a prefix up counts as
using it, so that requests that wait keep theirs.

A number stands for a node of ``hash_block`` tokens whose parent is the number before it, so that a leaf always goes before
its parent: it is freed first, and used last no later. The tree's finer grain within a number is left out.

Source: Zheng et al., "SGLang: efficient execution of structured language model programs" (2024), section 3; SGLang,
``mem_cache/radix_cache.py``.
"""

from __future__ import annotations

from distsim.serving.kv.prefix import Copy, PrefixBlocks
from distsim.serving.request import Request


class RadixBlocks(PrefixBlocks):
    """See the module; used + free = total, free blocks may hold contents."""

    __slots__ = ()

    def fill(self, request: Request, tokens: int) -> None:
        """See Blocks.fill. Here ``tokens`` have been computed: blocks that another has filled meanwhile are given back."""
        hashes, held = request.hashes, request.held
        if not hashes or held is None:
            return
        for number in hashes[len(held) : tokens // self.hash_block]:
            copy = self._found.get(number)
            if copy is None:
                copy = self._found[number] = Copy(number)
            else:
                if not copy.holders:
                    del self._idle[copy]
                    self.free -= self.weight
                copy.holders += 1
                self.give(self.weight)
            held.append(copy)

    def give(self, count: int) -> None:
        """See Blocks.give: free room goes first."""
        if count > 0:
            self._idle[0] = self._idle.get(0, 0) + count
            self._idle.move_to_end(0, last=False)
            self.free += count

    def touch(self, request: Request, tokens: int) -> None:
        """The first ``tokens`` of a request have been looked up."""
        for number in reversed(request.hashes[: tokens // self.hash_block]):
            copy = self._found.get(number)
            if copy is not None and not copy.holders:
                self._idle.move_to_end(copy)
