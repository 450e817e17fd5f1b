"""Topologies from YAML files: a spec with a name, or a graph of your own.

The short form names a spec (sizes left out are inferred from the job)::

    description: DGX H100 nodes on 400 Gb/s rails
    spec: rail_optimized:gpus_per_node=8,nvlink_bandwidth=450GBps

A graph counts nodes and lays cables by rules; every cable is two directed links::

    description: two racks of eight, four up-links each
    hosts: 16                           # gpu0 .. gpu15; or {node: 16}, or a list of names
    switches: {leaf: 2, spine: 4}       # leaf0, leaf1, spine0 .. spine3; or a list of names
    link_types:
      port: {bandwidth: 400Gbps, latency: 500ns}
      uplink: {bandwidth: 800Gbps, latency: 500ns}
    links:
      - {from: "gpu[*]", to: "leaf[*]", type: port, pairs: blocks}     # gpu0-7 to leaf0, gpu8-15 to leaf1
      - {from: "leaf[*]", to: "spine[*]", type: uplink, pairs: all}    # each with each

``pairs`` says who meets whom: ``all``, ``each`` (first with first ...), ``blocks`` (equal runs of ``from``, one run per ``to``)
or ``cyclic`` (``from`` number i with ``to`` number i mod its length: rails). The type's name is the domain of the links.
``devices: h100`` says what sits at the hosts, ``devices: {"gpu[0-7]": h100, "gpu[8-15]": a100}`` where it differs. Nodes of
several types, as many of each as you like, are described once by ``node_types`` (see topology/node_types.py).
Routes are shortest by hops; between equal ones ``ties`` chooses: ``spread`` (a hash of the destination) or ``lowest`` link id.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from distsim.errors import ConfigError, TopologyError
from distsim.params import Count, Parameters, worst
from distsim.topology.fabric import SCALE_UP
from distsim.topology.graph import Topology
from distsim.topology.hosts import Device
from distsim.topology.node_types import Laid, Link, Nics, NodeType, Pairs, lay
from distsim.topology.presets import PRESETS
from distsim.topology.routing import ShortestPath, components
from distsim.topology.servers import Part, ServerRouter
from distsim.topology.sizing import ranks
from distsim.topology.spec import build
from distsim.topology.wiring import MOST_NAMED, Wiring, refuse_many

Nodes = int | dict[str, Count] | list[str]
_PATTERN = re.compile(r"([^\[\]]+)(?:\[([0-9,:*\- ]+)\])?")


class LinkRule(Parameters):
    """Cables between two sets of nodes."""

    from_: str | list[str] = Field(alias="from")
    to: str | list[str]
    type: str
    pairs: Pairs | None = None  #: may be left out where one side is a single node
    count: Count = 1  #: parallel cables per pair


class Graph(Parameters):
    """A file that describes a graph."""

    description: str = ""
    hosts: Nodes
    switches: Nodes = 0
    link_types: dict[str, Link]
    links: list[LinkRule]
    ties: Literal["spread", "lowest"] = "spread"
    host_forwarding: bool = True  #: whether a host may carry the traffic of others
    devices: Device | dict[str, Device] = Field(default_factory=dict)  #: of all hosts, or of those that a pattern selects
    calibration: str = ""  #: NCCL calibration of this cluster, beside the file


class Cluster(Graph):
    """A file that describes a graph of nodes of several types, and what joins them."""

    hosts: Nodes = 0  #: besides those of the nodes
    link_types: dict[str, Link] = Field(default_factory=dict)
    links: list[LinkRule] = Field(default_factory=list)
    node_types: dict[str, NodeType]
    nodes: dict[str, Count]
    host_forwarding: bool = False


class SpecFile(Parameters):
    """A file that names the spec of a builder or preset."""

    description: str = ""
    spec: str
    calibration: str = ""  #: NCCL calibration of this cluster, beside the file


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, except that a key that is given twice is refused rather than overwritten."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load(path: str, hosts: int | None = None) -> Topology:
    """The topology of a YAML file.

    Args:
        path: the file; a bare file name that is not in the working directory is looked up among those shipped.
        hosts: ranks to be placed.

    Raises: TopologyError on a missing, malformed or disconnected file, or one with fewer hosts than ranks.
    """
    place = find(path)
    document = read(place)
    calibration = str(place.parent / document.calibration) if document.calibration else ""
    if isinstance(document, SpecFile):
        try:
            topology = build(document.spec, hosts)
        except ConfigError as error:
            where = f"{path}: {error.where}" if error.where else path
            raise TopologyError(error.what, where=where, expected=error.expected, near=error.near, fix=error.fix) from None
        return dataclasses.replace(topology, name=Path(path).stem, calibration=calibration)
    topology = dataclasses.replace(from_graph(document, path), calibration=calibration)
    if hosts is not None and topology.hosts < hosts:
        raise TopologyError(
            f"the topology has {topology.hosts} hosts, but the job has {ranks(hosts)}",
            where=path,
            expected=f"at least {hosts} hosts",
            fix="Raise `hosts` in the file and lay links for the new ones.",
        )
    return topology


def find(path: str) -> Path:
    """The file itself, or the shipped one of that name. Raises TopologyError with the nearest shipped names."""
    given = Path(path)
    if given.is_file():
        return given
    known = shipped()
    if given.name == path and path in known:
        return known[path]
    raise TopologyError(
        "no such topology file",
        where=path,
        near=difflib.get_close_matches(given.name, known, n=3, cutoff=0.5),
        expected=f"a path, or one of those shipped: {', '.join(known)}" if known else "a path",
        fix=f"{given.stem} is a preset: write {given.stem}." if given.stem in PRESETS else "",
    )


def shipped() -> dict[str, Path]:
    """File name -> path of the topologies that come with distsim."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "data" / "topologies", package.parent / "topologies"):
        if folder.is_dir():
            return {file.name: file for file in sorted(folder.glob("*.yaml"))}
    return {}


