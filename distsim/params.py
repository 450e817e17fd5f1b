"""Components with parameters, written ``name:key=value,key=value``: topologies, network levels, routing policies.

Field types take text in human units, check it when read and keep it as written, so that specs stay legible.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from distsim.errors import ConfigError
from distsim.units import parse_bandwidth, parse_size, parse_time

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


def _positive_size(text: str) -> int:
    size = parse_size(text)
    if size < 1:
        raise ConfigError(f"{text!r} is no size", expected="at least 1 byte")
    return size


#: ``400Gbps``, ``50GB/s``: positive; a bare number is bytes/s
Bandwidth = Annotated[str, BeforeValidator(_text), AfterValidator(_check(parse_bandwidth, many=False))]
#: ``500ns``; a bare number is nanoseconds
Latency = Annotated[str, BeforeValidator(_text), AfterValidator(_check(parse_time, many=False))]
#: one bandwidth for all dimensions, or one each joined by ``+``
Bandwidths = Annotated[str, BeforeValidator(_text), AfterValidator(_check(parse_bandwidth, many=True))]
#: one latency for all dimensions, or one each joined by ``+``
Latencies = Annotated[str, BeforeValidator(_text), AfterValidator(_check(parse_time, many=True))]
#: ``64KiB``, ``1MB``: at least one byte; a bare number is bytes
Size = Annotated[str, BeforeValidator(_text), AfterValidator(_check(_positive_size, many=False))]
#: a size of at least one
Count = Annotated[int, Field(ge=1)]


class Parameters(BaseModel):
    """Base of every component's ``Params``: unknown keys are refused, values are frozen, None means "to be inferred"."""

    model_config = ConfigDict(extra="forbid", frozen=True)


P = TypeVar("P", bound=BaseModel)

#: keys of other tools -> ours, offered where a component has one of these
SYNONYMS = {
    "rate": ("qps",), "rps": ("qps",), "request_rate": ("qps",), "burstiness": ("cv",),
    "input": ("prompt",), "input_len": ("prompt",), "input_tokens": ("prompt",), "prefill": ("prompt",),
    "decode": ("output",), "answer": ("output",), "output_len": ("output",), "path": ("file",), "chunk_size": ("chunk",),
}  # fmt: skip


def parse(spec: str, error: type[ConfigError] = ConfigError) -> tuple[str, dict[str, str]]:
    """Name and options of a spec; nothing is checked against the component. Raises ``error`` where it is malformed.

    >>> parse("fat_tree:k=8,bandwidth=400Gbps")
    ('fat_tree', {'k': '8', 'bandwidth': '400Gbps'})
    """
    name, _, rest = spec.partition(":")
    name = name.strip()
    options: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not key or not value:
            raise error(f"{item!r} is not key=value", where=spec, expected="name:key=value,key=value")
        if key in options:
            raise error(f"{key!r} is given twice", where=spec)
        options[key] = value
    if not name:
        raise error("the spec has no name", where=repr(spec), expected="name or name:key=value,key=value")
    return name, options


def validated(model: type[P], name: str, options: Mapping[str, Any], error: type[ConfigError] = ConfigError) -> P:
    """The parameters that options give. Raises ``error``, in words, on an unknown key or a value out of range."""
    try:
        return model(**options)
    except ValidationError as failure:
        first = worst(failure)
        key = ".".join(str(part) for part in first["loc"])
        known = list(model.model_fields)
        if first["type"] == "extra_forbidden":
            near = [one for one in SYNONYMS.get(key, ()) if one in known]
            near = near or difflib.get_close_matches(key, known, n=2, cutoff=0.5)
            expected = f"one of {', '.join(known)}" if known else "no parameters"
            raise error(f"unknown key {key!r}", where=name, near=near, expected=expected) from None
        if first["type"] == "missing" and key in known:
            about = model.model_fields[key].description
            what = f"{key} is missing" + (f" ({about})" if about else "")
            raise error(what, where=name, expected=example(model, name)) from None
        reason = first["msg"].removeprefix("Value error, ")
        text = reason if not key else f"{key}: {reason}" if first["type"] == "missing" else f"{key}={first['input']}: {reason}"
        raise error(text, where=name) from None


def example(model: type[BaseModel], name: str) -> str:
    """``name:key=value`` with all that has to be given, values of the fields' examples; ``...`` where they have none."""
    needed = {key: field for key, field in model.model_fields.items() if field.is_required()}
    values = ",".join(f"{key}={(field.examples or ['...'])[0]}" for key, field in needed.items())
    return f"{name.rpartition(' ')[2]}:{values}"


def worst(error: ValidationError) -> Any:
    """The one complaint to show: an unknown key before what is missing because of it."""
    return min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")


def text_of(name: str, options: Mapping[str, Any]) -> str:
    """``name:key=value,key=value``; what is None is left out."""

    def plain(value: Any) -> str:
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

    listed = ",".join(f"{key}={plain(value)}" for key, value in options.items() if value is not None)
    return f"{name}:{listed}" if listed else name


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
