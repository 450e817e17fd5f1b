"""SimAI's topology files, as they are: ``--topo simai:Spectrum-X_128g_8gps_100Gbps_A100``.

Line 1 is ``nodes gpus_per_server nvswitches switches links gpu_type`` (nodes counts all three kinds), line 2 the ids of all
switches, NVSwitches first, then one cable a line: ``node node rate latency error_rate``, such as ``0 16 2880Gbps 0.000025ms
0``. The other ids are GPUs. SimAI's names of switches are kept: asw next to GPUs, psw above them.

GPUs that NVSwitches join (a server) talk over these and nothing else, all others over the shortest way through the fabric: no
GPU and no NVSwitch carries the traffic of others. Of several shortest ways one is chosen by a fixed hash of the destination.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError, TopologyError
from distsim.topology.graph import Topology
from distsim.topology.routing import components
from distsim.topology.servers import Part, ServerRouter
from distsim.topology.sizing import ranks
from distsim.topology.switch_paths import SwitchPaths
from distsim.topology.wiring import refuse_huge
from distsim.units import parse_bandwidth, parse_time

_HEAD = "nodes gpus_per_server nvswitches switches links gpu_type"
_CABLE = "node node rate latency error_rate, such as 0 16 2880Gbps 0.000025ms 0"
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class _File:
    """What a file says; nodes are numbered as in a Topology: GPUs, then the switches as listed."""

    hosts: int
    per_server: int
    nvswitches: int
    switches: int  #: others
    device: str
    ends: NDArray[np.int32]  #: (cables, 2)
    bandwidth: NDArray[np.float64]
    latency: NDArray[np.int64]
    faulty: int  #: cables with an error rate


def load(path: str, hosts: int | None = None) -> Topology:
    """The topology of a file.

    Args:
        hosts: ranks to be placed.

    Raises: TopologyError on a missing, malformed or disconnected file, naming the line, or one with fewer GPUs than ranks.
    """
    if not path:
        raise TopologyError("names no file", where="simai", expected="simai:FILE, a topology file of SimAI")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise TopologyError(f"cannot be read ({error.strerror})", where=path, expected="a topology file of SimAI") from None
    except UnicodeDecodeError as error:
        raise TopologyError(f"is not text ({error})", where=path) from None
    file = _parse(text, path)
    if hosts is not None and file.hosts < hosts:
        raise TopologyError(
            f"the topology has {file.hosts} GPUs, but the job has {ranks(hosts)}", where=path,
            fix="Generate a larger file, or run fewer ranks.",
        )  # fmt: skip
    return _topology(file, path)


# --- text ---------------------------------------------------------------------------------------------------------------------


def _parse(text: str, path: str) -> _File:
    lines = [(number, words) for number, line in enumerate(text.splitlines(), 1) if (words := line.split())]
    if len(lines) < 2:
        raise TopologyError("is cut short", where=path, expected=f"{_HEAD}, then the ids of the switches, then cables")
    number, words = lines[0]
    if len(words) != 6 or not all(re.fullmatch(r"\d{1,9}", word) for word in words[:5]):
        raise TopologyError(f"{' '.join(words)[:80]!r} is no head", where=f"{path}: line {number}", expected=_HEAD)
    nodes, per_server, nvswitches, switches, cables = map(int, words[:5])
    hosts = nodes - nvswitches - switches
    if hosts < 1:
        raise TopologyError(f"{nodes} nodes with {nvswitches + switches} switches have no GPU", where=f"{path}: line {number}")
    if cables < nodes - 1:
        raise TopologyError(f"{cables} cables cannot join {nodes} nodes", where=f"{path}: line {number}", expected=_HEAD)
    number, listed = lines[1]
    where = f"{path}: line {number}"
    order = _numbers(listed, lambda row: where, nodes, "the id of a switch")
    if len(order) != nvswitches + switches:
        raise TopologyError(f"lists {len(order)} switches", where=where, expected=f"{nvswitches + switches}, as line 1 says")
    if len(np.unique(order)) != len(order):
        raise TopologyError("lists a switch twice", where=where)
    refuse_huge(cables)
    rows = lines[2:]
    wrong = next((row for row in rows if len(row[1]) != 5), None)
    if wrong:
        raise TopologyError(f"{' '.join(wrong[1])[:80]!r} is no cable", where=f"{path}: line {wrong[0]}", expected=_CABLE)
    if len(rows) != cables:
        raise TopologyError(
            f"line 1 promises {cables} cables, but {len(rows)} follow", where=path,
            fix="Correct line 1, or copy the file again: it may have been cut short.",
        )  # fmt: skip
    number_of = np.full(nodes, -1, np.int32)  # node id in the file -> node of the topology
    number_of[order] = hosts + np.arange(len(order), dtype=np.int32)
    number_of[np.flatnonzero(number_of < 0)] = np.arange(hosts, dtype=np.int32)
    one, two, rates, delays, errors = zip(*(row[1] for row in rows), strict=True) if rows else ((),) * 5

    def place(row: int) -> str:
        return f"{path}: line {rows[row][0]}"

    ends = np.stack([_numbers(column, place, nodes, "a node") for column in (one, two)], axis=1)
    selves = np.flatnonzero(ends[:, 0] == ends[:, 1])
    if len(selves):
        raise TopologyError("joins a node to itself", where=place(int(selves[0])))
    pairs = np.flatnonzero((number_of[ends] < hosts).all(axis=1))
    if len(pairs):
        raise TopologyError("joins two GPUs", where=place(int(pairs[0])), expected="a GPU and a switch, or two switches")
    return _File(
        hosts, per_server, nvswitches, switches, words[5].lower(), number_of[ends],
        np.array(_each(rates, parse_bandwidth, place), np.float64), np.array(_each(delays, parse_time, place), np.int64),
        sum(rate != 0 for rate in _each(errors, _error_rate, place)),
    )  # fmt: skip


def _numbers(texts: Sequence[str], place: Callable[[int], str], nodes: int, what: str) -> NDArray[np.int64]:
    """Ids of nodes. TopologyError at the first that is none."""
    wrong = next((row for row, text in enumerate(texts) if not (text.isascii() and text.isdigit() and int(text) < nodes)), None)
    if wrong is not None:
        raise TopologyError(f"{texts[wrong]!r} is not {what}", where=place(wrong), expected=f"0 to {nodes - 1}")
    return np.array(texts, dtype=np.int64)


def _each(texts: Sequence[str], parse: Callable[[str], T], place: Callable[[int], str]) -> list[T]:
    """Every text parsed, equal ones once. TopologyError at the first that cannot be."""
    known: dict[str, T] = {}
    for row, text in enumerate(texts):
        if text not in known:
            try:
                known[text] = parse(text)
            except ConfigError as error:
                raise TopologyError(error.what, where=place(row), expected=error.expected or _CABLE, fix=error.fix) from None
    return [known[text] for text in texts]


def _error_rate(text: str) -> float:
    """The share of packets that a cable loses. ConfigError."""
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise ConfigError(f"{text!r} is not an error rate", expected="0 to 1")
    return rate


# --- network ------------------------------------------------------------------------------------------------------------------


def _topology(file: _File, path: str) -> Topology:
    hosts, nodes = file.hosts, file.hosts + file.nvswitches + file.switches
    src, dst = np.empty(2 * len(file.ends), np.int32), np.empty(2 * len(file.ends), np.int32)
    src[0::2], dst[0::2] = file.ends[:, 0], file.ends[:, 1]
    src[1::2], dst[1::2] = file.ends[:, 1], file.ends[:, 0]
    idle = np.setdiff1d(np.arange(hosts, nodes), src)
    if len(idle):
        raise TopologyError(f"{len(idle)} switches have no cable", where=path, fix="Remove them from lines 1 and 2.")
    nvswitch = np.zeros(nodes, np.bool_)
    nvswitch[hosts : hosts + file.nvswitches] = True
    nvlink = nvswitch[src] | nvswitch[dst]
    tier = _tiers(nodes, hosts, src[~nvlink], dst[~nvlink])
    server = components(nodes, src[nvlink], dst[nvlink])[:hosts]
    names = _names(file, tier)
    domain, domains = _domains(nvlink, np.maximum(tier[src], tier[dst]), _rails(hosts, server, src[~nvlink], dst[~nvlink]))
    outside, inside = (
        Part(np.flatnonzero(chosen).astype(np.int32), SwitchPaths(names, hosts, src[chosen], dst[chosen]))
        for chosen in (~nvlink, nvlink)
    )
    router = ServerRouter(server, outside, inside)
    _refuse_cut(names, server, components(nodes, src[~nvlink], dst[~nvlink])[:hosts], path)
    inferred = []
    if file.faulty:
        inferred.append(f"{file.faulty} cables have an error rate: not simulated, nothing is lost")
    whole = file.per_server and hosts % file.per_server == 0
    if not whole:
        inferred.append(f"{hosts} GPUs are not servers of {file.per_server}: hierarchical collectives see no servers")
    return Topology(
        name=Path(path).name, spec=f"simai:{path}", hosts=hosts, node_names=names, link_src=src, link_dst=dst,
        link_bandwidth=np.repeat(file.bandwidth, 2), link_latency=np.repeat(file.latency, 2), link_domain=domain,
        domains=domains, router=router, inferred=tuple(inferred), devices=(file.device,),
        levels=(file.per_server, hosts // file.per_server) if whole else (),
    )  # fmt: skip


def _tiers(nodes: int, hosts: int, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int32]:
    """Links between every node and its nearest GPU, on these links; 0 where there is no way."""
    tier = np.where(np.arange(nodes) < hosts, 0, -1).astype(np.int32)
    level = 0
    while True:
        reached = dst[(tier[src] == level) & (tier[dst] < 0)]
        if not len(reached):
            return np.maximum(tier, 0)
        level += 1
        tier[reached] = level


def _names(file: _File, tier: NDArray[np.int32]) -> tuple[str, ...]:
    """gpu0 ..., nvswitch0 ..., and the others by tier: asw, psw, core."""
    names = [f"gpu{host}" for host in range(file.hosts)] + [f"nvswitch{number}" for number in range(file.nvswitches)]
    count: dict[str, int] = {}
    for level in tier[len(names) :].tolist():
        kind = ("switch", "asw", "psw")[level] if level < 3 else "core"
        names.append(f"{kind}{count.setdefault(kind, 0)}")
        count[kind] += 1
    return tuple(names)


def _rails(hosts: int, server: NDArray[np.int32], src: NDArray[np.int32], dst: NDArray[np.int32]) -> bool:
    """Whether no switch next to GPUs has two of one server."""
    up = src < hosts
    if not up.any():
        return False
    pairs = server[src[up]].astype(np.int64) * (int(dst.max()) + 1) + dst[up]
    cables = np.unique(src[up].astype(np.int64) * (int(dst.max()) + 1) + dst[up])
    return len(np.unique(pairs)) == len(cables)  # as many pairs of server and switch as of GPU and switch


def _domains(nvlink: NDArray[np.bool_], tier: NDArray[np.int32], rails: bool) -> tuple[NDArray[np.int16], tuple[str, ...]]:
    """Domain of every link and the names of those that there are: nvlink, rail or host, spine, core."""
    number = np.where(nvlink, 0, np.clip(tier, 1, 3))
    used, domain = np.unique(number, return_inverse=True)
    names = ("nvlink", "rail" if rails else "host", "spine", "core")
    return domain.ravel().astype(np.int16), tuple(names[k] for k in used.tolist())


def _refuse_cut(names: Sequence[str], server: NDArray[np.int32], part: NDArray[np.int32], path: str) -> None:
    """TopologyError where GPUs of different servers cannot reach each other."""
    if (server == server[0]).all() or (part == part[0]).all():
        return
    cut = np.flatnonzero((part != part[0]) & (server != server[0]))
    cut = cut if len(cut) else np.flatnonzero(part != part[0])
    some = ", ".join(names[host] for host in cut[:8].tolist()) + (" ..." if len(cut) > 8 else "")
    raise TopologyError(
        f"{len(cut)} GPU{'' if len(cut) == 1 else 's'} cannot be reached from {names[0]} through switches: {some}", where=path,
        expected="every GPU to reach those of other servers without passing a GPU or an NVSwitch",
        fix="Add the missing cables.",
    )  # fmt: skip
