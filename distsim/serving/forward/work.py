"""The shape of an iteration as kernels are asked for it: rounded, so that few of them are ever different."""

from __future__ import annotations

from typing import NamedTuple

from distsim.serving.iteration import Shape

#: kernels compute whole tiles: prompts are timed in steps of so many new and so many cached tokens
NEW, CACHED = 16, 64
#: rows of linear layers: steps of 8, from 1,024 on of 1/128 to 1/64 of the rows
FINE, COARSE = 8, 64


class Graphs(NamedTuple):
    """Batches with a CUDA graph: so many sequences that only generate, and so many new tokens where prompts are among them."""

    sequences: int
    tokens: int


class Work(NamedTuple):
    """What one rank computes.

    rows: of linear layers. prompts: (new tokens, tokens cached, how many alike). sequences: that generate; kv: tokens that
    each attends to, its new one included. samples: rows of the head. graph: whether a CUDA graph of this size was captured.
    width: new tokens of each sequence that generates.
    """

    rows: int
    prompts: tuple[tuple[int, int, int], ...]
    sequences: int
    kv: int
    samples: int
    graph: bool
    width: int = 1

    @property
    def prompt_rows(self) -> int:
        """New tokens of prompts."""
        return sum(new * count for new, _, count in self.prompts)


NOTHING = Work(0, (), 0, 0, 0, True)


def rounded_rows(tokens: int) -> int:
    """Rows that stand for so many tokens.

    >>> [rounded_rows(n) for n in (1, 9, 500, 1000, 5000)]
    [8, 16, 504, 1000, 5056]
    """
    step = FINE
    while step * 2 * COARSE <= tokens:
        step *= 2
    return -(-tokens // step) * step


def work_of(shape: Shape, bucket: int, captured: Graphs) -> Work:
    """bucket: the mean length of generating sequences is rounded up to multiples of it. captured: what has a graph."""
    alike: dict[tuple[int, int], int] = {}
    n = shape.sequences
    tokens = n * shape.width
    for new, cached in shape.prefills:
        tokens += new
        rounded = -(-new // NEW) * NEW, -(-cached // CACHED) * CACHED
        alike[rounded] = alike.get(rounded, 0) + 1
    kv = (-(-shape.kv // n) // bucket + 1) * bucket if n else 0
    graph = tokens <= captured.tokens if alike else n <= captured.sequences
    prompts = tuple([(new, cached, count) for (new, cached), count in sorted(alike.items())])
    return Work(rounded_rows(tokens), prompts, n, kv, shape.samples, graph, shape.width)
