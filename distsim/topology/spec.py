"""From the text that a person writes to a Topology: ``fat_tree:k=8,bandwidth=400Gbps``, a YAML file, ``simai:FILE``.

``name:key=value,key=value`` names a registered builder, or a preset (a builder with the figures of a machine), and sets its
parameters; sizes that are left out are inferred from the job's number of ranks, and the topology says so in ``inferred``.
Its ``spec`` is complete: building from it again gives the same network, whatever the job.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from distsim import params
from distsim.errors import ConfigError, TopologyError, UnknownNameError
from distsim.params import text_of, validated
from distsim.registry import lookup, names
from distsim.topology import presets
from distsim.topology.graph import Topology
from distsim.topology.presets import PRESETS
from distsim.topology.scaled import MARK, scaled
from distsim.topology.sizing import ranks

ALIASES = {"star": "switch", "mesh": "fully_connected", **presets.ALIASES}
FILE_SUFFIXES = (".yaml", ".yml")
SIMAI = "simai:"  #: before the path of a SimAI topology file


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
        spec: ``name``, ``name:key=value,...``, a path ending in .yaml or .yml (a bare name also finds the files shipped), or
            ``simai:`` and the path of a SimAI topology file; behind each, changes of links (see topology/scaled.py).
        hosts: number of ranks to be placed, from which missing sizes are inferred.

    Raises:
        UnknownNameError: no such builder.
        TopologyError: a wrong key or value, a malformed file, or fewer hosts than ranks.
    """
    if hosts is not None and hosts < 1:
        raise TopologyError(f"{hosts} hosts are none to connect", expected="at least 1")
    if MARK in spec:
        plain, *changes = spec.split(MARK)
        return scaled(build(plain, hosts), changes)
    if spec.endswith(FILE_SUFFIXES):
        from distsim.topology.custom import load

        return load(spec, hosts)
    if spec.startswith(SIMAI):
        from distsim.topology.simai import load as load_simai

        return load_simai(spec.removeprefix(SIMAI), hosts)
    name, options = parse(spec)
    hosts = _asked(options, name, hosts)
    try:
        return _of_preset(name, options, hosts) if name in PRESETS else from_options(name, options, hosts)
    except UnknownNameError as error:
        from distsim.topology.custom import load, shipped

        if not options and f"{name}.yaml" in shipped():
            return load(f"{name}.yaml", hosts)
        raise UnknownNameError("topology", name, [*names("topology"), *PRESETS], where=error.where) from None


def _asked(options: dict[str, Any], name: str, hosts: int | None) -> int | None:
    """Hosts to make room for: those that ``gpus=N`` asks for, which every builder and preset takes."""
    said = options.pop("gpus", None)
    if said is None:
        return hosts
    if not str(said).isdigit() or not int(said):
        raise TopologyError(f"gpus is {said!r}", where=name, expected="a whole number, at least 1")
    if hosts is not None and hosts > int(said):
        raise TopologyError(f"{said} GPUs for {hosts} ranks", where=name, fix="Make it larger, or leave gpus out.")
    return int(said)


def _of_preset(name: str, options: Mapping[str, Any], hosts: int | None) -> Topology:
    """The topology of a preset with a person's options over it."""
    preset = PRESETS[name]
    builder: Builder = lookup("topology", preset.builder)()
    sized = hosts is not None or any(key in options for key in builder.sizes)
    default = {} if sized else dict(preset.default)
    fixed = preset.options()
    topology = from_options(preset.builder, {**default, **options}, hosts, title=name, fixed=fixed)
    if preset.most and topology.hosts > int(preset.most.value):
        raise TopologyError(
            f"{topology.hosts:,} hosts are more than the machine has: {int(preset.most.value):,} ({preset.most.source})",
            where=text_of(name, options),
            fix=f"Write {text_of(preset.builder, {**fixed, **options})} for a network of that kind and any size.",
        )
    said = [f"{key}={value} by default, as there is no job to infer it from" for key, value in default.items()]
    return dataclasses.replace(topology, name=name, inferred=(*said, *topology.inferred))


def fixed_hosts(spec: str) -> int | None:
    """Hosts of a topology whose size does not follow the job's: a SimAI file. None of any other. Raises TopologyError."""
    return build(spec).hosts if spec.startswith(SIMAI) else None


def parse(spec: str) -> tuple[str, dict[str, str]]:
    """Name and options of a spec, an alias replaced; nothing is checked against the builder. Raises TopologyError."""
    name, options = params.parse(spec, TopologyError)
    return ALIASES.get(name, name), options


def from_options(
    name: str,
    options: Mapping[str, Any],
    hosts: int | None = None,
    *,
    title: str = "",
    fixed: Mapping[str, Any] | None = None,
) -> Topology:
    """As :func:`build`, for options that are parsed already (values may be numbers).

    Args:
        title: what refusals call the topology; default the builder's name.
        fixed: options that refusals need not repeat, below those of ``options``.
    """
    builder: Builder = lookup("topology", name)()
    title, below = title or name, fixed or {}
    settled = validated(builder.Params, title, {**below, **options}, TopologyError)
    try:
        settled, inferred = builder.complete(settled, hosts)
        topology: Topology = builder.build(settled)
    except ConfigError as error:
        raise _at(title, error) from None
    if hosts is not None and topology.hosts < hosts:
        raise _too_few(title, builder, below, options, topology, hosts)
    spec = describe(name, settled)
    devices = (settled.device,) if getattr(settled, "device", None) else topology.devices
    return dataclasses.replace(topology, name=name, spec=spec, inferred=inferred, devices=devices)


def describe(name: str, settled: BaseModel) -> str:
    """The spec of complete parameters, the builder's own first."""
    options = settled.model_dump()
    if "device" in options:
        options["device"] = options.pop("device")
    return text_of(name, options)


def _at(name: str, error: ConfigError) -> TopologyError:
    """The same refusal, saying which topology it is about."""
    where = f"{name}: {error.where}" if error.where else name
    return TopologyError(error.what, where=where, expected=error.expected, near=error.near, fix=error.fix)


def _too_few(
    name: str, builder: Builder, fixed: Mapping[str, Any], options: Mapping[str, Any], topology: Topology, hosts: int
) -> TopologyError:
    """The refusal, with the nearest spec that is large enough."""
    free = {key: value for key, value in options.items() if key not in builder.sizes}
    try:
        enough, _ = builder.complete(builder.Params(**{**fixed, **free}), hosts)
        larger = {key: value for key, value in enough.model_dump().items() if key in builder.sizes and key in options}
        fix = f"Write {text_of(name, {**larger, **free})}, or leave the size to the job: {text_of(name, free)}."
        if not larger:
            fix = f"Make {', '.join(builder.sizes)} larger."
    except (ConfigError, ValidationError):
        fix = f"Make {', '.join(builder.sizes)} larger."
    return TopologyError(
        f"the topology has {topology.hosts} host{'' if topology.hosts == 1 else 's'}, but the job has {ranks(hosts)}",
        where=text_of(name, options),
        expected=f"at least {hosts} hosts",
        fix=fix,
    )
