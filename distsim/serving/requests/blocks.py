"""Numbers of blocks (``Requests.hashes``): made from tokens, and told by blocks of another size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from distsim.errors import ConfigError
from distsim.serving.requests.table import Requests


class Chains:
    """Numbers of whole blocks of tokens: two are equal exactly where the tokens of the block and all before it are.

    Numbers are given out in order of appearance, so there are no collisions and no seed.
    """

    def __init__(self, block: int) -> None:
        self._block = block
        self._known: dict[tuple[int, tuple[int, ...]], int] = {}

    def of(self, tokens: Sequence[int]) -> list[int]:
        """One number per whole block."""
        block, known = self._block, self._known
        found, before = [], -1
        for at in range(0, len(tokens) - block + 1, block):
            before = known.setdefault((before, tuple(tokens[at : at + block])), len(known))
            found.append(before)
        return found


class Rescaled(Mapping[int, Sequence[int]]):
    """Numbers by blocks of another size, worked out when a row is asked for.

    finer: parts that each block is cut into, or 0. coarser: blocks that make one, or 0; the last one's number names them all,
    as it stands for all before it.
    """

    def __init__(self, hashes: Mapping[int, Sequence[int]], *, finer: int = 0, coarser: int = 0) -> None:
        self._hashes, self._finer, self._coarser = hashes, finer, coarser

    def __getitem__(self, row: int) -> list[int]:
        numbers = self._hashes[row]
        if self._finer:
            return [number * self._finer + part for number in numbers for part in range(self._finer)]
        return list(numbers[self._coarser - 1 :: self._coarser])

    def __iter__(self) -> Iterator[int]:
        return iter(self._hashes)

    def __len__(self) -> int:
        return len(self._hashes)


def with_blocks(requests: Requests, block: int) -> Requests:
    """The same requests, their prefixes numbered by blocks of ``block`` tokens. Going coarser forgets what is shared within.

    Raises ConfigError where neither size divides the other.

    >>> import numpy as np
    >>> from distsim.serving.requests.table import requests_of
    >>> one = np.array([40])
    >>> dict(with_blocks(requests_of(one, one, one, hashes={0: [7, 9]}), 8).hashes)
    {0: [14, 15, 18, 19]}
    """
    own = requests.hash_block
    if block == own or not requests.hashes:
        return replace(requests, hash_block=block)
    if block < 1 or (own % block and block % own):
        raise ConfigError(
            f"prefixes are numbered by {own} tokens, not by {block}", where=requests.source,
            expected=f"a block size that divides {own}, or a multiple of it",
        )  # fmt: skip
    rescaled = Rescaled(requests.hashes, finer=own // block if own % block == 0 else 0, coarser=block // own)
    return replace(requests, hashes=rescaled, hash_block=block)