def read(path: Path) -> Graph | SpecFile:
    """The validated document. Raises TopologyError naming the line or the key at fault."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise TopologyError(f"not a readable YAML file: {' '.join(str(error).split())}", where=str(path)) from None
    if not isinstance(document, dict):
        raise TopologyError("not a topology", where=str(path), expected="a mapping with `spec`, or with `hosts` and `links`")
    form = SpecFile if "spec" in document else Cluster if {"nodes", "node_types"} & set(document) else Graph
    try:
        return form(**document)
    except ValidationError as error:
        first = worst(error)
        key = ".".join(str(part) for part in first["loc"])
        known = [
            field.alias or name for model in (form, LinkRule, Nics, NodeType) for name, field in model.model_fields.items()
        ]
        unknown = first["type"] == "extra_forbidden"
        wrong = str(first["loc"][-1])  # NOTE: perhaps a key of another part of the file: that is no help
        near = [name for name in difflib.get_close_matches(wrong, known, n=2) if name != wrong] if unknown else []
        reason = "unknown key" if unknown else first["msg"].removeprefix("Value error, ")
        raise TopologyError(f"{key}: {reason}", where=str(path), near=near) from None


def from_graph(graph: Graph, where: str) -> Topology:
    """The topology of a validated graph; ``where`` (its file) becomes name and spec, and begins every refusal."""
    laid = Laid()
    refuse_many(_count(graph.hosts) + _count(graph.switches), "nodes", where)
    if isinstance(graph, Cluster):
        for name in graph.nodes.keys() & graph.node_types.keys():
            refuse_many(graph.nodes[name] * graph.node_types[name].parts, "nodes and ports", f"{where}: nodes.{name}")
        laid = lay(graph.node_types, graph.nodes, lambda key, reason: TopologyError(reason, where=f"{where}: {key}"))
    host_names = [*laid.hosts, *_names(graph.hosts, "gpu")]
    switch_names = [*laid.switches, *_names(graph.switches, "switch")]
    names = [*host_names, *switch_names]
    number = {name: node for node, name in enumerate(names)}
    if len(number) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise TopologyError(f"two nodes are called {twice!r}", where=where)
    if not host_names:
        raise TopologyError("there are no hosts", where=where, expected="hosts: a count, {name: count} or a list of names")
    wiring = Wiring()
    for domain, one_side, other_side, link in laid.cables:
        wiring.add(
            domain, [number[name] for name in one_side], [number[name] for name in other_side], link.bandwidth, link.latency
        )
    for place, one_side, nics in laid.ports:
        at = f"{where}: {place}"
        ends, others = _pair([number[name] for name in one_side], _select(nics.to, number, at), nics.pairs, at)
        wiring.add(nics.domain, ends, others, nics.bandwidth, nics.latency)
    for row, rule in enumerate(graph.links):
        place = f"{where}: links[{row}]"
        if rule.type not in graph.link_types:
            near = difflib.get_close_matches(rule.type, graph.link_types, n=2)
            raise TopologyError(f"unknown link type {rule.type!r}", where=place, near=near, expected=_listed(graph.link_types))
        kind = graph.link_types[rule.type]
        ends, others = _pair(_select(rule.from_, number, place), _select(rule.to, number, place), rule.pairs, place)
        refuse_many(len(ends) * rule.count, "cables", place, 5 * MOST_NAMED)
        if any(one == other for one, other in zip(ends, others, strict=True)):
            raise TopologyError("a cable joins a node to itself", where=place)
        wiring.add(rule.type, np.repeat(ends, rule.count), np.repeat(others, rule.count), kind.bandwidth, kind.latency)

    src, dst = wiring.links()
    _refuse_parts(names, len(host_names), src, dst, where)
    router = ShortestPath(names, len(host_names), src, dst, ties=graph.ties, host_forwarding=graph.host_forwarding)
    topology = wiring.topology(Path(where).stem, len(host_names), switch_names, router, host_names=host_names)
    topology = _in_servers(topology, router)
    if not graph.host_forwarding and not _one_fabric(topology):
        everyone = np.arange(topology.hosts, dtype=np.int32)
        try:
            router.hops(np.tile(everyone, topology.hosts), np.repeat(everyone, topology.hosts))
        except TopologyError as error:
            fix = "Add links, or allow paths through hosts with `host_forwarding: true`."
            raise TopologyError(error.what, where=where, expected=error.expected, fix=fix) from None
    devices, host_device = _devices(graph, laid, number, len(host_names), where)
    sizes = {kind.gpus for kind in graph.node_types.values()} if isinstance(graph, Cluster) and not graph.hosts else set()
    levels = (gpus, topology.hosts // gpus) if len(sizes) == 1 and (gpus := next(iter(sizes))) > 1 else ()
    return dataclasses.replace(topology, spec=where, devices=devices, host_device=host_device, levels=levels)


def _in_servers(topology: Topology, router: ShortestPath) -> Topology:
    """The topology with traffic between hosts that scale-up links join kept on these, where hosts forward for nobody."""
    scale_up = np.array([name.startswith(SCALE_UP) for name in topology.domains], np.bool_)[topology.link_domain]
    if router.host_forwarding or not scale_up.any() or scale_up.all():
        return topology
    src, dst = topology.link_src[scale_up], topology.link_dst[scale_up]
    server = components(topology.nodes, src, dst)[: topology.hosts]
    own = ShortestPath(topology.node_names, topology.hosts, src, dst, ties=router.ties, host_forwarding=False)
    everything = Part(np.arange(topology.links, dtype=np.int32), router)
    inside = Part(np.flatnonzero(scale_up).astype(np.int32), own)
    return dataclasses.replace(topology, router=ServerRouter(server, everything, inside, by_hops=router.by_hops))


def _one_fabric(topology: Topology) -> bool:
    """Whether some connected set of switches has a cable to every host, so that all pairs have a way without a third host."""
    hosts, src, dst = topology.hosts, topology.link_src, topology.link_dst
    inside = (src >= hosts) & (dst >= hosts)
    part = components(topology.nodes, src[inside], dst[inside])
    port = (src < hosts) & (dst >= hosts)
    pairs = np.unique(np.stack([part[dst[port]], src[port]]), axis=1)
    return bool(len(pairs[0]) and np.unique(pairs[0], return_counts=True)[1].max() == hosts)


def _devices(
    graph: Graph, laid: Laid, number: dict[str, int], hosts: int, where: str
) -> tuple[tuple[str, ...], NDArray[np.int16] | None]:
    """Kinds of device, and which of them sits at each host; "" where the file does not say. Raises TopologyError."""
    at = [*laid.devices, *[""] * (hosts - len(laid.devices))]
    rules = {"": graph.devices} if isinstance(graph.devices, str) else graph.devices
    for pattern, device in rules.items():
        place = f"{where}: devices.{pattern}" if pattern else f"{where}: devices"
        wanted = pattern if "[" in pattern or pattern in number else f"{pattern}[*]"
        for node in _select(wanted, number, place) if pattern else range(hosts):
            if node >= hosts:
                raise TopologyError(f"{list(number)[node]!r} is a switch", where=place, expected="hosts")
            if at[node] not in ("", device):
                raise TopologyError(f"{list(number)[node]!r} is {at[node]!r} already, not {device!r}", where=place)
            at[node] = device
    kinds = tuple(dict.fromkeys(at))
    if kinds == ("",):
        return (), None
    return kinds, None if len(kinds) == 1 else np.array([kinds.index(device) for device in at], np.int16)


def _count(nodes: Nodes) -> int:
    return len(nodes) if isinstance(nodes, list) else nodes if isinstance(nodes, int) else sum(nodes.values())


def _names(nodes: Nodes, default: str) -> list[str]:
    """Every node's name: gpu0, gpu1 ... of a count."""
    if isinstance(nodes, list):
        return nodes
    counts = {default: nodes} if isinstance(nodes, int) else nodes
    return [f"{prefix}{number}" for prefix, count in counts.items() for number in range(count)]


