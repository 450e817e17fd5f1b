"""From the text that a person writes to a Topology: ``fat_tree:k=8,bandwidth=400Gbps``, or the path of a YAML file.

``name:key=value,key=value`` names a registered builder and sets its parameters; sizes that are left out are inferred from
the job's number of ranks, and the topology says so in ``inferred``. Its ``spec`` is complete: building from it again gives
the same network, whatever the job.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from distsim.errors import ConfigError, TopologyError, UnknownNameError
from distsim.registry import lookup
from distsim.topology.graph import Topology
from distsim.topology.sizing import ranks

ALIASES = {"star": "switch", "mesh": "fully_connected"}
FILE_SUFFIXES = (".yaml", ".yml")


class Builder(Protocol):
    """What is registered under role ``topology``: stateless, made without arguments."""

    Params: type[Any]  #: a ``Parameters`` model; its fields, defaults and descriptions are the command-line help
    sizes: tuple[str, ...]  #: keys that ``complete`` can infer

    def complete(self, params: Any, hosts: int | None) -> tuple[Any, tuple[str, ...]]:
        """Parameters with every size set, for a job of ``hosts`` ranks (None: no job), and sentences on what was inferred."""
        ...

    def build(self, params: Any) -> Topology:
        """The topology of complete parameters."""
        ...


def build(spec: str, hosts: int | None = None) -> Topology:
    """The topology that ``spec`` describes, with room for ``hosts`` ranks.

    Args:
        spec: ``name``, ``name:key=value,...`` or a path ending in .yaml or .yml (a bare name also finds the files shipped).
        hosts: number of ranks to be placed, from which missing sizes are inferred.

    Raises:
        UnknownNameError: no such builder.
        TopologyError: a wrong key or value, a malformed file, or fewer hosts than ranks.
    """
    if hosts is not None and hosts < 1:
        raise TopologyError(f"{hosts} hosts are none to connect", expected="at least 1")
    if spec.endswith(FILE_SUFFIXES):
        from distsim.topology.custom import load

        return load(spec, hosts)
    name, options = parse(spec)
    try:
        return from_options(name, options, hosts)
    except UnknownNameError:
        from distsim.topology.custom import load, shipped

        if options or f"{name}.yaml" not in shipped():
            raise
        return load(f"{name}.yaml", hosts)


def parse(spec: str) -> tuple[str, dict[str, str]]:
    """Name and options of a spec; nothing is checked against the builder.

    >>> parse("fat_tree:k=8,bandwidth=400Gbps")
    ('fat_tree', {'k': '8', 'bandwidth': '400Gbps'})
    """
    name, _, rest = spec.partition(":")
    name = name.strip()
    options: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not key or not value:
            raise TopologyError(f"{item!r} is not key=value", where=spec, expected="name:key=value,key=value")
        if key in options:
            raise TopologyError(f"{key!r} is given twice", where=spec)
        options[key] = value
    if not name:
        raise TopologyError("the spec names no topology", where=repr(spec), expected="name or name:key=value,key=value")
    return ALIASES.get(name, name), options


def from_options(name: str, options: Mapping[str, Any], hosts: int | None = None) -> Topology:
    """As :func:`build`, for options that are parsed already (values may be numbers)."""
    builder: Builder = lookup("topology", name)()
    params = _validated(name, builder, options)
    try:
        params, inferred = builder.complete(params, hosts)
        topology: Topology = builder.build(params)
    except ConfigError as error:
        raise _at(name, error) from None
    if hosts is not None and topology.hosts < hosts:
        raise _too_few(name, builder, options, topology, hosts)
    spec = describe(name, params)
    return dataclasses.replace(topology, name=name, spec=spec, inferred=inferred)


def describe(name: str, params: BaseModel) -> str:
    """The spec of complete parameters."""
    return _text(name, {key: value for key, value in params.model_dump().items() if value is not None})


def _text(name: str, options: Mapping[str, Any]) -> str:
    def plain(value: Any) -> str:
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

    listed = ",".join(f"{key}={plain(value)}" for key, value in options.items())
    return f"{name}:{listed}" if listed else name


def worst(error: ValidationError) -> Any:
    """The one complaint to show: an unknown key before what is missing because of it."""
    return min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")


def _validated(name: str, builder: Builder, options: Mapping[str, Any]) -> Any:
    try:
        return builder.Params(**options)
    except ValidationError as error:
        first = worst(error)
        key = ".".join(str(part) for part in first["loc"])
        known = list(builder.Params.model_fields)
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, known, n=2, cutoff=0.5)
            raise TopologyError(f"unknown key {key!r}", where=name, near=near, expected=f"one of {', '.join(known)}") from None
        reason = first["msg"].removeprefix("Value error, ")
        text = f"{key}={first['input']}: {reason}" if key else reason
        raise TopologyError(text, where=name) from None


def _at(name: str, error: ConfigError) -> TopologyError:
    """The same refusal, saying which topology it is about."""
    where = f"{name}: {error.where}" if error.where else name
    return TopologyError(error.what, where=where, expected=error.expected, near=error.near, fix=error.fix)


def _too_few(name: str, builder: Builder, options: Mapping[str, Any], topology: Topology, hosts: int) -> TopologyError:
    """The refusal, with the nearest spec that is large enough."""
    free = {key: value for key, value in options.items() if key not in builder.sizes}
    try:
        enough, _ = builder.complete(builder.Params(**free), hosts)
        larger = {key: value for key, value in enough.model_dump().items() if key in builder.sizes and key in options}
        fix = f"Write {_text(name, {**larger, **free})}, or leave the size to the job: {_text(name, free)}."
    except (ConfigError, ValidationError):
        fix = f"Make {', '.join(builder.sizes)} larger."
    return TopologyError(
        f"the topology has {topology.hosts} host{'' if topology.hosts == 1 else 's'}, but the job has {ranks(hosts)}",
        where=_text(name, options),
        expected=f"at least {hosts} hosts",
        fix=fix,
    )
