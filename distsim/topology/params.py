"""Field types of builder parameters: text in human units, checked when read and kept as written, so that specs stay legible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from distsim.errors import ConfigError
from distsim.units import parse_bandwidth, parse_time

#: separates the values of the dimensions in one parameter: ``bandwidth=300GBps+50GBps``
SEPARATOR = "+"


def _text(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = repr(value)
    # NOTE: the + of an exponent would read as a separator
    return value.replace("e+", "e") if isinstance(value, str) else value


def _check(parse: Callable[[str], object], *, many: bool) -> Callable[[str], str]:
    """A validator that accepts what ``parse`` reads, and keeps the text."""

    def check(text: str) -> str:
        try:
            for part in text.split(SEPARATOR) if many else [text]:
                parse(part)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return text

    return check


#: ``400Gbps``, ``50GB/s``: positive; a bare number is bytes/s
Bandwidth = Annotated[str, BeforeValidator(_text), AfterValidator(_check(parse_bandwidth, many=False))]
#: ``500ns``; a bare number is nanoseconds
Latency = Annotated[str, BeforeValidator(_text), AfterValidator(_check(parse_time, many=False))]
#: one bandwidth for all dimensions, or one each joined by ``+``
Bandwidths = Annotated[str, BeforeValidator(_text), AfterValidator(_check(parse_bandwidth, many=True))]
#: one latency for all dimensions, or one each joined by ``+``
Latencies = Annotated[str, BeforeValidator(_text), AfterValidator(_check(parse_time, many=True))]
#: a size of at least one
Count = Annotated[int, Field(ge=1)]


class Parameters(BaseModel):
    """Base of every builder's ``Params``: unknown keys are refused, values are frozen, None means "to be inferred"."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def per_dimension(text: str, dimensions: int) -> list[str]:
    """The value of every dimension: one for all, or exactly one each.

    >>> per_dimension("500ns", 2), per_dimension("1us+2us", 2)
    (['500ns', '500ns'], ['1us', '2us'])
    """
    parts = text.split(SEPARATOR)
    if len(parts) == 1:
        return parts * dimensions
    if len(parts) != dimensions:
        raise ConfigError(
            f"{text!r} has {len(parts)} values for {dimensions} dimension{'s' if dimensions > 1 else ''}",
            expected=f"one value for all, or {dimensions} joined by {SEPARATOR!r}",
        )
    return parts