def _select(patterns: str | list[str], number: dict[str, int], where: str) -> list[int]:
    """Node numbers of ``leaf3``, ``gpu[0-7]``, ``gpu[0-31:8]`` (every eighth), ``gpu[0,2]``, ``leaf[*]`` or a list of such."""
    found: list[int] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        match = _PATTERN.fullmatch(pattern.strip())
        if match is None:
            raise TopologyError(f"{pattern!r} selects no nodes", where=where, expected="gpu3, gpu[0-7], gpu[0-31:8] or gpu[*]")
        prefix, inside = match.groups()
        if inside is None:
            wanted = [prefix]
        elif inside.strip() == "*":
            wanted = [name for name in number if name.startswith(prefix) and name[len(prefix) :].isdecimal()]
        else:
            wanted = [f"{prefix}{index}" for part in inside.split(",") for index in _range(part.strip(), pattern, where)]
        unknown = [name for name in wanted if name not in number]
        if unknown or not wanted:
            name = unknown[0] if unknown else prefix
            groups = sorted({known.rstrip("0123456789") + "[*]" for known in number if known[-1].isdecimal()})
            near = difflib.get_close_matches(name, [*number, *groups], n=3, cutoff=0.5)
            raise TopologyError(f"{pattern!r}: there is no node {name!r}", where=where, near=near)
        found += [number[name] for name in wanted]
    return found


