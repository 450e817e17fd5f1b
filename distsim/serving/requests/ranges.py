"""Lengths that a law draws: (prompt, output) from two ranges, or from a total and a ratio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from distsim.params import Parameters

Tokens = NDArray[np.int64]
#: longest request, tokens; a longer one is a slip
LONGEST = 1 << 24


class Lengths(Protocol):
    """The role ``lengths``; made from its ``Params``."""

    def pairs(self, n: int, rng: np.random.Generator) -> tuple[Tokens, Tokens]:
        """(prompt, output) tokens of n requests, each at least 1."""
        ...


def _bounds(text: str) -> tuple[int, int]:
    parts = [part.strip() for part in text.split("-")]
    if not (1 <= len(parts) <= 2 and all(part.isdecimal() for part in parts)):
        raise ValueError(f"{text!r} is no range of tokens, such as 100-2000 or 512")
    low, high = int(parts[0]), int(parts[-1])
    if not 1 <= low <= high <= LONGEST:
        raise ValueError(f"{text!r}: a range of tokens ascends, from at least 1 to at most {LONGEST}")
    return low, high


def _checked(text: str) -> str:
    _bounds(text)
    return text


#: ``100-2000``, both ends included, or ``512``
Range = Annotated[str, BeforeValidator(lambda value: str(value)), AfterValidator(_checked)]
#: a number of tokens
TokenCount = Annotated[int, Field(ge=1, le=LONGEST)]


def bounds(text: str) -> tuple[int, int]:
    """Lowest and highest of a checked Range.

    >>> bounds("100-2000"), bounds("512")
    ((100, 2000), (512, 512))
    """
    return _bounds(text)


class RangeParameters(Parameters):
    """``prompt=100-2000,output=10-500``: each by itself; or ``total=1024-4096,ratio=20``: one draw, cut as Vidur's generators
    do (output = ceil(total / (1 + ratio)), the prompt the rest)."""

    prompt: Range | None = Field(None, description="prompt tokens, MIN-MAX or one number")
    output: Range | None = Field(None, description="output tokens, MIN-MAX or one number")
    total: Range | None = Field(None, description="prompt and output together, MIN-MAX")
    ratio: Annotated[float, Field(gt=0, le=1e6)] | None = Field(None, description="prompt tokens per output token, with total")

    @model_validator(mode="after")
    def _fit(self) -> Self:
        given = {name for name in ("prompt", "output", "total", "ratio") if getattr(self, name) is not None}
        if given not in ({"prompt", "output"}, {"total", "ratio"}):
            raise ValueError(f"{', '.join(sorted(given)) or 'nothing'} given: it takes prompt and output, or total and ratio")
        if self.total is not None and bounds(self.total)[0] < 2:
            raise ValueError("total: a request has at least 2 tokens")
        return self


def drawn(
    params: RangeParameters, rng: np.random.Generator, draw: Callable[[int, int, np.random.Generator], Tokens]
) -> tuple[Tokens, Tokens]:
    """Pairs where ``draw(low, high, rng)`` gives numbers of tokens. Prompts and outputs have a stream each, so that the first k
    pairs are the same however many are drawn."""
    prompts, outputs = rng.spawn(2)
    if params.total is not None and params.ratio is not None:
        total = draw(*bounds(params.total), prompts)
        output = np.minimum(np.ceil(total / (1 + params.ratio)).astype(np.int64), total - 1)
        return total - output, output
    assert params.prompt is not None
    assert params.output is not None
    return draw(*bounds(params.prompt), prompts), draw(*bounds(params.output), outputs)
