"""One iteration of a replica, by its shape: all that decides how long it takes when its links are idle."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol


class Shape(NamedTuple):
    """What one forward pass computes. Equal shapes take equal times: it is the key of every memory of durations.

    prefills: (new tokens, tokens of the same request already in the cache), one pair per prefill chunk, in batch order.
    sequences, kv, longest: requests that generate one token each; tokens in cache of all of them together and of the longest,
    before this iteration.
    samples: rows whose next token is sampled (all that generate, and prefills that end here).
    width: new tokens of each generating sequence: 1, or with speculative decoding 1 and the drafted ones, all sampled.
    Providers that look at ``tokens`` and ``samples`` need not know it: attention reads the cache once for all tokens of a
    sequence.
    """

    prefills: tuple[tuple[int, int], ...]
    sequences: int
    kv: int
    longest: int
    samples: int
    width: int = 1

    @property
    def prompt_tokens(self) -> int:
        """New tokens of prompts."""
        prefills = self.prefills
        return prefills[0][0] if len(prefills) == 1 else sum([new for new, _ in prefills])

    @property
    def attended(self) -> int:
        """See attended."""
        return attended(self.prefills)

    @property
    def tokens(self) -> int:
        """New tokens: rows of the linear layers."""
        return self.prompt_tokens + self.sequences * self.width


def attended(prefills: Iterable[tuple[int, int]]) -> int:
    """Tokens that the new ones of prompts attend to, counted for each of them: those cached before, those before it, itself.

    >>> attended([(3, 10)])
    36
    """
    return sum([new * cached + new * (new + 1) // 2 for new, cached in prefills])


class IterationTimes(Protocol):
    """The role ``iteration``: durations on idle devices and links, a pure function of the shape.

    stages: pipeline stages of the replica; each holds a batch for its own time and then hands it on.
    """

    stages: int

    def times(self, shape: Shape) -> tuple[int, ...]:
        """ps that each stage needs, its send to the next included."""
        ...

    def steady(self, sequences: int, kv: int, longest: int) -> tuple[int, int]:
        """Of a replica of one stage, whose batch only generates: (ps of the next iteration, for how many iterations on that
        holds, at least 1), where ``kv`` grows by ``sequences`` and ``longest`` by one from each to the next.

        It must agree with ``times(Shape((), sequences, kv, longest, sequences))`` at every one of them.
        """
        ...