def _range(part: str, pattern: str, where: str) -> range:
    match = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
    if match is None or match.group(3) == "0":
        raise TopologyError(f"{pattern!r} has an unreadable range {part!r}", where=where, expected="3, 0-7 or 0-31:8")
    first, last, step = match.groups()
    refuse_many((int(last or first) - int(first)) // int(step or 1), f"nodes in {pattern!r}", where)
    return range(int(first), int(last or first) + 1, int(step or 1))


def _pair(ends: list[int], others: list[int], pairs: str | None, where: str) -> tuple[Sequence[int], Sequence[int]]:
    """Both ends of every cable of a rule."""
    counts = f"{len(ends)} x {len(others)} nodes"
    if pairs is None and len(ends) > 1 and len(others) > 1:
        raise TopologyError(f"who meets whom of {counts}?", where=where, expected="pairs: all, each, blocks or cyclic")
    if pairs == "each" and len(ends) != len(others):
        raise TopologyError(f"pairs: each needs as many nodes on both sides, not {counts}", where=where)
    if pairs == "blocks" and len(ends) % len(others):
        raise TopologyError(f"pairs: blocks cannot divide {counts} evenly", where=where)
    if pairs == "each":
        return ends, others
    if pairs == "blocks":
        return ends, np.repeat(others, len(ends) // len(others)).tolist()
    if pairs == "cyclic":
        return ends, [others[index % len(others)] for index in range(len(ends))]
    refuse_many(len(ends) * len(others), "cables", where, 5 * MOST_NAMED)
    return [one for one in ends for _ in others], others * len(ends)


def _refuse_parts(names: list[str], hosts: int, src: NDArray[np.int32], dst: NDArray[np.int32], where: str) -> None:
    """Raises TopologyError when hosts are cut off from the first one, or a switch has no cable."""
    idle = sorted(set(range(hosts, len(names))) - set(src.tolist()))
    if idle:
        raise TopologyError(f"no links at {_listed([names[node] for node in idle])}", where=where, fix="Link or remove them.")
    part = components(len(names), src, dst)[:hosts]
    cut = [names[host] for host in np.flatnonzero(part != part[0])]
    if cut:
        raise TopologyError(
            f"{len(cut)} of {hosts} hosts cannot be reached from {names[0]}: {_listed(cut)}",
            where=where,
            expected="every host to reach every other",
            fix="Add links between the parts, or check the ranges in the links already there.",
        )


def _listed(names: Iterable[str], most: int = 8) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" ... ({len(names)} in all)" if len(names) > most else "")
