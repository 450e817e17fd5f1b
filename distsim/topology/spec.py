"""From the text that a person writes to a Topology: ``fat_tree:k=8,bandwidth=400Gbps``, or the path of a YAML file.

``name:key=value,key=value`` names a registered builder and sets its parameters; sizes that are left out are inferred from
the job's number of ranks, and the topology says so in ``inferred``. Its ``spec`` is complete: building from it again gives
the same network, whatever the job.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from distsim import params
from distsim.errors import ConfigError, TopologyError, UnknownNameError
from distsim.params import text_of, validated
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
    """Name and options of a spec, an alias replaced; nothing is checked against the builder. Raises TopologyError."""
    name, options = params.parse(spec, TopologyError)
    return ALIASES.get(name, name), options


def from_options(name: str, options: Mapping[str, Any], hosts: int | None = None) -> Topology:
    """As :func:`build`, for options that are parsed already (values may be numbers)."""
    builder: Builder = lookup("topology", name)()
    settled = validated(builder.Params, name, options, TopologyError)
    try:
        settled, inferred = builder.complete(settled, hosts)
        topology: Topology = builder.build(settled)
    except ConfigError as error:
        raise _at(name, error) from None
    if hosts is not None and topology.hosts < hosts:
        raise _too_few(name, builder, options, topology, hosts)
    spec = describe(name, settled)
    return dataclasses.replace(topology, name=name, spec=spec, inferred=inferred)


def describe(name: str, settled: BaseModel) -> str:
    """The spec of complete parameters."""
    return text_of(name, settled.model_dump())


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
        fix = f"Write {text_of(name, {**larger, **free})}, or leave the size to the job: {text_of(name, free)}."
    except (ConfigError, ValidationError):
        fix = f"Make {', '.join(builder.sizes)} larger."
    return TopologyError(
        f"the topology has {topology.hosts} host{'' if topology.hosts == 1 else 's'}, but the job has {ranks(hosts)}",
        where=text_of(name, options),
        expected=f"at least {hosts} hosts",
        fix=fix,
    )
